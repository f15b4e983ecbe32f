/** The largest number of models side by side. */
export const MOST_MODELS = 4;

const DEFAULTS = { k: 10, minUsers: 0, diversity: 0, atMost: 0, categories: "", again: false };

/**
 * What the address says after its "#".
 *
 * @param {string} fragment Such as "#item=318&rating=4&item=527&model=ease&k=5"; a rating belongs to the item before it.
 * @returns {Object} history: Map of ids to ratings, null where none is given; models: names, or null for as many as
 *   there is room for; and the options.
 */
export function readState(fragment) {
  const state = { ...DEFAULTS, history: new Map(), models: null };
  let last = null;
  for (const [name, value] of new URLSearchParams(fragment.slice(1))) {
    if (name === "item") {
      state.history.set(value, null);
      last = value;
    } else if (name === "rating" && last !== null) {
      state.history.set(last, readNumber(value, null));
    } else if (name === "model") {
      (state.models ??= []).push(value);
    } else if (name === "again") {
      state.again = value === "1";
    } else if (name === "categories") {
      state.categories = value;
    } else if (name in DEFAULTS) {
      state[name] = readNumber(value, DEFAULTS[name]);
    }
  }
  return state;
}

/** The fragment of an address that says what is on the page; empty where nothing was changed. */
export function writtenState(state) {
  const told = new URLSearchParams();
  for (const [item, rating] of state.history) {
    told.append("item", item);
    if (rating !== null) told.append("rating", rating);
  }
  for (const name of state.models ?? []) told.append("model", name);
  if (state.models && !state.models.length) told.append("model", "");
  for (const [name, value] of Object.entries(DEFAULTS)) {
    if (name === "categories" && !state.atMost) continue;
    if (state[name] !== value) told.append(name, name === "again" ? 1 : state[name]);
  }
  return told.size ? `#${told}` : "";
}

/** The rating that a model is told of an item: the given one, or four fifths up its scale. */
export function ratingOf(rating, [low, high]) {
  if (rating !== null) return rating;
  const step = ratingStep([low, high]);
  return low + Math.round((0.8 * (high - low)) / step) * step;
}

/** The distance between two ratings that a person can tell apart on a scale. */
export function ratingStep([low, high]) {
  if (high - low > 5) return 1;
  return high - low > 1 ? 0.5 : 0.1;
}

function readNumber(text, otherwise) {
  const value = Number(text);
  return text.trim() && Number.isFinite(value) ? value : otherwise;
}

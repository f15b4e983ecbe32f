import { ask } from "./api.js";
import { details } from "./details.js";
import { counted, element, shownRating, shownScore } from "./dom.js";
import { ratingOf } from "./state.js";

const LEVEL = 0.9; // the probability of an interval

/** What one model recommends: a ranked list, or one line that says why there is none. */
export class Column {
  #model;
  #page;
  #asking = new AbortController();
  #head = element("small");
  #problem = element("p", { class: "problem", role: "alert" });
  #note = element("p", { class: "note" });
  #list = element("ol", { tabindex: "-1" });

  /**
   * @param {Object} model As /models describes it.
   * @param {{state: function, titles: Titles, addButton: function, answered: function}} page
   */
  constructor(model, page) {
    this.#model = model;
    this.#page = page;
    this.root = element(
      "section",
      { class: "column", "data-model": model.model, "aria-label": `Recommendations of ${model.model}` },
      element("h2", {}, model.model),
      this.#head,
      this.#problem,
      this.#note,
      this.#list,
    );
    this.#describe(model.version);
  }

  /** Asks the model anew. */
  async update() {
    this.wait();
    this.#asking = new AbortController();
    const { signal } = this.#asking;
    const model = this.#model;
    const state = this.#page.state();
    const history = historyFor(model, state.history);
    try {
      const body = { model: model.model, history, ...rulesFor(model, state) };
      const answer = await ask("recommend", { body, signal });
      const items = answer.items.map(({ item }) => item);
      let predicted = [];
      if (model.has_intervals && items.length) {
        const wanted = { model: model.model, history, items, level: LEVEL };
        predicted = (await ask("predict", { body: wanted, signal })).ratings;
      }
      this.#page.titles.learn(model.model, answer.items);
      this.#show(answer, new Map(predicted.map((rating) => [rating.item, rating])));
      this.#note.textContent = this.#notes(answer, state);
    } catch (problem) {
      if (signal.aborted) return;
      this.#list.replaceChildren();
      this.#note.textContent = "";
      const again = element("button", { type: "button", class: "plain", onclick: () => this.update() }, "Try again");
      this.#problem.replaceChildren(`${problem.message} `, again);
    }
    this.root.removeAttribute("aria-busy");
    this.#page.answered();
  }

  /** Gives up what is under way, since another question will come. */
  wait() {
    this.#asking.abort();
    this.root.setAttribute("aria-busy", "true");
  }

  #describe(version) {
    const { kind, predicts_ratings: rates, has_intervals: sure, scale } = this.#model;
    const told = [`version ${version}`];
    if (kind !== this.#model.model) told.unshift(kind);
    if (rates) told.push(`ratings from ${scale[0]} to ${scale[1]}`);
    if (sure) told.push(`${100 * LEVEL}% intervals`);
    this.#head.textContent = told.join(", ");
  }

  #notes(answer, { categories, atMost }) {
    const notes = [];
    const unknown = answer.unknown.history?.length ?? 0;
    if (unknown) notes.push(`It does not know ${counted(unknown, "item")} of the history.`);
    if (atMost && categories && !this.#model.categories.includes(categories)) {
      notes.push(`Its items have no ${categories}, so that it sets no limit.`);
    }
    if (!answer.items.length) notes.push("It has nothing more to recommend.");
    return notes.join(" ");
  }

  #show(answer, predicted) {
    this.#describe(answer.version);
    this.#problem.replaceChildren();
    const focused = this.#list.contains(document.activeElement);
    const scores = answer.items.map(({ score }) => score);
    const range = [Math.min(0, ...scores), Math.max(...scores)];
    this.#list.replaceChildren(...answer.items.map((found) => this.#row(found, predicted.get(found.item), range)));
    if (focused) this.#list.focus({ preventScroll: true });
  }

  #row(found, predicted, range) {
    const { item, score } = found;
    const model = this.#model;
    const label = this.#page.titles.name(element("span", { class: "label" }), item, { model: model.model });
    const row = element("li", { "data-item": item });
    let opened = null;
    const title = element("button", { type: "button", class: "title", "aria-expanded": "false" }, label);
    title.addEventListener("click", () => {
      if (opened) opened.remove();
      opened = opened ? null : details(model, this.#numbers(found, predicted), this.#reasonsFor(item), this.#page);
      if (opened) row.append(opened);
      title.setAttribute("aria-expanded", String(opened !== null));
    });
    const shown = model.predicts_ratings ? shownRating(score) : shownScore(score);
    row.append(
      element("div", { class: "name" }, title, element("span", { class: "shared", hidden: true })),
      model.predicts_ratings ? ratingBar(score, predicted, model.scale) : scoreBar(score, range),
      element("span", { class: "value", "aria-hidden": "true" }, shown),
      this.#page.addButton(item, model.model),
    );
    return row;
  }

  #numbers({ item, score }, predicted) {
    if (!this.#model.predicts_ratings) return `Score ${shownScore(score)}. Id ${item}.`;
    const rating = `Predicted rating ${shownRating(score)}`;
    if (predicted?.low === undefined) return `${rating}. Id ${item}.`;
    const ends = `${shownRating(predicted.low)} and ${shownRating(predicted.high)}`;
    return `${rating}, between ${ends} with probability ${100 * LEVEL}%. Id ${item}.`;
  }

  #reasonsFor(item) {
    const { history } = this.#page.state();
    const told = historyFor(this.#model, history);
    return { model: this.#model.model, history: told, only: [item], k: 1, again: history.has(item), because: 3 };
  }
}

function historyFor(model, history) {
  if (!model.predicts_ratings) return [...history.keys()];
  return [...history].map(([item, rating]) => ({ item, rating: ratingOf(rating, model.scale) }));
}

function rulesFor(model, { k, again, minUsers, diversity, atMost, categories }) {
  const rules = { k, again, min_users_per_item: minUsers, diversity };
  return atMost && model.categories.includes(categories) ? { ...rules, at_most: atMost, categories } : rules;
}

function scoreBar(score, [low, high]) {
  const bar = element("span", { class: "bar" });
  bar.style.width = `${high > low ? (100 * (score - low)) / (high - low) : 0}%`;
  return element("span", { class: "track", role: "img", "aria-label": `score ${shownScore(score)}` }, bar);
}

function ratingBar(rating, predicted, [low, high]) {
  const place = (value) => `${(100 * (value - low)) / (high - low)}%`;
  const track = element("span", { class: "track scale", role: "img", "aria-label": `rating ${shownRating(rating)}` });
  if (predicted?.low !== undefined) {
    const bar = element("span", { class: "interval", "data-low": predicted.low, "data-high": predicted.high });
    bar.style.left = place(predicted.low);
    bar.style.right = `calc(100% - ${place(predicted.high)})`;
    const ends = `${shownRating(predicted.low)} to ${shownRating(predicted.high)}`;
    track.setAttribute("aria-label", `rating ${shownRating(rating)}, interval ${ends}`);
    track.append(bar);
  }
  const dot = element("span", { class: "dot" });
  dot.style.left = place(rating);
  track.append(dot);
  return track;
}

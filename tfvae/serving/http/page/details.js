import { ask } from "./api.js";
import { element, shownScore } from "./dom.js";

const N_SIMILAR = 5;

/**
 * What is told of a recommended item on a click: its numbers, the items of the history that speak for it, similar items.
 *
 * @param {Object} model As /models describes it.
 * @param {string} numbers Its score or rating, in words.
 * @param {Object} because The body of the request for the reasons, which recommends this item only.
 * @param {{state: function, titles: Titles, addButton: function}} page
 * @returns {Element} Its lists fill once the service has answered.
 */
export function details(model, numbers, because, { state, titles, addButton }) {
  const { model: name } = because;
  const [item] = because.only;
  const label = (item) => titles.name(element("span", { class: "label" }), item, { model: name });
  const reasons = part("Because of", async () => {
    const [recommended] = (await ask("recommend", { body: because })).items;
    const found = recommended?.because ?? [];
    titles.learn(name, found);
    return found.map(({ item: reason, effect }) => {
      const shown = model.predicts_ratings ? shownChange(effect) : shownScore(effect);
      const title = `Without it the ${model.predicts_ratings ? "rating" : "score"} would be lower by ${shown}.`;
      return element("li", { title }, label(reason), element("small", {}, shown));
    });
  }, "No item of the history speaks for it.");
  const more = element("div", { class: "details" }, element("p", {}, numbers), reasons);
  if (model.has_similar) {
    more.append(
      part("Similar items", async () => {
        const body = { model: name, item, k: N_SIMILAR, min_users_per_item: state().minUsers };
        const { items } = await ask("similar", { body });
        titles.learn(name, items);
        return items.map((near) => element("li", {}, label(near.item), addButton(near.item, name)));
      }, "The model finds none."),
    );
  }
  return more;
}

/** A change of a rating; more digits than two would tell of the model's noise only. */
function shownChange(effect) {
  return effect < 0.005 ? "less than 0.01" : effect.toFixed(2);
}

function part(heading, rows, none) {
  const list = element("ul", { "aria-busy": "true" });
  const note = element("p", { class: "note" });
  fill(list, note, rows, none);
  return element("div", {}, element("h3", {}, heading), list, note);
}

async function fill(list, note, rows, none) {
  try {
    const found = await rows();
    list.replaceChildren(...found);
    note.textContent = found.length ? "" : none;
  } catch (problem) {
    note.classList.add("problem");
    note.textContent = problem.message;
  }
  list.removeAttribute("aria-busy");
}

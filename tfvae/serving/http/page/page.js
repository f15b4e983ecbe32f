import { ask } from "./api.js";
import { Column } from "./column.js";
import { debounced, element } from "./dom.js";
import { historyRows } from "./history.js";
import { checkModels, modelBoxes, readOptions, showOptions } from "./options.js";
import { searchBox } from "./search.js";
import { MOST_MODELS, readState, writtenState } from "./state.js";
import { Titles } from "./titles.js";

const FOUND = 12;
const COMMON = 6;
const WAIT = 120;

const part = (id) => document.getElementById(id);
const titles = new Titles();
const columns = new Map();
let models = [];
let state = readState(location.hash);

const page = { state: () => state, titles, addButton, answered: mark };

function addButton(item, model) {
  const has = state.history.has(item);
  const title = has ? "In the history" : "Add to the history";
  const onclick = () => add(item);
  const button = element("button", { type: "button", class: "round", disabled: has, title, onclick }, has ? "✓" : "+");
  return titles.name(button, item, { model, label: has ? "{} is in the history" : "Add {} to the history" });
}

function add(item) {
  if (!state.history.has(item)) state.history.set(item, null);
  showHistory();
  changed();
}

function rate(item, rating) {
  state.history.set(item, rating);
  changed();
}

function remove(item) {
  const place = [...state.history.keys()].indexOf(item);
  state.history.delete(item);
  showHistory();
  changed();
  const left = [...part("history").querySelectorAll(".round")];
  (left[place] ?? left.at(-1) ?? part("history-heading")).focus();
}

function removeAll() {
  state.history.clear();
  showHistory();
  changed();
  part("history-heading").focus();
}

function choose() {
  state.models = [...part("models").querySelectorAll("input:checked")].map((box) => box.value);
  showModels();
  showHistory();
  changed();
}

const usable = () => models.filter((model) => model.takes === "history");

function shown() {
  const chosen = state.models && usable().filter((model) => state.models.includes(model.model));
  return (chosen ?? usable()).slice(0, MOST_MODELS);
}

/** Items that the models know, each once, those that come early for any of them first. */
async function find(search, limit, signal) {
  const asked = shown().length ? shown() : usable().slice(0, MOST_MODELS);
  const answers = await Promise.all(
    asked.map(({ model }) => ask("items", { query: { model, search, limit }, signal })),
  );
  const found = new Map();
  for (let rank = 0; rank < limit; rank++) {
    for (const { items } of answers) {
      const item = items[rank];
      if (item && found.get(item.item)?.title === undefined) found.set(item.item, item);
    }
  }
  for (const { model, items } of answers) titles.learn(model, items);
  return [...found.values()].slice(0, limit);
}

/** Common items to begin with. */
async function suggest() {
  const items = await find("", COMMON).catch(() => []); // the search box says what is wrong
  if (state.history.size || !items.length) return;
  part("history-note").replaceChildren(
    "Nothing yet. Common items to begin with: ",
    ...items.map(({ item }) =>
      titles.name(element("button", { type: "button", class: "chip", onclick: () => add(item) }), item),
    ),
  );
}

/** Asks for the titles of items that came in the address. */
function nameHistory() {
  for (const item of state.history.keys()) {
    if (!titles.has(item)) find(item, 1).catch(() => []); // the columns say what is wrong
  }
}

function showHistory() {
  const rater = shown().find((model) => model.predicts_ratings);
  part("history").replaceChildren(...historyRows(state.history, rater?.scale, { titles, rate, remove }));
  const empty = !state.history.size;
  part("clear").hidden = empty;
  part("history-note").textContent = empty ? "" : "The address of this page holds all of this: it can be shared.";
  if (empty) suggest();
}

function showModels() {
  const there = shown();
  checkModels(part("models"), models, there);
  showOptions(part("options"), state, [...new Set(there.flatMap((model) => model.categories))]);
  for (const [name, column] of columns) {
    if (there.some(({ model }) => model === name)) continue;
    column.wait();
    column.root.remove();
    columns.delete(name);
  }
  for (const model of there) {
    if (!columns.has(model.model)) columns.set(model.model, new Column(model, page));
    part("columns").append(columns.get(model.model).root);
  }
}

/** Writes the state into the address, and asks the models anew. */
function changed() {
  history.replaceState(null, "", writtenState(state) || location.pathname + location.search);
  part("hint").textContent = hint();
  part("columns").hidden = !state.history.size;
  for (const column of columns.values()) column.wait();
  updateSoon();
}

const updateSoon = debounced(() => {
  if (state.history.size) for (const column of columns.values()) column.update();
}, WAIT);

function hint() {
  if (!usable().length) return "None of the models that are served here takes a history.";
  if (!shown().length) return "Choose a model.";
  return state.history.size ? "" : "Add an item to the history, and what each model recommends appears here.";
}

const recommended = () => [...part("columns").querySelectorAll("li[data-item]")];

/** Says of each recommended item in how many lists it is. */
function mark() {
  const lists = new Map();
  for (const { dataset } of recommended()) lists.set(dataset.item, (lists.get(dataset.item) ?? 0) + 1);
  for (const row of recommended()) {
    const n = lists.get(row.dataset.item);
    const badge = row.querySelector(".shared");
    badge.hidden = n < 2;
    badge.textContent = `in ${n} lists`;
  }
}

/** Marks an item in all lists while it is pointed at or has the focus. */
function highlight({ target }) {
  const item = target.closest("li[data-item]")?.dataset.item;
  for (const row of recommended()) row.classList.toggle("same", row.dataset.item === item);
}

function showAll() {
  showModels();
  showHistory();
  changed();
  nameHistory();
}

async function begin() {
  try {
    ({ models } = await ask("models"));
  } catch (problem) {
    part("failure").textContent = problem.message;
    return;
  }
  part("models").append(...modelBoxes(models));
  part("more").open = matchMedia("(min-width: 56rem)").matches;
  part("page").hidden = false;
  const search = { input: part("search"), list: part("found"), note: part("search-note") };
  searchBox(search, (text, signal) => find(text, FOUND, signal), add);
  part("clear").addEventListener("click", removeAll);
  part("options").addEventListener("submit", (event) => event.preventDefault());
  part("options").addEventListener("input", ({ target }) => {
    if (target.name === "model") return choose();
    readOptions(part("options"), state);
    changed();
  });
  for (const kind of ["pointerover", "pointerleave", "focusin"]) part("columns").addEventListener(kind, highlight);
  addEventListener("hashchange", () => {
    state = readState(location.hash);
    showAll();
  });
  showAll();
}

begin();

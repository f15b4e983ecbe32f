import { counted, debounced, element } from "./dom.js";

const WAIT = 150;

/**
 * The search box with its list: arrows choose, Enter adds, Escape closes.
 *
 * @param {{input: Element, list: Element, note: Element}} parts
 * @param {(text: string, signal: AbortSignal) => Promise<Object[]>} find Items with `item`, `title` and `users`.
 * @param {(item: string) => void} choose
 */
export function searchBox({ input, list, note }, find, choose) {
  let asking = new AbortController();
  let options = [];
  let active = -1;
  let typing = false; // the list belongs to an earlier text
  let hurried = false; // Enter was pressed meanwhile

  function activate(number) {
    options[active]?.setAttribute("aria-selected", "false");
    active = number;
    const option = options[active];
    option?.setAttribute("aria-selected", "true");
    option?.scrollIntoView({ block: "nearest" });
    if (option) input.setAttribute("aria-activedescendant", option.id);
    else input.removeAttribute("aria-activedescendant");
  }

  function show(items) {
    list.replaceChildren(...items.map((found, number) => optionOf(found, number, () => take(found.item))));
    options = [...list.children];
    activate(-1);
    typing = false;
    list.hidden = !items.length;
    input.setAttribute("aria-expanded", String(items.length > 0));
  }

  function close() {
    asking.abort();
    hurried = false;
    note.textContent = "";
    show([]);
  }

  function take(item) {
    input.value = "";
    close();
    choose(item);
  }

  async function look() {
    asking.abort();
    asking = new AbortController();
    const { signal } = asking;
    const text = input.value.trim();
    try {
      const items = await find(text, signal);
      if (signal.aborted) return;
      show(items);
      note.classList.remove("problem");
      note.textContent = items.length ? "" : `No item has "${text}" in its title or id.`;
      if (hurried) options[0]?.click();
    } catch (problem) {
      if (signal.aborted) return;
      show([]);
      note.classList.add("problem");
      note.textContent = problem.message;
    }
  }

  const lookSoon = debounced(() => document.activeElement === input && look(), WAIT);
  input.addEventListener("input", () => {
    asking.abort();
    typing = true;
    hurried = false;
    lookSoon();
  });
  input.addEventListener("focus", lookSoon);
  input.addEventListener("click", () => list.hidden && lookSoon());
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden) look();
      else activate((active + (event.key === "ArrowDown" ? 1 : active < 0 ? 0 : -1) + options.length) % options.length);
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (active < 0 && !input.value.trim()) return;
      if (typing) hurried = true;
      else options[Math.max(active, 0)]?.click();
    } else if (event.key === "Escape" && !list.hidden) {
      event.preventDefault();
      close();
    }
  });
  // The box keeps the focus while somebody presses an item of its list.
  list.addEventListener("pointerdown", (event) => event.preventDefault());
  list.addEventListener("mousedown", (event) => event.preventDefault());
}

function optionOf(found, number, onclick) {
  return element(
    "li",
    { role: "option", id: `found-${number}`, "aria-selected": "false", "data-item": found.item, onclick },
    element("span", {}, found.title ?? found.item),
    element("small", {}, counted(found.users, "user")),
  );
}

/**
 * Makes an element. Texts among its children stay text, whatever they hold: titles come from outside.
 *
 * @param {string} tag
 * @param {Object} attributes A function is a listener of the event after "on", undefined is left out.
 * @param {...(Node|string)} children
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") made.toggleAttribute(name, value);
    else if (value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const threeDigits = new Intl.NumberFormat("en", { minimumSignificantDigits: 3, maximumSignificantDigits: 3 });
const whole = new Intl.NumberFormat("en");

/** A score, with three digits. */
export const shownScore = (value) => threeDigits.format(value);

/** A rating, with one decimal. */
export const shownRating = (value) => value.toFixed(1);

/** A number of things: "1 user", "1,234 users". */
export const counted = (n, noun) => `${whole.format(n)} ${noun}${n === 1 ? "" : "s"}`;

/** Calls a function once nobody has asked for it for some milliseconds. */
export function debounced(call, milliseconds) {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...values), milliseconds);
  };
}

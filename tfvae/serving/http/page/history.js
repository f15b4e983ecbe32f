import { element } from "./dom.js";
import { ratingOf, ratingStep } from "./state.js";

/**
 * The rows of a history: title, rating if a model of ratings is shown, and a button that removes it.
 *
 * @param {Map<string, ?number>} history
 * @param {?number[]} scale The lowest and the highest rating, or null if no model shown takes ratings.
 * @param {{titles: Titles, rate: function, remove: function}} page
 * @returns {Element[]}
 */
export function historyRows(history, scale, { titles, rate, remove }) {
  return [...history].map(([item, rating]) => {
    const row = element("li", { "data-item": item }, titles.name(element("span", { class: "label" }), item));
    if (scale) {
      const [slider, shown] = ratingControl(rating, scale, (value) => rate(item, value));
      titles.name(slider, item, { label: "Rating of {}" });
      row.append(element("span", { class: "rating" }, slider, shown));
    }
    const button = element("button", { type: "button", class: "round", onclick: () => remove(item) }, "×");
    row.append(titles.name(button, item, { label: "Remove {}" }));
    return row;
  });
}

function ratingControl(rating, scale, rate) {
  const [min, max] = scale;
  const value = ratingOf(rating, scale);
  const shown = element("output", {}, String(value));
  const slider = element("input", {
    type: "range",
    min,
    max,
    step: ratingStep(scale),
    value,
    oninput: () => {
      shown.textContent = slider.value;
      rate(Number(slider.value));
    },
  });
  return [slider, shown];
}

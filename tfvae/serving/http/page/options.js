import { element } from "./dom.js";
import { MOST_MODELS } from "./state.js";

const NUMBERS = ["k", "minUsers", "diversity", "atMost"];

/** A box for each model; a model that takes no history cannot be chosen, and says why. */
export function modelBoxes(models) {
  return models.map(({ model, kind, takes }) => {
    const about = [kind === model ? "" : kind, takes === "history" ? "" : "serves its training users only"];
    return element(
      "label",
      { class: "model" },
      element("input", { type: "checkbox", name: "model", value: model, disabled: takes !== "history" }),
      element("span", {}, model),
      element("small", {}, about.filter(Boolean).join(", ")),
    );
  });
}

/** Checks the boxes of the models that are shown; once there is no room for more, the others cannot be chosen. */
export function checkModels(boxes, models, shown) {
  for (const { model, takes } of models) {
    const box = boxes.querySelector(`[value="${CSS.escape(model)}"]`);
    box.checked = shown.some((one) => one.model === model);
    box.disabled = takes !== "history" || (!box.checked && shown.length >= MOST_MODELS);
  }
}

/** Fills the fields with the options of a state, which gets a category if it has none. */
export function showOptions(form, state, categories) {
  const fields = form.elements;
  form.querySelector("#limit").hidden = !categories.length;
  state.categories ||= categories[0] ?? "";
  fields.categories.replaceChildren(...categories.map((name) => element("option", {}, name)));
  for (const name of [...NUMBERS, "categories"]) fields[name].value = state[name];
  if (!state.atMost) fields.atMost.value = "";
  fields.again.checked = state.again;
  form.querySelector("output").textContent = state.diversity;
}

/** Reads the fields into a state; what is no number in its range changes nothing. */
export function readOptions(form, state) {
  const fields = form.elements;
  for (const name of NUMBERS) {
    const { value, valueAsNumber, validity } = fields[name];
    if (value !== "" && validity.valid) state[name] = valueAsNumber;
    else if (value === "" && !validity.badInput && name !== "k") state[name] = 0;
  }
  state.categories = fields.categories.value;
  state.again = fields.again.checked;
  form.querySelector("output").textContent = state.diversity;
}

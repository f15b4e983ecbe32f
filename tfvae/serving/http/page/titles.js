/** The titles of items, as far as answers told them. Models may have different titles for an id, or none. */
export class Titles {
  #ofModel = new Map();

  /** Takes titles from a model's answer, and puts them where an id stands so far. */
  learn(model, items) {
    const known = this.#ofModel.get(model) ?? new Map();
    this.#ofModel.set(model, known);
    const before = known.size;
    for (const { item, title } of items) if (title !== undefined) known.set(item, title);
    if (known.size > before) {
      for (const node of document.querySelectorAll("[data-title-of]")) this.#entitle(node);
    }
  }

  /** Whether any model told the title of an item. */
  has(item) {
    return [...this.#ofModel.values()].some((known) => known.has(item));
  }

  /**
   * Puts an item's title into an element, now or once it is known, and the id until then.
   *
   * @param {Element} node
   * @param {string} item
   * @param {{model?: string, label?: string}} how The model whose title it is, if it has one; with a label such as
   *   "Remove {}" the title goes into what is read aloud.
   * @returns {Element} The same element.
   */
  name(node, item, { model = "", label = "" } = {}) {
    Object.assign(node.dataset, { titleOf: item, titleIn: model, label });
    this.#entitle(node);
    return node;
  }

  #entitle(node) {
    const { titleOf: item, titleIn: model, label } = node.dataset;
    const others = [...this.#ofModel.values()].map((known) => known.get(item));
    const title = [this.#ofModel.get(model)?.get(item), ...others].find((told) => told !== undefined) ?? item;
    if (label) node.setAttribute("aria-label", label.replace("{}", () => title));
    else node.textContent = title;
  }
}

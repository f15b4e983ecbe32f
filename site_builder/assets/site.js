/* Tables that sort: a button in each head, by number where the cells are numbers, else by text. */
(() => {
  "use strict";
  const NUMBER = /^[<≥≤~]?\s*([+\-−]?\d[\d,]*(?:\.\d+)?(?:e[+\-]?\d+)?)/i;

  function value(row, column) {
    const text = (row.cells[column]?.textContent ?? "").trim();
    const found = NUMBER.exec(text);
    return { text, number: found ? Number(found[1].replaceAll(",", "").replace("−", "-")) : null };
  }

  function sort(table, column, descending) {
    const body = table.tBodies[0];
    const keyed = [...body.rows].map((row) => ({ row, ...value(row, column) }));
    const numeric = keyed.some((one) => one.number !== null) && keyed.every((one) => one.number !== null || /^(|–|not run|failed)$/.test(one.text));
    const sign = descending ? -1 : 1;
    keyed.sort((a, b) => {
      if (!numeric) return sign * a.text.localeCompare(b.text, undefined, { numeric: true });
      if (a.number === null || b.number === null) return (a.number === null) - (b.number === null);
      return sign * (a.number - b.number);
    });
    body.append(...keyed.map((one) => one.row));
  }

  function makeSortable(table) {
    const head = table.tHead?.rows[0];
    if (!head || table.tBodies[0]?.rows.length < 3) return;
    [...head.cells].forEach((cell, column) => {
      if (!cell.textContent.trim() && column > 0) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...cell.childNodes);
      if (!button.textContent.trim()) button.setAttribute("aria-label", "name");
      cell.append(button);
      button.addEventListener("click", () => {
        const numbers = [...table.tBodies[0].rows].some((row) => value(row, column).number !== null);
        const now = cell.getAttribute("aria-sort");
        // Numbers begin with the largest but for errors, whose head says that the smaller is the better.
        const first = numbers && !cell.textContent.includes("↓") ? "descending" : "ascending";
        const next = now === null ? first : now === "ascending" ? "descending" : "ascending";
        for (const other of head.cells) other.removeAttribute("aria-sort");
        cell.setAttribute("aria-sort", next);
        sort(table, column, next === "descending");
      });
    });
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll(".md-content table:not(.highlighttable)").forEach(makeSortable);
  });
})();

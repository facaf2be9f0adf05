"use strict";

/** Tables whose cells have a number on a colour, an interval beside it when pointed at, and arrow keys between them. */
symskew.heat = (() => {
  const { h, explain, rove } = symskew.dom;

  /** A cell: blue for a positive share, orange for a negative one, of a strength from 0 to 1; `lines` explain it. */
  function cell(text, share, label, lines) {
    const element = h(
      "span",
      { class: `heat ${share < 0 ? "minus" : "plus"}`, role: "img", "aria-label": label },
      text,
    );
    // At 100% words would not stand out any more.
    element.style.setProperty("--share", `${Math.round(Math.abs(share) * 85)}%`);
    return explain(element, lines);
  }

  const cellsOf = (line) => [...line.querySelectorAll(".heat")];

  /** The cell that an arrow key leads to. */
  function step(table, element, key) {
    const line = element.closest("tr");
    const own = cellsOf(line);
    if (key === "Home") return own[0];
    if (key === "End") return own.at(-1);
    if (key === "ArrowLeft") return own[own.indexOf(element) - 1];
    if (key === "ArrowRight") return own[own.indexOf(element) + 1];
    const column = element.closest("td").cellIndex;
    const above = key === "ArrowUp";
    const lines = [...table.rows].filter((other) =>
      above ? other.rowIndex < line.rowIndex : other.rowIndex > line.rowIndex,
    );
    if (above) lines.reverse();
    return lines.map((other) => other.cells[column]?.querySelector(".heat")).find(Boolean);
  }

  /** A table: headings, then groups of [title or "", [[heading, [cells of a column, …]], …]]. */
  function table(headings, groups) {
    const row = ([heading, columns]) =>
      h(
        "tr",
        {},
        h("th", { scope: "row" }, heading),
        columns.map((cells) => h("td", {}, cells.length ? cells : h("span", { class: "none" }, "·"))),
      );
    const body = ([title, rows]) =>
      h("tbody", {}, title && h("tr", {}, h("th", { scope: "rowgroup" }, title)), rows.map(row));
    const heads = headings.map((heading) => h("th", { scope: "col", dir: "auto" }, heading));
    const found = h("table", { class: "heats" }, h("thead", {}, h("tr", {}, heads)), groups.map(body));
    const cells = cellsOf(found);
    rove(
      found,
      () => cells,
      (element, key) => step(found, element, key),
    );
    return h("div", { class: "box" }, found);
  }

  return { cell, table };
})();

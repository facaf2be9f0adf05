"use strict";

/** Tables of the overview leave as CSV, LaTeX or Markdown: to the clipboard, or as a file. */
symskew.tables = (() => {
  const { h, announce } = symskew.dom;

  const KINDS = { csv: ["CSV", "text/csv"], tex: ["LaTeX", "application/x-tex"], md: ["Markdown", "text/markdown"] };

  /** Put a text on the clipboard and say so on the button. */
  async function copy(text, button) {
    const before = button.textContent;
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Not every browser trusts a page from disk: the old way asks nobody.
      const area = h("textarea", { class: "unseen" });
      area.value = text;
      (button.closest("dialog") ?? document.body).append(area);
      area.select();
      done = document.execCommand("copy");
      area.remove();
      button.focus();
    }
    const said = done ? "Copied" : "Not copied";
    button.textContent = said;
    announce(said);
    setTimeout(() => {
      if (button.textContent === said) button.textContent = before;
    }, 1500);
  }

  function save(name, text, type) {
    const address = URL.createObjectURL(new Blob([text], { type }));
    h("a", { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  }

  /** The buttons of one table, whose texts are {csv, tex, md}. */
  function buttons(name, texts) {
    const of = (kind) => {
      const [title, type] = KINDS[kind];
      const copier = h("button", { type: "button", class: "quiet", "data-copy": kind }, `Copy ${title}`);
      copier.addEventListener("click", () => copy(texts[kind], copier));
      const label = `Download ${title}`;
      const saver = h(
        "button",
        { type: "button", class: "quiet icon", "aria-label": label, title: label, "data-save": kind },
        "↓",
      );
      saver.addEventListener("click", () => save(`${name}.${kind}`, texts[kind], type));
      return h("span", { class: "joined" }, copier, saver);
    };
    return h(
      "div",
      { class: "tools", role: "group", "aria-label": "This table as a file" },
      Object.keys(KINDS).map(of),
    );
  }

  for (const place of document.querySelectorAll("[data-table]")) {
    const table = symskew.data.study.tables[Number(place.dataset.table)];
    place.replaceChildren(buttons(table.name, table.texts));
  }

  return { copy, buttons };
})();

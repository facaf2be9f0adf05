"use strict";

/** One sample beside another of the same prompt and seed, with all that was measured of both. */
symskew.detail = (() => {
  const { h, choice, words, isNumber } = symskew.dom;
  const { compare, gallery, route, store } = symskew;

  const dialog = document.querySelector("[data-detail]");
  let shown; // the row

  /** What to compare with at first: vanilla; for vanilla itself the next setting. */
  function against(row, params) {
    const others = store.twins(row).filter((other) => other !== row);
    const asked = store.row(params.get("with"));
    if (others.includes(asked)) return asked;
    return store.partner(row) >= 0 ? store.partner(row) : others[0];
  }

  /** Every score and measure of the sample, of the other one, and the difference. */
  function numbers(row, other) {
    const heads = ["", ...(other === undefined ? [] : [store.setting(other).name]), store.setting(row).name];
    if (other !== undefined) heads.push("Difference");
    return store.groups.map(([group, some]) => {
      const lines = some.map(({ key, title, unit, higher }) => {
        const digits = store.digitsOf(key);
        const own = store.value(row, key);
        const its = other === undefined ? NaN : store.value(other, key);
        const gap = own - its;
        const better =
          isNumber(gap) && gap !== 0 && typeof higher === "boolean" ? (gap > 0 === higher ? "better" : "worse") : "";
        const cells = [h("td", {}, words(own, digits))];
        if (other !== undefined) {
          cells.unshift(h("td", {}, words(its, digits)));
          cells.push(
            h(
              "td",
              { class: better },
              words(gap, digits, true),
              better && h("span", { class: "unseen" }, ` ${better}`),
            ),
          );
        }
        const arrow = higher === true ? " ↑" : higher === false ? " ↓" : "";
        const meaning = typeof higher === "boolean" ? `${higher ? "higher" : "lower"} is better` : "";
        const hint = [unit, meaning].filter(Boolean).join("; ");
        return h("tr", {}, h("th", { scope: "row", title: hint || undefined, dir: "auto" }, title, arrow), cells);
      });
      return h(
        "div",
        { class: "box" },
        h(
          "table",
          { class: "numbers" },
          h("caption", {}, group),
          h(
            "thead",
            {},
            h(
              "tr",
              {},
              heads.map((head, at) => (at ? h("th", { scope: "col", dir: "auto" }, head) : h("td", {}))),
            ),
          ),
          h("tbody", {}, lines),
        ),
      );
    });
  }

  function facts(row) {
    const setting = store.setting(row);
    const prompt = store.prompt(row);
    const some = [
      ["Setting", setting.name],
      ["Family", setting.family],
      ["Seed", store.seed(row)],
      ["Role of the seed", store.role(row)],
      ["Prompt set", prompt.set],
      ["Sample", store.id(row)],
    ];
    return h(
      "dl",
      { class: "facts" },
      some.map(([term, text]) => h("div", {}, h("dt", {}, term), h("dd", { dir: "auto" }, text || "–"))),
    );
  }

  function buttons(row) {
    const go = (step, text, key) => {
      const next = gallery.beside(row, step);
      const attributes = {
        type: "button",
        class: "quiet",
        "data-step": step,
        disabled: next === undefined,
        "aria-keyshortcuts": key,
      };
      return h("button", { ...attributes, onclick: () => turn(step) }, text);
    };
    const copy = h(
      "button",
      { type: "button", class: "quiet", onclick: () => symskew.tables.copy(location.href, copy) },
      "Copy link",
    );
    const close = h("button", { type: "button", class: "close", "aria-label": "Close", onclick: leave }, "×");
    return h("div", { class: "tools" }, go(-1, "← Previous", "ArrowLeft"), go(1, "Next →", "ArrowRight"), copy, close);
  }

  function turn(step) {
    const next = gallery.beside(shown, step);
    if (next !== undefined) route.go({ open: store.id(next), with: "" }, { replace: true });
  }

  function leave() {
    route.leave({ open: "", with: "" });
  }

  function fill(row, params) {
    const focused = document.activeElement?.dataset?.step;
    const other = against(row, params);
    const figure = compare.frames(row, other);
    const others = store.twins(row).filter((one) => one !== row);
    const select = others.length
      ? choice(
          "Compare with",
          others.map((one) => [store.id(one), store.setting(one).name]),
          store.id(other),
          (id) => route.go({ with: id }, { replace: true }),
        )
      : h("p", { class: "faint" }, "There is no other sample of this prompt and seed.");
    dialog.replaceChildren(
      h(
        "div",
        { class: "head" },
        h("h2", { id: "detail-title", dir: "auto" }, store.setting(row).name, ` · seed ${store.seed(row)}`),
        buttons(row),
      ),
      h(
        "div",
        { class: "body" },
        h("div", { class: "look" }, figure, h("div", { class: "fields" }, select), compare.maps(figure)),
        h(
          "div",
          { class: "tell" },
          h(
            "blockquote",
            { class: "prompt", dir: "auto", tabindex: "0", "aria-label": "Prompt" },
            store.prompt(row).text,
          ),
          facts(row),
          store.failed(row) ? h("p", { class: "failed-why", dir: "auto" }, store.error(row)) : numbers(row, other),
          !store.failed(row) && h("p", {}, h("a", { href: store.image(row), target: "_blank" }, "Open the image file")),
        ),
      ),
    );
    shown = row;
    if (focused) dialog.querySelector(`[data-step="${focused}"]`)?.focus();
  }

  function show(view, params) {
    const row = view === "gallery" ? store.row(params.get("open")) : undefined;
    if (row === undefined) {
      if (dialog.open) dialog.close();
      return;
    }
    fill(row, params);
    if (!dialog.open) {
      dialog.showModal();
      (dialog.querySelector(".slide") ?? dialog.querySelector(".close")).focus();
    }
  }

  dialog.addEventListener("cancel", (event) => {
    event.preventDefault();
    leave();
  });
  dialog.addEventListener("close", () => {
    if (shown !== undefined) gallery.reach(shown);
    shown = undefined;
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) leave(); // beside it
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.target.matches("input, select, .prompt") || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowLeft") turn(-1);
    if (event.key === "ArrowRight") turn(1);
  });

  return { show };
})();

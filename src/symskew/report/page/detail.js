"use strict";

/** One sample beside another of the same prompt and seed, with all that was measured of both. */
symskew.detail = (() => {
  const { h, choice, words, announce, isNumber } = symskew.dom;
  const { store, route, gallery, overlay } = symskew;

  const dialog = document.querySelector("[data-detail]");
  let shown; // the row
  let stage = ""; // of the maps laid over; stays as one goes from sample to sample

  /** What to compare with at first: vanilla; for vanilla itself the next setting. */
  function against(row, params) {
    const others = store.twins(row).filter((other) => other !== row);
    const asked = store.row(params.get("with"));
    if (others.includes(asked)) return asked;
    return store.partner(row) >= 0 ? store.partner(row) : others[0];
  }

  function picture(row, layer) {
    if (store.failed(row)) return h("div", { class: `layer ${layer} failed` }, `Failed: ${store.error(row)}`);
    const [width, height] = store.size(row);
    const small = Math.max(width, height) <= 256 ? "pixels" : "";
    const alt = `${store.setting(row).name}, seed ${store.seed(row)}`;
    return h("div", { class: `layer ${layer}`, "data-row": row }, h("img", { src: store.image(row), alt, width, height, class: small }));
  }

  function name(row, where) {
    const setting = store.setting(row);
    return h("span", { class: where, dir: "auto" }, h("span", { class: `mark c${setting.colour % 10}`, "aria-hidden": "true" }), setting.name);
  }

  /** Both images in one frame, and a handle that decides where one ends and the other begins. */
  function compare(row, other) {
    const [width, height] = store.size(store.failed(row) && other !== undefined ? other : row);
    const frame = h("div", { class: "compare" });
    const names = h("div", { class: "names" });
    const stage = h("div", {}, frame, names);
    stage.style.setProperty("--wide", width && height ? width / height : 1);
    if (other === undefined) {
      frame.append(picture(row, "right"));
      names.append(name(row, "right"));
      return stage;
    }
    // Vanilla is on the left whichever of the two was opened.
    const [left, right] = store.settingNumber(other) <= store.settingNumber(row) ? [other, row] : [row, other];
    const slider = h("input", {
      type: "range",
      min: "0",
      max: "100",
      value: "50",
      class: "slide",
      "aria-label": `How much of ${store.setting(left).name} is seen, the rest is ${store.setting(right).name}`,
      oninput: () => move(),
    });
    const move = () => {
      frame.style.setProperty("--at", `${slider.value}%`);
      slider.setAttribute("aria-valuetext", `${slider.value}% ${store.setting(left).name}`);
    };
    frame.append(picture(left, "left"), picture(right, "right"), h("div", { class: "handle", "aria-hidden": "true" }), slider);
    names.append(name(left, "left"), name(right, "right"));
    move();
    return stage;
  }

  /** Which map lies over the images, and how strongly; nothing where no map was kept. */
  function mapControls(figure) {
    const layers = [...figure.querySelectorAll(".layer[data-row]")].filter((layer) => store.mapped(Number(layer.dataset.row)));
    if (!layers.length) return null;
    const place = h("div", { class: "scale-place" });
    const strength = h("input", { type: "range", min: "10", max: "100", value: "75", "aria-label": "Strength of the map" });
    const blend = () => figure.style.setProperty("--strength", Number(strength.value) / 100);
    strength.addEventListener("input", blend);
    const stages = symskew.data.samples.stages;
    if (!stages.includes(stage)) stage = "";

    async function lay() {
      const wanted = stage;
      let found = [];
      try {
        if (wanted) found = await Promise.all(layers.map((layer) => overlay.load(Number(layer.dataset.row))));
      } catch (error) {
        place.replaceChildren(h("p", { class: "faint" }, `The map cannot be shown: ${error.message}.`));
        return;
      }
      if (wanted !== stage) return;
      for (const layer of layers) layer.querySelector("canvas")?.remove();
      const maps = found.map((some) => some[wanted]);
      const top = overlay.most(maps.filter(Boolean));
      layers.forEach((layer, at) => maps[at] && layer.append(overlay.draw(maps[at], top)));
      place.replaceChildren(...(wanted ? [overlay.legend(top)] : []));
      strength.disabled = !wanted;
      blend();
      announce(wanted ? `Map of the ${wanted} layers shown.` : "");
    }

    const select = choice("Conflict map", [["", "None"], ...stages.map((one) => [one, `${one} layers`])], stage, (value) => {
      stage = value;
      lay();
    });
    lay();
    return h("div", { class: "maps" }, h("div", { class: "fields" }, select, h("label", { class: "field" }, h("span", {}, "Strength"), strength)), place);
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
        const better = isNumber(gap) && gap !== 0 && typeof higher === "boolean" ? (gap > 0 === higher ? "better" : "worse") : "";
        const cells = [h("td", {}, words(own, digits))];
        if (other !== undefined) {
          cells.unshift(h("td", {}, words(its, digits)));
          cells.push(h("td", { class: better }, words(gap, digits, true), better && h("span", { class: "unseen" }, ` ${better}`)));
        }
        const arrow = higher === true ? " ↑" : higher === false ? " ↓" : "";
        const meaning = typeof higher === "boolean" ? `${higher ? "higher" : "lower"} is better` : "";
        const hint = [unit, meaning].filter(Boolean).join("; ");
        return h("tr", {}, h("th", { scope: "row", title: hint || undefined, dir: "auto" }, title, arrow), cells);
      });
      return h(
        "div",
        { class: "box", tabindex: "0", role: "region", "aria-label": group },
        h(
          "table",
          { class: "numbers" },
          h("caption", {}, group),
          h("thead", {}, h("tr", {}, heads.map((head, at) => (at ? h("th", { scope: "col", dir: "auto" }, head) : h("td", {}))))),
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
    return h("dl", { class: "facts" }, some.map(([term, text]) => h("div", {}, h("dt", {}, term), h("dd", { dir: "auto" }, text || "–"))));
  }

  function buttons(row) {
    const go = (step, text, key) => {
      const next = gallery.beside(row, step);
      const attributes = { type: "button", class: "quiet", "data-step": step, disabled: next === undefined, "aria-keyshortcuts": key };
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
    const figure = compare(row, other);
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
      h("div", { class: "head" }, h("h2", { id: "detail-title", dir: "auto" }, store.setting(row).name, ` · seed ${store.seed(row)}`), buttons(row)),
      h(
        "div",
        { class: "body" },
        h("div", { class: "look" }, figure, h("div", { class: "fields" }, select), mapControls(figure)),
        h(
          "div",
          { class: "tell" },
          h("blockquote", { class: "prompt", dir: "auto", tabindex: "0", "aria-label": "Prompt" }, store.prompt(row).text),
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
    if (event.target.matches("input, select, .box, .prompt") || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowLeft") turn(-1);
    if (event.key === "ArrowRight") turn(1);
  });

  return { show };
})();

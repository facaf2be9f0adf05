"use strict";

/** Two images in one frame, a handle between them, and maps laid over both when asked for. */
symskew.compare = (() => {
  const { h, choice, announce } = symskew.dom;
  const { overlay, store } = symskew;

  let stage = ""; // of the maps laid over; stays as one goes from sample to sample

  function picture(row, layer) {
    if (store.failed(row)) return h("div", { class: `layer ${layer} failed` }, `Failed: ${store.error(row)}`);
    const [width, height] = store.size(row);
    const small = Math.max(width, height) <= 256 ? "pixels" : "";
    const alt = `${store.setting(row).name}, seed ${store.seed(row)}`;
    return h(
      "div",
      { class: `layer ${layer}`, "data-row": row },
      h("img", { src: store.image(row), alt, width, height, class: small }),
    );
  }

  function name(row, where) {
    const setting = store.setting(row);
    return h(
      "span",
      { class: where, dir: "auto" },
      h("span", { class: `mark c${setting.colour % 10}`, "aria-hidden": "true" }),
      setting.name,
    );
  }

  /** Both images in one frame, and a handle that decides where one ends and the other begins. */
  function frames(row, other) {
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
    frame.append(
      picture(left, "left"),
      picture(right, "right"),
      h("div", { class: "handle", "aria-hidden": "true" }),
      slider,
    );
    names.append(name(left, "left"), name(right, "right"));
    move();
    return stage;
  }

  /** Which map lies over the images, and how strongly; nothing where no map was kept. */
  function maps(figure) {
    const layers = [...figure.querySelectorAll(".layer[data-row]")].filter((layer) =>
      store.mapped(Number(layer.dataset.row)),
    );
    if (!layers.length) return null;
    const place = h("div", { class: "scale-place" });
    const strength = h("input", {
      type: "range",
      min: "10",
      max: "100",
      value: "75",
      "aria-label": "Strength of the map",
    });
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
      const own = found.map((some) => some[wanted]);
      const top = overlay.most(own.filter(Boolean));
      layers.forEach((layer, at) => own[at] && layer.append(overlay.draw(own[at], top)));
      place.replaceChildren(...(wanted ? [overlay.legend(top)] : []));
      strength.disabled = !wanted;
      blend();
      announce(wanted ? `Map of the ${wanted} layers shown.` : "");
    }

    const select = choice(
      "Conflict map",
      [["", "None"], ...stages.map((one) => [one, `${one} layers`])],
      stage,
      (value) => {
        stage = value;
        lay();
      },
    );
    lay();
    return h(
      "div",
      { class: "maps" },
      h("div", { class: "fields" }, select, h("label", { class: "field" }, h("span", {}, "Strength"), strength)),
      place,
    );
  }

  return { frames, maps };
})();

"use strict";

/** Maps of conflict laid over an image: fetched when first asked for, drawn as colours that mean numbers. */
symskew.overlay = (() => {
  const { h, words } = symskew.dom;
  const { store } = symskew;

  // Nine steps of matplotlib's inferno, evenly apart; what lies between is mixed.
  const COLOURS = [
    "#000004",
    "#1b0c41",
    "#4a0c6b",
    "#781c6d",
    "#a52c60",
    "#cf4446",
    "#ed6925",
    "#fb9b06",
    "#fcffa4",
  ].map((colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)));
  const CHANCE = 0.5;

  function colour(share) {
    const at = Math.min(Math.max(share, 0), 1) * (COLOURS.length - 1);
    const low = Math.min(Math.floor(at), COLOURS.length - 2);
    return COLOURS[low].map((value, channel) => Math.round(value + (at - low) * (COLOURS[low + 1][channel] - value)));
  }

  const asked = new Map();

  const levels = (text) => Array.from(new Uint8Array(store.bytes(text)), (level) => level / 255);

  /** The file of maps that a sample's are in, with those of its neighbours. */
  function fetchPack(number) {
    if (!asked.has(number)) {
      const found = new Promise((resolve, reject) => {
        const script = h("script", { src: `maps/${number}.js` });
        script.onload = () => resolve(symskew.data.maps[number]);
        script.onerror = () => {
          asked.delete(number);
          reject(new Error(`the file maps/${number}.js is not there`));
        };
        document.head.append(script);
      });
      asked.set(number, found);
    }
    return asked.get(number);
  }

  /** The maps of a sample: {stage: {height, width, values}}, values from 0 to 1. */
  async function load(row) {
    const pack = await fetchPack(Math.floor(row / symskew.data.samples.together));
    return Object.fromEntries(
      Object.entries(pack[store.id(row)]).map(([stage, map]) => [stage, { ...map, values: levels(map.values) }]),
    );
  }

  /** The largest value of the scale: chance, or more where a map has more. */
  const most = (maps) => Math.max(CHANCE, ...maps.map(({ values }) => values.reduce((a, b) => Math.max(a, b))));

  function draw(map, top) {
    const canvas = h("canvas", { width: map.width, height: map.height, "aria-hidden": "true" });
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(map.width, map.height);
    map.values.forEach((value, at) => pixels.data.set([...colour(value / top), 255], 4 * at));
    context.putImageData(pixels, 0, 0);
    return canvas;
  }

  /** What the colours mean. */
  function legend(top) {
    const strip = h("canvas", { width: 64, height: 1, "aria-hidden": "true" });
    const context = strip.getContext("2d");
    for (let at = 0; at < 64; at++) {
      context.fillStyle = `rgb(${colour(at / 63).join(" ")})`;
      context.fillRect(at, 0, 1, 1);
    }
    const text = "Share of features in conflict (λ < 0); 0.50 is chance";
    return h(
      "div",
      { class: "scale" },
      h("span", {}, "0"),
      strip,
      h("span", {}, words(top, 2)),
      h("span", { class: "faint" }, text),
    );
  }

  return { load, most, draw, legend };
})();

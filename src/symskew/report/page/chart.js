"use strict";

/** What all charts share: scales with round ticks, axes, marks, and drawing anew when the width changes. */
symskew.chart = (() => {
  const { h, s, words } = symskew.dom;

  /** Round numbers that span low to high, about `count` of them. */
  function ticks(low, high, count) {
    const raw = (high - low) / count || 1;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((part) => part * power).find((one) => one >= raw * 0.999);
    const found = [];
    for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at++) found.push(at * step);
    return found;
  }

  /** A linear scale from the values to pixels, with a margin, that has `ticks` and `text` for them. */
  function scale(values, from, to, { count = 5, signed = false } = {}) {
    let [low, high] = [Math.min(...values), Math.max(...values)];
    const margin = (high - low || Math.abs(high) || 1) * 0.06;
    [low, high] = [low - margin, high + margin];
    const some = ticks(low, high, count);
    const digits =
      [0, 1, 2, 3, 4, 5].find((one) =>
        some.every((tick) => Math.abs(tick * 10 ** one - Math.round(tick * 10 ** one)) < 1e-6),
      ) ?? 6;
    const at = (value) => from + ((value - low) / (high - low)) * (to - from);
    return Object.assign(at, { ticks: some, text: (value) => words(value, digits, signed), low, high });
  }

  /** The mark of a family: shapes differ as well as colours, and no two of fifty families look alike. */
  function mark(x, y, colour, radius = 6) {
    const r = radius;
    const polygon = (points) => s("polygon", { points: points.map(([a, b]) => `${x + a},${y + b}`).join(" ") });
    const shapes = [
      () => s("circle", { cx: x, cy: y, r }),
      () => s("rect", { x: x - 0.88 * r, y: y - 0.88 * r, width: 1.76 * r, height: 1.76 * r }),
      () =>
        polygon([
          [0, -1.25 * r],
          [1.25 * r, 0],
          [0, 1.25 * r],
          [-1.25 * r, 0],
        ]),
      () =>
        polygon([
          [0, -1.2 * r],
          [1.15 * r, 0.85 * r],
          [-1.15 * r, 0.85 * r],
        ]),
      () =>
        polygon([
          [0, 1.2 * r],
          [1.15 * r, -0.85 * r],
          [-1.15 * r, -0.85 * r],
        ]),
    ];
    const shape = shapes[(colour + Math.floor(colour / 10)) % shapes.length]();
    shape.setAttribute("class", `dot c${colour % 10}`);
    return shape;
  }

  /** Axes with grid lines, ticks and titles around a plot. */
  function axes(box, x, y, titles) {
    const { left, top, right, bottom } = box;
    return s(
      "g",
      { class: "axes", "aria-hidden": "true" },
      y.ticks.map((value) => [
        s("line", { class: "rule", x1: left, x2: right, y1: y(value), y2: y(value) }),
        s("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, y.text(value)),
      ]),
      x.ticks.map((value) => [
        s("line", { class: "rule", x1: x(value), x2: x(value), y1: top, y2: bottom }),
        s("text", { x: x(value), y: bottom + 20, "text-anchor": "middle" }, x.text(value)),
      ]),
      s("text", { class: "title", x: (left + right) / 2, y: bottom + 44, "text-anchor": "middle" }, titles.x),
      s("text", { class: "title", x: left, y: top - 14, "text-anchor": "start" }, titles.y),
    );
  }

  /** Call `draw(width, height)` whenever the place of a chart gets another width; it gives the element to show. */
  function drawn(place, draw) {
    let known = 0;
    const paint = () => {
      const width = place.clientWidth;
      if (width && width !== known) {
        known = width;
        place.replaceChildren(draw(width, place.clientHeight));
      }
    };
    new ResizeObserver(paint).observe(place);
  }

  /** What the colours and shapes stand for. */
  function legend(items) {
    const entry = ([name, colour]) => {
      const picture = s(
        "svg",
        { width: 16, height: 16, viewBox: "0 0 16 16", "aria-hidden": "true" },
        mark(8, 8, colour, 5),
      );
      return h("li", { dir: "auto" }, picture, name);
    };
    return h("ul", { class: "legend" }, items.map(entry));
  }

  /** A heading with what stands under it. */
  function panel(title, about, ...children) {
    const name = `panel-${title.toLowerCase().replace(/\W+/g, "-")}`;
    return h(
      "section",
      { class: "panel", "aria-labelledby": name },
      h("h2", { id: name }, title),
      h("p", { class: "caption" }, about),
      ...children,
    );
  }

  const nothing = (text) => h("p", { class: "empty" }, text);

  return { scale, mark, axes, drawn, legend, panel, nothing };
})();

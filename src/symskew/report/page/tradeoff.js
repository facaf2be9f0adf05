"use strict";

/** Settings against each other in the plane of two metrics, with the front of those that no other beats. */
symskew.tradeoff = (() => {
  const { h, s, explain, rove, along, choice, refill } = symskew.dom;
  const { chart, means, route, sweep } = symskew;
  const { place, told } = means;
  const { study } = symskew.data;

  /** What the address asks for, or what shows most. */
  function wanted(params) {
    const known = (name, values, otherwise) => (values.includes(params.get(name)) ? params.get(name) : otherwise);
    const set = known("set", means.sets, means.sets[0]);
    const metrics = means.metricsOf(set);
    const ids = [...metrics.map(({ id }) => id), means.PASSES];
    const single = metrics.find(({ kind }) => kind === "sample") ?? metrics[0];
    const pair = metrics.find(({ kind }) => kind === "pair") ?? metrics.find((one) => one !== single) ?? single;
    return {
      set,
      metrics,
      x: known("x", ids, pair.id),
      y: known("y", ids, single.id),
      as: known("as", ["change"], "value"),
    };
  }

  function pointsOf(state) {
    const points = study.settings
      .map((setting) => ({ setting, x: place(setting, state.x, state), y: place(setting, state.y, state) }))
      .filter(({ x, y }) => x && y);
    const [up, right] = [means.higher(state.y) ? 1 : -1, means.higher(state.x) ? 1 : -1];
    for (const point of points) {
      point.front = !points.some((other) => {
        const [a, b] = [right * (other.x.mean - point.x.mean), up * (other.y.mean - point.y.mean)];
        return a >= 0 && b >= 0 && a + b > 0;
      });
    }
    return points.sort((a, b) => a.x.mean - b.x.mean || a.y.mean - b.y.mean);
  }

  function lines(point, { x, y, as }) {
    const n = point.y.n ?? point.x.n;
    return [
      point.setting.name,
      `${means.headed(y, as)} ${told(y, as, point.y)}`,
      `${means.headed(x, as)} ${told(x, as, point.x)}`,
      [n && `${n} prompts`, point.front && "on the front"].filter(Boolean).join(" · "),
    ];
  }

  /** The plane of two metrics. */
  function plane(points, state, width, height) {
    const box = { left: 64, top: 34, right: width - 16, bottom: height - 56 };
    const signed = state.as === "change";
    const x = chart.scale(
      points.flatMap((p) => [p.x.low, p.x.high]),
      box.left,
      box.right,
      { count: Math.max(3, width / 110), signed },
    );
    const y = chart.scale(
      points.flatMap((p) => [p.y.low, p.y.high]),
      box.bottom,
      box.top,
      { count: 6, signed },
    );
    const front = points.filter((point) => point.front);
    const dots = points.map((point) => {
      const [px, py] = [x(point.x.mean), y(point.y.mean)];
      const group = s(
        "g",
        {
          class: point.front ? "point front" : "point",
          role: "img",
          "aria-label": lines(point, state).join(". "),
          "data-setting": point.setting.id,
        },
        s("line", { class: "error", x1: x(point.x.low), x2: x(point.x.high), y1: py, y2: py }),
        s("line", { class: "error", x1: px, x2: px, y1: y(point.y.low), y2: y(point.y.high) }),
        s("circle", { class: "halo", cx: px, cy: py, r: 13 }),
        chart.mark(px, py, point.setting.colour),
      );
      return explain(group, lines(point, state));
    });
    const svg = s(
      "svg",
      {
        width,
        height,
        viewBox: `0 0 ${width} ${height}`,
        role: "group",
        "aria-label": `${means.headed(state.y, state.as)} against ${means.headed(state.x, state.as)}: ${points.length} settings; arrow keys move between them`,
      },
      chart.axes(box, x, y, { x: means.headed(state.x, state.as), y: means.headed(state.y, state.as) }),
      front.length > 1 &&
        s("polyline", { class: "pareto", points: front.map((p) => `${x(p.x.mean)},${y(p.y.mean)}`).join(" ") }),
      dots,
    );
    rove(
      svg,
      () => dots,
      (dot, key) => along(dots, dot, key),
    );
    return svg;
  }

  /** The same as numbers. */
  function list(points, { x, y, as }) {
    const heads = ["Setting", means.headed(y, as), means.headed(x, as), "On the front"];
    const head = (one, at) => h("th", { scope: "col", class: at % 3 ? "number" : undefined, dir: "auto" }, one);
    const row = (point) =>
      h(
        "tr",
        {},
        h("th", { scope: "row", dir: "auto" }, point.setting.name),
        h("td", { class: "number" }, told(y, as, point.y)),
        h("td", { class: "number" }, told(x, as, point.x)),
        h("td", {}, point.front ? "yes" : ""),
      );
    const table = h("table", {}, h("thead", {}, h("tr", {}, heads.map(head))), h("tbody", {}, points.map(row)));
    return h(
      "details",
      { class: "as-table" },
      h("summary", {}, "The same as numbers"),
      h("div", { class: "box", tabindex: "0", role: "region", "aria-label": "Settings as numbers" }, table),
    );
  }

  function show(view, params) {
    if (view !== "tradeoff") return;
    const root = document.querySelector("[data-tradeoff]");
    if (!means.sets.length) {
      root.replaceChildren(
        chart.nothing("There are no means: nothing was generated with seeds of evaluation, or scored."),
      );
      return;
    }
    const state = wanted(params);
    const points = pointsOf(state);
    const put = (name) => (value) => route.go({ [name]: value });
    const group = ([title, kind]) => [
      title,
      state.metrics.filter((one) => one.kind === kind).map((one) => [one.id, one.title]),
    ];
    const kinds = [
      ["Scores", "sample"],
      ["Diversity", "pair"],
    ];
    const metrics = kinds.map(group).filter(([, some]) => some.length);
    const axes = [...metrics, ["Cost", [[means.PASSES, "Denoiser passes per step"]]]];
    const kindsOfValue = [
      ["value", "Value"],
      ["change", "Change against vanilla"],
    ];
    const plot = h("div", { class: "plot" });
    const families = study.families.map((family, colour) => [family, colour]);
    const shown = families.filter(([family]) => points.some(({ setting }) => setting.family === family));
    const several = means.sets.length > 1;
    refill(
      root,
      chart.panel(
        "Settings in the plane",
        "Means over prompts on the seeds of evaluation, with 95% intervals. The line joins the settings that no other beats in both; whether they differ is for the intervals to say.",
        h(
          "div",
          { class: "fields" },
          choice("Across", axes, state.x, put("x")),
          choice("Up", axes, state.y, put("y")),
          choice("Shown as", kindsOfValue, state.as, put("as")),
          several &&
            choice(
              "Prompts",
              means.sets.map((name) => [name, name]),
              state.set,
              put("set"),
            ),
        ),
        ...(points.length ? [plot, chart.legend(shown), list(points, state)] : [chart.nothing("No setting has both.")]),
      ),
      sweep.panel(params, state.set, metrics),
    );
    if (points.length) chart.drawn(plot, (width, height) => plane(points, state, width, height));
  }

  route.listen(show);
})();

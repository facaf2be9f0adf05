"use strict";

/** Settings against each other: two metrics as a plane with the front of those that no other beats, one over α and β. */
symskew.tradeoff = (() => {
  const { h, s, explain, rove, along, digitsFor, interval, words, choice, refill } = symskew.dom;
  const { route, chart } = symskew;
  const { study } = symskew.data;

  const PASSES = "passes";
  const estimate = ([value, low, high, n]) => ({ mean: value, low, high, n });
  const sets = Object.keys(study.means);

  /** The metrics that settings of a set of prompts have. */
  const metricsOf = (set) =>
    study.metrics.filter(({ id }) => Object.values(study.means[set]).some((cells) => cells[id]));

  /** What the address asks for, or what shows most. */
  function wanted(params) {
    const known = (name, values, otherwise) => (values.includes(params.get(name)) ? params.get(name) : otherwise);
    const set = known("set", sets, sets[0]);
    const metrics = metricsOf(set);
    const ids = [...metrics.map(({ id }) => id), PASSES];
    const single = metrics.find(({ kind }) => kind === "sample") ?? metrics[0];
    const pair = metrics.find(({ kind }) => kind === "pair") ?? metrics.find((one) => one !== single) ?? single;
    return {
      set,
      metrics,
      x: known("x", ids, pair.id),
      y: known("y", ids, single.id),
      as: known("as", ["change"], "value"),
      metric: known("metric", ids.slice(0, -1), single.id),
      family: known("family", families(), families()[0]),
      axis: params.get("cells") === "value" ? "value" : "change",
    };
  }

  const isNumber = symskew.dom.isNumber;
  const families = () => study.families.filter((family) => new Set(grid(family).map(({ alpha, beta }) => `${alpha} ${beta}`)).size > 1);
  const grid = (family) => study.settings.filter((one) => one.family === family && isNumber(one.alpha) && isNumber(one.beta));

  const title = (id) => (id === PASSES ? "Denoiser passes per step" : study.metrics.find((metric) => metric.id === id).title);
  const higher = (id) => id !== PASSES && study.metrics.find((metric) => metric.id === id).higher;
  const headed = (id, as) => `${as === "change" && id !== PASSES ? "Change of " : ""}${title(id)} ${higher(id) ? "↑" : "↓"}`;

  function coordinate(setting, id, { set, as }) {
    if (id === PASSES) return isNumber(setting.passes) ? { mean: setting.passes, low: setting.passes, high: setting.passes } : undefined;
    const cell = study.means[set][setting.id]?.[id];
    if (cell?.[as]) return estimate(cell[as]);
    // Against itself vanilla has changed by nothing, for certain.
    return as === "change" && setting.family === "vanilla" && cell ? { mean: 0, low: 0, high: 0, n: cell.value[3] } : undefined;
  }

  function pointsOf(state) {
    const points = study.settings
      .map((setting) => ({ setting, x: coordinate(setting, state.x, state), y: coordinate(setting, state.y, state) }))
      .filter(({ x, y }) => x && y);
    const [up, right] = [higher(state.y) ? 1 : -1, higher(state.x) ? 1 : -1];
    for (const point of points) {
      point.front = !points.some((other) => {
        const [a, b] = [right * (other.x.mean - point.x.mean), up * (other.y.mean - point.y.mean)];
        return a >= 0 && b >= 0 && a + b > 0;
      });
    }
    return points.sort((a, b) => a.x.mean - b.x.mean || a.y.mean - b.y.mean);
  }

  function lines(point, state) {
    const text = (id, value) => {
      const digits = digitsFor(value.high - value.low || Math.abs(value.mean));
      return `${headed(id, state.as)} ${id === PASSES ? words(value.mean, 1) : interval(value, digits, state.as === "change")}`;
    };
    const n = point.y.n ?? point.x.n;
    return [point.setting.name, text(state.y, point.y), text(state.x, point.x), `${n ? `${n} prompts` : ""}${point.front ? " · on the front" : ""}`];
  }

  /** The plane of two metrics. */
  function plane(points, state, width, height) {
    const box = { left: 64, top: 34, right: width - 16, bottom: height - 56 };
    const signed = state.as === "change";
    const x = chart.scale(points.flatMap((p) => [p.x.low, p.x.high]), box.left, box.right, { count: Math.max(3, width / 110), signed });
    const y = chart.scale(points.flatMap((p) => [p.y.low, p.y.high]), box.bottom, box.top, { count: 6, signed });
    const front = points.filter((point) => point.front);
    const dots = points.map((point) => {
      const [px, py] = [x(point.x.mean), y(point.y.mean)];
      const group = s(
        "g",
        { class: point.front ? "point front" : "point", role: "img", "aria-label": lines(point, state).join(". "), "data-setting": point.setting.id },
        s("line", { class: "error", x1: x(point.x.low), x2: x(point.x.high), y1: py, y2: py }),
        s("line", { class: "error", x1: px, x2: px, y1: y(point.y.low), y2: y(point.y.high) }),
        s("circle", { class: "halo", cx: px, cy: py, r: 13 }),
        chart.mark(px, py, point.setting.colour),
      );
      return explain(group, lines(point, state));
    });
    const svg = s(
      "svg",
      { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${headed(state.y, state.as)} against ${headed(state.x, state.as)}: ${points.length} settings; arrow keys move between them` },
      chart.axes(box, x, y, { x: headed(state.x, state.as), y: headed(state.y, state.as) }),
      front.length > 1 && s("polyline", { class: "pareto", points: front.map((p) => `${x(p.x.mean)},${y(p.y.mean)}`).join(" ") }),
      dots,
    );
    rove(svg, () => dots, (dot, key) => along(dots, dot, key));
    return svg;
  }

  /** The same as numbers. */
  function list(points, state) {
    const cell = (id, value) => h("td", { class: "number" }, id === PASSES ? words(value.mean, 1) : interval(value, digitsFor(value.high - value.low || Math.abs(value.mean)), state.as === "change"));
    return h(
      "details",
      { class: "as-table" },
      h("summary", {}, "The same as numbers"),
      h(
        "div",
        { class: "box", tabindex: "0", role: "region", "aria-label": "Settings as numbers" },
        h(
          "table",
          {},
          h("thead", {}, h("tr", {}, ["Setting", headed(state.y, state.as), headed(state.x, state.as), "On the front"].map((one, at) => h("th", { scope: "col", class: at && at < 3 ? "number" : undefined, dir: "auto" }, one)))),
          h("tbody", {}, points.map((p) => h("tr", {}, h("th", { scope: "row", dir: "auto" }, p.setting.name), cell(state.y, p.y), cell(state.x, p.x), h("td", {}, p.front ? "yes" : "")))),
        ),
      ),
    );
  }

  /** One metric over α and β as a table in colours. */
  function map(state) {
    const settings = grid(state.family);
    const cells = settings.map((setting) => ({ setting, cell: coordinate(setting, state.metric, { set: state.set, as: state.axis }) })).filter(({ cell }) => cell);
    if (!cells.length) return chart.nothing("No setting of this family was run on these prompts.");
    const column = [...new Set(cells.map(({ setting }) => setting.alpha))].sort((a, b) => a - b);
    const row = [...new Set(cells.map(({ setting }) => setting.beta))].sort((a, b) => b - a);
    const values = cells.map(({ cell }) => cell.mean);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const most = Math.max(Math.abs(low), Math.abs(high)) || 1;
    const change = state.axis === "change";
    const digits = digitsFor(change ? most : high - low || Math.abs(high));
    const good = higher(state.metric) ? 1 : -1;
    const buttons = [];
    const at = (alpha, beta) => {
      const several = cells.filter(({ setting }) => setting.alpha === alpha && setting.beta === beta);
      return h("td", {}, several.length ? several.map(one) : h("span", { class: "none" }, "·"));
    };
    const one = ({ setting, cell }) => {
      const share = change ? (good * cell.mean) / most : (cell.mean - low) / (high - low || 1);
      const element = h("span", { class: `heat ${share < 0 ? "minus" : "plus"}`, role: "img", "aria-label": `${setting.name}: ${interval(cell, digits, change)}` }, words(cell.mean, digits, change));
      element.style.setProperty("--share", `${Math.round(Math.abs(share) * 85)}%`);
      const verdict = !change ? "" : cell.low > 0 || cell.high < 0 ? "the interval leaves out 0" : "the interval has 0 in it";
      explain(element, [setting.name, interval(cell, digits, change), [`${cell.n} prompts`, verdict].filter(Boolean).join(" · ")]);
      buttons.push(element);
      return element;
    };
    const table = h(
      "table",
      { class: "heats" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "β \\ α"), column.map((alpha) => h("th", { scope: "col" }, `α = ${alpha}`)))),
      h("tbody", {}, row.map((beta) => h("tr", {}, h("th", { scope: "row" }, `β = ${beta}`), column.map((alpha) => at(alpha, beta))))),
    );
    rove(table, () => buttons, (element, key) => symskew.diagnosis.step(table, element, key));
    return h("div", { class: "box" }, table);
  }

  function show(view, params) {
    if (view !== "tradeoff") return;
    const root = document.querySelector("[data-tradeoff]");
    if (!sets.length) {
      root.replaceChildren(chart.nothing("There are no means of settings: nothing was generated with seeds of evaluation, or scored."));
      return;
    }
    const state = wanted(params);
    const points = pointsOf(state);
    const put = (name) => (value) => route.go({ [name]: value });
    const metrics = [["Scores", "sample"], ["Diversity", "pair"]].map(([group, kind]) => [group, state.metrics.filter((one) => one.kind === kind).map(({ id, title }) => [id, title])]).filter(([, some]) => some.length);
    const axes = [...metrics, ["Cost", [[PASSES, "Denoiser passes per step"]]]];
    const setField = () => sets.length > 1 && choice("Prompts", sets.map((name) => [name, name]), state.set, put("set"));
    const place = h("div", { class: "plot" });
    const shown = study.families.map((family, colour) => [family, colour]).filter(([family]) => points.some(({ setting }) => setting.family === family));
    const about = "Means over prompts on the seeds of evaluation, with 95% intervals. The line joins the settings that no other beats in both; whether they differ is for the intervals to say.";
    const heat = families().length
      ? chart.panel(
          "Over α and β",
          "Blue is better than vanilla, orange is worse; for values, stronger is higher. Point at a cell, or reach it with the arrow keys, for its interval.",
          h(
            "div",
            { class: "fields" },
            choice("Metric", metrics, state.metric, put("metric")),
            choice("Family", families().map((name) => [name, name]), state.family, put("family")),
            choice("Shown", [["change", "Change against vanilla"], ["value", "Value"]], state.axis, put("cells")),
          ),
          map(state),
        )
      : chart.panel("Over α and β", "", chart.nothing("No family has several settings with α and β."));
    refill(
      root,
      chart.panel(
        "Settings in the plane",
        about,
        h(
          "div",
          { class: "fields" },
          choice("Across", axes, state.x, put("x")),
          choice("Up", axes, state.y, put("y")),
          choice("Shown as", [["value", "Value"], ["change", "Change against vanilla"]], state.as, put("as")),
          setField(),
        ),
        ...(points.length ? [place, chart.legend(shown), list(points, state)] : [chart.nothing("No setting has both.")]),
      ),
      heat,
    );
    if (points.length) chart.drawn(place, (width, height) => plane(points, state, width, height));
  }

  route.listen(show);
})();

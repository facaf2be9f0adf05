"use strict";

/** One metric over α and β, as a table in colours. */
symskew.sweep = (() => {
  const { h, choice, digitsFor, interval, isNumber, words } = symskew.dom;
  const { chart, heat, means, route } = symskew;
  const { study } = symskew.data;

  const grid = (family) =>
    study.settings.filter((one) => one.family === family && isNumber(one.alpha) && isNumber(one.beta));

  /** Those with several pairs of α and β. */
  const families = study.families.filter(
    (family) => new Set(grid(family).map(({ alpha, beta }) => `${alpha} ${beta}`)).size > 1,
  );

  function table({ set, family, metric, as }) {
    const found = grid(family)
      .map((setting) => ({ setting, place: means.place(setting, metric, { set, as }) }))
      .filter(({ place }) => place);
    if (!found.length) return chart.nothing("No setting of this family was run on these prompts.");
    const column = [...new Set(found.map(({ setting }) => setting.alpha))].sort((a, b) => a - b);
    const row = [...new Set(found.map(({ setting }) => setting.beta))].sort((a, b) => b - a);
    const values = found.map(({ place }) => place.mean);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const most = Math.max(Math.abs(low), Math.abs(high)) || 1;
    const change = as === "change";
    const digits = digitsFor(change ? most : high - low || Math.abs(high));
    const good = means.higher(metric) ? 1 : -1;

    function cell({ setting, place }) {
      const share = change ? (good * place.mean) / most : (place.mean - low) / (high - low || 1);
      const text = interval(place, digits, change);
      const away = place.low > 0 || place.high < 0;
      const verdict = change && (away ? "the interval leaves out 0" : "the interval has 0 in it");
      const more = [`${place.n} prompts`, verdict].filter(Boolean).join(" · ");
      return heat.cell(words(place.mean, digits, change), share, `${setting.name}: ${text}`, [
        setting.name,
        text,
        more,
      ]);
    }

    const at = (alpha, beta) =>
      found.filter(({ setting }) => setting.alpha === alpha && setting.beta === beta).map(cell);
    const rows = row.map((beta) => [`β = ${beta}`, column.map((alpha) => at(alpha, beta))]);
    const rest = study.settings.filter((one) => one.family === family && !grid(family).includes(one));
    const names = rest.map(({ name }) => name).join(", ");
    return h(
      "div",
      {},
      heat.table(["β \\ α", ...column.map((alpha) => `α = ${alpha}`)], [["", rows]]),
      rest.length > 0 && h("p", { class: "caption" }, `Left out, since α or β is no single number: ${names}.`),
    );
  }

  /** The panel for the address; `set` are the prompts, `metrics` those to choose from. */
  function panel(params, set, metrics) {
    const title = "Over α and β";
    if (!families.length) return chart.panel(title, "", chart.nothing("No family has several settings with α and β."));
    const known = (name, values) => (values.includes(params.get(name)) ? params.get(name) : values[0]);
    const state = {
      set,
      metric: known(
        "metric",
        metrics.flatMap(([, some]) => some.map(([id]) => id)),
      ),
      family: known("family", families),
      as: known("cells", ["change", "value"]),
    };
    const put = (name) => (value) => route.go({ [name]: value });
    const shown = [
      ["change", "Change against vanilla"],
      ["value", "Value"],
    ];
    return chart.panel(
      title,
      "Blue is better than vanilla, orange is worse; of values, the stronger is the higher. Point at a cell, or reach it with the arrow keys, for its interval.",
      h(
        "div",
        { class: "fields" },
        choice("Metric", metrics, state.metric, put("metric")),
        choice(
          "Family",
          families.map((name) => [name, name]),
          state.family,
          put("family"),
        ),
        choice("Shown", shown, state.as, put("cells")),
      ),
      table(state),
    );
  }

  return { panel };
})();

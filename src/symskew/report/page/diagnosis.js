"use strict";

/** What measures of stability tell about scores, and whether those who start low gain more than by being drawn again. */
symskew.diagnosis = (() => {
  const { h, s, explain, rove, along, digitsFor, interval, words, choice, refill } = symskew.dom;
  const { chart, heat, means, route } = symskew;
  const { estimate, metric } = means;
  const { study } = symskew.data;

  /** Measures of each stage against metrics, as a table in colours. */
  function correlations(branch) {
    const stages = study.correlations[branch];
    const lines = Object.values(stages).flatMap((measures) => Object.values(measures));
    const metrics = study.metrics.filter(({ id }) => lines.some((line) => line[id]));

    function cell(stage, measure, { id, title }) {
      const found = stages[stage][measure][id];
      if (!found) return [];
      const rho = estimate(found);
      const text = interval(rho, 2, true);
      const about = [`${measure}, ${stage} layers · ${title}`, `ρ = ${text}`, `${rho.n} prompts`];
      return [
        heat.cell(words(rho.mean, 2, true), rho.mean, `${measure}, ${stage} layers, and ${title}: ${text}`, about),
      ];
    }

    const heads = metrics.map(({ title, kind }) => [title, kind === "pair" && h("small", {}, "per prompt")]);
    const rows = (stage, measures) =>
      Object.keys(measures).map((measure) => [measure, metrics.map((metric) => cell(stage, measure, metric))]);
    const groups = Object.entries(stages).map(([stage, measures]) => [`${stage} layers`, rows(stage, measures)]);
    return heat.table(["Measure", ...heads], groups);
  }

  const CURVES = {
    fair: [
      ["fair", "Treated", 1, "solid"],
      ["fair_placebo", "Placebo: vanilla, drawn again", 2, "dashed"],
    ],
    naive: [
      ["naive", "Treated, naive", 1, "solid"],
      ["naive_placebo", "Placebo on the same images", 2, "dashed"],
    ],
  };

  /** The change in each quantile of the prompts, treated and placebo. */
  function curves(bins, kind, title, width, height) {
    const box = { left: 64, top: 34, right: width - 16, bottom: height - 56 };
    const all = CURVES[kind].flatMap(([name]) => bins.flatMap((bin) => [bin[name][1], bin[name][2]]));
    const y = chart.scale([...all, 0], box.bottom, box.top, { count: 6, signed: true });
    const band = (box.right - box.left) / bins.length;
    const middle = (bin) => box.left + (bin.number + 0.5) * band;
    const names = ["lowest", "low", "middle", "high", "highest"];
    const x = Object.assign((value) => box.left + (value + 0.5) * band, {
      ticks: bins.map((bin) => bin.number),
      text: (value) => names[value],
    });
    const dots = [];
    const parts = CURVES[kind].map(([name, label, colour, style], side) => {
      const shift = (side - 0.5) * 14;
      const points = bins.map((bin) => ({ bin, at: middle(bin) + shift, value: estimate(bin[name]) }));
      const marks = points.map(({ bin, at, value }) => {
        const digits = digitsFor(value.high - value.low);
        const text = [
          `${label}, ${names[bin.number]} fifth`,
          interval(value, digits, true),
          `${value.n} prompts, vanilla scores ${words(bin.low, digits)} to ${words(bin.high, digits)}`,
        ];
        const dot = s(
          "g",
          { class: `point c${colour}`, role: "img", "aria-label": text.join(". ") },
          s("line", { class: "error", x1: at, x2: at, y1: y(value.low), y2: y(value.high) }),
          s("circle", { class: "halo", cx: at, cy: y(value.mean), r: 13 }),
          chart.mark(at, y(value.mean), colour, 5),
        );
        dots.push(dot);
        return explain(dot, text);
      });
      return s(
        "g",
        {},
        s("polyline", {
          class: `curve c${colour} ${style}`,
          points: points.map(({ at, value }) => `${at},${y(value.mean)}`).join(" "),
        }),
        marks,
      );
    });
    const svg = s(
      "svg",
      {
        width,
        height,
        viewBox: `0 0 ${width} ${height}`,
        role: "group",
        "aria-label": `Change of ${title} in each fifth of the prompts; arrow keys move between points`,
      },
      chart.axes(box, x, y, {
        x:
          kind === "fair"
            ? "Fifths of the prompts, by other vanilla seeds"
            : "Fifths of the images, by their own vanilla score",
        y: `Change of ${title}`,
      }),
      s("line", { class: "zero", x1: box.left, x2: box.right, y1: y(0), y2: y(0) }),
      parts,
    );
    rove(
      svg,
      () => dots,
      (dot, key) => along(dots, dot, key),
    );
    return svg;
  }

  function quantilePanel(params) {
    const sets = Object.keys(study.quantiles);
    const about =
      "Choose prompts by their score and draw them again, and the lowest rise, the highest fall: a rebound, not a rescue. The placebo is vanilla drawn again with other seeds; a treatment helps where it is above its placebo.";
    if (!sets.length) {
      return chart.panel(
        "By quantile of the prompts",
        about,
        chart.nothing(
          "This needs vanilla samples with seeds of the roles select, eval and placebo, and at least ten prompts.",
        ),
      );
    }
    const pick = (name, values) => (values.includes(params.get(name)) ? params.get(name) : values[0]);
    const set = pick("set", sets);
    const id = pick("metric", Object.keys(study.quantiles[set]));
    const found = study.quantiles[set][id];
    const settings = study.settings.filter((one) => found[one.id]);
    const setting = pick(
      "setting",
      settings.map((one) => one.id),
    );
    const kind = pick("kind", ["fair", "naive"]);
    const put = (name) => (value) => route.go({ [name]: value });
    const place = h("div", { class: "plot" });
    chart.drawn(place, (width, height) => curves(found[setting], kind, metric(id).title, width, height));
    return chart.panel(
      "By quantile of the prompts",
      about,
      h(
        "div",
        { class: "fields" },
        choice(
          "Metric",
          Object.keys(study.quantiles[set]).map((one) => [one, metric(one).title]),
          id,
          put("metric"),
        ),
        choice(
          "Setting",
          settings.map((one) => [one.id, one.name]),
          setting,
          put("setting"),
        ),
        choice(
          "Chosen by",
          [
            ["fair", "Other seeds (fair)"],
            ["naive", "The same images (naive)"],
          ],
          kind,
          put("kind"),
        ),
        sets.length > 1 &&
          choice(
            "Prompts",
            sets.map((name) => [name, name]),
            set,
            put("set"),
          ),
      ),
      place,
      chart.legend(CURVES[kind].map(([, label, colour]) => [label, colour])),
      kind === "naive" &&
        h(
          "p",
          { class: "warning" },
          "Selection-biased: the scores that chose the images are also what they are compared with. Only the gap to the placebo counts.",
        ),
    );
  }

  function show(view, params) {
    if (view !== "diagnosis") return;
    const root = document.querySelector("[data-diagnosis]");
    const branches = Object.keys(study.correlations);
    const branch = branches.includes(params.get("branch")) ? params.get("branch") : branches[0];
    refill(
      root,
      chart.panel(
        "Measures and scores",
        "Rank correlation (Spearman) over vanilla samples, with 95% intervals over prompts; with diversity over prompts. Blue: they rise together; orange: one falls as the other rises. Point at a cell, or reach it with the arrow keys, for its interval.",
        ...(branch
          ? [
              branches.length > 1 &&
                h(
                  "div",
                  { class: "fields" },
                  choice(
                    "Branch of guidance",
                    branches.map((name) => [name, name]),
                    branch,
                    (value) => route.go({ branch: value }),
                  ),
                ),
              correlations(branch),
            ].filter(Boolean)
          : [chart.nothing("No vanilla sample was diagnosed, or none was scored.")]),
      ),
      quantilePanel(params),
    );
  }

  route.listen(show);
})();

"use strict";

/** The means of settings: of each metric, its value or its change against vanilla, with intervals over prompts. */
symskew.means = (() => {
  const { isNumber, digitsFor, interval, words } = symskew.dom;
  const { study } = symskew.data;

  const PASSES = "passes";
  const sets = Object.keys(study.means);

  /** `[value, low, high, prompts]` by name. */
  const estimate = ([mean, low, high, n]) => ({ mean, low, high, n });

  /** The metrics that settings of a set of prompts have. */
  const metricsOf = (set) =>
    study.metrics.filter(({ id }) => Object.values(study.means[set]).some((cells) => cells[id]));

  const metric = (id) => study.metrics.find((one) => one.id === id);
  const higher = (id) => id !== PASSES && metric(id).higher;

  /** The heading of a metric or its change, with an arrow to where it is better. */
  function headed(id, as) {
    const title = id === PASSES ? "Denoiser passes per step" : metric(id).title;
    return `${as === "change" && id !== PASSES ? "Change of " : ""}${title} ${higher(id) ? "↑" : "↓"}`;
  }

  /** Where a setting is on an axis: {mean, low, high, n}; nothing where it was not measured. */
  function place(setting, id, { set, as }) {
    if (id === PASSES) {
      const { passes } = setting;
      return isNumber(passes) ? { mean: passes, low: passes, high: passes } : undefined;
    }
    const cell = study.means[set][setting.id]?.[id];
    if (cell?.[as]) return estimate(cell[as]);
    // Against itself vanilla has changed by nothing, for certain.
    const itself = as === "change" && setting.family === "vanilla" && cell;
    return itself ? { mean: 0, low: 0, high: 0, n: cell.value[3] } : undefined;
  }

  /** A place in words. */
  function told(id, as, value) {
    if (id === PASSES) return words(value.mean, 1);
    return interval(value, digitsFor(value.high - value.low || Math.abs(value.mean)), as === "change");
  }

  return { PASSES, sets, estimate, metric, metricsOf, higher, headed, place, told };
})();

"use strict";

/** The samples: columns by row. What failed has a row too, without an image, and says why. */
symskew.store = (() => {
  const { study, samples } = symskew.data;
  const { digitsFor } = symskew.dom;

  /** What `packed` packed, as a buffer for a typed array. */
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
  const whole = Object.fromEntries(
    ["prompt", "setting", "seed", "role", "partner", "width", "height", "has"].map((name) => [
      name,
      new Int32Array(bytes(samples[name])),
    ]),
  );
  const numbers = new Map();
  const digits = new Map();

  /** All values of a key, NaN where there is none. */
  function column(key) {
    if (!numbers.has(key)) numbers.set(key, new Float32Array(bytes(samples.columns[key])));
    return numbers.get(key);
  }

  const ids = samples.ids;
  const rows = new Map(ids.map((id, row) => [id, row]));
  const metrics = new Map(study.metrics.map((metric) => [metric.id, metric]));

  /** What can be sorted by: [group, [{key, title, unit, higher}, …]]. */
  const groups = (() => {
    const found = new Map();
    for (const key of Object.keys(samples.columns)) {
      const at = key.indexOf(":");
      const name = key.slice(at + 1);
      let group = "Scores";
      let entry;
      if (key.startsWith("metric:")) {
        const { title, unit, higher } = metrics.get(name);
        entry = { key, title, unit, higher };
      } else {
        const [measure, stage, branch] = name.split("/");
        group = `${stage[0].toUpperCase()}${stage.slice(1)} layers, ${branch}`;
        entry = { key, title: measure, unit: "" };
      }
      if (!found.has(group)) found.set(group, []);
      found.get(group).push(entry);
    }
    return [...found];
  })();
  const entries = new Map(groups.flatMap(([, some]) => some.map((entry) => [entry.key, entry])));

  const value = (row, key) => column(key)[row];
  const partner = (row) => whole.partner[row];

  /** Against vanilla at the same prompt and seed; NaN where there is no such sample. */
  function change(row, key) {
    const other = whole.partner[row];
    return other < 0 ? NaN : column(key)[row] - column(key)[other];
  }

  /** Digits after the point that tell the values of a key apart. */
  function digitsOf(key) {
    if (!digits.has(key)) {
      let [low, high, whole] = [Infinity, -Infinity, true];
      for (const one of column(key)) {
        if (one < low) low = one;
        if (one > high) high = one;
        whole &&= Number.isNaN(one) || Number.isInteger(one);
      }
      digits.set(key, whole ? 0 : digitsFor(high - low));
    }
    return digits.get(key);
  }

  let byMoment;

  /** The rows of the same prompt and seed, vanilla first, then as settings go. */
  function twins(row) {
    if (!byMoment) {
      byMoment = new Map();
      for (let one = 0; one < ids.length; one++) {
        const moment = `${whole.prompt[one]} ${whole.seed[one]}`;
        if (!byMoment.has(moment)) byMoment.set(moment, []);
        byMoment.get(moment).push(one);
      }
      for (const some of byMoment.values()) some.sort((a, b) => whole.setting[a] - whole.setting[b]);
    }
    return byMoment.get(`${whole.prompt[row]} ${whole.seed[row]}`);
  }

  /** All rows, prompt by prompt and seed by seed, so that what settings made of the same noise stands together. */
  const inOrder = Array.from(ids.keys()).sort(
    (a, b) => whole.prompt[a] - whole.prompt[b] || whole.seed[a] - whole.seed[b] || whole.setting[a] - whole.setting[b],
  );

  const IMAGE = 1;
  const THUMB = 2;
  const MAP = 4;

  return {
    bytes,
    count: ids.length,
    groups,
    entries,
    value,
    change,
    column,
    partner,
    digitsOf,
    twins,
    inOrder,
    id: (row) => ids[row],
    row: (id) => rows.get(id),
    prompt: (row) => samples.prompts[whole.prompt[row]],
    promptNumber: (row) => whole.prompt[row],
    setting: (row) => study.settings[whole.setting[row]],
    settingNumber: (row) => whole.setting[row],
    seed: (row) => samples.seeds[whole.seed[row]],
    role: (row) => samples.roles[whole.role[row]],
    size: (row) => [whole.width[row], whole.height[row]],
    error: (row) => samples.errors[row],
    failed: (row) => !(whole.has[row] & IMAGE),
    mapped: (row) => Boolean(whole.has[row] & MAP),
    image: (row) => `images/${ids[row]}.png`,
    thumb: (row) => (whole.has[row] & THUMB ? `thumbs/${ids[row]}.jpg` : `images/${ids[row]}.png`),
  };
})();

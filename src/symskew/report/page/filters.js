"use strict";

/** Which samples the gallery shows, and in what order: from the address, and into it. */
symskew.filters = (() => {
  const { h, choice, count, announce } = symskew.dom;
  const { store, route } = symskew;
  const { study, samples } = symskew.data;

  const NAMES = ["setting", "family", "set", "role", "outcome", "text", "by", "as", "order", "from", "to"];

  /** What the address asks for; what it names that does not exist is left out. */
  function wanted(params) {
    const of = (name) => params.get(name) ?? "";
    const known = (name, values) => (values.includes(of(name)) ? of(name) : "");
    const limit = (name) => (of(name).trim() === "" || Number.isNaN(Number(of(name))) ? undefined : Number(of(name)));
    return {
      setting: known(
        "setting",
        study.settings.map((setting) => setting.id),
      ),
      family: known("family", study.families),
      set: known("set", samples.sets),
      role: known("role", samples.roles),
      outcome: known("outcome", ["images", "failed"]),
      text: of("text"),
      by: store.entries.has(of("by")) ? of("by") : "",
      as: known("as", ["change"]),
      order: known("order", ["lowest"]),
      from: limit("from"),
      to: limit("to"),
    };
  }

  /** What a sample is sorted by and shows: its value, or its change against vanilla. */
  const reader = ({ by, as }) => (as ? (row) => store.change(row, by) : (row) => store.value(row, by));

  /** The rows to show, in order; what has no value comes last, equals as they were made. */
  function find(state) {
    const text = state.text.trim().toLocaleLowerCase();
    const fits = samples.prompts.map(
      (prompt) =>
        (!state.set || prompt.set === state.set) &&
        (!text || prompt.text.toLocaleLowerCase().includes(text) || prompt.id.toLocaleLowerCase() === text),
    );
    const settings = study.settings.map(
      (setting) =>
        (!state.setting || setting.id === state.setting) && (!state.family || setting.family === state.family),
    );
    const read = reader(state);
    const limited = state.by && (state.from !== undefined || state.to !== undefined);
    const rows = [];
    for (const row of store.inOrder) {
      if (!settings[store.settingNumber(row)] || !fits[store.promptNumber(row)]) continue;
      if (state.role && store.role(row) !== state.role) continue;
      if (state.outcome && store.failed(row) !== (state.outcome === "failed")) continue;
      if (limited) {
        const value = read(row);
        if (!(value >= (state.from ?? -Infinity) && value <= (state.to ?? Infinity))) continue;
      }
      rows.push(row);
    }
    if (!state.by) return rows;
    const sign = state.order === "lowest" ? 1 : -1;
    const values = new Map(rows.map((row) => [row, read(row)]));
    return rows.sort((a, b) => {
      const [x, y] = [values.get(a), values.get(b)];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a - b;
      return sign * (x - y) || a - b;
    });
  }

  /** In words, for the line above the samples. */
  function describe(state, shown) {
    const title = state.by && store.entries.get(state.by).title;
    const order = state.order === "lowest" ? "lowest first" : "highest first";
    const sorted = title ? `, by ${state.as ? `change of ${title} against vanilla` : title}, ${order}` : ", by prompt and seed";
    return `${count(shown)} of ${count(store.count)} samples${sorted}`;
  }

  const put = (name) => (value) => route.go({ [name]: value });

  /** A box to type in; what is typed takes effect at once and adds one step to the history, not one a letter. */
  function box(label, name, type, attributes = {}) {
    let typing = false;
    const input = h("input", {
      type,
      autocomplete: "off",
      ...attributes,
      oninput: () => {
        route.go({ [name]: input.value }, { replace: typing });
        typing = true;
      },
      onblur: () => {
        typing = false;
      },
    });
    return { input, field: h("label", { class: "field" }, h("span", {}, label), input) };
  }

  const all = (name, values) => [
    ["", `All ${name}`],
    ...values.map((value) => (Array.isArray(value) ? value : [value, value])),
  ];

  /** The form. `show(state)` brings it in line with the address. */
  function build() {
    const fields = {
      setting: choice(
        "Setting",
        all(
          "settings",
          study.settings.map(({ id, name }) => [id, name]),
        ),
        "",
        put("setting"),
      ),
      family: choice("Family", all("families", study.families), "", put("family")),
      set: choice("Prompt set", all("prompts", samples.sets), "", put("set")),
      role: choice("Role of the seed", all("roles", samples.roles), "", put("role")),
      outcome: choice(
        "Outcome",
        [
          ["", "Images and failures"],
          ["images", "Images"],
          ["failed", "Failures"],
        ],
        "",
        put("outcome"),
      ),
      by: choice(
        "Sort by",
        [
          ["", "Prompt and seed"],
          ...store.groups.map(([group, some]) => [group, some.map(({ key, title }) => [key, title])]),
        ],
        "",
        put("by"),
      ),
      as: choice(
        "Shown as",
        [
          ["", "Value"],
          ["change", "Change against vanilla"],
        ],
        "",
        put("as"),
      ),
      order: choice(
        "Order",
        [
          ["", "Highest first"],
          ["lowest", "Lowest first"],
        ],
        "",
        put("order"),
      ),
    };
    const text = box("Words in the prompt", "text", "search", { placeholder: "a red three", dir: "auto" });
    const from = box("From", "from", "number", { step: "any" });
    const to = box("To", "to", "number", { step: "any" });
    const clear = h("button", { type: "button", class: "quiet", onclick: clearAll }, "Clear all");
    const sorted = h(
      "div",
      { class: "fields" },
      fields.as,
      fields.order,
      h("div", { class: "pair" }, from.field, to.field),
    );
    const form = h(
      "form",
      { class: "filters", "aria-label": "Which samples, in what order", onsubmit: (event) => event.preventDefault() },
      h("fieldset", {}, h("legend", {}, "Order"), h("div", { class: "fields" }, fields.by), sorted),
      h(
        "fieldset",
        {},
        h("legend", {}, "Only"),
        h(
          "div",
          { class: "fields" },
          text.field,
          fields.setting,
          fields.family,
          fields.set,
          fields.role,
          fields.outcome,
        ),
      ),
      clear,
    );

    function show(state) {
      for (const [name, field] of Object.entries(fields)) field.querySelector("select").value = state[name];
      for (const [name, { input }] of Object.entries({ text, from, to })) {
        if (document.activeElement !== input) input.value = state[name] ?? "";
      }
      sorted.hidden = !state.by;
      clear.disabled = !NAMES.some((name) => state[name] !== "" && state[name] !== undefined);
    }

    return { form, show };
  }

  function clearAll() {
    route.go(Object.fromEntries(NAMES.map((name) => [name, ""])));
    announce("All filters cleared.");
  }

  return { wanted, find, reader, describe, build, clearAll, NAMES };
})();

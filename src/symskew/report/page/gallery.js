"use strict";

/** The samples as a grid, of which only what is in sight exists. */
symskew.gallery = (() => {
  const { h, words, announce } = symskew.dom;
  const { store, route, filters } = symskew;

  const SIZES = { small: 96, medium: 136, large: 208 };
  const GAP = 12;
  const CAPTION = 62;
  const SPARE = 3; // rows beyond the edges of the window
  const CALM = 80; // milliseconds

  const cells = new Map(); // by place in the order
  let rows = [];
  let state;
  let layout = { columns: 1, width: 1, height: 1 };
  let current = 0; // the place that the tab key stops at
  let asked = "";
  let waiting = false;
  let last = 0; // where the page was scrolled to when cells were painted last
  let calm; // the timer until images are loaded

  const line = h("p", { class: "found", "data-found": true });
  const list = h("div", { class: "cells", role: "list", "aria-label": "Samples" });
  const empty = h(
    "div",
    { class: "empty", hidden: true },
    h("p", {}, "No sample fits."),
    h("button", { type: "button", onclick: filters.clearAll }, "Clear all filters"),
  );
  const form = filters.build();
  const sizes = h(
    "div",
    { class: "switch", role: "group", "aria-label": "Size of the images" },
    Object.keys(SIZES).map((name) =>
      h(
        "button",
        {
          type: "button",
          "data-size": name,
          onclick: () => route.go({ size: name === "medium" ? "" : name }, { replace: true }),
        },
        name,
      ),
    ),
  );
  const drawer = h("details", { class: "drawer" }, h("summary", {}, "Order and filters"), form.form);

  function cell(place) {
    const row = rows[place];
    const setting = store.setting(row);
    const prompt = store.prompt(row).text;
    const value = state.by && words(filters.reader(state)(row), store.digitsOf(state.by), Boolean(state.as));
    const failed = store.failed(row);
    const picture = failed
      ? h("span", { class: "failed" }, "failed")
      : h("img", { "data-src": store.thumb(row), alt: "", decoding: "async", draggable: "false", class: pixels(row) });
    const link = h(
      "a",
      {
        href: route.changed({ open: store.id(row), with: "" }),
        tabindex: place === current ? "0" : "-1",
        title: prompt,
        "data-id": store.id(row),
      },
      h("span", { class: "frame" }, picture),
      value ? h("span", { class: "value" }, value) : h("span", { class: "words", dir: "auto" }, prompt),
      h(
        "span",
        { class: "of", dir: "auto" },
        h("span", { class: `mark c${setting.colour % 10}`, "aria-hidden": "true" }),
        setting.name,
      ),
      h("span", { class: "unseen" }, `seed ${store.seed(row)}`, value && `, ${prompt}`),
    );
    return h("div", { role: "listitem", "aria-setsize": rows.length, "aria-posinset": place + 1 }, link);
  }

  /** Tiny images are enlarged by whole pixels: smoothing would show what is not there. */
  function pixels(row) {
    return Math.max(...store.size(row)) <= 256 ? "pixels" : "";
  }

  function measure() {
    const width = list.clientWidth;
    const least = SIZES[state.size];
    const columns = Math.max(2, Math.floor((width + GAP) / (least + GAP)));
    const side = (width - GAP * (columns - 1)) / columns;
    layout = { columns, width: side, height: side + CAPTION + GAP };
    list.style.setProperty("--cell", `${side}px`);
    list.style.height = `${Math.ceil(rows.length / columns) * layout.height}px`;
  }

  /** Put the cells in sight into the page, and take the others out; the one with the focus stays. */
  function paint() {
    waiting = false;
    if (list.offsetParent === null) return;
    const top = list.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(-top / layout.height) - SPARE) * layout.columns;
    const end = Math.min(rows.length, (Math.ceil((innerHeight - top) / layout.height) + SPARE) * layout.columns);
    for (const [place, element] of cells) {
      if ((place < first || place >= end) && !element.contains(document.activeElement)) {
        element.remove();
        cells.delete(place);
      }
    }
    for (let place = first; place < end; place++) ensure(place);
    // What rushes by is not seen: its images would only hold up those that are looked at.
    const rushing = Math.abs(scrollY - last) > innerHeight / 2;
    last = scrollY;
    clearTimeout(calm);
    if (rushing) calm = setTimeout(load, CALM);
    else load();
  }

  function load() {
    for (const image of list.querySelectorAll("img[data-src]")) {
      image.src = image.dataset.src;
      delete image.dataset.src;
    }
  }

  function ensure(place) {
    let element = cells.get(place);
    if (!element) {
      element = cell(place);
      const [across, down] = [place % layout.columns, Math.floor(place / layout.columns)];
      element.style.transform = `translate(${across * (layout.width + GAP)}px, ${down * layout.height}px)`;
      cells.set(place, element);
      list.append(element);
    }
    return element;
  }

  function soon() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(paint);
  }

  function rebuild() {
    const focused = list.contains(document.activeElement);
    list.replaceChildren();
    cells.clear();
    measure();
    last = scrollY;
    paint();
    if (focused) focus(current);
  }

  function focus(place) {
    current = Math.min(Math.max(place, 0), rows.length - 1);
    const link = ensure(current).firstChild;
    for (const element of cells.values()) element.firstChild.tabIndex = element.firstChild === link ? 0 : -1;
    link.focus({ preventScroll: true });
    link.scrollIntoView({ block: "nearest" });
    soon();
  }

  list.addEventListener("focusin", (event) => {
    const place = [...cells].find(([, element]) => element.contains(event.target))?.[0];
    if (place !== undefined && place !== current) focus(place);
  });

  list.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(innerHeight / layout.height) - 1) * layout.columns;
    const steps = {
      ArrowLeft: -1,
      ArrowRight: 1,
      ArrowUp: -layout.columns,
      ArrowDown: layout.columns,
      PageUp: -page,
      PageDown: page,
      Home: -Infinity,
      End: Infinity,
    };
    const step = steps[event.key];
    if (step === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    focus(current + step);
  });

  function show(view, params) {
    if (view !== "gallery") return;
    const size = params.get("size") in SIZES ? params.get("size") : "medium";
    state = { ...filters.wanted(params), size };
    const key = JSON.stringify(state);
    if (key === asked) {
      soon();
      return;
    }
    const first = asked === "";
    asked = key;
    rows = filters.find(state);
    current = 0;
    form.show(state);
    line.textContent = filters.describe(state, rows.length);
    if (!first) announce(line.textContent);
    empty.hidden = rows.length > 0;
    for (const button of sizes.children) button.setAttribute("aria-pressed", String(button.dataset.size === size));
    const above = list.getBoundingClientRect().top;
    if (above < 0 && !first) scrollTo(0, Math.max(0, scrollY + list.parentElement.getBoundingClientRect().top - 80));
    rebuild();
  }

  function build(root) {
    const wide = matchMedia("(min-width: 60rem)");
    const adapt = () => {
      drawer.open = wide.matches;
    };
    wide.addEventListener("change", adapt);
    adapt();
    root.append(
      h("aside", { class: "side" }, drawer),
      h("div", { class: "results" }, h("div", { class: "results-head" }, line, sizes), list, empty),
    );
    addEventListener("scroll", soon, { passive: true });
    let known = 0;
    new ResizeObserver(() => {
      if (!list.clientWidth || list.clientWidth === known) return;
      known = list.clientWidth;
      if (state) rebuild();
    }).observe(list);
    route.listen(show);
  }

  /** The sample before or after another in the present order. */
  function beside(row, step) {
    const place = rows.indexOf(row);
    return place < 0 ? undefined : rows[place + step];
  }

  /** Bring the focus to a sample, where it is in the present order. */
  function reach(row) {
    const place = rows.indexOf(row);
    if (place >= 0 && list.offsetParent !== null) focus(place);
  }

  return { build, beside, reach };
})();

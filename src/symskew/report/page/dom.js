"use strict";

/** Elements, the tip beside what is pointed at, words for numbers, and the address. Text is only ever set as text. */
symskew.dom = (() => {
  const SVG = "http://www.w3.org/2000/svg";

  function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (value === undefined || value === null || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(
      ...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false),
    );
    return element;
  }

  /** An HTML element: attributes by name, listeners as `onclick`, then its children. */
  const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

  /** The same for SVG. */
  const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

  const tip = document.getElementById("tip");

  function showTip(target, lines) {
    tip.replaceChildren(...lines.map((line, number) => h(number ? "span" : "strong", { dir: "auto" }, line)));
    tip.hidden = false;
    const at = target.getBoundingClientRect();
    const own = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, at.left + at.width / 2 - own.width / 2), innerWidth - own.width - 8);
    const above = at.top - own.height - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 8 ? above : at.bottom + 8}px`;
  }

  function hideTip() {
    tip.hidden = true;
  }

  addEventListener("scroll", hideTip, { passive: true, capture: true });
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || tip.hidden) return;
    hideTip();
    event.preventDefault();
  });

  /** Show lines beside an element while it is pointed at or focused. */
  function explain(element, lines) {
    const show = () => showTip(element, typeof lines === "function" ? lines() : lines);
    element.addEventListener("pointerenter", show);
    element.addEventListener("focus", show);
    element.addEventListener("pointerleave", hideTip);
    element.addEventListener("blur", hideTip);
    return element;
  }

  /**
   * One stop of the tab key for many elements: arrows move between them. `move(element, key)` gives the next one.
   */
  function rove(container, items, move) {
    let current = items()[0];
    const settle = (element) => {
      current?.setAttribute("tabindex", "-1");
      current = element;
      current?.setAttribute("tabindex", "0");
    };
    for (const item of items()) item.setAttribute("tabindex", "-1");
    settle(current);
    container.addEventListener("focusin", (event) => {
      if (items().includes(event.target)) settle(event.target);
    });
    container.addEventListener("keydown", (event) => {
      if (!/^(Arrow|Home|End)/.test(event.key) || !items().includes(event.target)) return;
      event.preventDefault();
      (move(event.target, event.key) ?? event.target).focus();
    });
  }

  /** Next of a list in a row: left and up go back, right and down go on. */
  function along(list, element, key) {
    const at = list.indexOf(element);
    if (key === "Home") return list[0];
    if (key === "End") return list.at(-1);
    return list[at + (key === "ArrowLeft" || key === "ArrowUp" ? -1 : 1)];
  }

  const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

  /** A number with so many digits after the point, with a true minus. */
  function words(value, digits, signed = false) {
    if (!isNumber(value)) return "–";
    const text = Math.abs(value) >= 1e6 ? value.toExponential(2) : value.toFixed(digits);
    const plain = /^-?0\.?0*$/.test(text) ? text.replace("-", "") : text;
    return (signed && value > 0 && !/^0\.?0*$/.test(plain) ? `+${plain}` : plain).replace("-", "−");
  }

  /** Digits after the point that tell values of this range apart, and small ones from 0. */
  function digitsFor(range) {
    if (!(range > 0)) return 2;
    return Math.min(6, Math.max(range < 1000 ? 2 : 0, 2 - Math.floor(Math.log10(range))));
  }

  /** An estimate {mean, low, high} as "0.51 (0.48 to 0.53)". */
  function interval(estimate, digits, signed = false) {
    const [mean, low, high] = [estimate.mean, estimate.low, estimate.high].map((v) => words(v, digits, signed));
    return `${mean} (${low} to ${high})`;
  }

  const count = (number) => number.toLocaleString("en");

  /** A select with its label. Options are [value, text], or [group, [[value, text], …]]. */
  function choice(label, options, value, onchange) {
    const option = ([key, text]) => h("option", { value: key, selected: key === value }, text);
    const select = h(
      "select",
      { "data-field": label, onchange: () => onchange(select.value) },
      options.map(([key, text]) =>
        Array.isArray(text) ? h("optgroup", { label: key }, text.map(option)) : option([key, text]),
      ),
    );
    return h("label", { class: "field" }, h("span", {}, label), select);
  }

  /** Put other content in a place; the field that had the focus has it still. */
  function refill(root, ...children) {
    const name = document.activeElement?.dataset.field;
    root.replaceChildren(...children);
    if (name) root.querySelector(`[data-field="${name}"]`)?.focus();
  }

  const status = document.querySelector("#status");

  /** Tell those who do not see the page what happened. */
  function announce(text) {
    status.textContent = text;
  }

  return { h, s, explain, hideTip, rove, along, isNumber, words, digitsFor, interval, count, choice, refill, announce };
})();

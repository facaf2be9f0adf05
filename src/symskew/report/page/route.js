"use strict";

/** The state of the page is its address: `#gallery?setting=…&open=…`. */
symskew.route = (() => {
  const listeners = [];
  const places = new Map();
  let previous = location.hash;

  const read = () => ({
    view: symskew.viewOf(location.hash),
    params: new URLSearchParams(location.hash.includes("?") ? location.hash.slice(location.hash.indexOf("?") + 1) : ""),
  });

  /** The address of a view with these parameters; those without a value are left out. */
  function address(view, params) {
    const kept = new URLSearchParams([...params].filter(([, value]) => value));
    return kept.size ? `#${view}?${kept}` : `#${view}`;
  }

  /** The address that differs from the present one by these parameters. */
  function changed(changes) {
    const { view, params } = read();
    for (const [name, value] of Object.entries(changes)) params.set(name, value ?? "");
    return address(view, params);
  }

  /** Go there; the back button comes back, unless the present address is replaced. */
  function go(changes, { replace = false } = {}) {
    const target = changed(changes);
    if (target === location.hash) return;
    if (replace) {
      history.replaceState(history.state, "", target);
      tell();
    } else {
      location.hash = target;
    }
  }

  /** Go to an address that can be left again by going back. */
  function enter(target) {
    history.pushState({ entered: true }, "", target);
    tell();
  }

  /** Go back to where `enter` was called; where the address was opened as it is, change these parameters instead. */
  function leave(changes) {
    if (history.state?.entered) history.back();
    else go(changes, { replace: true });
  }

  function tell() {
    const { view, params } = read();
    const from = symskew.viewOf(previous);
    if (view !== from) places.set(from, scrollY);
    previous = location.hash;
    document.documentElement.dataset.view = view;
    for (const listener of listeners) listener(view, params);
    if (view !== from) scrollTo(0, view === "gallery" ? (places.get(view) ?? 0) : 0);
  }

  function listen(listener) {
    listeners.push(listener);
  }

  history.scrollRestoration = "manual";
  addEventListener("hashchange", tell);

  return { read, address, changed, go, enter, leave, listen, start: tell };
})();

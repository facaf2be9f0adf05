"use strict";

/** Everything is there: follow the address. */
(() => {
  const { route, gallery, detail } = symskew;

  function mark(view) {
    for (const link of document.querySelectorAll("nav a")) {
      if (link.getAttribute("href") === `#${view}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  // The address is the state, so this link cannot be an address of its own.
  document.querySelector("[data-skip]").addEventListener("click", (event) => {
    event.preventDefault();
    document.querySelector("main").focus();
  });

  // Samples open in place; with a modifier key they open elsewhere, as links do.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href*='open=']");
    if (!link || event.button || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    route.enter(link.getAttribute("href"));
  });

  gallery.build(document.querySelector("[data-gallery]"));
  route.listen(detail.show);
  route.listen(mark);
  route.start();
  document.documentElement.dataset.ready = "";
})();

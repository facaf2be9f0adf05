"use strict";

/** What the scripts of the page share. Data files put their content under `symskew.data`. */
const symskew = { data: { maps: {} } };

/** Which part of the report the address names; runs before the first paint, so that nothing jumps. */
symskew.viewOf = (hash) => {
  const name = hash.slice(1).split("?")[0];
  return ["overview", "tradeoff", "diagnosis", "gallery", "provenance"].includes(name) ? name : "overview";
};

document.documentElement.dataset.view = symskew.viewOf(location.hash);

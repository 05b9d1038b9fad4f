// Parts that come when their pictures have.

import { h } from "./dom.js";

const PATIENCE_MS = 200;

/** A place that is filled with what `show` makes of what is promised. */
export function later(promise, show) {
  const place = h("div", { class: "later", "aria-busy": "true" }, h("p", { class: "quiet" }, "loading…"));
  place.ready = promise.then(show).then(
    (shown) => place.replaceChildren(...[shown].flat()),
    (error) => place.replaceChildren(h("p", { class: "problem", role: "alert" }, error.message)),
  ).finally(() => place.removeAttribute("aria-busy"));
  return place;
}

/** When all is there, or it takes long: until then what stands there stays, so that nothing flickers as the slider moves. */
export const soon = (promises) =>
  Promise.race([Promise.allSettled(promises), new Promise((done) => { setTimeout(done, PATIENCE_MS); })]);

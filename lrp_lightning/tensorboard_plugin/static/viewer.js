// Pictures enlarged, one after the other.

import { button, h } from "./dom.js";
import { blendSlider } from "./blend.js";
import { pairControls } from "./pairs.js";

/**
 * Show one of `items` over the page. Arrow keys go through them, Escape closes.
 *
 * @param items [{heading, lines: [text], pictures() -> [[caption, element], ...]}].
 */
export function enlarge(items, at) {
  const heading = h("h2", { "aria-live": "polite" });
  const place = h("span", { class: "quiet" });
  const pictures = h("div", { class: "enlarged" });
  const lines = h("div", {});
  const go = (to) => {
    at = (to + items.length) % items.length;
    const item = items[at];
    heading.textContent = item.heading;
    place.textContent = `${at + 1} of ${items.length}`;
    pictures.replaceChildren(...item.pictures().map(([caption, picture]) => h("figure", {}, picture, h("figcaption", { class: "quiet" }, caption))));
    lines.replaceChildren(...item.lines.map((line) => h("p", {}, line)));
  };
  const viewer = h("dialog", { class: "viewer", "aria-label": "Enlarged" },
    h("header", {}, heading, button("✕", "Close (Escape)", () => viewer.close(), { class: "close" })),
    pictures, lines,
    h("footer", {}, button("‹", "Previous (left arrow)", () => go(at - 1)), place, button("›", "Next (right arrow)", () => go(at + 1)), pairControls(), blendSlider()));
  viewer.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step && event.target.type !== "range") go(at + step);
  });
  viewer.addEventListener("click", (event) => event.target === viewer && viewer.close());
  viewer.addEventListener("close", () => viewer.remove());
  document.body.append(viewer);
  go(at);
  viewer.showModal();
}

/** Pictures as a button that enlarges them. */
export const enlarging = (label, open, ...pictures) =>
  h("button", { type: "button", class: "enlarge", "aria-label": `Enlarge ${label}`, onclick: open }, pictures);

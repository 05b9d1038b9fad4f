// What the tab shows as one HTML file: styles and pictures in it, no script, nothing to fetch; light or dark as its reader's system.

import { zeroOf } from "./colours.js";
import { h, s } from "./dom.js";
import { save } from "./exports.js";
import { theme } from "./theme.js";

const LIVE = [".live", "select", "input", ".helps", ".blends", ".pair-controls", ".amount", ".zoom", ".pinning", ".opening", ".told", ".hit", ".close", ".strategies .key",
  "label:has(select)", "[hidden]"].join(); // what a file without script cannot do
const LEAST_ZOOM = 0.7; // of the graph
const OF_A_FILE = `
html, body { height: auto; }
.app { height: auto; min-width: 0; max-width: 1600px; margin: 0 auto; }
.board > .column, .board > aside { overflow: visible; }
.saved { padding: 14px 12px 4px; }
.saved h1 { margin: 0; font-size: 19px; font-weight: 600; overflow-wrap: anywhere; }
footer.saved { padding-bottom: 24px; }
footer.saved dd { text-align: left; }
.node, .button, .enlarge, .chart.picks { cursor: auto; }
.scroller.near { max-height: none; }
@media (max-width: 900px) { .board { grid-template-columns: minmax(0, 1fr); } aside { border: 0; } }
@media print { .board { display: block; } .panel { break-inside: avoid; } }
`;

/**
 * @param board what is seen.
 * @param words {title, about: [text, ...], settings: {name: text}}.
 */
export async function saveHtml(name, board, { title, about, settings }) {
  await Promise.allSettled([...board.querySelectorAll(".later")].map((place) => place.ready));
  const body = h("body", {}, h("div", { class: "app" },
    h("header", { class: "saved" }, h("h1", {}, title), about.map((line) => h("p", { class: "quiet" }, line))),
    copyOf(board),
    h("footer", { class: "saved" }, h("dl", { class: "facts" }, Object.entries(settings).flatMap(([key, value]) => [h("dt", {}, key), h("dd", {}, value)])))));
  const text = (element) => new XMLSerializer().serializeToString(element);
  save(name, `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
${text(h("title", {}, title))}<style>${styles()}${OF_A_FILE}</style></head>
${text(body)}</html>
`, "text/html");
}

function copyOf(board) {
  const copy = board.cloneNode(true);
  const canvases = [...board.querySelectorAll("canvas")];
  copy.querySelectorAll("canvas").forEach((canvas, i) => canvas.replaceWith(
    h("img", { class: canvas.className, src: addressOf(canvases[i]), alt: canvas.getAttribute("aria-label"), title: canvas.title })));
  copy.querySelectorAll(LIVE).forEach((element) => element.remove());
  for (const button of copy.querySelectorAll("button")) {
    button.replaceWith(h("span", { class: `button ${button.className}`, title: button.classList.contains("enlarge") ? null : button.title }, [...button.childNodes]));
  }
  for (const node of copy.querySelectorAll(".node")) {
    node.prepend(s("title", {}, node.getAttribute("aria-label")));
    for (const attribute of ["tabindex", "role", "aria-pressed"]) node.removeAttribute(attribute);
  }
  const graph = copy.querySelector("svg.graph");
  if (graph) {
    const width = `${graph.getAttribute("width")}px`; // smaller where there is less room, as long as it can be read
    Object.assign(graph.style, { width: `min(${width}, max(100%, ${LEAST_ZOOM} * ${width}))`, height: "auto" });
    graph.setAttribute("aria-label", "Graph of critical paths");
  }
  copy.querySelectorAll('[style*="min-height"]').forEach((element) => { element.style.minHeight = ""; });
  return copy;
}

/** A picture's data; of a heatmap that lies on the page the page's own colour is left out, so that it is right on another too. */
function addressOf(canvas) {
  if (!canvas.classList.contains("on-page")) return canvas.toDataURL();
  const { width, height } = canvas;
  const pixels = canvas.getContext("2d").getImageData(0, 0, width, height);
  const zero = zeroOf(theme());
  for (let at = 0; at < pixels.data.length; at += 4) {
    const colour = [...pixels.data.subarray(at, at + 3)];
    const part = Math.max(...colour.map((value, i) => (value > zero[i] ? (value - zero[i]) / (255 - zero[i]) : (zero[i] - value) / zero[i])));
    if (part > 0) pixels.data.set(colour.map((value, i) => zero[i] + (value - zero[i]) / part), at);
    pixels.data[at + 3] = 255 * part;
  }
  const clear = h("canvas", { width, height });
  clear.getContext("2d").putImageData(pixels, 0, 0);
  return clear.toDataURL();
}

/** The page's style sheet for elements that stand in for others. */
function styles() {
  const rules = [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules]).map(({ cssText }) => cssText);
  return rules.map((rule) => (rule.startsWith('[data-theme="dark"]') ? `@media (prefers-color-scheme: dark) { ${rule.replace('[data-theme="dark"]', ":root")} }` : rule))
    .join("\n").replace(/\bcanvas\b/g, "img").replace(/(?<![-.\w])button\b/g, ".button");
}

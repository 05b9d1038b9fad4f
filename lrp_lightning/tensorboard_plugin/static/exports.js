// What is shown, as files.

import { s } from "./dom.js";
import { ofKey } from "./graph.js";
import { graphml } from "./graphml.js";
import { groupOf, membersOf } from "./groups.js";

const INHERITED = ["fill", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-linejoin", "paint-order", "font-size", "font-family",
  "font-weight", "text-anchor", "image-rendering"];
const MARGIN = 16;
const [HEAD, KEY_ROW, LETTER] = [52, 20, 6.3];
const LONGEST_SIDE = 16_000; // of a canvas

/** A name that every file system takes. */
export const fileName = (parts, ending) =>
  `${parts.join("-").replace(/[^\p{L}\p{N}._-]+/gu, "_").slice(0, 120)}.${ending}`;

export function save(name, content, type) {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

export const saveGraphml = (name, graph, marked) => save(name, graphml(graph, marked), "application/xml");

/** Everything of a step that is no picture. @param content marked: {called, pinned, groups}, what the reader has written on neurons. */
export function saveJson(name, { run, step, head, graph, marked: { called, pinned, groups } }) {
  const content = {
    run, step, epoch: head.epoch, class: graph.label, class_names: head.class_names, measures: head.measures, settings: head.settings,
    nodes: graph.nodes.map(({ key, layer, neuron, relevance, share, activation, output }) =>
      ({ layer: layer.name, neuron, kind: layer.kind, relevance, share, activation, output, name: called[key], pinned: pinned.includes(key), group: groupOf(groups, key) })),
    groups: groups.map((key) => ({ key, name: called[key], neurons: membersOf(key).map(ofKey).map(({ layer, neuron }) => [layer, neuron]) })),
    edges: graph.edges.map(({ lower, upper, relevance, share }) =>
      ({ lower: [lower.layer.name, lower.neuron], upper: [upper.layer.name, upper.neuron], relevance, share })),
    paths: graph.paths.map(({ nodes, share }) => ({ nodes: nodes.map((node) => [node.layer.name, node.neuron]), share })),
    samples: head.samples && {
      labels: head.samples.labels, predictions: head.samples.predictions, probabilities: head.samples.probabilities, errors: head.samples.errors,
    },
  };
  save(name, JSON.stringify(content, null, 1), "application/json");
}

/**
 * The graph as it is seen, but on white and with what it takes to be understood elsewhere.
 *
 * @param svg the graph on the page.
 * @param words {title, about, keys: [[kind, text], ...] of the legend}.
 * @returns an SVG element that needs no style sheet.
 */
export function drawingOf(svg, { title, about, keys }) {
  const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
  const copy = svg.cloneNode(true);
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.querySelectorAll(".hit, .room").forEach((element) => element.remove());
  const graph = s("g", { transform: `translate(${MARGIN} ${HEAD})` }, [...copy.children]);
  const legend = legendOf(keys, width);
  legend.setAttribute("transform", `translate(${MARGIN} ${HEAD + height + 18})`);
  const [wide, high] = [width + 2 * MARGIN, HEAD + height + 14 + KEY_ROW * Number(legend.dataset.rows) + MARGIN].map(Math.ceil);
  copy.replaceChildren(s("title", {}, title), s("rect", { width: wide, height: high, fill: "#fff" }),
    s("text", { class: "heading", x: MARGIN, y: 26 }, title), s("text", { class: "quiet", x: MARGIN, y: 43 }, about), graph, legend);
  for (const [name, value] of Object.entries({ viewBox: `0 0 ${wide} ${high}`, width: wide, height: high })) copy.setAttribute(name, value);
  settle(copy, svg.parentElement);
  return copy;
}

function legendOf(keys, width) {
  let [x, row] = [0, 0];
  const all = keys.map(([kind, text]) => {
    const room = 34 + LETTER * [...text].length;
    if (x > 0 && x + room > width) [x, row] = [0, row + 1];
    const sign = {
      part: () => [s("rect", { class: "track", y: -5, width: 14, height: 3 }), s("rect", { class: "part", y: -5, width: 8, height: 3 })],
      picture: () => [s("rect", { class: "rim", x: 1, y: -10, width: 12, height: 12, rx: 2 })],
      path: () => [s("path", { class: "path", d: "M0-4H14", "stroke-width": 2 })],
    }[kind];
    const key = s("g", { class: sign ? null : kind, transform: `translate(${x} ${row * KEY_ROW})` },
      sign?.() ?? [s("circle", { class: "disc", cx: 6, cy: -4, r: 5 })], s("text", { class: "said", x: 19 }, text));
    x += room;
    return key;
  });
  return s("g", { class: "keys", "data-rows": row + 1 }, all);
}

/** Styles as attributes, as they are on white; computed where the element would stand. */
function settle(drawing, place) {
  const root = document.documentElement;
  const { theme } = root.dataset;
  root.dataset.theme = "light"; // not for long enough to be seen
  place.append(drawing);
  try {
    const elements = [drawing, ...drawing.querySelectorAll("*")];
    const styles = new Map(elements.map((element) => {
      const style = getComputedStyle(element);
      return [element, Object.fromEntries([...INHERITED, "opacity", "display", "transform"].map((name) => [name, plain(style.getPropertyValue(name))]))];
    }));
    for (const element of elements) {
      const style = styles.get(element);
      if (style.display === "none") element.remove();
      const around = styles.get(element.parentElement);
      for (const name of INHERITED) if (around?.[name] !== style[name]) element.setAttribute(name, style[name]);
      if (style.opacity !== "1") element.setAttribute("opacity", style.opacity);
      if (element.style.transform) element.setAttribute("transform", style.transform);
      for (const name of ["class", "style", "tabindex", "role", "aria-label", "aria-pressed", "data-key", "data-rows"]) element.removeAttribute(name);
    }
  } finally {
    drawing.remove();
    root.dataset.theme = theme;
  }
}

/** Colours as every program reads them. */
const plain = (value) => value.replace(/color\(srgb ([\d.]+) ([\d.]+) ([\d.]+)\)/g, (_, ...parts) =>
  `rgb(${parts.slice(0, 3).map((part) => Math.round(255 * part)).join(", ")})`);

const textOf = (drawing) => new XMLSerializer().serializeToString(drawing);

export const saveSvg = (name, drawing) => save(name, textOf(drawing), "image/svg+xml");

/** Twice as large as on the page. */
export async function savePng(name, drawing) {
  const [width, height] = ["width", "height"].map((side) => Number(drawing.getAttribute(side)));
  const scale = Math.min(2, LONGEST_SIDE / Math.max(width, height));
  const picture = new Image();
  picture.src = URL.createObjectURL(new Blob([textOf(drawing)], { type: "image/svg+xml" }));
  try {
    await picture.decode();
    const canvas = Object.assign(document.createElement("canvas"), { width: Math.round(scale * width), height: Math.round(scale * height) });
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    save(name, await new Promise((done) => canvas.toBlob(done, "image/png")));
  } finally {
    URL.revokeObjectURL(picture.src);
  }
}

// What is shown, as files.

import { graphml } from "./graphml.js";

const STYLES = ["fill", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "opacity", "font-size", "font-family", "font-weight",
  "text-anchor", "paint-order", "stroke-linejoin", "visibility"];

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

export const saveGraphml = (name, graph) => save(name, graphml(graph), "application/xml");

/** Everything of a step that is no picture. */
export function saveJson(name, { run, step, head, graph }) {
  const content = {
    run, step, epoch: head.epoch, class: graph.label, class_names: head.class_names, measures: head.measures, settings: head.settings,
    nodes: graph.nodes.map(({ layer, neuron, relevance, share, activation, output }) =>
      ({ layer: layer.name, neuron, kind: layer.kind, relevance, share, activation, output })),
    edges: graph.edges.map(({ lower, upper, relevance, share }) =>
      ({ lower: [lower.layer.name, lower.neuron], upper: [upper.layer.name, upper.neuron], relevance, share })),
    paths: graph.paths.map(({ nodes, share }) => ({ nodes: nodes.map((node) => [node.layer.name, node.neuron]), share })),
    samples: head.samples && {
      labels: head.samples.labels, predictions: head.samples.predictions, probabilities: head.samples.probabilities, errors: head.samples.errors,
    },
  };
  save(name, JSON.stringify(content, null, 1), "application/json");
}

/** The graph as it is seen, twice as large. */
export async function savePng(name, svg) {
  const copy = svg.cloneNode(true);
  const [seen, copied] = [svg, copy].map((root) => [...root.querySelectorAll("*")]);
  seen.forEach((element, i) => {
    const style = getComputedStyle(element);
    for (const property of STYLES) copied[i].setAttribute(property, style.getPropertyValue(property));
    if (element.style.transform) copied[i].setAttribute("transform", element.style.transform.replaceAll("px", ""));
    copied[i].removeAttribute("class");
    copied[i].removeAttribute("style");
  });
  const [width, height] = ["width", "height"].map((side) => Number(svg.getAttribute(side)));
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  const picture = new Image();
  picture.src = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" }));
  try {
    await picture.decode();
    const canvas = Object.assign(document.createElement("canvas"), { width: 2 * width, height: 2 * height });
    const context = canvas.getContext("2d");
    context.fillStyle = getComputedStyle(document.body).backgroundColor;
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    save(name, await new Promise((done) => canvas.toBlob(done, "image/png")));
  } finally {
    URL.revokeObjectURL(picture.src);
  }
}

// A graph as GraphML, which networkx, Gephi and yEd read. No DOM here.

import { groupOf } from "./groups.js";

const KEYS = [
  ["node", "layer", "string"], ["node", "neuron", "int"], ["node", "kind", "string"], ["node", "order", "int"],
  ["node", "relevance", "double"], ["node", "share", "double"], ["node", "activation", "double"], ["node", "output", "boolean"],
  ["node", "name", "string"], ["node", "pinned", "boolean"], ["node", "group", "string"],
  ["edge", "relevance", "double"], ["edge", "share", "double"],
];

/** @param graph from prepare(); own names of neurons and groups by key, pinned ones, and groups. */
export function graphml(graph, { called = {}, pinned = [], groups = [] } = {}) {
  const keys = KEYS.map(([of, name, type]) => `  <key id="${of}_${name}" for="${of}" attr.name="${name}" attr.type="${type}"/>`);
  const data = (of, values) =>
    Object.entries(values).map(([name, value]) => `<data key="${of}_${name}">${escape(String(value))}</data>`).join("");
  const nodes = graph.nodes.map(({ key, layer, neuron, relevance, share, activation, output }) =>
    `    <node id="${escape(key)}">${data("node", {
      layer: layer.name, neuron, kind: layer.kind, order: layer.order, relevance, share, activation, output,
      ...(called[key] ? { name: called[key] } : {}), pinned: pinned.includes(key),
      ...(groupOf(groups, key) ? { group: called[groupOf(groups, key)] ?? groupOf(groups, key) } : {}),
    })}</node>`);
  const edges = graph.edges.map(({ lower, upper, relevance, share }) =>
    `    <edge source="${escape(lower.key)}" target="${escape(upper.key)}">${data("edge", { relevance, share })}</edge>`);
  return [
    '<?xml version="1.0" encoding="utf-8"?>',
    '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">',
    ...keys,
    '  <graph edgedefault="directed">',
    ...nodes,
    ...edges,
    "  </graph>",
    "</graphml>",
    "",
  ].join("\n");
}

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;" };

// control characters, non-characters, and halves of surrogate pairs
// eslint-disable-next-line no-control-regex
const UNKNOWN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/** Text that is safe in XML; characters that XML does not have become U+FFFD. */
export function escape(text) {
  return text.replace(UNKNOWN, "\ufffd").replace(/[&<>"']/g, (c) => ENTITIES[c]);
}

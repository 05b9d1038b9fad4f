// How much of a graph is drawn: what matters first, so that a graph can be read. No DOM here.

import { strengths } from "./layout.js";

/** Neurons of each layer that are drawn unless more are asked for. */
export const FEW = 3;

const FAINT = 0.4; // edges below this part of their layers' strongest are not drawn when few neurons are

/** How much a neuron weighs, at either of two steps that are compared. */
export const weightOf = (node) => Math.max(Math.abs(node.share), Math.abs(node.before ?? 0));

const weighs = (edge) => (edge.change ? Math.max(Math.abs(edge.before ?? 0), Math.abs(edge.after ?? 0)) : edge.relevance);

/** The most neurons that a layer of the graph has. */
export const mostOf = (graph) => Math.max(1, ...graph.layers.map((layer) => layer.nodes.length));

/**
 * @param graph from prepare() or merge().
 * @param many neurons of each layer; those on best paths, with an own name, pinned and picked ones and groups come on top.
 * @returns columns [[layer, nodes], ...], and edges: strength by edge, weakest first.
 */
export function chosen(graph, many, { picked = null, called = {}, pinned = [] } = {}) {
  const always = new Set([...graph.paths.flatMap((path) => path.nodes.map((node) => node.key)), ...keysOf(picked), ...Object.keys(called), ...pinned]);
  const moved = (node) => Math.abs((node.after ?? 0) - (node.before ?? 0));
  const columns = graph.layers.map((layer) => {
    const changed = layer.nodes.filter((node) => node.change && node.change !== "same").sort((a, b) => moved(b) - moved(a)).slice(0, many);
    return [layer, layer.nodes.filter((node, rank) =>
      rank < many || node.output || layer.kind === "input" || node.members || always.has(node.key) || changed.includes(node))];
  });
  const there = new Set(columns.flatMap(([, nodes]) => nodes));
  const strength = strengths(graph.edges.filter((edge) => there.has(edge.lower) && there.has(edge.upper)), weighs);
  const least = FAINT * Math.max(0, 1 - (many - 1) / Math.max(1, mostOf(graph) - 1));
  const strongest = new Set(); // into each neuron and out of it, so that none stands alone
  for (const end of ["below", "above"]) {
    for (const node of there) {
      const best = node[end].reduce((found, edge) => (strength.has(edge) && !(strength.get(found) >= strength.get(edge)) ? edge : found), null);
      if (best) strongest.add(best);
    }
  }
  const ends = keysOf(picked);
  const asked = (edge) => ends.has(edge.lower.key) || ends.has(edge.upper.key);
  const drawn = [...strength].filter(([edge, strong]) => strong >= least || strongest.has(edge) || asked(edge));
  return { columns, edges: new Map(drawn.sort((a, b) => a[1] - b[1])) };
}

const keysOf = (picked) => new Set([...(picked?.neuron ? [picked.neuron] : []), ...(picked?.edge ?? [])]);

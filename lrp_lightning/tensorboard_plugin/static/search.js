// Finds neurons and layers by what is typed: "features.28", "28:17", "17". No DOM here.

import { keyOf, lookUp } from "./graph.js";

/**
 * @param typed part of a layer's name, a neuron's number, or both with a colon or a space between.
 * @returns the best matches, shown neurons first, each with key, layer, neuron and what lookUp tells.
 */
export function search(graph, typed, most = 12) {
  const text = typed.trim().toLowerCase();
  if (!text) return [];
  const both = /^(.*?)[\s:[]+(\d+)\]?$/.exec(text);
  const wanted = both ? { layer: both[1], neuron: Number(both[2]) } : null;
  const found = [];
  for (const layer of graph.layers) {
    const name = layer.name.toLowerCase();
    const neurons = [...layer.nodes.map((node) => node.neuron), ...layer.others[0]];
    for (const neuron of neurons) {
      const hit = wanted
        ? name.includes(wanted.layer) && neuron === wanted.neuron
        : name.includes(text) || (/^\d+$/.test(text) && neuron === Number(text));
      if (hit) found.push({ key: keyOf(layer.name, neuron), layer: layer.name, neuron, exact: name === (wanted?.layer ?? text) });
    }
  }
  const known = found.map((hit) => ({ ...hit, ...lookUp(graph, hit.key) }));
  known.sort((a, b) => b.exact - a.exact || b.shown - a.shown || b.relevance - a.relevance);
  return known.slice(0, most);
}

// What differs between two graphs of a class: two steps of a run, or two runs. No DOM here.

import { lookUp } from "./graph.js";

const SAME = 0.1; // a change below a tenth of the greater share is none

/** How a share changed, as diff_graphs() in Python says it. */
export function changeOf(before, after) {
  if (before === null && after === null) return "same";
  if (before === null) return "appeared";
  if (after === null) return "vanished";
  const change = after - before;
  if (Math.abs(change) <= SAME * Math.max(Math.abs(before), Math.abs(after))) return "same";
  return change > 0 ? "grew" : "shrank";
}

/** Whether both, {run, step}, are one: nothing to compare. */
export const isSame = (one, other) => one.run === other.run && one.step === other.step;

/** What a shown step can be compared with at first: the run's first other step, else another run; null where there is neither. */
export function toCompare({ names, state, steps, step }) {
  const other = steps.find((one) => !one.problem && one.step !== step);
  if (other) return { run: state.run, step: other.step };
  const run = names.find((name) => name !== state.run);
  return run === undefined ? null : { run, step };
}

/**
 * Both graphs in one. Shares of the output's relevance are compared, since outputs grow as a model trains. A neuron that a
 * graph has but does not show has not vanished: what counts is whether it carries relevance at all.
 *
 * @returns like prepare(), where nodes and edges have before, after (shares, null where absent), and change.
 */
export function merge(before, after) {
  const order = mergeOrder(before.layers.map((layer) => layer.name), after.layers.map((layer) => layer.name));
  const kinds = new Map([...before.layers, ...after.layers].map((layer) => [layer.name, layer.kind]));
  const layers = order.map((name, at) => ({ name, kind: kinds.get(name), order: at, nodes: [], others: [[], []] }));
  const byName = new Map(layers.map((layer) => [layer.name, layer]));
  const byKey = new Map();
  for (const { key, layer, neuron, output } of [...after.nodes, ...before.nodes]) {
    if (byKey.has(key)) continue;
    const [was, is] = [lookUp(before, key), lookUp(after, key)];
    const node = {
      key, neuron, output, layer: byName.get(layer.name), before: was?.share ?? null, after: is?.share ?? null,
      relevance: is?.relevance ?? 0, share: is?.share ?? 0, rank: is?.rank ?? null, below: [], above: [],
    };
    node.change = changeOf(node.before, node.after);
    byKey.set(key, node);
    node.layer.nodes.push(node);
  }
  for (const layer of layers) {
    layer.nodes.sort((a, b) => Math.max(b.before ?? 0, b.after ?? 0) - Math.max(a.before ?? 0, a.after ?? 0));
    layer.size = layer.nodes.length;
  }

  const edges = new Map();
  const add = (graph, side) => {
    for (const edge of graph.edges) {
      const key = JSON.stringify([edge.lower.key, edge.upper.key]);
      if (!edges.has(key)) {
        const [lower, upper] = [byKey.get(edge.lower.key), byKey.get(edge.upper.key)];
        edges.set(key, { lower, upper, before: null, after: null, relevance: 0, share: 0 });
      }
      const share = graph.total === 0 ? 0 : edge.relevance / graph.total;
      Object.assign(edges.get(key), { [side]: share }, side === "after" ? { relevance: edge.relevance, share: edge.share } : {});
    }
  };
  add(before, "before");
  add(after, "after");
  for (const edge of edges.values()) {
    edge.change = changeOf(edge.before, edge.after);
    edge.lower.above.push(edge);
    edge.upper.below.push(edge);
  }
  return {
    label: after.label, samples: after.samples, layers, nodes: [...byKey.values()], edges: [...edges.values()], paths: [],
    total: after.total, byKey,
  };
}

/** Nodes by how much their share changed, most first. */
export function largestChanges(merged, most = 20) {
  const size = (node) => Math.abs((node.after ?? 0) - (node.before ?? 0));
  return merged.nodes.filter((node) => node.change !== "same").sort((a, b) => size(b) - size(a)).slice(0, most);
}

/** Jaccard index of the neurons that carry relevance, shown or not, input and output aside: 1 where they are the same. */
export function overlap(before, after) {
  const keys = (graph) => {
    const found = new Set();
    for (const layer of graph.layers) {
      if (layer.kind === "input" || layer.nodes.some((node) => node.output)) continue;
      for (const node of layer.nodes) found.add(node.key);
      for (const neuron of layer.others[0]) found.add(`${neuron}@${layer.name}`);
    }
    return found;
  };
  const [a, b] = [keys(before), keys(after)];
  const both = [...a].filter((key) => b.has(key)).length;
  const either = a.size + b.size - both;
  return either === 0 ? 1 : both / either;
}

/** Two orders of names in one: each name of the first stays before what followed it, new ones come after their predecessor. */
export function mergeOrder(first, second) {
  const order = [...first];
  second.forEach((name, i) => {
    if (order.includes(name)) return;
    const before = second.slice(0, i).reverse().find((earlier) => order.includes(earlier));
    order.splice(before === undefined ? 0 : order.indexOf(before) + 1, 0, name);
  });
  return order;
}

// A class's graph as the views read it, from a record's part (schema.py). No DOM here.

/** A neuron's name within a graph: stays the same over steps and runs. */
export const keyOf = (layer, neuron) => `${neuron}@${layer}`;

/** The layer and neuron of a key. */
export function ofKey(key) {
  const at = key.indexOf("@");
  return { layer: key.slice(at + 1), neuron: Number(key.slice(0, at)) };
}

/**
 * @param part the "graph" of /step.
 * @returns layers, nodes, edges and paths with their places, shares and ranks; total: the output's relevance.
 */
export function prepare(part) {
  const layers = part.layers.map(([name, kind], order) => ({ name, kind, order, nodes: [], others: part.others[order] }));
  const total = part.nodes.reduce((sum, node) => sum + (node[4] ? node[2] : 0), 0);
  const shareOf = (relevance) => (total === 0 ? 0 : relevance / total);
  const nodes = part.nodes.map(([layer, neuron, relevance, activation, output]) => ({
    key: keyOf(layers[layer].name, neuron),
    layer: layers[layer],
    neuron,
    relevance,
    share: shareOf(relevance),
    activation,
    output: Boolean(output),
    below: [],
    above: [],
  }));
  for (const node of nodes) node.layer.nodes.push(node);
  for (const layer of layers) {
    const hidden = layer.others[1];
    const ranked = [...layer.nodes.map((node) => node.relevance), ...hidden].sort((a, b) => b - a);
    layer.size = ranked.length;
    layer.nodes.sort((a, b) => b.relevance - a.relevance);
    for (const node of layer.nodes) node.rank = 1 + ranked.indexOf(node.relevance);
    const sum = (values) => values.reduce((all, value) => all + Math.abs(value), 0);
    const whole = sum([...layer.nodes.map((node) => node.relevance), ...hidden]);
    for (const node of layer.nodes) node.part = whole === 0 ? 0 : Math.abs(node.relevance) / whole; // of its layer
  }
  const edges = part.edges.map(([lower, upper, relevance, share]) => ({ lower: nodes[lower], upper: nodes[upper], relevance, share }));
  for (const edge of edges) {
    edge.lower.above.push(edge);
    edge.upper.below.push(edge);
  }
  for (const node of nodes) {
    const strongest = (a, b) => Math.abs(b.relevance) - Math.abs(a.relevance);
    node.below.sort(strongest);
    node.above.sort(strongest);
  }
  const paths = part.paths.map(([chain, share, heatmaps, times]) => ({ nodes: chain.map((at) => nodes[at]), share, times: times ?? null, heatmaps }));
  const byKey = new Map(nodes.map((node) => [node.key, node]));
  return { label: part.class, samples: part.samples, layers, nodes, edges, paths, total, byKey };
}

/** A neuron's relevance and rank, shown or not; null where the graph does not have it. */
export function lookUp(graph, key) {
  const node = graph.byKey.get(key);
  if (node) return { relevance: node.relevance, share: node.share, rank: node.rank, shown: true };
  const { layer: name, neuron } = ofKey(key);
  const layer = graph.layers.find((candidate) => candidate.name === name);
  const at = layer ? layer.others[0].indexOf(neuron) : -1;
  if (at < 0) return null;
  const relevance = layer.others[1][at];
  const above = [...layer.nodes.map((other) => other.relevance), ...layer.others[1]].filter((other) => other > relevance);
  return { relevance, share: graph.total === 0 ? 0 : relevance / graph.total, rank: 1 + above.length, shown: false };
}

/** The shown path with the greatest share that runs through an edge; null where none does. */
export function pathThrough(graph, edge) {
  const along = (path) => path.nodes.some((node, i) => node === edge.lower && path.nodes[i + 1] === edge.upper);
  return graph.paths.find(along) ?? null;
}

/** Edges of a path, those that are shown. */
export function edgesOf(path) {
  return path.nodes.slice(1).flatMap((upper, i) => upper.below.filter((edge) => edge.lower === path.nodes[i]));
}

// Groups: neurons of one layer that the reader has put together, each group drawn as one node. No DOM here.
//
// A group's key is that of a neuron with several numbers, "3,5@conv1", so that a group is selected, named and pinned as a neuron is.
// A group stays within one layer: relevance passes from layer to layer, and a sum over two layers would count it twice.

import { changeOf } from "./diff.js";
import { keyOf, lookUp, ofKey } from "./graph.js";

export const MOST_GROUPED = 50; // neurons of a group

const numbersOf = (key) => key.slice(0, key.indexOf("@")).split(",");

/** Whether it is the key of a group as it is written here: different numbers in ascending order. */
export function isGroup(key) {
  if (!/^\d{1,9}(,\d{1,9})+@/.test(key ?? "")) return false;
  const numbers = numbersOf(key).map(Number);
  return numbers.length <= MOST_GROUPED && numbers.every((number, i) => i === 0 || number > numbers[i - 1]);
}

/** The keys of a group's neurons. */
export const membersOf = (key) => numbersOf(key).map((number) => keyOf(ofKey(key).layer, number));

/** The key of the group that a neuron is in; undefined where it is in none. */
export const groupOf = (groups, key) => groups.find((group) => membersOf(group).includes(key));

/**
 * Two neurons or groups become one group, with the name and the pin of either.
 *
 * @param marks {groups, called, pinned}: keys of groups, own names by key, pinned keys.
 * @returns the marks and what is picked then; null where the two are of different layers, or one, or too many.
 */
export function join({ groups, called, pinned }, one, other) {
  const numbers = [...new Set([one, other].flatMap(numbersOf))].map(Number).sort((a, b) => a - b);
  if (one === other || ofKey(one).layer !== ofKey(other).layer || numbers.length > MOST_GROUPED) return null;
  const key = keyOf(ofKey(one).layer, numbers.join());
  const parts = [one, other].filter(isGroup);
  const name = parts.map((part) => called[part]).find(Boolean);
  const left = without({ groups, called, pinned }, parts);
  return {
    groups: [...left.groups, key],
    called: name ? { ...left.called, [key]: name } : left.called,
    pinned: parts.some((part) => pinned.includes(part)) ? [...left.pinned, key] : left.pinned,
    picked: { neuron: key },
  };
}

/** A group's neurons are drawn one by one again; its name and its pin go with it. */
export const ungroup = (marks, key) => ({ ...without(marks, [key]), picked: null });

const without = ({ groups, called, pinned }, keys) => ({
  groups: groups.filter((key) => !keys.includes(key)),
  called: Object.fromEntries(Object.entries(called).filter(([key]) => !keys.includes(key))),
  pinned: pinned.filter((key) => !keys.includes(key)),
});

/**
 * @param graph from prepare() or merge(), which stays as it is.
 * @param groups keys; those of which the graph shows no neuron are left out.
 * @returns the same with one node for each group: relevance and edges are sums over its neurons, shown or not. Its byKey has the node under
 * the keys of its neurons too.
 */
export function grouped(graph, groups) {
  const there = groups.filter((key) => membersOf(key).some((member) => graph.byKey.has(member)));
  if (there.length === 0) return graph;
  const members = new Map(there.flatMap((key) => membersOf(key).map((member) => [member, key])));
  const layers = graph.layers.map((layer) => ({ ...layer, nodes: [] }));
  const byName = new Map(layers.map((layer) => [layer.name, layer]));
  const byKey = new Map();
  for (const key of there) {
    const node = { ...sumOf(graph, key), layer: byName.get(ofKey(key).layer) };
    for (const name of [key, ...membersOf(key)]) byKey.set(name, node);
  }
  const nodes = there.map((key) => byKey.get(key));
  for (const node of graph.nodes) {
    if (members.has(node.key)) continue;
    const copy = { ...node, layer: byName.get(node.layer.name), below: [], above: [] };
    byKey.set(node.key, copy);
    nodes.push(copy);
  }
  for (const node of nodes) node.layer.nodes.push(node);
  for (const layer of layers) layer.nodes.sort((a, b) => weight(b) - weight(a));

  const edges = new Map();
  for (const { lower, upper, ...edge } of graph.edges) {
    const ends = [byKey.get(lower.key), byKey.get(upper.key)];
    const name = JSON.stringify(ends.map((end) => end.key));
    const known = edges.get(name);
    edges.set(name, known ? { ...known, ...sums([known, edge]) } : { ...edge, lower: ends[0], upper: ends[1] });
  }
  for (const edge of edges.values()) {
    if (edge.upper.members) edge.share = edge.upper.relevance === 0 ? 0 : edge.relevance / edge.upper.relevance;
    if (edge.change) edge.change = changeOf(edge.before, edge.after);
    edge.lower.above.push(edge);
    edge.upper.below.push(edge);
  }
  const strongest = (a, b) => Math.abs(b.relevance) - Math.abs(a.relevance);
  for (const node of nodes) for (const end of ["below", "above"]) node[end].sort(strongest);
  const paths = graph.paths.map((path) => ({ ...path, nodes: path.nodes.map((node) => byKey.get(node.key)) }));
  return { ...graph, layers, nodes, edges: [...edges.values()], paths, byKey };
}

/** As neurons are sorted within a layer: by relevance, of two steps by the greater share. */
const weight = (node) => (node.change ? Math.max(node.before ?? 0, node.after ?? 0) : node.relevance);

/** The node of a group, without its layer. */
function sumOf(graph, key) {
  const keys = membersOf(key);
  const shown = keys.map((member) => graph.byKey.get(member)).filter(Boolean);
  const all = keys.map((member) => graph.byKey.get(member) ?? lookUp(graph, member)).filter(Boolean);
  const { layer } = shown[0];
  const sum = sums(all);
  const node = { key, neuron: numbersOf(key).join(", "), members: keys, output: shown.some((one) => one.output), rank: null, activation: null, ...sum, below: [], above: [] };
  if (shown[0].change) return { ...node, change: changeOf(node.before, node.after) };
  const whole = [...layer.nodes.map((one) => one.relevance), ...layer.others[1]].reduce((total, value) => total + Math.abs(value), 0);
  return { ...node, part: whole === 0 ? 0 : Math.abs(node.relevance) / whole }; // of its layer
}

/** Relevance and shares of several nodes or edges; null where none has one. */
function sums(parts) {
  const sum = (name) => {
    const values = parts.map((part) => part[name]).filter((value) => value !== null && value !== undefined);
    return values.length === 0 ? null : values.reduce((all, value) => all + value, 0);
  };
  return { relevance: sum("relevance"), share: sum("share"), ...(parts[0].change ? { before: sum("before"), after: sum("after") } : {}) };
}

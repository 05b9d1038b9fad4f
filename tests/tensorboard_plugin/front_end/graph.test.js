import assert from "node:assert/strict";
import { test } from "node:test";
import { edgesOf, keyOf, lookUp, ofKey, pathThrough, prepare } from "../../../lrp_lightning/tensorboard_plugin/static/graph.js";
import { part } from "./graphs.js";

test("a graph has shares, ranks, and neurons their part of their layer", () => {
  const graph = prepare(part());
  assert.equal(graph.total, 8);
  const [, hidden] = graph.layers;
  assert.deepEqual(hidden.nodes.map((node) => [node.neuron, node.share, node.rank]), [[0, 0.75, 1], [1, 0.25, 2]]);
  assert.equal(hidden.size, 3);
  assert.deepEqual(hidden.nodes.map((node) => node.part), [6 / 8.5, 2 / 8.5]); // of all that the layer has, shown or not
  const [first] = hidden.nodes;
  assert.deepEqual(first.below.map((edge) => edge.lower.key), ["0@input"]);
  assert.deepEqual(first.above.map((edge) => edge.upper.key), ["1@out"]);
});

test("keys are read again whatever a layer is called", () => {
  for (const layer of ["a@b", "@", "", "12@x", "<b>"]) assert.deepEqual(ofKey(keyOf(layer, 3)), { layer, neuron: 3 });
});

test("a neuron is looked up whether it is shown or not", () => {
  const graph = prepare(part());
  assert.deepEqual(lookUp(graph, "0@a:b@c"), { relevance: 6, share: 0.75, rank: 1, shown: true });
  assert.deepEqual(lookUp(graph, "7@a:b@c"), { relevance: 0.5, share: 0.0625, rank: 3, shown: false });
  assert.equal(lookUp(graph, "9@a:b@c"), null);
  assert.equal(lookUp(graph, "0@nowhere"), null);
});

test("the path through an edge, and the edges of a path", () => {
  const graph = prepare(part());
  const [path] = graph.paths;
  const along = graph.edges.filter((edge) => edge.lower.neuron === 0 && edge.upper.neuron !== 1 || edge.lower.key === "0@a:b@c");
  for (const edge of along) assert.equal(pathThrough(graph, edge), path);
  const [beside] = graph.byKey.get("1@a:b@c").below;
  assert.equal(pathThrough(graph, beside), null);
  assert.deepEqual(edgesOf(path).map((edge) => edge.lower.key), ["0@input", "0@a:b@c"]);
});

test("an output of nothing has no shares rather than infinite ones", () => {
  const graph = prepare(part({ total: 0 }));
  assert.ok(graph.nodes.every((node) => node.share === 0));
});

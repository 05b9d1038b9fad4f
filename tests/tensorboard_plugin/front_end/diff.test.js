import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { changeOf, isSame, largestChanges, merge, mergeOrder, overlap, toCompare } from "../../../lrp_lightning/tensorboard_plugin/static/diff.js";
import { prepare } from "../../../lrp_lightning/tensorboard_plugin/static/graph.js";
import { part } from "./graphs.js";

test("how a share changed", () => {
  // what the test of diff_graphs() reads too
  const cases = JSON.parse(readFileSync(new URL("changes.json", import.meta.url)));
  assert.ok(cases.length > 9);
  for (const [before, after, change] of cases) assert.equal(changeOf(before, after), change, `${before} ${after}`);
});

test("two graphs in one", () => {
  const before = prepare(part({ shares: [0.75, 0.25], hidden: [0, 1] }));
  const after = prepare(part({ shares: [0.5, 0.5], hidden: [0, 2], total: 80, other: [7, 5] }));
  const merged = merge(before, after);
  const changes = Object.fromEntries(merged.nodes.map((node) => [node.key, node.change]));
  // shares, not relevance: the output is ten times as large
  assert.deepEqual(changes, { "0@input": "same", "0@a:b@c": "shrank", "2@a:b@c": "appeared", "1@a:b@c": "vanished", "1@out": "same" });
  const edge = merged.edges.find(({ lower, upper }) => lower.key === "1@a:b@c" && upper.key === "1@out");
  assert.deepEqual([edge.before, edge.after, edge.change], [0.25, null, "vanished"]);
  assert.equal(merged.edges.length, 6);
  assert.equal(largestChanges(merged)[0].key, "2@a:b@c");
});

test("a neuron that is there but not shown has not vanished", () => {
  const before = prepare(part({ hidden: [0, 7], other: [1, 2] }));
  const after = prepare(part({ hidden: [0, 1], other: [7, 0.5] }));
  const found = merge(before, after).byKey.get("7@a:b@c");
  assert.deepEqual([found.before, found.after, found.change], [0.25, 0.0625, "shrank"]);
  assert.equal(overlap(before, after), 1);
});

test("what is compared with itself is the same", () => {
  const graph = prepare(part());
  assert.ok(merge(graph, graph).nodes.every((node) => node.change === "same"));
  assert.ok(merge(graph, graph).edges.every((edge) => edge.change === "same"));
  assert.equal(overlap(graph, graph), 1);
});

test("the overlap counts critical neurons, not input and output", () => {
  const before = prepare(part({ hidden: [0, 1], other: [7, 1] }));
  const after = prepare(part({ hidden: [0, 2], other: [8, 1] }));
  assert.equal(overlap(before, after), 1 / 5);
});

test("orders of layers are merged", () => {
  assert.deepEqual(mergeOrder(["a", "b", "c"], ["a", "x", "c", "d"]), ["a", "x", "b", "c", "d"]);
  assert.deepEqual(mergeOrder([], ["a"]), ["a"]);
  assert.deepEqual(mergeOrder(["b"], ["a", "b"]), ["a", "b"]);
});

test("nothing is compared with itself", () => {
  const steps = [{ step: 1, problem: "broken" }, { step: 2 }, { step: 3 }];
  const at = (step, changed = {}) => toCompare({ names: ["a", "b"], state: { run: "a" }, steps, step, ...changed });
  assert.deepEqual(at(3), { run: "a", step: 2 });
  assert.deepEqual(at(2), { run: "a", step: 3 });
  assert.deepEqual(at(2, { steps: [{ step: 2 }] }), { run: "b", step: 2 });
  assert.equal(at(2, { steps: [{ step: 2 }], names: ["a"] }), null);
  assert.deepEqual([isSame(at(3), { run: "a", step: 2 }), isSame(at(3), { run: "b", step: 2 })], [true, false]);
});

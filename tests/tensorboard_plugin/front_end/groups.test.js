import assert from "node:assert/strict";
import { test } from "node:test";
import { FEW, chosen } from "../../../lrp_lightning/tensorboard_plugin/static/amount.js";
import { merge } from "../../../lrp_lightning/tensorboard_plugin/static/diff.js";
import { prepare } from "../../../lrp_lightning/tensorboard_plugin/static/graph.js";
import { graphml } from "../../../lrp_lightning/tensorboard_plugin/static/graphml.js";
import { groupOf, grouped, isGroup, join, membersOf, ungroup } from "../../../lrp_lightning/tensorboard_plugin/static/groups.js";
import { part } from "./graphs.js";

const LAYER = "a:b@c";
const MARKS = { groups: [], called: {}, pinned: [] };

test("a group's key is that of its neurons, whatever their layer is called", () => {
  assert.deepEqual(membersOf(`3,12@${LAYER}`), [`3@${LAYER}`, `12@${LAYER}`]);
  assert.deepEqual(membersOf(`3@${LAYER}`), [`3@${LAYER}`]);
  assert.ok(isGroup(`3,12@${LAYER}`));
  for (const key of [`3@${LAYER}`, "12,3@a", "3,3@a", "3,@a", "a,b@c", null, undefined]) assert.ok(!isGroup(key), key);
});

test("neurons and groups are joined, and opened again", () => {
  const two = join(MARKS, "12@a", "3@a");
  assert.deepEqual(two, { groups: ["3,12@a"], called: {}, pinned: [], picked: { neuron: "3,12@a" } });
  const named = { ...two, called: { "3,12@a": "wheels", "5@a": "doors" }, pinned: ["3,12@a", "5@a"] };
  const three = join(named, "3,12@a", "5@a");
  assert.deepEqual(three.groups, ["3,5,12@a"]);
  assert.deepEqual(three.called, { "3,5,12@a": "wheels", "5@a": "doors" }, "a neuron keeps its name for when the group is opened");
  assert.deepEqual(three.pinned, ["5@a", "3,5,12@a"]);
  assert.equal(groupOf(three.groups, "5@a"), "3,5,12@a");
  assert.deepEqual(ungroup(three, "3,5,12@a"), { groups: [], called: { "5@a": "doors" }, pinned: ["5@a"], picked: null });
  const both = join({ ...MARKS, groups: ["1,2@a", "3,4@a", "1,2@b"] }, "1,2@a", "3,4@a");
  assert.deepEqual(both.groups, ["1,2@b", "1,2,3,4@a"]);
});

test("what is of two layers, the same, or too much is no group", () => {
  assert.equal(join(MARKS, "1@a", "2@b"), null);
  assert.equal(join(MARKS, "1@a", "1@a"), null);
  const numbers = (from) => Array.from({ length: 30 }, (_, i) => from + i).join();
  assert.equal(join(MARKS, `${numbers(0)}@a`, `${numbers(30)}@a`), null);
});

test("a group is one node with the sums of its neurons and edges", () => {
  const graph = prepare(part());
  const before = JSON.stringify(graph.nodes.map(({ key, below, above }) => [key, below.length, above.length]));
  const now = grouped(graph, [`0,1@${LAYER}`]);
  const node = now.byKey.get(`0,1@${LAYER}`);
  assert.deepEqual([node.relevance, node.share, node.part, node.members.length], [8, 1, 8 / 8.5, 2]);
  assert.deepEqual(now.layers[1].nodes, [node]);
  assert.equal(now.layers[1].size, 3);
  assert.equal(now.byKey.get(`1@${LAYER}`), node, "its neurons are found as the group");
  assert.deepEqual(now.edges.map((edge) => [edge.lower.key, edge.upper.key, edge.relevance, edge.share]),
    [["0@input", node.key, 8, 1], [node.key, "1@out", 8, 1]]);
  assert.deepEqual(node.below.concat(node.above), now.edges);
  assert.deepEqual(now.paths[0].nodes.map(({ key }) => key), ["0@input", node.key, "1@out"]);
  assert.ok(now.edges.every((edge) => now.nodes.includes(edge.lower) && now.nodes.includes(edge.upper)));
  assert.equal(JSON.stringify(graph.nodes.map(({ key, below, above }) => [key, below.length, above.length])), before, "the graph itself stays");
});

test("neurons that are not shown count, those without relevance do not, and a group of neither is left out", () => {
  const graph = prepare(part({ shares: [0.75, -0.25] }));
  const node = grouped(graph, [`1,7,9@${LAYER}`]).byKey.get(`1,7,9@${LAYER}`); // 7 is not shown, 9 not there
  assert.deepEqual([node.relevance, node.part], [-1.5, 1.5 / 8.5]);
  assert.equal(grouped(graph, [`7,9@${LAYER}`, "0,1@nowhere"]), graph);
  assert.equal(grouped(graph, []), graph);
});

test("a group is always drawn", () => {
  const graph = grouped(prepare(part({ hidden: [0, 1, 2, 3, 4, 5], shares: [6, 5, 4, 3, 2, 1] })), [`4,5@${LAYER}`]);
  const [, nodes] = chosen(graph, FEW).columns[1];
  assert.deepEqual(nodes.map(({ neuron }) => neuron), [0, 1, 2, "4, 5"]);
  assert.deepEqual(chosen(graph, 0).columns[1][1].map(({ neuron }) => neuron), [0, "4, 5"]);
});

test("of two steps a group has both sums, and what changed", () => {
  const merged = merge(prepare(part({ shares: [0.6, 0.2] })), prepare(part({ shares: [0.2, 0.2] })));
  const now = grouped(merged, [`0,1@${LAYER}`]);
  const node = now.byKey.get(`0,1@${LAYER}`);
  assert.deepEqual([node.before, node.after, node.change].map((one) => one.toFixed?.(6) ?? one), ["0.800000", "0.400000", "shrank"]);
  assert.deepEqual(node.below.map(({ before, after, change }) => [before.toFixed(6), after.toFixed(6), change]), [["0.800000", "0.400000", "shrank"]]);
});

test("GraphML says of each neuron which group it is in", () => {
  const key = `0,1@${LAYER}`;
  const graph = prepare(part());
  const count = (text, words) => text.split(words).length - 1;
  assert.equal(count(graphml(graph, { groups: [key], called: { [key]: "a <b>" } }), '<data key="node_group">a &lt;b&gt;</data>'), 2);
  assert.equal(count(graphml(graph, { groups: [key] }), `<data key="node_group">${key}</data>`), 2);
  assert.equal(count(graphml(graph), "<data key=\"node_group\">"), 0);
});

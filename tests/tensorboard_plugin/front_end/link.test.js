import assert from "node:assert/strict";
import { test } from "node:test";
import { START, readLink, writeLink } from "../../../lrp_lightning/tensorboard_plugin/static/link.js";

const STATES = [
  {},
  { run: "a/b & c=d#%\"'<script>☃", label: 3, step: 470 },
  { run: "a", runs: ["a", "b, c", "[\"d\"]"], label: 0, step: 0, sort: "error" },
  { run: "a", label: 1, picked: { neuron: "12@features.28" }, against: { run: "b=&", step: 5 } },
  { run: "a", label: 1, picked: { edge: ["1@a&b", "2@c=d"] } },
  { run: "a", label: 1, picked: { path: 0 }, sort: "label", many: 0 },
  { run: "a", label: 1, many: 12, called: { "12@features.28": "round things & \"<b>\"", "0@a=b": "☃" } },
  { run: "a", label: 1, pinned: ["12@features.28", "0@a=b&c"] },
  { run: "a", label: 1, groups: ["3,12@features.28", "0,1,2@a=b&c"], called: { "3,12@features.28": "wheels" }, pinned: ["0,1,2@a=b&c"], picked: { neuron: "3,12@features.28" } },
  { run: "a", label: 1, against: { run: "a", step: 5 }, view: "slide", slide: 0 },
  { run: "a", label: 1, against: { run: "a", step: 5 }, view: "blink", slide: 100 },
];

test("what a link says is read again", () => {
  for (const state of STATES) {
    const hash = writeLink("#relevance", { ...START, ...state });
    assert.deepEqual(readLink(hash), { ...START, ...state });
    // TensorBoard reads its address by splitting at & and =, each item in at most two
    for (const item of hash.slice(1).split("&")) assert.ok(item.split("=").length <= 2, item);
  }
});

test("what others say in the address stays", () => {
  const hash = writeLink("#scalars&runSelectionState=abc&p.relevance.step=7", { ...START, run: "a" });
  assert.equal(hash, "#scalars&runSelectionState=abc&p.relevance.run=a");
});

test("groups are taken as they are written, none with a neuron of another", () => {
  const said = ["3,12@a", "12,20@a", "12,20@b", "5,4@b", "4,4@b", "4@b", "4,@b", 7, `${Array.from({ length: 51 }, (_, i) => i)}@b`];
  const { groups } = readLink(`#p.relevance.groups=${encodeURIComponent(JSON.stringify(said))}`);
  assert.deepEqual(groups, ["3,12@a", "12,20@b"]);
});

test("nonsense is as nothing said", () => {
  for (const hash of ["", "#", "#relevance", "#p.relevance.step=1e3&p.relevance.class=x&p.relevance.runs={&p.relevance.sort=up&p.relevance.neurons=-1&p.relevance.names={\"1@a\":2,\"x\":\"y\"}",
    "#p.relevance.run=%E0%A4%A", "#p.relevance.edge=[1,2]&p.relevance.neuron=x&p.relevance.path=-1", "#p.relevance.againstRun=a", "#p.relevance.names=[1", "#p.relevance.view=side&p.relevance.slide=101&p.relevance.pinned=[1,\"x\"]"]) {
    assert.deepEqual(readLink(hash), START, hash);
  }
});

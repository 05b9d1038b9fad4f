import assert from "node:assert/strict";
import { test } from "node:test";
import { suspects } from "../../../lrp_lightning/tensorboard_plugin/static/headline.js";
import { picturesOf, prototypesOf, rowsOf, testWords } from "../../../lrp_lightning/tensorboard_plugin/static/strategies.js";
import { brief, counted, whole } from "../../../lrp_lightning/tensorboard_plugin/static/words.js";

const NAMES = ["shirt", "bag", "coat"];
const nameOf = (label) => NAMES[label] ?? `class ${label}`;
const strategy = (changed = {}) => ({
  class: 2, share: 0.38, samples: 40, shortcut: true, moves: false, where: "the upper right corner", region: [0, 24, 4, 4], shape: [28, 28], flipped: 0.23, control: 0.01, bound: 0.12,
  pairs: 256, images: null, heatmaps: null, heatmap: null, ...changed,
});
const plain = (text) => text.replaceAll("\u00a0", " ");

test("classes with a likely shortcut are named once, the surest first", () => {
  const strategies = [strategy(), strategy({ class: 7, bound: 0.3 }), strategy({ bound: 0.01 }), strategy({ class: 1, shortcut: false })];
  assert.deepEqual(suspects(strategies), [7, 2]);
  assert.deepEqual(suspects([]), []);
  assert.deepEqual(strategies.map((one) => one.class), [2, 7, 2, 1]); // as they were
});

test("what the transplant test says", () => {
  const said = (changed) => plain(testWords(strategy(changed), nameOf));
  assert.equal(said({}), "Copied into other images, the upper right corner turns 23 % of them into coat (controls 1 %).");
  assert.equal(said({ shortcut: false, where: "a region that moves", flipped: 0, control: 0 }),
    "Copied into other images, a region that moves turns 0 % of them into coat (controls 0 %): no shortcut found.");
  assert.equal(said({ region: null, flipped: null }), "no region was tested");
});

test("shortcuts stand first, then the largest of each class", () => {
  const strategies = [[0, 0.5, false], [0, 0.7, false], [1, 0.6, false], [2, 0.4, true]].map(([label, share, shortcut]) =>
    strategy({ class: label, share, shortcut }));
  const order = (label) => rowsOf(strategies, label).map((row) => [row.class, row.share]);
  assert.deepEqual(order(null), [[2, 0.4], [0, 0.7], [0, 0.5], [1, 0.6]]);
  assert.deepEqual(order(0), [[0, 0.7], [0, 0.5]]);
  assert.deepEqual(order(9), []);
  assert.deepEqual(picturesOf(strategy({ heatmap: "a", heatmaps: "b" })), ["a", "b"]);
});

test("typical images that are classified wrongly come last", () => {
  const images = { shape: [4, 8, 8, 1] };
  assert.deepEqual(prototypesOf(strategy({ images, predictions: [0, 2, 1, 2] })), [[1, null], [3, null], [0, 0], [2, 1]]);
  assert.deepEqual(prototypesOf(strategy({ images, predictions: [] })), [[0, null], [1, null], [2, null], [3, null]], "not known to be wrong");
  assert.deepEqual(prototypesOf(strategy({ predictions: [0] })), [], "no pictures of it");
});

test("names and shares are as long as a sentence takes", () => {
  assert.equal(brief("coat"), "coat");
  assert.equal([...brief("😀".repeat(10_000))].length, 40);
  assert.deepEqual([0.38, 0.004, 0, 1].map(whole).map(plain), ["38 %", "0.4 %", "0 %", "100 %"]);
  assert.deepEqual([counted(1, "sample"), counted(2, "class", "classes")], ["1 sample", "2 classes"]);
});

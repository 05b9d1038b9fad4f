import assert from "node:assert/strict";
import { test } from "node:test";
import { headline, picturesOf, rowsOf, testWords } from "../../../lrp_lightning/tensorboard_plugin/static/strategies.js";
import { brief, counted, whole } from "../../../lrp_lightning/tensorboard_plugin/static/words.js";

const NAMES = ["shirt", "bag", "coat"];
const nameOf = (label) => NAMES[label] ?? `class ${label}`;
const strategy = (changed = {}) => ({
  class: 2, share: 0.38, samples: 40, shortcut: true, moves: false, where: "the upper right corner", region: [0, 24, 4, 4], shape: [28, 28], flipped: 0.23, control: 0.01, bound: 0.12,
  pairs: 256, images: null, heatmaps: null, heatmap: null, ...changed,
});
const plain = (text) => text.replaceAll("\u00a0", " ");
const sentences = (strategies) => headline(strategies, nameOf).sentences.map(({ name, text }) => plain(name + text));

test("the headline has one sentence a shortcut, the surest first", () => {
  const found = headline([strategy(), strategy({ shortcut: false })], nameOf);
  assert.deepEqual([found.title, found.calm, found.sentences.map(({ label }) => label)], ["Likely shortcut", false, [2]]);
  assert.deepEqual(sentences([strategy()]), ["coat: 38 % of its images hang on the upper right corner. "
    + "Copied into other images, that region turns 23 % of them into coat (controls 1 %)."]);
  const two = [strategy(), strategy({ class: 7, share: 1, where: "a region that moves", flipped: 0.004, control: null, bound: 0.3 })];
  assert.equal(headline(two, nameOf).title, "Likely shortcuts");
  assert.deepEqual(sentences(two), ["class 7: its images hang on a region that moves. "
    + "Copied into other images, that region turns 0.4 % of them into class 7.", ...sentences([strategy()])]);
  assert.deepEqual(two.map((one) => one.class), [2, 7]); // as they were
});

test("where there is no shortcut the headline says what was tested", () => {
  const none = (strategies) => headline(strategies, nameOf);
  const calm = Array.from({ length: 20 }, (_, i) => strategy({ class: i % 10, shortcut: false }));
  assert.deepEqual(none(calm), { title: "No shortcut found in 10 classes.", sentences: [], calm: true });
  assert.equal(none(calm.slice(0, 1)).title, "No shortcut found in 1 class.");
  assert.equal(none([...calm, strategy({ class: 11, shortcut: false, region: null, flipped: null })]).title, "No shortcut found in 10 classes.");
  assert.equal(none([strategy({ region: null, flipped: null, shortcut: false })]).title, "No region was tested for a shortcut.");
});

test("what the transplant test says", () => {
  const said = (changed) => plain(testWords(strategy(changed), nameOf));
  assert.equal(said({}), "The upper right corner turns 23 % of other images into coat (controls 1 %).");
  assert.equal(said({ shortcut: false, where: "a region that moves", flipped: 0, control: 0 }),
    "A region that moves turns 0 % of other images into coat (controls 0 %): no shortcut found.");
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

test("names and shares are as long as a sentence takes", () => {
  assert.equal(brief("coat"), "coat");
  assert.equal([...brief("😀".repeat(10_000))].length, 40);
  assert.deepEqual([0.38, 0.004, 0, 1].map(whole).map(plain), ["38 %", "0.4 %", "0 %", "100 %"]);
  assert.deepEqual([counted(1, "sample"), counted(2, "class", "classes")], ["1 sample", "2 classes"]);
});

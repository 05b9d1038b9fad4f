import assert from "node:assert/strict";
import { test } from "node:test";
import { cardOf, cardsByKey, patchWords, neuronsFor, relevantFor } from "../../../lrp_lightning/tensorboard_plugin/static/cards.js";

const nameOf = (label) => ["shirt", "bag", "coat"][label] ?? `class ${label}`;
const plain = (text) => text.replaceAll("\u00a0", " ");
const named = (...shares) => plain(relevantFor({ classes: shares.map((share, i) => [i, share]) }, nameOf));

test("a card's name has the classes with twice an even share and a tenth, at most three", () => {
  assert.equal(named(0.62, 0.21, 0.17), "shirt .62, bag .21, coat .17"); // of three all
  assert.equal(named(0.95, 0.05), "shirt .95");
  assert.equal(named(0.5, 0.5, 0, 0), "shirt .50, bag .50");
  assert.equal(named(0.4, 0.3, 0.2, 0.1), "many classes");
  assert.equal(named(0.3, 0.25, 0.21, 0.2, ...Array(6).fill(0.005)), "shirt .30, bag .25, coat .21");
  assert.equal(named(...Array(50).fill(0.02)), "many classes");
  assert.equal(named(0.11, ...Array(50).fill(0.0178)), "shirt .11");
  assert.equal(named(1), "shirt 1.00");
  assert.equal(named(), "no class");
  assert.equal(plain(relevantFor({ classes: [[3, 1]] }, nameOf)), "class 3 1.00");
});

test("a class has the neurons that are relevant for it, greatest share first", () => {
  const cards = [[[2, 0.5], [0, 0.3]], [[0, 0.9]], [[1, 0.95], [0, 0.05]], []].map((classes, neuron) => ({ layer: "a", neuron, classes }));
  assert.deepEqual(neuronsFor(cards, 0).map(([card, share]) => [card.neuron, share]), [[1, 0.9], [0, 0.3]]);
  assert.deepEqual(neuronsFor(cards, 3), []);
});

test("cards are found by layer and neuron", () => {
  const cards = [{ layer: "a@b", neuron: 1, classes: [[2, 0.7]] }, { layer: "c", neuron: 1, classes: [] }];
  assert.equal(cardOf(cards, "1@a@b"), cards[0]);
  assert.equal(cardOf(cards, "2@c"), undefined);
  assert.deepEqual([...cardsByKey(cards)], [["1@a@b", cards[0]], ["1@c", cards[1]]]);
});

test("patches are told by label and prediction", () => {
  const words = (label, prediction) => patchWords(label, prediction, nameOf);
  assert.equal(words(2, 0), "coat, predicted as shirt");
  assert.equal(words(2, 2), "coat");
  assert.equal(words(2, -1), "coat");
  assert.equal(words(-1, 1), "predicted as bag");
  assert.equal(words(-1, -1), "without a label");
});

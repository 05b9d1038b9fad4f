// Neuron cards: what drives a neuron, and the classes for which it is relevant.

import { h } from "./dom.js";
import { image } from "./heatmap.js";
import { keyOf, ofKey } from "./graph.js";
import { later } from "./later.js";
import { percent } from "./numbers.js";
import { enlarge, enlarging } from "./viewer.js";
import { brief, counted } from "./words.js";

const NAMED = 3;
const LEAST = 0.1;
const KINDS = [["driven", "Drives it most"], ["relevant", "Most relevant"], ["mistaken", "Most relevant among mistakes"]];

/** The card of a neuron; undefined where it has none. */
export function cardOf(cards, key) {
  const { layer, neuron } = ofKey(key);
  return cards.find((card) => card.layer === layer && card.neuron === neuron);
}

/** The classes it is relevant for: those with twice an even share or more, and a tenth; at most three. */
export function namedClasses({ classes }) {
  const least = classes.length > NAMED ? Math.max(LEAST, 2 / classes.length) : LEAST;
  return classes.filter(([, share]) => share >= least).slice(0, NAMED);
}

/** The same in words. */
export function relevantFor(card, nameOf) {
  if (card.classes.length === 0) return "no class";
  return namedClasses(card).map(([label, share]) => `${brief(nameOf(label))}\u00a0${hundredths(share)}`).join(", ") || "many classes";
}

/** [[card, share], ...]: the cards of neurons that are relevant for a class, greatest share first. */
export const neuronsFor = (cards, label) => cards
  .flatMap((card) => namedClasses(card).filter(([named]) => named === label).map(([, share]) => [card, share])).sort((a, b) => b[1] - a[1]);

/** Cards by the keys of their neurons. */
export const cardsByKey = (cards) => new Map(cards.map((card) => [keyOf(card.layer, card.neuron), card]));

/** An image's label, and its predicted class where that differs. */
export function patchWords(label, prediction, nameOf) {
  const name = (number) => brief(nameOf(number));
  if (label < 0) return prediction < 0 ? "without a label" : `predicted as ${name(prediction)}`;
  return prediction < 0 || prediction === label ? name(label) : `${name(label)}, predicted as ${name(prediction)}`;
}

const hundredths = (share) => share.toFixed(2).replace("0.", ".").replace("-", "−");

/** @param look as in details.js. */
export function cardSection(look, card) {
  const { nameOf, onPick } = look;
  return h("section", { class: "card", "aria-label": "Neuron card" },
    h("p", { class: "speaks" }, h("span", { class: "quiet" }, "Relevant for: "), h("b", {}, relevantFor(card, nameOf))),
    h("p", { class: "quiet" }, `${percent(card.share)} of its layer's relevance, over ${counted(card.samples, "sample")}`),
    KINDS.filter(([kind]) => card[kind].images).map(([kind, heading]) => patches(look, card, heading, card[kind])),
    card.similar.length === 0 ? null : h("div", { class: "similar" }, h("h3", {}, "Similar neurons"), card.similar.map(([neuron, correlation]) =>
      h("button", { type: "button", title: `correlation ${hundredths(correlation)}`, onclick: () => onPick({ neuron: keyOf(card.layer, neuron) }) },
        `${neuron}`, h("span", { class: "quiet" }, ` ${hundredths(correlation)}`)))));
}

function patches({ data, run, nameOf }, { layer, neuron }, heading, { images, drives, labels, predictions }) {
  const get = (ref) => (ref ? data.picture(run, ref) : null);
  const wordsAt = (i) => patchWords(labels[i] ?? -1, predictions[i] ?? -1, nameOf);
  return h("div", {}, h("h3", {}, heading), later(Promise.all([get(images), get(drives)]), ([seen, driving]) => {
    const pictures = (i) => [
      ["image patch", image(seen, images, i, wordsAt(i))],
      ...(driving && i < drives.shape[0] ? [["what drives the neuron", image(driving, drives, i, `what drives the neuron: ${wordsAt(i)}`)]] : []),
    ];
    const all = Array.from({ length: images.shape[0] }, (_, i) => i);
    const items = all.map((i) => ({ heading: `${layer} : ${neuron}. ${heading}`, lines: [wordsAt(i)], pictures: () => pictures(i) }));
    return h("ul", { class: "patches" }, all.map((i) => {
      const [label, prediction] = [labels[i] ?? -1, predictions[i] ?? -1];
      const wrong = label >= 0 && prediction >= 0 && label !== prediction;
      return h("li", { title: wordsAt(i) },
        enlarging(`patch ${i + 1}: ${wordsAt(i)}`, () => enlarge(items, i), pictures(i).map(([, picture]) => picture)),
        label >= 0 ? h("div", { class: "caption" }, h("span", { class: "name" }, brief(nameOf(label)))) : null,
        wrong ? h("div", { class: "caption wrong" }, h("span", { class: "mark", "aria-hidden": "true" }, "✗"), h("span", { class: "name quiet" }, brief(nameOf(prediction)))) : null);
    }));
  }));
}

// What a neuron answers to, and what the network uses it for.

import { h } from "./dom.js";
import { image } from "./heatmap.js";
import { keyOf, ofKey } from "./graph.js";
import { later } from "./later.js";
import { percent } from "./numbers.js";
import { brief, counted } from "./words.js";

const NAMED = 3;
const LEAST = 0.1;
const KINDS = [["driven", "Drives it most"], ["relevant", "Most relevant"], ["mistaken", "Most relevant among mistakes"]];

/** The card of a neuron; undefined where it has none. */
export function cardOf(cards, key) {
  const { layer, neuron } = ofKey(key);
  return cards.find((card) => card.layer === layer && card.neuron === neuron);
}

/** The classes it speaks for: those with twice an even share or more, and a tenth; at most three. */
export function namedClasses({ classes }) {
  const least = classes.length > NAMED ? Math.max(LEAST, 2 / classes.length) : LEAST;
  return classes.filter(([, share]) => share >= least).slice(0, NAMED);
}

export function speaksFor(card, nameOf) {
  if (card.classes.length === 0) return "no class";
  return namedClasses(card).map(([label, share]) => `${brief(nameOf(label))}\u00a0${hundredths(share)}`).join(", ") || "many classes";
}

/** Cards by the keys of their neurons. */
export const cardsByKey = (cards) => new Map(cards.map((card) => [keyOf(card.layer, card.neuron), card]));

/** What an image is, and what the model takes it for, where that is known. */
export function patchWords(label, prediction, nameOf) {
  const name = (number) => brief(nameOf(number));
  if (label < 0) return prediction < 0 ? "without a label" : `taken for ${name(prediction)}`;
  return prediction < 0 || prediction === label ? name(label) : `${name(label)}, taken for ${name(prediction)}`;
}

const hundredths = (share) => share.toFixed(2).replace("0.", ".").replace("-", "−");

/** @param look as in details.js. */
export function cardSection(look, card) {
  const { nameOf, onPick } = look;
  return h("section", { class: "card", "aria-label": "What it is for" },
    h("p", { class: "speaks" }, h("span", { class: "quiet" }, "Speaks for: "), h("b", {}, speaksFor(card, nameOf))),
    h("p", { class: "quiet" }, `${percent(card.share)} of its layer's relevance, over ${counted(card.samples, "sample")}`),
    KINDS.filter(([kind]) => card[kind].images).map(([kind, heading]) => patches(look, heading, card[kind])),
    card.similar.length === 0 ? null : h("div", { class: "similar" }, h("h3", {}, "Similar neurons"), card.similar.map(([neuron, correlation]) =>
      h("button", { type: "button", title: `correlation ${hundredths(correlation)}`, onclick: () => onPick({ neuron: keyOf(card.layer, neuron) }) },
        `${neuron}`, h("span", { class: "quiet" }, ` ${hundredths(correlation)}`)))));
}

function patches({ data, run, nameOf }, heading, { images, drives, labels, predictions }) {
  const get = (ref) => (ref ? data.picture(run, ref) : null);
  return h("div", {}, h("h3", {}, heading), later(Promise.all([get(images), get(drives)]), ([seen, driving]) =>
    h("ul", { class: "patches" }, Array.from({ length: images.shape[0] }, (_, i) => {
      const [label, prediction] = [labels[i] ?? -1, predictions[i] ?? -1];
      const words = patchWords(label, prediction, nameOf);
      const wrong = label >= 0 && prediction >= 0 && label !== prediction;
      return h("li", { title: words }, image(seen, images, i, words),
        driving && i < drives.shape[0] ? image(driving, drives, i, `what in it drives the neuron: ${words}`) : null,
        label >= 0 ? h("div", { class: "caption" }, h("span", { class: "name" }, brief(nameOf(label)))) : null,
        wrong ? h("div", { class: "caption wrong" }, h("span", { class: "mark", "aria-hidden": "true" }, "✗"), h("span", { class: "name quiet" }, brief(nameOf(prediction)))) : null);
    }))));
}

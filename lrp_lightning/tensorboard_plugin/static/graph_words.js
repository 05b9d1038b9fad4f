// The description of a neuron or an edge of the graph: as text for screen readers, and in a panel beside the pointer.

import { namedClasses, relevantFor } from "./cards.js";
import { colourOfClass } from "./colours.js";
import { h } from "./dom.js";
import { change, number, percent } from "./numbers.js";
import { brief, whole } from "./words.js";

export const CHANGES = { appeared: "new", vanished: "gone", grew: "more relevant", shrank: "less relevant", same: "as before" };
const NEIGHBOURS = 3;

/** @param shown as GraphView has it, with names of layers. */
export function nodeWords(node, { nameOf, cards, called, pinned }) {
  const name = `${node.layer.name} : ${node.neuron}${node.output ? ` (${nameOf(node.neuron)})` : ""}${called[node.key] ? ` “${called[node.key]}”` : ""}${pinned.includes(node.key) ? ", pinned" : ""}`;
  if (node.change) return [name, ...(node.members ? [groupWords(node)] : []), CHANGES[node.change], `${percent(node.before)} → ${percent(node.after)} of the output's relevance`];
  if (node.members) {
    return [name, groupWords(node), `${percent(node.part)} of its layer's relevance`, `relevance ${number(node.relevance)}`, `${percent(node.share)} of the output's`];
  }
  const card = cards.get(node.key);
  return [name, ...(card ? [`relevant for ${relevantFor(card, nameOf)}`] : []), `${percent(node.part)} of its layer's relevance`,
    `rank ${node.rank} of ${node.layer.size}`, `relevance ${number(node.relevance)}`, `${percent(node.share)} of the output's`,
    `activation ${number(node.activation)}`];
}

/** What a group is, in words. */
export const groupWords = ({ members }) => `group of ${members.length} neurons`;

export function edgeWords(edge) {
  const name = `${edge.lower.layer.name} : ${edge.lower.neuron} → ${edge.upper.layer.name} : ${edge.upper.neuron}`;
  if (edge.change) {
    const difference = edge.before !== null && edge.after !== null ? ` (${change(edge.after - edge.before)})` : "";
    return [name, CHANGES[edge.change], `${percent(edge.before)} → ${percent(edge.after)} of the output's relevance${difference}`];
  }
  return [name, `relevance ${number(edge.relevance)}`, `${percent(edge.share)} of the upper neuron's relevance`];
}

/** A title, and lines. */
export const wordsPanel = ([title, ...lines]) => [h("b", {}, title), ...lines.map((line) => h("span", {}, line))];

/** @param thumbnail an element, or null. */
export function nodePanel(node, shown, thumbnail) {
  if (node.change) return wordsPanel(nodeWords(node, shown));
  const { nameOf, cards, names } = shown;
  const card = cards.get(node.key);
  const [title] = nodeWords(node, shown);
  const facts = node.output
    ? [`relevance ${number(node.relevance)}, the output that is explained`]
    : [`${node.members ? `${groupWords(node)}, ` : ""}${percent(node.part)} of its layer's relevance${node.members ? "" : `, rank ${node.rank} of ${node.layer.size}`}`];
  return [
    h("div", { class: "who" }, thumbnail, h("div", {}, h("b", {}, title), h("span", { class: "quiet" }, facts[0]))),
    card ? h("div", { class: "chips" }, h("span", { class: "quiet" }, "relevant for"), classChips(card, nameOf)) : null,
    h("div", { class: "neighbours" },
      neighbours("comes from", node.below, "lower", names), neighbours("goes to", node.above, "upper", names)),
  ].filter(Boolean);
}

function classChips(card, nameOf) {
  const named = namedClasses(card);
  if (named.length === 0) return h("span", {}, relevantFor(card, nameOf));
  return named.map(([label, share]) => h("span", { class: "chip" }, dot(label), `${brief(nameOf(label))} ${whole(share)}`));
}

function dot(label) {
  const found = h("span", { class: "dot" });
  found.style.background = colourOfClass(label);
  return found;
}

/** The strongest for and against the class, as parts of all that is shown. */
function neighbours(title, edges, end, names) {
  const total = edges.reduce((sum, edge) => sum + Math.abs(edge.relevance), 0);
  const list = (sign, words) => {
    const some = edges.filter((edge) => edge.relevance * sign > 0).slice(0, NEIGHBOURS);
    return some.length === 0 ? null : h("div", {}, h("span", { class: `quiet ${sign < 0 ? "against" : "for"}` }, `${title}, ${words}`),
      some.map((edge) => h("span", { class: "row" },
        h("span", { class: "name" }, `${names.get(edge[end].layer).name} : ${edge[end].neuron}`), h("span", {}, percent(edge.relevance / total)))));
  };
  return [list(1, "for"), list(-1, "against")];
}

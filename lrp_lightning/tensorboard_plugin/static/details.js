// The side column: the selected neuron, edge or path; otherwise the best paths and what changed.

import { cardOf, cardSection, neuronsFor } from "./cards.js";
import { button, h } from "./dom.js";
import { keyOf, lookUp, ofKey, pathThrough } from "./graph.js";
import { largestChanges } from "./diff.js";
import { membersOf } from "./groups.js";
import { fitMiddle } from "./layout.js";
import { later } from "./later.js";
import { lineChart } from "./line_chart.js";
import { change, number, percent } from "./numbers.js";
import { tiles } from "./samples.js";
import { brief, counted } from "./words.js";

const MOST_NEIGHBOURS = 8;
const MOST_RELEVANT = 5;
const NAME = 230; // pixels of a neuron's

/** A list of numbers with names. */
const facts = (rows) => h("dl", { class: "facts" }, rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));

/** A bar as long as a share, with the name of a neuron that can be looked at. */
function neuronRow(node, value, most, onPick) {
  const bar = h("span", { class: value < 0 ? "bar negative" : "bar positive" });
  bar.style.width = `${Math.min(100, (Math.abs(value) / (most || 1)) * 100)}%`;
  const name = `${node.layer.name} : ${node.neuron}`;
  return h("li", {}, h("button", { type: "button", class: "neuron", title: name, onclick: () => onPick({ neuron: node.key }) },
    h("span", { class: "name" }, fitMiddle(name, NAME)), h("span", { class: "value" }, percent(value)), bar));
}

function neighbours(title, edges, end, onPick, empty) {
  const most = Math.max(0, ...edges.map((edge) => Math.abs(edge.relevance)));
  const total = edges.reduce((sum, edge) => sum + Math.abs(edge.relevance), 0);
  return h("section", {}, h("h3", {}, title),
    edges.length === 0 ? h("p", { class: "quiet" }, empty) : h("ol", { class: "neurons" }, edges.slice(0, MOST_NEIGHBOURS).map((edge) =>
      neuronRow(edge[end], total === 0 ? 0 : edge.relevance / total, total === 0 ? 1 : most / total, onPick))));
}

/** @param look {data, run, head, graph, sort, nameOf, pixels: promise of the images or null, step, onPick, lines(key), onStep}. */
export function neuronDetails(look, key) {
  const { layer, neuron } = ofKey(key);
  const { graph, head, onPick } = look;
  const node = graph.byKey.get(key);
  const found = lookUp(graph, key);
  const card = cardOf(head.cards, key);
  const [, , heatmaps, reconstructions] = head.neurons.find(([name, number_]) => name === layer && number_ === neuron) ?? [];
  return [
    title(`${layer} : ${neuron}`, node?.layer.kind ?? "neuron", onPick),
    card ? cardSection(look, card) : null,
    found === null ? h("p", { class: "quiet" }, "At this step the neuron carries no relevance: it is not critical for this class.") : null,
    facts([
      ...(found ? [["relevance", number(found.relevance)], ["share of the output", percent(found.share)], ["rank in its layer", `${found.rank}`]] : []),
      ...(node ? [["mean activation", number(node.activation)]] : []),
      ...(look.before ? [["in the compared step", percent(lookUp(look.before, key)?.share)]] : []),
    ]),
    found && !found.shown ? h("p", { class: "quiet" }, "Not among the neurons that the graph shows.") : null,
    pictures(look, "Heatmaps of this neuron", "heatmap", heatmaps,
      `The log has no heatmaps of this neuron. At this step RelevanceMonitor logged those of ${
        head.neurons.filter(([, , kept]) => kept).length} hidden neurons, first those on the best paths, then the most relevant of each layer. To log more, raise max_samples or lower n_heatmaps.`),
    reconstructions ? pictures(look, "Reconstruction", "reconstruction", reconstructions, "") : null,
    h("section", {}, later(look.lines(key), (lines) => lineChart({
      title: "share of the output's relevance", lines, at: look.step, onPick: look.onStep, format: percent,
    }))),
    node ? neighbours("Comes from", node.below, "lower", onPick, "no neuron that is shown") : null,
    node ? neighbours("Goes to", node.above, "upper", onPick, node.output ? "this is the output" : "no neuron that is shown") : null,
  ];
}

/** @param name what the reader calls the group; undefined where it has no name. */
export function groupDetails(look, key, name) {
  const { graph, onPick } = look;
  const { layer } = ofKey(key);
  const members = membersOf(key);
  const found = members.map((member) => [member, lookUp(graph, member)]).filter(([, has]) => has !== null).sort(([, a], [, b]) => b.share - a.share);
  const sum = (of) => found.reduce((all, [, has]) => all + has[of], 0);
  const most = Math.max(0, ...found.map(([, has]) => Math.abs(has.share)));
  const absent = members.length - found.length;
  return [
    title(name ?? `${layer} : ${members.map((member) => ofKey(member).neuron).join(", ")}`, `group of ${members.length} neurons of ${layer}`, onPick),
    facts([["relevance", number(sum("relevance"))], ["share of the output", percent(sum("share"))]]),
    h("section", {}, h("h3", {}, "Its neurons"),
      h("ol", { class: "neurons" }, found.map(([member, has]) => neuronRow({ key: member, layer: { name: layer }, neuron: ofKey(member).neuron }, has.share, most, onPick))),
      h("p", { class: "quiet" }, `Percentage: share of the output's relevance.${absent === 0 ? "" : ` ${absent} of the neurons carry no relevance at this step.`}`)),
    h("section", {}, later(look.lines(key), (lines) => lineChart({
      title: "share of the output's relevance", lines, at: look.step, onPick: look.onStep, format: percent,
    }))),
  ];
}

export function edgeDetails(look, [lowerKey, upperKey]) {
  const { graph, onPick } = look;
  const [lower, upper] = [lowerKey, upperKey].map((key) => graph.byKey.get(key));
  const edge = upper?.below.find((candidate) => candidate.lower === lower);
  const name = [lowerKey, upperKey].map((key) => `${ofKey(key).layer} : ${membersOf(key).map((member) => ofKey(member).neuron).join(", ")}`).join(" → ");
  if (!edge) return [title(name, "edge", onPick), h("p", { class: "quiet" }, "At this step the graph shows no relevance between these neurons.")];
  const path = pathThrough(graph, edge);
  return [
    title(name, "edge", onPick),
    facts([["relevance", number(edge.relevance)], ["share of the upper neuron", percent(edge.share)]]),
    path
      ? [
        h("p", {}, "The best path through this edge is ", pathButton(graph, path, onPick), "."),
        pictures(look, "Heatmap of that path", "heatmap", path.heatmaps, "The log has no heatmaps of this path."),
      ]
      : h("p", { class: "quiet" }, "None of the best paths runs through this edge. Its two neurons:"),
    h("ol", { class: "neurons" }, [lower, upper].map((node) => neuronRow(node, node.share, Math.max(lower.share, upper.share), onPick))),
  ];
}

export function pathDetails(look, index) {
  const { graph, onPick } = look;
  const path = graph.paths[index];
  if (!path) return [title(`path ${index + 1}`, "path", onPick), h("p", { class: "quiet" }, "This step has fewer paths.")];
  const most = Math.max(...path.nodes.map((node) => Math.abs(node.share)));
  return [
    title(`path ${index + 1}`, "path", onPick),
    facts([["carries", carries(path)]]),
    pictures(look, `Heatmap for ${look.nameOf(graph.label)}`, "heatmap", path.heatmaps, "The log has no heatmaps of this path."),
    h("section", {}, h("h3", {}, "Its neurons, output first"),
      h("ol", { class: "neurons" }, [...path.nodes].reverse().map((node) => neuronRow(node, node.share, most, onPick)))),
  ];
}

/** What stands there when nothing is picked. */
export function overview(look) {
  const { graph, head, nameOf, onPick } = look;
  const name = nameOf(graph.label);
  const relevant = neuronsFor(head.cards, graph.label);
  return [
    h("header", {}, h("h2", {}, name),
      h("p", { class: "quiet" }, `The graph: sum over ${counted(graph.samples, "sample")} predicted as ${brief(name)}.`,
        h("span", { class: "live" }, " Click a neuron, an edge, a path or a picture to see more."))),
    relevant.length ? h("section", {}, h("h3", {}, `Neurons most relevant for ${brief(name)}`), h("ol", { class: "neurons" }, relevant.slice(0, MOST_RELEVANT).map(([card, share]) =>
      neuronRow({ key: keyOf(card.layer, card.neuron), layer: { name: card.layer }, neuron: card.neuron }, share, 1, onPick))),
    h("p", { class: "quiet" }, "Percentage: this class's share of the neuron's relevance for all classes.")) : null,
    h("section", {}, h("h3", {}, "Best paths"), graph.paths.length === 0
      ? h("p", { class: "quiet" }, "There are no paths: the output of this class is not positive.")
      : h("ol", { class: "paths" }, graph.paths.map((path) => h("li", {}, pathButton(graph, path, onPick),
        h("span", { class: "chain" }, path.nodes.map((node) => (node.output ? nameOf(node.neuron) : node.neuron)).join(" → ")))))),
    graph.paths.length === 0 ? null : h("p", { class: "quiet" }, "A graph has very many paths, so the share of each is tiny and is given as a multiple of the median path's. Small differences between paths mean little."),
    head.notes.length ? folded("Notes", head.notes.map((note) => h("p", { class: "quiet" }, note))) : null,
    Object.keys(head.settings).length ? folded("Settings", facts(Object.entries(head.settings))) : null,
  ];
}

const unfolded = new Set();

/** A part that is opened by a click, and stays so as steps go by. */
function folded(name, ...content) {
  const part = h("details", { class: "folded", open: unfolded.has(name), ontoggle: () => unfolded[part.open ? "add" : "delete"](name) },
    h("summary", {}, name), content);
  return part;
}

/** What stands there when two graphs are compared and nothing is picked. */
export function changes(merged, common, words, onPick) {
  const most = merged.nodes.reduce((all, node) => Math.max(all, Math.abs((node.after ?? 0) - (node.before ?? 0))), 0);
  const count = (kind) => merged.nodes.filter((node) => node.change === kind).length;
  return [
    h("header", {}, h("h2", {}, "What changed"), h("p", { class: "quiet" }, words)),
    facts([["critical neurons in common", percent(common)], ["new", `${count("appeared")}`], ["gone", `${count("vanished")}`],
      ["more relevant", `${count("grew")}`], ["less relevant", `${count("shrank")}`]]),
    h("section", {}, h("h3", {}, "Largest changes of share"), h("ol", { class: "neurons" }, largestChanges(merged).map((node) => {
      const row = neuronRow(node, (node.after ?? 0) - (node.before ?? 0), most, onPick);
      row.querySelector(".value").textContent = change((node.after ?? 0) - (node.before ?? 0));
      row.querySelector(".bar").className = `bar ${node.change}`;
      return row;
    }))),
  ];
}

function title(name, kind, onPick) {
  return h("header", { class: "picked" }, h("div", {}, h("h2", { title: name }, name), h("p", { class: "quiet" }, kind)),
    button("✕", "Back to the overview (Escape)", () => onPick(null), { class: "close" }));
}

const pathButton = (graph, path, onPick) =>
  h("button", { type: "button", class: "link", onclick: () => onPick({ path: graph.paths.indexOf(path) }) },
    `path ${graph.paths.indexOf(path) + 1} · ${carries(path)}`);

const raised = (digits) => digits.replace(/\d/g, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]);

function many(times) {
  if (times < 10) return number(times);
  if (times < 1e15) return new Intl.NumberFormat("en", { notation: "compact", compactDisplay: "long", maximumSignificantDigits: 2 }).format(times);
  const [digits, exponent] = times.toExponential(1).split("e+");
  return `${digits} · 10${raised(exponent)}`;
}

/** What a path carries: a share, or, if that is tiny, a multiple of the median path's. */
const carries = (path) => (path.times === null || Math.abs(path.share) >= 1e-3 ? `${percent(path.share)} of the output's relevance` : `${many(path.times)} times the median path`);

function pictures(look, heading, what, ref, absent) {
  const { data, run, head, sort, nameOf } = look;
  const body = ref && head.samples
    ? later(Promise.all([data.picture(run, ref), look.pixels]), ([values, images]) =>
      tiles({ samples: head.samples, images, grids: [{ title: what, values, ref }], sort, nameOf }))
    : h("p", { class: "quiet" }, absent);
  return h("section", { class: "small" }, h("h3", {}, heading), body);
}

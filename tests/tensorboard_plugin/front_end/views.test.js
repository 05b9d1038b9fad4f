import assert from "node:assert/strict";
import { test } from "node:test";
import { FEW, chosen, mostOf } from "../../../lrp_lightning/tensorboard_plugin/static/amount.js";
import { opacities } from "../../../lrp_lightning/tensorboard_plugin/static/blend.js";
import { colourOf, colourOfRun, paletteOf } from "../../../lrp_lightning/tensorboard_plugin/static/colours.js";
import { merge } from "../../../lrp_lightning/tensorboard_plugin/static/diff.js";
import { prepare } from "../../../lrp_lightning/tensorboard_plugin/static/graph.js";
import { escape } from "../../../lrp_lightning/tensorboard_plugin/static/graphml.js";
import { GLYPH, blocksOf, fitMiddle, layerNames, layout, strengths } from "../../../lrp_lightning/tensorboard_plugin/static/layout.js";
import { chartsOf, pointsOf } from "../../../lrp_lightning/tensorboard_plugin/static/measures.js";
import { change, interval, labels, number, percent, ticks } from "../../../lrp_lightning/tensorboard_plugin/static/numbers.js";
import { groupsOf, orderOf } from "../../../lrp_lightning/tensorboard_plugin/static/samples.js";
import { ABOUT, apart } from "../../../lrp_lightning/tensorboard_plugin/static/words.js";
import { part } from "./graphs.js";

test("numbers are read easily", () => {
  assert.deepEqual([0, 1234.5, 0.12345, -2, 1e-7, NaN, null].map((value) => number(value)), ["0", "1230", "0.123", "−2", "1e−7", "–", "–"]);
  assert.deepEqual([0, 1, 0.0349, -0.5, 0.00012, null].map((value) => percent(value)), ["0 %", "100 %", "3.5 %", "−50 %", "0.01 %", "–"]);
  assert.deepEqual([0.1, -0.1].map(change), ["+10 %", "−10 %"]);
});

test("axes have a few round values", () => {
  assert.deepEqual(ticks(0, 1), [0, 0.5, 1]);
  for (const [low, high] of [[0.71, 0.84], [5e-8, 1e-7], [-3, 17], [100, 101]]) {
    const found = ticks(low, high);
    assert.ok(found.length >= 2 && found.length <= 5, `${found}`);
    assert.ok(found.every((value) => value >= low - 1e-12 && value <= high + 1e-9));
  }
  assert.deepEqual(ticks(1, 1), [1]);
});

test("an axis says no value twice", () => {
  assert.deepEqual(labels([0.0768, 0.077, 0.0772], percent), ["7.68 %", "7.70 %", "7.72 %"]);
  assert.deepEqual(labels([0, 0.5, 1], percent), ["0 %", "50 %", "100 %"]);
  assert.deepEqual(labels([1.0001, 1.0002], number), ["1.0001", "1.0002"]);
  assert.deepEqual(labels([5.1e-8, 5.12e-8], number), ["5.10e−8", "5.12e−8"]);
  assert.deepEqual(labels([1, 1], number), ["1", "1"]); // nothing tells them apart
});

test("a share of few samples is uncertain", () => {
  const near = (found, expected) => found.forEach((value, i) => assert.ok(Math.abs(value - expected[i]) < 5e-4, `${found}`));
  near(interval(0.5, 100), [0.4038, 0.5962]);
  near(interval(0, 10), [0, 0.2775]);
  near(interval(1, 10), [0.7225, 1]);
  const [low, high] = interval(0.78125, 32);
  assert.ok(low < 0.78125 && 0.78125 < high && high - low > 0.25);
});

test("a measure has the points of every epoch, shares with their interval", () => {
  const steps = [{ step: 4, measures: { mse: 2, contest_accuracy: 0.5 } }, { step: 6, problem: "broken" }];
  const logged = { contest_accuracy: [[2, 0.25], [4, 0.5], [5, null]], samples: [[2, 16], [4, 32]] };
  assert.deepEqual(pointsOf("mse", { steps, measured: logged }), [[4, 2]]);
  assert.deepEqual(pointsOf("contest_accuracy", { steps, measured: logged }), [[2, 0.25, interval(0.25, 16)], [4, 0.5, interval(0.5, 32)], [5, null]]);
  assert.deepEqual(pointsOf("contest_accuracy", { steps, measured: {} }), [[4, 0.5]]); // nobody says of how many
});

test("runs are called by what tells them apart", () => {
  assert.deepEqual(apart(["vgg-lr0.01/version_0", "vgg-lr0.03/version_0"]), ["lr0.01", "lr0.03"]);
  assert.deepEqual(apart(["a/version_0", "a/version_1"]), ["0", "1"]);
  assert.deepEqual(apart(["a", "a-b"]), ["a", "a-b"]);
  assert.deepEqual(apart(["one/x"]), ["one/x"]);
  assert.deepEqual(apart(["a/b", "a/b/c"]), ["b", "b/c"]);
  assert.equal(new Set(apart(["x-1", "x-1-1", "x-1-1-1"])).size, 3);
});

test("runs have the colours that TensorBoard gives them", () => {
  const all = Array.from({ length: 9 }, (_, i) => `run ${i}`);
  const colours = all.map((run) => colourOfRun(all, run, "light"));
  assert.equal(new Set(colours).size, 7);
  assert.deepEqual([colours[0], colours[7], colours[1]], ["#425066", "#425066", "#12b5cb"]);
  assert.equal(colourOfRun(all, "run 0", "dark"), "#8e98a3");
});

test("one slider goes from image to heatmap", () => {
  assert.deepEqual([0, 50, 75, 100].map(opacities), [{ image: 1, heat: 0 }, { image: 1, heat: 1 }, { image: 0.5, heat: 1 }, { image: 0, heat: 1 }]);
});

const columnsOf = (graph) => graph.layers.map((layer) => [layer, layer.nodes]);

test("neurons stand in columns, the most relevant on top, and nothing overlaps", () => {
  const graph = prepare(part());
  const { width, places } = layout(columnsOf(graph), 600);
  const at = graph.nodes.map((node) => places.get(node));
  assert.equal(new Set(at.map(({ x, y }) => `${x} ${y}`)).size, at.length);
  assert.ok(at.every(({ x }) => x > 0 && x < width));
  const [, hidden] = graph.layers;
  assert.ok(places.get(hidden.nodes[1]).y - places.get(hidden.nodes[0]).y >= GLYPH);
  // many layers take more than there is, and are scrolled
  const wide = layout(Array.from({ length: 60 }, () => [{}, [{}]]), 600);
  assert.ok(wide.width > 60 * 60);
  assert.equal(wide.width, wide.least[0]);
});

test("rows spread over the height there is, but not without end", () => {
  const columns = columnsOf(prepare(part()));
  const [flat, high, higher] = [0, 250, 5000].map((height) => layout(columns, 600, height).height);
  assert.ok(flat < high && high === 250 && higher < 500);
});

test("blocks are told apart, and what all names begin with is dropped", () => {
  const read = (...names) => {
    const layers = [{ name: "input", kind: "input" }, ...names.map((name) => ({ name, kind: "linear" }))];
    const found = layerNames(layers);
    return { names: layers.slice(1).map((layer) => found.get(layer)).map(({ block, short }) => [block, short]),
      blocks: blocksOf(layers, found).map(({ block, layers: of }) => [block, of.length]) };
  };
  assert.deepEqual(read("model.features.0", "model.features.3", "model.classifier"), {
    names: [["features", "0"], ["features", "3"], ["", "classifier"]], blocks: [["features", 2]] });
  assert.deepEqual(read("conv1", "layer1.0.conv1", "layer1.0.downsample.0", "layer1.1.conv1", "fc"), {
    names: [["", "conv1"], ["layer1.0", "conv1"], ["layer1.0", "downsample.0"], ["layer1.1", "conv1"], ["", "fc"]],
    blocks: [["layer1.0", 2], ["layer1.1", 1]] });
  assert.deepEqual(read("encoder.layer_0.mlp.0", "encoder.layer_0.out", "encoder.norm").names,
    [["layer_0", "mlp.0"], ["layer_0", "out"], ["", "norm"]]);
  assert.deepEqual(read("stem", "enc.blocks.0.fc", "enc.blocks.1.fc").names, [["", "stem"], ["blocks.0", "fc"], ["blocks.1", "fc"]]);
  assert.deepEqual(read("e.layers.e_0.mlp.0", "e.layers.e_1.mlp.0", "heads.head").names, [["e_0", "mlp.0"], ["e_1", "mlp.0"], ["heads", "head"]]);
  assert.deepEqual(read("a.b").names, [["a", "b"]]);
  assert.deepEqual(read("a", "a").names, [["", "a"], ["", "a"]]);
  assert.deepEqual(read().blocks, []);
});

// a layer of eight neurons, of which the first three carry most, below one output
const wide = () => {
  const neurons = Array.from({ length: 8 }, (_, i) => i);
  const weights = neurons.map((i) => 2 ** -i);
  return prepare({
    class: 0, samples: 1, layers: [["input", "input"], ["hidden", "linear"], ["out", "linear"]],
    nodes: [[0, 0, 2, 1, 0], ...neurons.map((i) => [1, i, weights[i], 1, 0]), [2, 0, 2, 1, 1]],
    edges: neurons.flatMap((i) => [[0, i + 1, weights[i], 1], [i + 1, 9, weights[i], weights[i]]]),
    paths: [[[0, 6, 9], 0.1, null]], others: [[[], []], [[], []], [[], []]],
  });
};
const neuronsOf = ({ columns }) => columns[1][1].map((node) => node.neuron);

test("few neurons are drawn unless more are asked for: the first ones, and those on paths, with cards, names, or picked", () => {
  const graph = wide();
  assert.deepEqual(neuronsOf(chosen(graph, FEW)), [0, 1, 2, 5]);
  assert.deepEqual(neuronsOf(chosen(graph, 0)), [5]);
  assert.deepEqual(neuronsOf(chosen(graph, 1, { picked: { neuron: "6@hidden" } })), [0, 5, 6]);
  assert.deepEqual(neuronsOf(chosen(graph, 1, { picked: { edge: ["0@input", "3@hidden"] } })), [0, 3, 5]);
  assert.deepEqual(neuronsOf(chosen(graph, 0, { called: { "4@hidden": "wheels" } })), [4, 5]);
  assert.deepEqual(neuronsOf(chosen(graph, 0, { pinned: ["6@hidden"] })), [5, 6]);
  assert.equal(neuronsOf(chosen(graph, mostOf(graph))).length, 8);
});

test("faint edges are not drawn where few neurons are, unless a neuron would stand alone or is looked at", () => {
  const weights = [[1, 0.1, 0.05], [0.6, 0.5, 0.02], [0.1, 0.2, 0.03], [0.01, 0.01, 0.01]]; // of edges from four neurons to three
  const graph = prepare({
    class: 0, samples: 1, layers: [["a", "linear"], ["b", "linear"]],
    nodes: [...weights.map((_, i) => [0, i, 4 - i, 1, 0]), ...[0, 1, 2].map((i) => [1, i, 3 - i, 1, 1])],
    edges: weights.flatMap((row, i) => row.map((weight, j) => [i, 4 + j, weight, weight])), paths: [], others: [[[], []], [[], []]],
  });
  const drawn = (many, more) => [...chosen(graph, many, more).edges].map(([edge, strong]) => [edge.lower.neuron, edge.upper.neuron, strong]);
  const some = [[0, 2, 0.05], [2, 1, 0.2], [1, 1, 0.5], [1, 0, 0.6], [0, 0, 1]]; // the first is the strongest into its neuron
  assert.deepEqual(drawn(3), some);
  assert.deepEqual(drawn(3, { picked: { neuron: "1@a" } }), [[1, 2, 0.02], ...some]);
  assert.equal(drawn(4).length, 12);
});

test("where two graphs are compared, what changed most is drawn too", () => {
  const of = (...shares) => prepare(part({ hidden: [0, 1, 2], shares }));
  assert.deepEqual(neuronsOf(chosen(merge(of(0.6, 0.3, 0.1), of(0.6, 0.3, 0.01)), 1)), [0, 2]);
});

test("edges are as strong as among those of their layers", () => {
  const graph = prepare(part());
  const strength = strengths(graph.edges);
  assert.deepEqual(graph.edges.map((edge) => strength.get(edge)), [1, 1, 1 / 3, 1 / 3]);
  assert.ok([...strengths(prepare(part({ total: 0 })).edges).values()].every((value) => value === 0));
});

test("names that are too long are cut in the middle", () => {
  assert.equal(fitMiddle("layer4.2.conv3", 60), "layer…onv3");
  assert.equal(fitMiddle("fc", 60), "fc");
  assert.equal([...fitMiddle("😀".repeat(99), 60)].length, 10);
  assert.equal(fitMiddle("abcdef", 0), "a…f");
});

test("zero has the page's colour, signs have theirs", () => {
  assert.deepEqual(colourOf(0, "light"), [255, 255, 255]);
  for (const theme of ["light", "dark"]) {
    const [red, , blue] = colourOf(1, theme);
    assert.ok(red > blue);
    const [red_, , blue_] = colourOf(-1, theme);
    assert.ok(blue_ > red_);
    assert.deepEqual(colourOf(5, theme), colourOf(1, theme));
    const palette = paletteOf(theme);
    assert.deepEqual([...palette.slice(127 * 4, 127 * 4 + 3)], colourOf(1, theme));
    assert.deepEqual([...palette.slice(129 * 4, 129 * 4 + 3)], colourOf(-1, theme)); // -127 as a byte
  }
});

test("over an image what is weak is clear", () => {
  const palette = paletteOf("light", 100, true);
  const at = (value) => [...palette.slice((value & 255) * 4, (value & 255) * 4 + 4)];
  assert.deepEqual([at(0)[3], at(50)[3], at(100)[3], at(127)[3]], [0, 180, 255, 255]);
  const [[red, , blue], [red_, , blue_]] = [at(10), at(-10)];
  assert.ok(red > blue && blue_ > red_);
});

test("samples are sorted", () => {
  const samples = { labels: [2, 0, 1], errors: [0.1, 0.9, 0.5] };
  assert.deepEqual(orderOf(samples, "order"), [0, 1, 2]);
  assert.deepEqual(orderOf(samples, "error"), [1, 2, 0]);
  assert.deepEqual(orderOf(samples, "label"), [1, 2, 0]);
});

test("right and wrong are apart", () => {
  const samples = { labels: [2, 0, 1, -1], predictions: [2, 1, 1, 0] };
  assert.deepEqual(groupsOf(samples, [2, 0, 1, 3]), [["Right", [2, 0]], ["Wrong", [1]], ["Without a label", [3]]]);
  assert.deepEqual(groupsOf(samples, [1]), [["Wrong", [1]]]);
});

test("what is compared has one chart, every other measure its own with its control; the first are seen at once", () => {
  const names = ["critical_neuron_accuracy", "random_accuracy", "mse", "random_mse", "smape", "random_walk"];
  const rest = [["critical_neuron_accuracy", "random_accuracy"], ["mse", "random_mse"], ["smape"], ["random_walk"]];
  assert.deepEqual(chartsOf(names).map((chart) => chart.names), rest);
  const contest = ["contest_accuracy", "random_contest_accuracy", "runner_up_accuracy"];
  assert.deepEqual(chartsOf([...names, ...contest, "samples", "seconds"]).map((chart) => chart.names), [contest, ...rest]);
  const first = chartsOf(["mse", "shortcuts", "ablated_accuracy", "retained_accuracy", "stability"]);
  assert.deepEqual(first.map((chart) => [chart.names.join(), chart.first]), [["retained_accuracy,ablated_accuracy", true], ["shortcuts", true], ["stability", true], ["mse", false]]);
});

test("what is said of a measure is short", () => {
  for (const [name, text] of Object.entries(ABOUT)) assert.ok(text.length < 260 && text.split(/\. /).length <= 3, name);
});

test("text is safe in XML", () => {
  assert.equal(escape("<a b='c' d=\"e\">&\u0000\ud800"), "&lt;a b=&apos;c&apos; d=&quot;e&quot;&gt;&amp;\ufffd\ufffd");
});

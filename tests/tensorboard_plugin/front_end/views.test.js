import assert from "node:assert/strict";
import { test } from "node:test";
import { colourOf, paletteOf } from "../../../lrp_lightning/tensorboard_plugin/static/colours.js";
import { prepare } from "../../../lrp_lightning/tensorboard_plugin/static/graph.js";
import { escape } from "../../../lrp_lightning/tensorboard_plugin/static/graphml.js";
import { fitEnd, layout, strengths } from "../../../lrp_lightning/tensorboard_plugin/static/layout.js";
import { chartsOf } from "../../../lrp_lightning/tensorboard_plugin/static/measures.js";
import { change, number, percent, ticks } from "../../../lrp_lightning/tensorboard_plugin/static/numbers.js";
import { orderOf } from "../../../lrp_lightning/tensorboard_plugin/static/samples.js";
import { part } from "./graphs.js";

test("numbers are read easily", () => {
  assert.deepEqual([0, 1234.5, 0.12345, -2, 1e-7, NaN, null].map(number), ["0", "1230", "0.123", "−2", "1e−7", "–", "–"]);
  assert.deepEqual([0, 1, 0.0349, -0.5, 0.00012, null].map(percent), ["0 %", "100 %", "3.5 %", "−50 %", "0.01 %", "–"]);
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

test("neurons stand in columns, the most relevant on top, and nothing overlaps", () => {
  const graph = prepare(part());
  const { width, places } = layout(graph.layers, 600);
  const at = graph.nodes.map((node) => places.get(node));
  assert.equal(new Set(at.map(({ x, y }) => `${x} ${y}`)).size, at.length);
  assert.ok(at.every(({ x }) => x > 0 && x < width));
  const [, hidden] = graph.layers;
  assert.ok(places.get(hidden.nodes[0]).y < places.get(hidden.nodes[1]).y);
  // many layers take more than there is, and are scrolled
  const wide = layout(Array.from({ length: 60 }, () => ({ nodes: [{}] })), 600);
  assert.ok(wide.width > 60 * 60);
});

test("edges are as strong as among those of their layers", () => {
  const graph = prepare(part());
  const strength = strengths(graph.edges);
  assert.deepEqual(graph.edges.map((edge) => strength.get(edge)), [1, 1, 1 / 3, 1 / 3]);
  assert.ok([...strengths(prepare(part({ total: 0 })).edges).values()].every((value) => value === 0));
});

test("names keep their ends", () => {
  assert.equal(fitEnd("layer4.2.conv3", 60), "…4.2.conv3");
  assert.equal(fitEnd("fc", 60), "fc");
  assert.equal([...fitEnd("😀".repeat(99), 60)].length, 10);
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
  assert.deepEqual([at(0)[3], at(50)[3], at(100)[3], at(127)[3]], [0, 128, 255, 255]);
  assert.deepEqual(at(10).slice(0, 3), colourOf(1, "light"));
  assert.deepEqual(at(-10).slice(0, 3), colourOf(-1, "light"));
});

test("samples are sorted", () => {
  const samples = { labels: [2, 0, 1], errors: [0.1, 0.9, 0.5] };
  assert.deepEqual(orderOf(samples, "order"), [0, 1, 2]);
  assert.deepEqual(orderOf(samples, "error"), [1, 2, 0]);
  assert.deepEqual(orderOf(samples, "label"), [1, 2, 0]);
});

test("the contest and accuracies have charts, every other measure its own with its control", () => {
  const names = ["critical_neuron_accuracy", "random_accuracy", "mse", "random_mse", "smape", "random_walk"];
  const rest = [["critical_neuron_accuracy", "random_accuracy"], ["mse", "random_mse"], ["smape"], ["random_walk"]];
  assert.deepEqual(chartsOf(names).map((chart) => chart.names), rest);
  const contest = ["contest_accuracy", "random_contest_accuracy", "runner_up_accuracy"];
  assert.deepEqual(chartsOf([...names, ...contest]).map((chart) => chart.names), [contest, ...rest]);
});

test("text is safe in XML", () => {
  assert.equal(escape("<a b='c' d=\"e\">&\u0000\ud800"), "&lt;a b=&apos;c&apos; d=&quot;e&quot;&gt;&amp;\ufffd\ufffd");
});

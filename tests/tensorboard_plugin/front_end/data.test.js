import assert from "node:assert/strict";
import { test } from "node:test";
import { Data } from "../../../lrp_lightning/tensorboard_plugin/static/data.js";
import { part } from "./graphs.js";

const answer = (content, status = 200) => ({
  ok: status < 400, status, json: async () => content, arrayBuffer: async () => content,
});

/** A Data whose answers are these, and the addresses it asked. */
function asking(answers) {
  const asked = [];
  const data = new Data(async (address) => {
    asked.push(address);
    return answers(address);
  });
  return { data, asked };
}

test("a step is fetched once", async () => {
  const { data, asked } = asking(() => answer({ head: {}, graph: part() }));
  const [first, second] = await Promise.all([data.step("a", 1, 1), data.step("a", 1, 1)]);
  assert.equal(first, second);
  await data.step("a", 2, 1);
  assert.deepEqual(asked, ["step?run=a&step=1&class=1", "step?run=a&step=2&class=1"]);
});

test("names travel whole", async () => {
  const { data, asked } = asking(() => answer({ series: [] }));
  await data.series("a&b=c", 1, "<x>#☃", 2);
  const query = new URLSearchParams(asked[0].split("?")[1]);
  assert.deepEqual([query.get("run"), query.get("layer")], ["a&b=c", "<x>#☃"]);
});

test("what a run has is asked again when it changed, and only then", async () => {
  let changed = 1;
  const { data, asked } = asking((address) => answer(address.startsWith("runs") ? { runs: [{ run: "a", changed }] } : { steps: [] }));
  await data.runs();
  await data.stepsOf("a");
  await data.runs();
  await data.stepsOf("a");
  assert.equal(asked.filter((address) => address.startsWith("steps")).length, 1);
  changed = 2;
  await data.runs();
  await data.stepsOf("a");
  assert.equal(asked.filter((address) => address.startsWith("steps")).length, 2);
});

test("measures are asked again, and it is told whether there are new ones", async () => {
  let points = [[1, 0.5]];
  const { data, asked } = asking(() => answer({ measures: { mse: points } }));
  assert.deepEqual(await data.measured("a"), { mse: [[1, 0.5]] });
  await data.measured("a");
  assert.deepEqual(asked, ["measures?run=a"]);
  assert.equal(await data.renewMeasured(), false);
  points = [[1, 0.5], [2, 0.25]];
  assert.equal(await data.renewMeasured(), true);
  assert.deepEqual(await data.measured("a"), { mse: points });
});

test("all runs are asked for when there is a new one; where TensorBoard does not say, none are known", async () => {
  let all = ["a"];
  const { data } = asking((address) => answer(address.startsWith("runs") ? { runs: all.map((run) => ({ run, changed: 1 })) } : all));
  await data.runs();
  assert.deepEqual(await data.allRuns(), ["a"]);
  all = ["b", "a"];
  await data.runs();
  assert.deepEqual(await data.allRuns(), ["b", "a"]);
  assert.deepEqual(await asking(() => answer({}, 404)).data.allRuns(), []);
});

test("failures are told, and tried again", async () => {
  let status = 404;
  const { data } = asking(() => answer(status === 404 ? { error: "no such step" } : { head: {}, graph: part() }, status));
  await assert.rejects(data.step("a", 1, 1), /no such step/);
  status = 200;
  assert.ok((await data.step("a", 1, 1)).graph);
  const dead = new Data(async () => { throw new TypeError("network"); });
  await assert.rejects(dead.runs(), /TensorBoard does not answer/);
  const odd = new Data(async () => ({ ok: false, status: 502, json: async () => { throw new SyntaxError(); } }));
  await assert.rejects(odd.runs(), /status 502/);
});

test("a problem of a record is handed on", async () => {
  const { data } = asking(() => answer({ problem: "newer" }));
  assert.deepEqual(await data.step("a", 1, 1), { problem: "newer" });
});

test("pictures have the size that their ref says", async () => {
  const { data } = asking(() => answer(new Uint8Array([1, 255, 0, 127]).buffer));
  const heatmap = await data.picture("a", { step: 1, index: 0, shape: [1, 2, 2], scale: [1] });
  assert.deepEqual([...heatmap], [1, -1, 0, 127]);
  const image = await data.picture("a", { step: 1, index: 1, shape: [1, 2, 2, 1] });
  assert.deepEqual([...image], [1, 255, 0, 127]);
  await assert.rejects(data.picture("a", { step: 1, index: 2, shape: [1, 3, 3, 1] }), /broken/);
});

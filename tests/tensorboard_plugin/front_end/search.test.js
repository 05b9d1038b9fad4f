import assert from "node:assert/strict";
import { test } from "node:test";
import { prepare } from "../../../lrp_lightning/tensorboard_plugin/static/graph.js";
import { search } from "../../../lrp_lightning/tensorboard_plugin/static/search.js";
import { part } from "./graphs.js";

const found = (typed) => search(prepare(part()), typed).map((hit) => hit.key);

test("neurons are found by layer, number, or both", () => {
  assert.deepEqual(found("a:b@c"), ["0@a:b@c", "1@a:b@c", "7@a:b@c"]);
  assert.deepEqual(found("A:B"), ["0@a:b@c", "1@a:b@c", "7@a:b@c"]);
  assert.deepEqual(found("7"), ["7@a:b@c"]);
  assert.deepEqual(found("b@c : 1"), ["1@a:b@c"]);
  assert.deepEqual(found("out[1]"), ["1@out"]);
  assert.deepEqual(found("1"), ["1@out", "1@a:b@c"]);
});

test("nothing is found where nothing is", () => {
  for (const typed of ["", "  ", "nowhere", "out:9", "(", "\\"]) assert.deepEqual(found(typed), []);
});

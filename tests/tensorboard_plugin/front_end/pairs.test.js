import assert from "node:assert/strict";
import { test } from "node:test";
import { partners } from "../../../lrp_lightning/tensorboard_plugin/static/pairs.js";

const pictures = (...samples) => ({ values: Uint8Array.from(samples.flat()), ref: { shape: [samples.length, 1, samples[0].length, 1] } });

test("a sample is known again by its pixels", () => {
  const [a, b, c] = [[1, 2, 3], [1, 2, 4], [0, 0, 0]];
  assert.deepEqual(partners(pictures(a, b), pictures(a, b)), [0, 1]);
  assert.deepEqual(partners(pictures(a, b, c), pictures(c, a)), [1, -1, 0]);
  assert.deepEqual(partners(pictures(a, a), pictures(a, a)), [0, 1], "twins each with their own");
  assert.deepEqual(partners(pictures(a), pictures([1, 2, 3, 4])), [-1], "of another size");
});

// Arrays of a record as canvases.

import { h } from "./dom.js";
import { paletteOf } from "./colours.js";
import { theme } from "./theme.js";

/**
 * Heatmaps on one colour scale.
 *
 * @param grids [{values, ref}], as fetched.
 * @param shares whether each sample counts by shares of its own relevance, so that weak and strong samples both show.
 * @param over whether they lie over images, so that what is weak is transparent.
 * @returns for each grid a function (sample, label) -> canvas.
 */
export function heatmaps(grids, shares = false, over = false) {
  const factors = grids.map(({ values, ref }) => ref.scale.map((scale, sample) => {
    if (!shares) return scale;
    const one = slice(values, ref, sample);
    let sum = 0;
    for (const value of one) sum += Math.abs(value);
    return sum === 0 ? 0 : one.length / sum;
  }));
  const most = Math.max(...grids.map(({ values, ref }, grid) => strongest(values, ref, factors[grid])));
  return grids.map(({ values, ref }, grid) => (sample, label) => {
    const factor = factors[grid][sample];
    // the value of int8 that has the end of the colour scale
    const palette = paletteOf(theme(), factor === 0 ? Infinity : most / factor, over);
    const [, height, width] = ref.shape;
    const canvas = paint(slice(values, ref, sample), height, width, label, (value, pixels, at) => {
      const from = (value & 255) * 4;
      for (let i = 0; i < 4; i += 1) pixels[at + i] = palette[from + i];
    });
    if (!over) canvas.classList.add("on-page");
    return canvas;
  });
}

/** An image, or a reconstruction. */
export function image(values, ref, sample, label) {
  const [, height, width, channels] = ref.shape;
  const from = slice(values, ref, sample);
  return paint(from, height, width, label, (_, pixels, at) => {
    for (let i = 0; i < 3; i += 1) pixels[at + i] = from[(at / 4) * channels + (channels === 3 ? i : 0)];
    pixels[at + 3] = 255;
  });
}

function slice(values, ref, sample) {
  const size = values.length / ref.shape[0];
  return values.subarray(sample * size, (sample + 1) * size);
}

/** The end of the scale: above nearly all pixels of the strongest sample, so that one pixel does not fade the others. */
function strongest(values, ref, factors) {
  return Math.max(1e-30, ...factors.map((factor, sample) => {
    const sizes = Float32Array.from(slice(values, ref, sample), Math.abs).sort();
    return factor * Math.max(sizes[Math.floor((sizes.length - 1) * 0.995)], sizes[sizes.length - 1] * 0.3);
  }));
}

function paint(values, height, width, label, colour) {
  const canvas = h("canvas", { width, height, role: "img", "aria-label": label, title: label });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  for (let i = 0; i < width * height; i += 1) colour(values[i], pixels.data, i * 4);
  context.putImageData(pixels, 0, 0);
  return canvas;
}

// Colours of signed values: zero is the page's own, positive red, negative blue, as the colour-blind can tell them apart.

const SCALES = {
  light: { zero: [255, 255, 255], positive: [[244, 165, 130], [178, 24, 43]], negative: [[146, 197, 222], [33, 102, 172]] },
  dark: { zero: [24, 26, 30], positive: [[150, 58, 50], [255, 132, 104]], negative: [[44, 94, 140], [116, 190, 255]] },
};

/** RGB of zero: the page's own. */
export const zeroOf = (theme) => (SCALES[theme] ?? SCALES.light).zero;

/** RGB of a value in [-1, 1]; what is beyond is as its end. */
export function colourOf(value, theme) {
  const scale = SCALES[theme] ?? SCALES.light;
  const size = Math.min(1, Math.abs(value));
  const [middle, end] = value >= 0 ? scale.positive : scale.negative;
  const [from, to, at] = size < 0.5 ? [scale.zero, middle, size * 2] : [middle, end, size * 2 - 1];
  return from.map((start, i) => Math.round(start + (to[i] - start) * at));
}

const OVER = { positive: [255, 45, 45], negative: [50, 140, 255] }; // seen on dark images and on bright ones

/** Colours of all 255 values of a heatmap, RGBA, where `most` is the value that gets a scale's end; over an image small ones are clear. */
export function paletteOf(theme, most = 127, over = false) {
  const palette = new Uint8ClampedArray(256 * 4);
  for (let value = -127; value <= 127; value += 1) {
    const colour = over ? [...(value < 0 ? OVER.negative : OVER.positive), 255 * Math.sqrt(Math.min(1, Math.abs(value) / most))] : [...colourOf(value / most, theme), 255];
    palette.set(colour, (value & 255) * 4);
  }
  return palette;
}

const RUNS = ["#425066", "#12b5cb", "#e52592", "#f9ab00", "#9334e6", "#7cb342", "#e8710a"];
const SLATE_IN_THE_DARK = "#8e98a3";

/** A run's colour, as TensorBoard has it unless somebody chose another there: by its place among `all` runs. */
export function colourOfRun(all, run, theme) {
  const colour = RUNS[Math.max(0, all.indexOf(run)) % RUNS.length];
  return theme === "dark" && colour === RUNS[0] ? SLATE_IN_THE_DARK : colour;
}

const CLASS_COLOURS = ["#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#d4a72c", "#499894", "#e377a2", "#9c755f", "#8c8c8c", "#d1495b"];

/** A class's colour, which its name stands beside: there may be more classes than colours. */
export const colourOfClass = (label) => CLASS_COLOURS[label % CLASS_COLOURS.length];

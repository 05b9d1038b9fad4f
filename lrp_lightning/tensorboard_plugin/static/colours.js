// Colours of signed values: zero is the page's own, positive red, negative blue, as the colour-blind can tell them apart.

const SCALES = {
  light: { zero: [255, 255, 255], positive: [[244, 165, 130], [178, 24, 43]], negative: [[146, 197, 222], [33, 102, 172]] },
  dark: { zero: [24, 26, 30], positive: [[150, 58, 50], [255, 132, 104]], negative: [[44, 94, 140], [116, 190, 255]] },
};

/** RGB of a value in [-1, 1]; what is beyond is as its end. */
export function colourOf(value, theme) {
  const scale = SCALES[theme] ?? SCALES.light;
  const size = Math.min(1, Math.abs(value));
  const [middle, end] = value >= 0 ? scale.positive : scale.negative;
  const [from, to, at] = size < 0.5 ? [scale.zero, middle, size * 2] : [middle, end, size * 2 - 1];
  return from.map((start, i) => Math.round(start + (to[i] - start) * at));
}

/** Colours of all 255 values of a heatmap, RGBA, where `most` is the value that gets a scale's end; over an image small ones are clear. */
export function paletteOf(theme, most = 127, over = false) {
  const palette = new Uint8ClampedArray(256 * 4);
  for (let value = -127; value <= 127; value += 1) {
    const colour = over ? [...colourOf(Math.sign(value), theme), 255 * Math.min(1, Math.abs(value) / most)] : [...colourOf(value / most, theme), 255];
    palette.set(colour, (value & 255) * 4);
  }
  return palette;
}

/** One colour for each run; told apart by lightness too. */
export const RUN_COLOURS = ["#e8710a", "#1f78b4", "#7b3fa0", "#0b8f6a", "#c2185b", "#6d6d6d", "#8d6e00", "#3949ab"];

const CLASS_COLOURS = ["#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#d4a72c", "#499894", "#e377a2", "#9c755f", "#8c8c8c", "#d1495b"];

/** A class's colour, which its name stands beside: there may be more classes than colours. */
export const colourOfClass = (label) => CLASS_COLOURS[label % CLASS_COLOURS.length];

// The fixed samples: image, heatmap, label, prediction.

import { h } from "./dom.js";
import { heatmaps, image } from "./heatmap.js";
import { number, percent } from "./numbers.js";

/** The order in which samples are shown. */
export function orderOf(samples, sort) {
  const order = samples.labels.map((_, i) => i);
  if (sort === "error") order.sort((a, b) => samples.errors[b] - samples.errors[a]);
  if (sort === "label") order.sort((a, b) => samples.labels[a] - samples.labels[b]);
  return order;
}

/** A sample's words: what it is, and what the model takes it for. */
export function wordsOf(samples, i, nameOf) {
  const known = samples.labels[i] >= 0;
  const right = samples.labels[i] === samples.predictions[i];
  return {
    wrong: known && !right,
    mark: !known ? ["", "no label"] : right ? ["✓", "right"] : ["✗", "wrong"],
    prediction: nameOf(samples.predictions[i]),
    label: known ? nameOf(samples.labels[i]) : "without a label",
    probability: percent(samples.probabilities[i]),
    error: number(samples.errors[i]),
  };
}

/**
 * A row of tiles.
 *
 * @param samples the head's samples, images their pixels (null where there are none).
 * @param grids [{title, values, ref}] of heatmaps, or of images where a ref has no scale; one picture a tile. Samples that a
 *   ref leaves out have no tile.
 * @param shares as in heatmaps().
 */
export function tiles({ samples, images, grids, sort, nameOf, shares = false }) {
  const signed = grids.filter((grid) => grid.ref.scale);
  const painters = new Map(heatmaps(signed, shares).map((painter, i) => [signed[i], painter]));
  const at = ({ ref }, i) => ref.samples?.indexOf(i) ?? i;
  const shown = orderOf(samples, sort).filter((i) => grids.every((grid) => at(grid, i) >= 0));
  return h("ul", { class: "tiles" }, shown.map((i) => {
    const words = wordsOf(samples, i, nameOf);
    const held = grids.length > 1 && grids[1].ref === samples.all_neurons && samples.held?.[i]
      ? `critical ${percent(samples.held[i][0])}, all ${percent(samples.held[i][1])}` : null;
    const wrong = words.wrong ? `, but it is ${words.label}` : "";
    const pictures = grids.map((grid) => {
      const label = `${grid.title} of sample ${i + 1}`;
      return painters.has(grid) ? painters.get(grid)(at(grid, i), label) : image(grid.values, grid.ref, at(grid, i), label);
    });
    return h("li", { class: words.wrong ? "tile wrong" : "tile", title: `taken for ${words.prediction} (${words.probability})${wrong}; error ${words.error}` },
      h("div", { class: "pictures" }, images && image(images.values, images.ref, i, `sample ${i + 1}, ${words.label}`), ...pictures),
      h("div", { class: "caption" },
        h("span", { class: "mark", role: "img", "aria-label": words.mark[1] }, words.mark[0]),
        h("span", { class: "name" }, words.prediction), h("span", { class: "quiet" }, words.probability)),
      held && h("div", { class: "caption quiet held" }, held),
      words.wrong ? h("div", { class: "caption quiet" }, h("span", { class: "name" }, `is ${words.label}`)) : null);
  }));
}

// Samples: image, heatmaps over it, label, prediction.

import { stack } from "./blend.js";
import { h } from "./dom.js";
import { heatmaps, image } from "./heatmap.js";
import { number, percent } from "./numbers.js";
import { pair } from "./pairs.js";
import { enlarge, enlarging } from "./viewer.js";

/** The order in which samples are shown. */
export function orderOf(samples, sort) {
  const order = samples.labels.map((_, i) => i);
  if (sort === "error") order.sort((a, b) => samples.errors[b] - samples.errors[a]);
  if (sort === "label") order.sort((a, b) => samples.labels[a] - samples.labels[b]);
  return order;
}

/** [[name, samples], ...]: those classified correctly, wrongly, and those without a label; no empty groups. */
export function groupsOf(samples, order) {
  const kind = (i) => (samples.labels[i] < 0 ? "Without a label" : samples.labels[i] === samples.predictions[i] ? "Right" : "Wrong");
  return ["Right", "Wrong", "Without a label"].map((name) => [name, order.filter((i) => kind(i) === name)]).filter(([, members]) => members.length);
}

/** A sample's label and prediction in words. */
function wordsOf(samples, i, nameOf) {
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

const part = (share) => (share !== null && share !== 0 && Math.abs(share) < 1e-3 ? "< 0.1 %" : percent(share));

/**
 * Tiles, grouped into right and wrong predictions; a click enlarges one.
 *
 * @param samples the head's samples, images their pixels (null where there are none).
 * @param grids [{title, values, ref, before}] of heatmaps, or of images where a ref has no scale; one picture a tile. Samples that a
 *   ref leaves out have no tile. before, where there is one: {title, values, ref, places}, another grid that it is paired with, and where
 *   each sample stands there, -1 for nowhere.
 * @param shares as in heatmaps().
 */
export function tiles({ samples, images, grids, sort, nameOf, shares = false }) {
  const signed = grids.flatMap((grid) => [grid, ...(grid.before ? [grid.before] : [])]).filter((grid) => grid.ref.scale);
  const painters = new Map(heatmaps(signed, shares, images !== null).map((painter, i) => [signed[i], painter]));
  const at = ({ ref }, i) => ref.samples?.indexOf(i) ?? i;
  const shown = orderOf(samples, sort).filter((i) => grids.every((grid) => at(grid, i) >= 0));
  const groups = groupsOf(samples, shown);
  const picture = (i) => images && image(images.values, images.ref, i, `sample ${i + 1}, ${wordsOf(samples, i, nameOf).label}`);
  const pictures = (i) => [...(images ? [["image", picture(i)]] : []), ...grids.map((grid) => {
    const labelOf = ({ title }) => `${title} of sample ${i + 1}`;
    if (!painters.has(grid)) return [grid.title, image(grid.values, grid.ref, at(grid, i), labelOf(grid))];
    const painted = (one, place) => stack(picture(i), painters.get(one)(place, labelOf(one)));
    const { before } = grid;
    const place = before?.places[i] ?? -1;
    if (place < 0) return [grid.title, painted(grid, at(grid, i))];
    return [`${before.title}, ${grid.title}`, pair(painted(before, place), painted(grid, at(grid, i)))];
  })];
  const heldOf = (i) => (grids.some(({ ref }) => ref === samples.all_neurons) && samples.held?.[i]
    ? `critical ${part(samples.held[i][0])}, all ${part(samples.held[i][1])}` : null);
  const saying = (i) => {
    const words = wordsOf(samples, i, nameOf);
    return `predicted as ${words.prediction} (${words.probability})${words.wrong ? `, labelled ${words.label}` : ""}; error ${words.error}`;
  };
  const items = groups.flatMap(([, members]) => members).map((i) => ({
    heading: `Sample ${i + 1}: ${wordsOf(samples, i, nameOf).label}`,
    lines: [saying(i), ...(heldOf(i) ? [`Part of the logit that each heatmap holds: ${heldOf(i)}.`] : [])],
    pictures: () => pictures(i),
    sample: i,
  }));
  const open = (i) => enlarge(items, items.findIndex(({ sample }) => sample === i));
  const tile = (i) => {
    const words = wordsOf(samples, i, nameOf);
    return h("li", { class: words.wrong ? "tile wrong" : "tile", title: saying(i) },
      enlarging(`sample ${i + 1}, ${saying(i)}`, () => open(i), h("span", { class: "pictures" }, pictures(i).map(([, shownAs]) => shownAs))),
      h("div", { class: "caption" },
        h("span", { class: "mark", role: "img", "aria-label": words.mark[1] }, words.mark[0]),
        h("span", { class: "name" }, words.prediction), h("span", { class: "quiet" }, words.probability)),
      heldOf(i) && h("div", { class: "caption quiet held" }, heldOf(i)),
      words.wrong ? h("div", { class: "caption quiet" }, h("span", { class: "name" }, `labelled ${words.label}`)) : null);
  };
  return h("div", { class: "groups" }, groups.map(([name, members]) => h("section", { class: "group", "aria-label": name },
    h("h4", {}, name, h("span", { class: "quiet" }, ` ${members.length}`)), h("ul", { class: "tiles" }, members.map(tile)))));
}

// Groups of a class's images that the network decides alike, and which of these are likely shortcuts.

import { blendSlider, stack } from "./blend.js";
import { h, keepHeight } from "./dom.js";
import { heatmaps, image } from "./heatmap.js";
import { soon } from "./later.js";
import { theme } from "./theme.js";
import { enlarge, enlarging } from "./viewer.js";
import { brief, counted, whole } from "./words.js";

const TALLEST = 120; // pixels of a picture

/** Whether a region of it was copied into other images. */
const tested = ({ region, flipped }) => region !== null && flipped !== null;

const controls = (share) => (share === null ? "" : ` (controls\u00a0${whole(share)})`);

/** What came of copying its region, in words. */
export function testWords(strategy, nameOf) {
  if (!tested(strategy)) return "no region was tested";
  const { flipped, control, shortcut, where } = strategy;
  const into = brief(nameOf(strategy.class));
  return `Copied into other images, ${where} turns ${whole(flipped)} of them into ${into}${controls(control)}${shortcut ? "" : ": no shortcut found"}.`;
}

/**
 * Its typical images, the misclassified ones last: [place, predicted class, or null where the prediction is correct or not known].
 */
export function prototypesOf({ class: label, images, predictions }) {
  const all = Array.from({ length: images ? images.shape[0] : 0 }, (_, i) => [i, predictions[i] === undefined || predictions[i] === label ? null : predictions[i]]);
  return [...all.filter(([, taken]) => taken === null), ...all.filter(([, taken]) => taken !== null)];
}

/** Those of a class, or of all where label is null: shortcuts first, then class by class, the largest first. */
export function rowsOf(strategies, label) {
  const rank = (a, b) => b.shortcut - a.shortcut || a.class - b.class || b.share - a.share;
  return strategies.filter((strategy) => label === null || strategy.class === label).sort(rank);
}

/** The refs to pictures of a strategy. */
export const picturesOf = ({ heatmap, images, heatmaps: heat }) => [heatmap, images, heat].filter(Boolean);

/** The panel of a step's strategies; hidden where it has none. */
export class StrategiesPanel {
  /** @param onClass called with a class that is to be chosen. */
  constructor(onClass) {
    this.onClass = onClass;
    this.asked = 0;
    this.all = h("input", { type: "checkbox", onchange: () => this.draw() });
    this.rows = h("div", { class: "strategy-rows" });
    this.allOf = h("label", { class: "key" }, this.all, "show all classes");
    this.element = h("section", { class: "panel strategies", "aria-label": "Strategies", hidden: true },
      h("header", {}, h("h3", {}, "Strategies: images that the network decides alike"), blendSlider()),
      this.rows, this.allOf,
      h("p", { class: "quiet" }, "Each row is a strategy: images of one class that the network decides alike. "
        + "Red supports the class, blue opposes it. To test a strategy, its region is copied into images of other classes; "
        + "controls copy another region, or the same region from the class's other images."));
  }

  /** @param shown {run, head, label, classes with graphs, nameOf, picture(ref)}. */
  show(shown) {
    this.shown = shown;
    this.draw();
  }

  draw() {
    const { head, label, nameOf } = this.shown;
    const { strategies } = head;
    this.element.hidden = strategies.length === 0;
    const drawn = { head, label, all: this.all.checked, theme: theme() };
    if (this.failed !== true && Object.keys(drawn).every((key) => this.drawn?.[key] === drawn[key])) return;
    this.drawn = drawn;
    this.failed = false;
    this.asked += 1;
    if (this.element.hidden) return;
    const mine = this.asked;
    const listed = rowsOf(strategies, this.all.checked ? null : label);
    const rows = listed.map((strategy) => this.row(strategy));
    soon(rows.map((row) => row.ready)).then(() => {
      if (mine !== this.asked) return;
      this.allOf.hidden = strategies.every((strategy) => strategy.class === label);
      this.rows.replaceChildren(rows.length === 0
        ? h("p", { class: "quiet" }, `No strategies of ${brief(nameOf(label))} at this step.`)
        : h("ul", {}, h("li", { class: "strategy quiet", "aria-hidden": "true" },
          h("span", {}), h("span", {}, "mean heatmap"), h("span", { class: "rest" }, "most typical images")), rows.map((row) => row.element)));
      keepHeight(this.element, [this.shown.run, label, this.all.checked]);
    });
  }

  /** Choose a class; one without a graph is shown among all. */
  lookAt(label) {
    if (this.shown.classes.includes(label)) {
      this.onClass(label);
      return;
    }
    this.all.checked = true;
    this.draw();
  }

  row(strategy) {
    const { nameOf, picture } = this.shown;
    const name = brief(nameOf(strategy.class));
    const frame = () => (tested(strategy) && !strategy.moves ? framed(strategy) : null);
    const slot = ({ shape: [, height, width] }) => {
      const place = h("div", { class: "slot" });
      place.style.aspectRatio = `${width} / ${height}`;
      place.style.width = `min(100%, ${((TALLEST * width) / height).toFixed(1)}px)`;
      return place;
    };
    const { heatmap, images, heatmaps: heat } = strategy;
    const mean = heatmap && slot(heatmap);
    const prototypes = prototypesOf(strategy).map(([i, taken]) => ({ i, taken, place: slot(images) }));
    mean?.append(frame() ?? "");
    const problem = h("p", { class: "problem", role: "alert", hidden: true });
    const element = h("li", { class: strategy.shortcut ? "strategy shortcut" : "strategy", "data-class": strategy.class },
      h("div", { class: "about" },
        h("div", { class: "who" }, h("b", { title: nameOf(strategy.class).slice(0, 400) }, name), strategy.shortcut ? h("span", { class: "badge" }, "likely shortcut") : null),
        h("div", { class: "quiet" }, `${whole(strategy.share)} of the class, ${counted(strategy.samples, "sample")}${strategy.right === null ? "" : `, ${whole(strategy.right)} of them classified correctly`}`),
        h("div", {}, testWords(strategy, nameOf)), problem),
      mean ?? h("span", { class: "quiet" }, "not in the log"),
      prototypes.length ? prototypes.map(({ taken, place }) => h("div", { class: taken === null ? "prototype" : "prototype wrong" }, place,
        taken === null ? null : h("div", { class: "caption", title: `misclassified as ${nameOf(taken)}` },
          h("span", { class: "mark", role: "img", "aria-label": "misclassified as" }, "✗"), h("span", { class: "name" }, brief(nameOf(taken)))))) : h("span", { class: "quiet rest" }, "Its images are not in the log."));
    const get = (ref) => (ref ? picture(ref) : null);
    const ready = Promise.all([get(heatmap), get(images), get(heat)]).then(([average, pixels, relevance]) => {
      if (average) mean.prepend(heatmaps([{ values: average, ref: heatmap }])[0](0, `mean heatmap of a strategy of ${name}`));
      const [paintHeat] = relevance ? heatmaps([{ values: relevance, ref: heat }], true, true) : [];
      const plain = (i) => image(pixels, images, i, `typical image ${i + 1} of a strategy of ${name}`);
      const painted = (i) => stack(plain(i), paintHeat && i < heat.shape[0] ? paintHeat(i, `heatmap of image ${i + 1}`) : null, frame());
      const items = prototypes.map(({ i, taken }, at) => ({
        heading: `${name}, typical image ${at + 1}`,
        lines: [...(taken === null ? [] : [`Misclassified as ${nameOf(taken)}.`]), `This strategy has ${whole(strategy.share)} of the class's images.`, testWords(strategy, nameOf)],
        pictures: () => [["image", plain(i)], ["heatmap, and the tested region", painted(i)]],
      }));
      prototypes.forEach(({ i, place }, at) => place.append(
        enlarging(`typical image ${at + 1}`, () => enlarge(items, at), painted(i))));
    }).catch((error) => {
      this.failed = true;
      problem.hidden = false;
      problem.textContent = error.message;
    });
    return { element, ready };
  }
}

/** A frame around its region, in a box that is as the image. */
function framed({ region: [top, left, height, width], shape: [rows, columns] }) {
  const frame = h("span", { class: "frame", "aria-hidden": "true" });
  const share = (value, side) => `${(100 * value) / side}%`;
  Object.assign(frame.style, { top: share(top, rows), left: share(left, columns), height: share(height, rows), width: share(width, columns) });
  return frame;
}

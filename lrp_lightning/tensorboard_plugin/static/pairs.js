// One sample's heatmaps at two steps, A and B: side by side, blinking in one place, or with a slider from one to the other.

import { button, h } from "./dom.js";

const SEEN_MS = 700; // of each in turn: far below the three flashes a second that may harm

let shown = { view: null, slide: 50, a: "", b: "" };
let act = () => {};
let timer = null;

const root = () => document.documentElement;
const still = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Which of a sample's pictures is at the same place in another list of them, by its pixels; -1 where there is none. */
export function partners(one, other) {
  const cut = ({ values, ref }) => {
    const size = values.length / ref.shape[0];
    return Array.from({ length: ref.shape[0] }, (_, i) => values.subarray(i * size, (i + 1) * size));
  };
  const equal = (a, b) => a.length === b.length && a.every((value, i) => value === b[i]);
  const others = cut(other);
  return cut(one).map((pixels, i) => (others[i] && equal(pixels, others[i]) ? i : others.findIndex((candidate) => equal(pixels, candidate))));
}

/** @param a, b elements of the same shape. */
export const pair = (a, b) => h("span", { class: "pair" }, a, b);

/**
 * Show pairs everywhere as the state asks for it.
 *
 * @param now {view, slide: per cent of a picture that shows A, a, b: what the two are, in words}.
 * @param update called with changes of the state.
 */
export function showPairs(now, update) {
  const other = now.view !== shown.view;
  [shown, act] = [now, update];
  root().style.setProperty("--slide", `${now.slide}%`);
  root().dataset.pairs = now.view ?? "";
  if (other) {
    see("b");
    clearInterval(timer);
    timer = now.view === "blink" && !still() ? setInterval(() => see(root().dataset.seen === "a" ? "b" : "a"), SEEN_MS) : null;
  }
  tell();
}

function see(side) {
  root().dataset.seen = side;
  tell();
}

const tell = () => document.querySelectorAll(".pair-controls").forEach((controls) => controls.tell());

/** Buttons that have pairs blink or slide, and what moves them; one state for all of these. */
export function pairControls() {
  const choose = (view) => act({ view: shown.view === view ? null : view });
  const blink = button("Blink", "Show A and B in turn, in one place", () => choose("blink"));
  const slide = button("Slide", "Lay B over A, with a slider between them", () => choose("slide"));
  const side = button("", "", () => {
    clearInterval(timer); // who switches by hand wants to look
    see(root().dataset.seen === "a" ? "b" : "a");
  }, { class: "side" });
  const range = h("input", { type: "range", min: 0, max: 100, "aria-label": "From B to A: how much of each picture shows A", oninput: () => {
    shown = { ...shown, slide: Number(range.value) };
    root().style.setProperty("--slide", `${range.value}%`);
    tell();
  }, onchange: () => act({ slide: Number(range.value) }) });
  const controls = h("span", { class: "pair-controls", role: "group", "aria-label": "How A and B are shown" }, blink, slide, side, range);
  controls.tell = () => {
    blink.setAttribute("aria-pressed", String(shown.view === "blink"));
    slide.setAttribute("aria-pressed", String(shown.view === "slide"));
    side.hidden = shown.view !== "blink";
    range.hidden = shown.view !== "slide";
    range.value = shown.slide;
    const { seen } = root().dataset;
    side.textContent = seen === "a" ? "A" : "B";
    side.title = `Now ${seen === "a" ? `A, ${shown.a}` : `B, ${shown.b}`}: switch by hand`;
    side.setAttribute("aria-label", `${still() ? "" : "Stop blinking and "}show ${seen === "a" ? `B, ${shown.b}` : `A, ${shown.a}`}`);
  };
  controls.tell();
  return controls;
}

// What a word means, behind a question mark.

import { h } from "./dom.js";

const EDGE = 8; // pixels between a note and the window's end

/** A button that opens a note, by mouse or key; Escape, or a click elsewhere, closes it. */
export function help(what, ...notes) {
  const note = h("div", { class: "help-note", popover: "auto", role: "note" }, notes.map((text) => h("p", {}, text)));
  const ask = h("button", { type: "button", class: "help", "aria-label": `What is ${what}?`, title: notes.join("\n\n") }, "?");
  ask.popoverTargetElement = note;
  note.addEventListener("toggle", () => {
    const [at, size] = [ask.getBoundingClientRect(), note.getBoundingClientRect()];
    const below = at.bottom + 4 + size.height < window.innerHeight;
    note.style.top = `${Math.max(EDGE, below ? at.bottom + 4 : at.top - 4 - size.height)}px`;
    note.style.left = `${Math.max(EDGE, Math.min(at.left, window.innerWidth - size.width - EDGE))}px`;
  });
  return h("span", { class: "helps" }, ask, note);
}

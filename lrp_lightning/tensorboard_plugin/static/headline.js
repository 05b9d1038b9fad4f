// The findings of a step, in sentences: what is read first.

import { h, keepHeight } from "./dom.js";
import { help } from "./help.js";
import { ABOUT_TAB, brief } from "./words.js";

/** Classes with a likely shortcut, each once, the surest first. */
export const suspects = (strategies) => [
  ...new Set(strategies.filter(({ shortcut }) => shortcut).sort((a, b) => (b.bound ?? 0) - (a.bound ?? 0)).map((strategy) => strategy.class)),
];

export class Headline {
  /** @param onClass called with a class that is to be chosen. */
  constructor(onClass) {
    this.onClass = onClass;
    this.said = h("div", { class: "said", role: "status" });
    this.element = h("section", { class: "panel headline", "aria-label": "What was found", hidden: true },
      this.said, help("this tab", ...ABOUT_TAB));
  }

  /** @param shown {run, head, nameOf}. */
  show({ run, head, nameOf }) {
    const classes = suspects(head.strategies).map((label) => [label, brief(nameOf(label))]);
    const words = JSON.stringify([head.headline, classes]);
    if (this.words === words) return; // said once, and what has the focus keeps it
    this.words = words;
    this.element.hidden = head.headline.length === 0 && classes.length === 0;
    this.element.classList.toggle("alert", classes.length > 0);
    this.said.replaceChildren(
      ...head.headline.map((sentence) => h("p", {}, sentence)),
      ...(classes.length === 0 ? [] : [h("p", { class: "suspects" }, h("span", { class: "quiet" }, "Likely shortcuts of "),
        classes.map(([label, name]) => h("button", { type: "button", "data-class": label, title: `Show ${name}`, onclick: () => this.onClass(label) }, name)))]));
    keepHeight(this.element, run);
  }
}

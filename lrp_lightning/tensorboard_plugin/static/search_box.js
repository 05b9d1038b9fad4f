// A field that finds neurons while one types: arrow keys choose, Enter takes, Escape leaves.

import { h } from "./dom.js";
import { percent } from "./numbers.js";
import { search } from "./search.js";

export class SearchBox {
  /** @param graphNow gives the graph to search; onPick takes {neuron: key}. */
  constructor(graphNow, onPick) {
    this.graphNow = graphNow;
    this.onPick = onPick;
    this.list = h("ul", { id: "found", role: "listbox", "aria-label": "Neurons found", hidden: true });
    this.field = h("input", {
      type: "search", role: "combobox", "aria-label": "Search for a neuron or layer, such as conv1:17", title: "Part of a layer's name, a neuron's number, or both, such as conv1:17 (/)", placeholder: "Search", autocomplete: "off",
      "aria-controls": "found", "aria-expanded": "false", spellcheck: "false",
      oninput: () => this.look(), onfocus: () => this.look(), onkeydown: (event) => this.onKey(event),
      onblur: () => setTimeout(() => this.close(), 150),
    });
    this.element = h("div", { class: "search" }, this.field, this.list);
    this.hits = [];
  }

  look() {
    const graph = this.graphNow();
    this.hits = graph ? search(graph, this.field.value) : [];
    this.at = 0;
    const typed = this.field.value.trim() !== "";
    this.list.replaceChildren(...this.hits.map((hit, i) => h("li", {
      role: "option", id: `found-${i}`, onpointerdown: (event) => { event.preventDefault(); this.take(i); },
    }, h("span", { class: "name" }, `${hit.layer} : ${hit.neuron}`),
    h("span", { class: "quiet" }, `${percent(hit.share)}${hit.shown ? "" : " · not shown"}`))));
    if (typed && !this.hits.length) this.list.append(h("li", { class: "quiet" }, "No neuron with relevance has this name or number."));
    this.list.hidden = !typed;
    this.field.setAttribute("aria-expanded", String(typed));
    this.mark();
  }

  mark() {
    [...this.list.children].forEach((item, i) => item.setAttribute("aria-selected", String(i === this.at && this.hits.length > 0)));
    if (this.hits.length) this.field.setAttribute("aria-activedescendant", `found-${this.at}`);
    else this.field.removeAttribute("aria-activedescendant");
  }

  onKey(event) {
    const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (move && this.hits.length) {
      event.preventDefault();
      this.at = (this.at + move + this.hits.length) % this.hits.length;
      this.mark();
    } else if (event.key === "Enter" && this.hits.length) {
      this.take(this.at);
    } else if (event.key === "Escape") {
      this.field.value = "";
      this.close();
    }
  }

  take(i) {
    this.onPick({ neuron: this.hits[i].key });
    this.close();
  }

  close() {
    this.list.hidden = true;
    this.field.setAttribute("aria-expanded", "false");
  }
}

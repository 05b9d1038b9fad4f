// What is chosen: runs, class, step, what it is compared with; and what can be done with it.

import { button, h, options } from "./dom.js";
import { colourOfRun } from "./colours.js";
import { isSame, toCompare } from "./diff.js";
import { SearchBox } from "./search_box.js";
import { theme } from "./theme.js";

const PLAY_MS = 700;

export class Toolbar {
  /** @param act {update(changes), pick(picked), share(), save(kind), graph()}. */
  constructor(act) {
    this.act = act;
    this.run = h("select", { "aria-label": "Run whose graph is shown", onchange: () => act.update({ run: this.run.value }) });
    this.runs = h("div", { class: "choices", role: "group", "aria-label": "Runs in the charts" });
    this.runsMenu = h("details", { class: "menu" }, h("summary", { title: "Runs in the charts of measures and neurons" }, "Runs…"), this.runs);
    this.label = h("select", { "aria-label": "Class", onchange: () => act.update({ label: Number(this.label.value), picked: null }) });
    this.slider = h("input", { type: "range", min: 0, step: 1, "aria-label": "Step", oninput: () => this.goTo(Number(this.slider.value)) });
    this.told = h("output", { class: "step" });
    this.playing = null;
    this.play = button("▶", "Play the steps", () => this.toggle(), { class: "play" });
    this.compare = button("Compare", "Compare with another step or run", () => this.toggleCompare(), { "aria-pressed": "false" });
    this.againstRun = h("select", { "aria-label": "Run to compare with", onchange: () => this.compareWith(this.againstRun.value, null) });
    this.againstStep = h("select", { "aria-label": "Step to compare with",
      onchange: () => this.compareWith(this.againstRun.value, Number(this.againstStep.value)) });
    this.against = h("span", { class: "against", hidden: true }, this.againstRun, this.againstStep);
    this.search = new SearchBox(act.graph, act.pick);
    this.exports = h("details", { class: "menu end" }, h("summary", { title: "Save what is shown" }, "Export"),
      h("div", { class: "choices" }, [["html", "Page as HTML"], ["png", "Graph as PNG"], ["svg", "Graph as SVG"], ["json", "Step as JSON"], ["graphml", "Graph as GraphML"]].map(([kind, text]) =>
        button(text, text, () => { this.exports.open = false; act.save(kind); }))));
    this.element = h("div", { class: "toolbar", role: "group", "aria-label": "What is shown" },
      h("label", {}, h("span", {}, "Run"), this.run), this.runsMenu,
      h("label", {}, h("span", {}, "Class"), this.label),
      h("div", { class: "steps" },
        button("‹", "Previous step", () => this.goTo(this.place - 1)), this.play, button("›", "Next step", () => this.goTo(this.place + 1)),
        this.slider, this.told),
      this.compare, this.against, this.search.element,
      button("Share", "Copy a link to what is shown", () => act.share()), this.exports);
    for (const menu of [this.runsMenu, this.exports]) {
      menu.addEventListener("focusout", (event) => { if (!menu.contains(event.relatedTarget)) menu.open = false; });
      menu.addEventListener("keydown", (event) => {
        if (event.key !== "Escape") return;
        menu.open = false;
        menu.firstChild.focus();
      });
    }
  }

  /** @param now {names, state, steps, step, classes, nameOf, lists: Map of run -> steps}. */
  show(now) {
    const { names, state, steps, step, classes, nameOf, lists } = now;
    this.now = now;
    options(this.run, names.map((name) => [name, name]), state.run);
    this.run.title = state.run;
    this.runsMenu.hidden = names.length < 2;
    this.runs.replaceChildren(...names.map((name) => {
      const swatch = h("span", { class: "dot" });
      swatch.style.background = colourOfRun(now.all, name, theme());
      return h("label", { title: name }, h("input", {
        type: "checkbox", checked: state.runs.includes(name), disabled: name === state.run, onchange: (event) => this.chooseRun(name, event.target.checked),
      }), swatch, h("span", { class: "name" }, name));
    }));
    options(this.label, classes.map((label) => [label, nameOf(label)]), state.label);
    this.place = steps.findIndex((candidate) => candidate.step === step);
    this.slider.max = steps.length - 1;
    this.slider.value = this.place;
    const { epoch } = steps[this.place];
    const words = epoch === undefined ? `step ${step}` : `epoch ${epoch} · step ${step}`;
    this.told.textContent = words;
    this.slider.setAttribute("aria-valuetext", words);
    const { against } = state;
    this.compare.setAttribute("aria-pressed", String(against !== null));
    this.compare.disabled = against === null && toCompare(now) === null;
    this.against.hidden = against === null;
    if (against) {
      options(this.againstRun, names.map((name) => [name, name]), against.run);
      const others = (lists.get(against.run) ?? []).filter((other) => !other.problem);
      options(this.againstStep, others.map((other) => [other.step, `epoch ${other.epoch} · ${other.step}`]), against.step);
      for (const option of this.againstStep.options) option.disabled = isSame({ run: against.run, step: Number(option.value) }, { run: state.run, step });
    }
  }

  goTo(place) {
    const { steps } = this.now;
    const to = Math.max(0, Math.min(steps.length - 1, place));
    // at the last step, later ones are followed
    this.act.update({ step: to === steps.length - 1 ? null : steps[to].step });
  }

  toggle() {
    if (this.playing === null) {
      if (this.place === this.now.steps.length - 1) this.goTo(0);
      this.playing = setInterval(() => {
        if (this.place >= this.now.steps.length - 1) this.toggle();
        else this.goTo(this.place + 1);
      }, PLAY_MS);
    } else {
      clearInterval(this.playing);
      this.playing = null;
    }
    const on = this.playing !== null;
    this.play.textContent = on ? "❚❚" : "▶";
    this.play.setAttribute("aria-label", on ? "Pause" : "Play the steps");
  }

  toggleCompare() {
    this.act.update({ against: this.now.state.against ? null : toCompare(this.now) });
  }

  async compareWith(run, step) {
    const { step: here, state } = this.now;
    this.act.update({ against: step === null && run === state.run ? toCompare(this.now) : { run, step: step ?? here } });
  }

  chooseRun(name, chosen) {
    const { state, names } = this.now;
    this.act.update({ runs: names.filter((other) => (other === name ? chosen : state.runs.includes(other))) });
  }
}

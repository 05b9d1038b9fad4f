// The tab: reads what is asked for, and shows it.

import { Data } from "./data.js";
import { blendSlider } from "./blend.js";
import { button, h } from "./dom.js";
import { isSame, merge, overlap } from "./diff.js";
import { changes, edgeDetails, groupDetails, neuronDetails, overview, pathDetails } from "./details.js";
import { fileName, saveGraphml, saveJson, savePng, saveSvg } from "./exports.js";
import { Headline } from "./headline.js";
import { GraphView } from "./graph_view.js";
import { ofKey } from "./graph.js";
import { grouped, isGroup, membersOf } from "./groups.js";
import { address, onReload, readHash, writeHash } from "./host.js";
import { readLink, writeLink } from "./link.js";
import { soon } from "./later.js";
import { Measures } from "./measures.js";
import { pairControls, partners, showPairs } from "./pairs.js";
import { tiles } from "./samples.js";
import { saveHtml } from "./snapshot.js";
import { StrategiesPanel, picturesOf, rowsOf } from "./strategies.js";
import { colourOfRun } from "./colours.js";
import { theme } from "./theme.js";
import { Toolbar } from "./toolbar.js";
import { apart, counted } from "./words.js";
import { emptyState } from "./empty_state.js";

const POLL_MS = 5000;
const LEGEND = "In heatmaps and in the graph, red supports the class and blue opposes it; transparent or plain areas do neither.";

export class App {
  constructor(root) {
    this.data = new Data();
    this.state = readLink(readHash());
    this.names = [];
    this.asked = 0; // of several refreshes only the last one shows
    const pick = (picked) => this.update({ picked });
    this.pick = pick;
    this.graphView = new GraphView({
      pick, update: (changed) => this.update(changed), say: (words) => this.say(words), full: (full) => this.board.classList.toggle("graph-alone", full),
    });
    this.strategies = new StrategiesPanel((label) => this.update({ label, picked: null }));
    this.headline = new Headline((label) => this.strategies.lookAt(label));
    this.toolbar = new Toolbar({
      update: (changed) => this.update(changed),
      pick: (picked) => { this.update({ picked }).then(() => this.graphView.reveal(picked.neuron)); },
      share: () => this.share(),
      save: (kind) => this.save(kind),
      graph: () => this.now?.graph ?? null,
    });
    this.sort = h("select", { "aria-label": "Order of the samples", onchange: () => this.update({ sort: this.sort.value }) },
      [["order", "as logged"], ["error", "by error"], ["label", "by label"]].map(([value, text]) => h("option", { value }, text)));
    this.samples = h("div", { class: "samples-body" });
    this.measures = new Measures();
    this.side = h("aside", { "aria-label": "Details" });
    this.notice = h("div", { class: "notice", role: "alert", hidden: true });
    this.told = h("div", { class: "toast", role: "status", "aria-live": "polite" });
    this.board = h("main", { class: "board", "aria-busy": "true" },
      h("div", { class: "column" },
        this.headline.element,
        this.strategies.element,
        h("section", { class: "panel graph-panel", "aria-label": "Graph" }, this.graphView.element),
        h("div", { class: "lower" },
          h("section", { class: "panel samples" }, h("header", {}, h("h3", {}, "Samples"), pairControls(), blendSlider(), h("label", { class: "quiet" }, "sorted ", this.sort)), this.samples),
          this.measures.element)),
      this.side);
    this.bar = h("div", { class: "progress", hidden: true });
    this.empty = h("div", { class: "empty", hidden: true });
    root.append(this.bar, this.toolbar.element, this.notice, this.empty, this.board, this.told);
    this.root = root;
    document.addEventListener("keydown", (event) => this.onKey(event));
    onReload(() => this.reload());
    setInterval(() => document.visibilityState === "visible" && this.reload(), POLL_MS);
  }

  /** Ask for the runs again, and show what is new. */
  async reload() {
    const before = JSON.stringify([...this.data.changed]);
    try {
      this.names = await this.data.runs();
    } catch (error) {
      this.problem(error.message);
      return;
    }
    const first = !this.loaded;
    this.loaded = true;
    if (first || this.failed || JSON.stringify([...this.data.changed]) !== before) await this.refresh();
    else if (await this.data.renewMeasured().catch(() => false)) await this.refresh(); // an epoch without a record
  }

  async update(changed) {
    Object.assign(this.state, changed);
    await this.refresh();
  }

  /** Fetch what the state asks for, as near as there is, then draw. */
  async refresh() {
    this.asked += 1;
    const mine = this.asked;
    const slow = setTimeout(() => { this.bar.hidden = false; }, 120);
    try {
      const now = await this.fetch();
      if (mine !== this.asked) return;
      this.now = now;
      this.failed = false;
      this.notice.hidden = true;
      this.draw();
      if (now) writeHash(writeLink(readHash(), this.state));
    } catch (error) {
      if (mine === this.asked) this.problem(error.message);
    } finally {
      clearTimeout(slow);
      if (mine === this.asked) this.bar.hidden = true;
    }
  }

  async fetch() {
    const { state, names, data } = this;
    if (!names.length) return null;
    if (!names.includes(state.run)) state.run = names.find((name) => state.runs.includes(name)) ?? data.newest();
    state.runs = names.filter((name) => name === state.run || state.runs.includes(name));
    const wanted = [...new Set([...state.runs, ...(names.includes(state.against?.run) ? [state.against.run] : [])])];
    const found = new Map(await Promise.all(wanted.map(async (run) => [run, await data.stepsOf(run)])));
    const { steps, class_names: classNames } = found.get(state.run);
    const step = nearest(steps, state.step ?? Infinity);
    const here = steps.find((candidate) => candidate.step === step);
    const lists = new Map([...found].map(([run, list]) => [run, list.steps]));
    const [all, ...measured] = await Promise.all([data.allRuns(), ...state.runs.map((run) => data.measured(run))]);
    const nameOf = (label) => classNames?.[label] ?? `class ${label}`;
    const now = { names, all, state, measured, run: state.run, steps, step, lists, nameOf, classes: here.classes ?? [] };
    if (here.problem) return { ...now, problem: here.problem };
    if (!here.classes.includes(state.label)) {
      state.label = here.shortcuts?.find((label) => here.classes.includes(label)) ?? here.classes[0] ?? null; // what is wrong, first
    }
    if (state.label === null) return { ...now, problem: "This step has no graphs." };

    if (state.against && !found.has(state.against.run)) state.against = null;
    if (state.against) {
      const others = lists.get(state.against.run).filter((other) => other.classes?.includes(state.label));
      state.against = others.length ? { run: state.against.run, step: nearest(others, state.against.step) } : null;
    }
    const itself = state.against !== null && isSame(state.against, { run: state.run, step });
    const [shown, other] = await Promise.all([
      data.step(state.run, step, state.label),
      state.against && !itself && data.step(state.against.run, state.against.step, state.label),
    ]);
    if (shown.problem) return { ...now, problem: shown.problem };
    const against = other && !other.problem ? other : null;
    return { ...now, head: shown.head, graph: shown.graph, against, itself, merged: against && merge(against.graph, shown.graph) };
  }

  draw() {
    const { now, state } = this;
    this.board.hidden = !now;
    this.toolbar.element.hidden = !now;
    this.empty.hidden = Boolean(now);
    if (!now) {
      this.empty.replaceChildren(...emptyState());
      return;
    }
    this.board.removeAttribute("aria-busy");
    this.toolbar.show(now);
    this.drawMeasures();
    this.board.classList.toggle("unreadable", Boolean(now.problem));
    if (now.problem) {
      this.side.replaceChildren(h("header", {}, h("h2", {}, "Nothing to show")), h("p", { class: "problem", role: "alert" }, now.problem));
      return;
    }
    const { nameOf, head } = now;
    this.headline.show({ run: now.run, head, nameOf });
    this.strategies.show({
      run: now.run, head, label: state.label, classes: now.classes, nameOf, picture: (ref) => this.data.picture(now.run, ref),
    });
    this.graphView.show({
      run: now.run, graph: grouped(now.merged ?? now.graph, state.groups), compared: now.merged !== null, picked: state.picked, nameOf, cards: head.cards, samples: head.samples, many: state.many,
      called: state.called, pinned: state.pinned, groups: state.groups,
      get: (ref) => this.data.picture(now.run, ref),
    });
    this.drawSamples();
    this.drawSide();
    this.prefetch();
  }

  pixels() {
    const { samples } = this.now.head;
    if (!samples?.images) return Promise.resolve(null);
    return this.data.picture(this.state.run, samples.images).then((values) => ({ values, ref: samples.images }));
  }

  drawSamples() {
    const { head, against, nameOf } = this.now;
    const { run, sort, view, slide, against: other } = this.state;
    const { samples } = head;
    this.sort.value = sort;
    if (!samples?.heatmaps) {
      this.samples.replaceChildren(h("p", { class: "quiet" }, "This step has no samples. RelevanceMonitor logs some if the batches are images (n_heatmaps)."));
      return;
    }
    const earlier = against?.head.samples;
    const before = earlier?.heatmaps && earlier.images && samples.images ? earlier : null; // by their pixels samples are known again
    const whole = before ? null : samples.all_neurons;
    const pictures = [
      this.data.picture(run, samples.heatmaps), this.pixels(), whole && this.data.picture(run, whole),
      before && this.data.picture(other.run, before.heatmaps), before && this.data.picture(other.run, before.images),
    ];
    const mine = this.asked;
    Promise.all(pictures).then(([values, images, valuesOfAll, valuesBefore, imagesBefore]) => {
      if (mine !== this.asked) return;
      const places = before ? partners(images, { values: imagesBefore, ref: before.images }) : [];
      const paired = places.some((place) => place >= 0);
      const grids = [{ title: paired ? "B" : whole ? "critical neurons" : "heatmap", values, ref: samples.heatmaps }];
      if (whole) grids.push({ title: "all neurons", values: valuesOfAll, ref: whole });
      if (paired) grids[0].before = { title: "A", values: valuesBefore, ref: before.heatmaps, places };
      const [a, b] = against ? this.twoNames() : ["", ""];
      showPairs({ view: paired ? view : null, slide, a, b }, (changed) => this.update(changed));
      const what = paired ? `, A: ${a}, and B: ${b}`
        : against ? ". The compared step has other samples, so only these are shown"
          : whole ? ", first through the critical neurons, then through all neurons; below, the part of the logit that each heatmap holds" : "";
      this.samples.classList.toggle("comparing", Boolean(paired || whole));
      this.samples.replaceChildren(h("p", { class: "quiet" }, `Each image, then the image with a heatmap of the predicted class's relevance${what}.`, h("span", { class: "live" }, " Click to enlarge.")),
        tiles({ samples, images, grids, sort, nameOf, shares: true }));
    }).catch((error) => this.samples.replaceChildren(h("p", { class: "problem", role: "alert" }, error.message)));
  }

  drawMeasures() {
    const { lists, step, all, run, measured } = this.now;
    const runs = this.state.runs.map((name, i) => ({ run: name, colour: colourOfRun(all, name, theme()), steps: lists.get(name), measured: measured[i] }));
    this.measures.show({ runs, run, at: step, onPick: (picked) => this.goTo(picked) });
  }

  drawSide() {
    const { state, now, data, pick } = this;
    const { head, graph, nameOf, step, against } = now;
    const look = {
      data, run: state.run, head, graph, sort: state.sort, nameOf, pixels: this.pixels(), step, onPick: pick,
      lines: (key) => this.lines(key), onStep: (picked) => this.goTo(picked), before: against?.graph ?? null,
    };
    const { picked } = state;
    let shown;
    const marked = { ...look, graph: grouped(graph, state.groups) };
    if (isGroup(picked?.neuron)) shown = groupDetails(look, picked.neuron, state.called[picked.neuron]);
    else if (picked?.neuron) shown = neuronDetails(look, picked.neuron);
    else if (picked?.edge) shown = edgeDetails(marked, picked.edge);
    else if (picked?.path !== undefined && picked !== null) shown = pathDetails(look, picked.path);
    else if (now.merged) shown = changes(now.merged, overlap(against.graph, graph), this.words(), pick);
    else shown = overview(look);
    const parts = [now.itself && h("p", { class: "quiet" }, "This step is the one to compare with: choose another."), ...shown].flat().filter(Boolean);
    const mine = this.asked;
    soon(parts.flatMap((part) => [...part.querySelectorAll(".later")].map((place) => place.ready))).then(() => {
      if (mine !== this.asked) return;
      const scrolled = this.side.dataset.of === JSON.stringify(picked) ? this.side.scrollTop : 0;
      this.side.replaceChildren(...parts);
      this.side.dataset.of = JSON.stringify(picked);
      this.side.scrollTop = scrolled;
    });
  }

  /** What is compared, in words: what came before, and what is shown. */
  twoNames() {
    const { run, against } = this.state;
    const named = (one, step) => `${against.run === run ? "" : `${one}, `}step ${step}`;
    return [named(against.run, against.step), named(run, this.now.step)];
  }

  words() {
    const [before, after] = this.twoNames();
    return `${this.now.nameOf(this.now.graph.label)}: from ${before} to ${after}`;
  }

  /** A neuron's share of the output's relevance over steps, or that of a group, in each chosen run. */
  async lines(key) {
    const { runs, label } = this.state;
    const told = apart(runs);
    return Promise.all(runs.map(async (run, i) => ({
      name: told[i],
      title: run,
      colour: colourOfRun(this.now.all, run, theme()),
      points: sumOfSeries(await Promise.all(membersOf(key).map(ofKey).map(({ layer, neuron }) => this.data.series(run, label, layer, neuron))))
        .map(([step, relevance, total]) => [step, relevance === null || total === 0 ? null : relevance / total]),
    })));
  }

  goTo(step) {
    const { steps } = this.now;
    const to = nearest(steps, step);
    this.update({ step: to === steps[steps.length - 1].step ? null : to });
  }

  /** The steps beside the one that is shown, so that the slider has them. */
  prefetch() {
    const { steps, step } = this.now;
    const at = steps.findIndex((candidate) => candidate.step === step);
    const { run, label } = this.state;
    for (const near of [steps[at + 1], steps[at - 1]]) {
      if (near?.classes?.includes(label)) {
        this.data.step(run, near.step, label)
          .then(({ head }) => head && Promise.all(
            [head.samples?.heatmaps, ...rowsOf(head.strategies, label).flatMap(picturesOf)].filter(Boolean).map((ref) => this.data.picture(run, ref))))
          .catch(() => {}); // told when it is asked for
      }
    }
  }

  async share() {
    const link = address();
    try {
      await navigator.clipboard.writeText(link);
      this.say("Link copied");
    } catch {
      const field = h("input", { readonly: true, value: link, "aria-label": "Link to what is shown" });
      this.say(field);
      field.select();
    }
  }

  save(kind) {
    const { run, ...marked } = this.state; // own names, pins and groups among it
    const { step, head, graph, nameOf } = this.now;
    const name = (ending) => fileName(["relevance", run, nameOf(graph.label), `step${step}`], ending);
    const drawing = () => this.graphView.drawing(this.now.merged ? this.words() : `${run} · epoch ${head.epoch} · step ${step} · ${counted(graph.samples, "sample")}`);
    const failed = (what) => (error) => this.say(`${what} could not be made: ${error.message}`);
    if (kind === "html") saveHtml(name("html"), this.board, this.heading()).catch(failed("The page"));
    if (kind === "png") savePng(name("png"), drawing()).catch(failed("The picture"));
    if (kind === "svg") saveSvg(name("svg"), drawing());
    if (kind === "json") saveJson(name("json"), { run, step, head, graph, marked });
    if (kind === "graphml") saveGraphml(name("graphml"), graph, marked);
  }

  /** What a page that is saved says of itself. */
  heading() {
    const { run } = this.state;
    const { step, head, graph, nameOf } = this.now;
    const of = [`run ${run}`, `epoch ${head.epoch}`, `step ${step}`, ...(this.now.merged ? [`compared: ${this.words()}`] : [])];
    return {
      title: `Relevance of “${nameOf(graph.label)}”`,
      about: [`${of.join(" · ")} · saved ${new Date().toISOString().slice(0, 10)}`, LEGEND],
      settings: head.settings,
    };
  }

  say(what) {
    this.told.replaceChildren(what);
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.told.replaceChildren(), typeof what === "string" ? 2500 : 15_000);
  }

  problem(message) {
    this.failed = true;
    this.notice.hidden = false;
    this.notice.replaceChildren(h("span", {}, message), button("Try again", "Try again", () => this.reload().then(() => this.failed && this.refresh())));
    this.bar.hidden = true;
  }

  onKey(event) {
    if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
      event.preventDefault();
      this.toolbar.search.field.focus();
    }
    if (event.key === "Escape" && this.state.picked && event.target === document.body) this.pick(null);
  }
}

/** Of several neurons, which have the same steps; null where none of them has a relevance. */
function sumOfSeries(series) {
  return series[0].map(([step, , total], at) => {
    const known = series.map((points) => points[at]?.[1]).filter((relevance) => relevance !== null && relevance !== undefined);
    return [step, known.length === 0 ? null : known.reduce((sum, relevance) => sum + relevance, 0), total];
  });
}

function nearest(steps, wanted) {
  return steps.reduce((best, { step }) => (Math.abs(step - wanted) < Math.abs(best - wanted) ? step : best), steps[steps.length - 1].step);
}

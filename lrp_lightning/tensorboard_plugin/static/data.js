// What the server knows, each thing fetched once.

import { prepare } from "./graph.js";

const STEPS_KEPT = 400;
const PICTURES_KEPT = 800;

export class Data {
  constructor(fetcher = (address) => fetch(address)) {
    this.fetcher = fetcher;
    this.all = null;
    this.changed = new Map(); // run -> when its last record was written
    this.lists = new Map(); // run -> promise of its steps
    this.scalars = new Map(); // run -> promise of its measures
    this.steps = new Kept(STEPS_KEPT);
    this.series_ = new Kept(STEPS_KEPT);
    this.pictures = new Kept(PICTURES_KEPT);
  }

  /** Names of the runs; what is known of those that changed is forgotten. */
  async runs() {
    const { runs } = await this.json("runs", {});
    const names = new Set(runs.map(({ run }) => run));
    for (const run of [...this.changed.keys()]) if (!names.has(run)) this.changed.delete(run);
    for (const { run, changed } of runs) {
      if (this.changed.get(run) === changed) continue;
      if (!this.changed.has(run)) this.all = null; // TensorBoard has a new run
      this.changed.set(run, changed);
      this.lists.delete(run);
      this.scalars.delete(run);
      this.series_.dropRun(run);
    }
    return runs.map(({ run }) => run);
  }

  /** The run that was written to last. */
  newest() {
    return [...this.changed].reduce((best, run) => (run[1] > best[1] ? run : best))[0];
  }

  /** {steps: [{step, epoch, measures, classes} or {step, problem}], class_names, settings}. */
  stepsOf(run) {
    if (!this.lists.has(run)) this.lists.set(run, this.once(this.json("steps", { run }), () => this.lists.delete(run)));
    return this.lists.get(run);
  }

  /** Every run of TensorBoard, in the order by which it colours them; none where it does not say. */
  async allRuns() {
    this.all ??= this.once(this.json("../../runs", {}), () => { this.all = null; }).catch(() => []);
    return this.all;
  }

  /** For each measure that was logged under relevance/ its [[step, value], ...], of all epochs. */
  measured(run) {
    if (!this.scalars.has(run)) this.scalars.set(run, this.once(this.askMeasured(run), () => this.scalars.delete(run)));
    return this.scalars.get(run);
  }

  /** Ask for the measures of those runs that are known again; whether there are new ones. */
  async renewMeasured() {
    const renewed = await Promise.all([...this.scalars].map(async ([run, known]) => {
      const [before, now] = await Promise.all([known, this.askMeasured(run)]);
      this.scalars.set(run, Promise.resolve(now));
      return JSON.stringify(before) !== JSON.stringify(now);
    }));
    return renewed.includes(true);
  }

  async askMeasured(run) {
    return (await this.json("measures", { run })).measures;
  }

  /** {head, graph}, the graph prepared; {problem} where the record cannot be read. */
  step(run, step, label) {
    return this.steps.get([run, step, label], async () => {
      const found = await this.json("step", { run, step, class: label });
      return found.problem ? found : { head: found.head, graph: prepare(found.graph) };
    });
  }

  /** [[step, relevance or null, the output's relevance], ...]. */
  series(run, label, layer, neuron) {
    return this.series_.get([run, label, layer, neuron], async () =>
      (await this.json("series", { run, class: label, layer, neuron })).series);
  }

  /** The array that a ref of a record points to: Int8Array of heatmaps, Uint8Array of images. */
  picture(run, ref) {
    return this.pictures.get([run, ref.step, ref.index], async () => {
      const response = await this.answer("picture", { run, step: ref.step, index: ref.index });
      const bytes = await response.arrayBuffer();
      const expected = ref.shape.reduce((product, side) => product * side, 1);
      if (bytes.byteLength !== expected) throw new Error("a picture in the log is broken: it has another size than its record says");
      return ref.scale ? new Int8Array(bytes) : new Uint8Array(bytes);
    });
  }

  async json(route, query) {
    return (await this.answer(route, query)).json();
  }

  async answer(route, query) {
    let response;
    try {
      response = await this.fetcher(`${route}?${new URLSearchParams(query)}`);
    } catch {
      throw new Error("TensorBoard does not answer; is it still running?");
    }
    if (!response.ok) {
      const told = await response.json().catch(() => ({}));
      throw new Error(told.error ?? `TensorBoard answered with status ${response.status}`);
    }
    return response;
  }

  once(promise, failed) {
    promise.catch(failed);
    return promise;
  }
}

/** Promises by key, the latest used; those that fail are tried again. */
class Kept {
  constructor(most) {
    this.most = most;
    this.map = new Map();
  }

  get(parts, make) {
    const key = JSON.stringify(parts);
    const promise = this.map.get(key) ?? make();
    this.map.delete(key);
    this.map.set(key, promise);
    if (this.map.size > this.most) this.map.delete(this.map.keys().next().value);
    promise.catch(() => this.map.delete(key));
    return promise;
  }

  dropRun(run) {
    const start = `[${JSON.stringify(run)},`;
    for (const key of [...this.map.keys()]) if (key.startsWith(start)) this.map.delete(key);
  }
}

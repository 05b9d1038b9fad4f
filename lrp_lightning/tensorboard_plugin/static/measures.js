// Measures over steps, those with a random control beside it.

import { h } from "./dom.js";
import { help } from "./help.js";
import { lineChart } from "./line_chart.js";
import { interval, number, percent } from "./numbers.js";
import { ABOUT, apart, counted } from "./words.js";

const SHARED = [
  ["predicted class against runner-up", ["contest_accuracy", "random_contest_accuracy", "runner_up_accuracy"]],
  ["prediction kept with few neurons", ["critical_neuron_accuracy", "random_accuracy"]],
  ["accuracy with and without critical neurons", ["retained_accuracy", "ablated_accuracy"]],
];
const FIRST = ["shortcuts", "stability"]; // beside those above; the rest is folded away
const NOT_SHOWN = ["samples", "seconds"];
const isShare = (name) => name.endsWith("accuracy");

/** Charts: measures that are compared with one another in one, every other with its control in its own, what is looked at first first. */
export function chartsOf(names) {
  const shared = SHARED.map(([title, all]) => ({ title, names: all.filter((name) => names.includes(name)), first: true }));
  const left = names.filter((name) => !NOT_SHOWN.includes(name) && !shared.some((chart) => chart.names.includes(name)));
  const controls = left.map((name) => `random_${name}`).filter((name) => left.includes(name));
  const others = left.filter((name) => !controls.includes(name)).map((name) => ({
    title: name.replaceAll("_", " "), names: [name, `random_${name}`].filter((one) => left.includes(one)), first: FIRST.includes(name),
  }));
  return [...shared, ...others].filter((chart) => chart.names.length).sort((a, b) => b.first - a.first);
}

/**
 * A measure's points, [step, value, interval of a share]: of every epoch where Lightning has logged it, else of those with records.
 *
 * @param run {steps, measured}: steps with records, and for each logged measure [[step, value], ...].
 */
export function pointsOf(name, { steps, measured }) {
  const logged = measured[name] ?? steps.filter((step) => name in (step.measures ?? {})).map((step) => [step.step, step.measures[name]]);
  const counts = new Map(measured.samples ?? []);
  return logged.map(([step, value]) => {
    const n = counts.get(step);
    return isShare(name) && n && value !== null ? [step, value, interval(value, n)] : [step, value];
  });
}

const CONTROL = "5 3";
const DASHES = [null, CONTROL, "1.5 2.5", "8 3 1.5 3"];
const STYLES = ["#e8710a", "#1f78b4", "#7b3fa0", "#0b8f6a", "#c2185b"];
const isControl = (name) => name.startsWith("random_");
const short = (name) => name.replace(/_accuracy$/, "").replaceAll("_", " ");

export class Measures {
  constructor() {
    this.counted = h("span", { class: "quiet" });
    this.first = h("div", { class: "charts" });
    this.others = h("div", { class: "charts" });
    this.more = h("details", { class: "more" }, h("summary", {}, "More measures"), this.others);
    this.element = h("section", { class: "panel measures", "aria-label": "Measures" },
      h("header", {}, h("h3", {}, "Measures"), this.counted), this.first, this.more);
  }

  /**
   * @param runs [{run, colour, steps, measured}], those that are compared, the shown one among them.
   * @param run the one that is shown, at the step of which it is `at`.
   */
  show({ runs, run, at, onPick }) {
    const names = [...new Set(runs.flatMap(({ steps, measured }) => [...steps.flatMap((step) => Object.keys(step.measures ?? {})), ...Object.keys(measured)]))];
    const charts = chartsOf(names).map((chart) => [chart.first, this.chart(chart, runs, at, onPick)]);
    const samples = (runs.find((one) => one.run === run).measured.samples ?? []).filter(([step]) => step <= at).at(-1)?.[1];
    this.counted.textContent = samples ? `on ${counted(samples, "sample")}; bars: 95 % confidence intervals` : "";
    this.first.replaceChildren(...(charts.length ? charts.filter(([first]) => first).map(([, chart]) => chart) : [h("p", { class: "quiet" }, "This run has logged no measures.")]));
    this.others.replaceChildren(...charts.filter(([first]) => !first).map(([, chart]) => chart));
    this.more.hidden = this.others.childElementCount === 0;
  }

  chart({ title, names }, runs, at, onPick) {
    const told = apart(runs.map(({ run }) => run));
    const lines = names.flatMap((name, i) => runs.map((run, j) => ({
      name: runs.length === 1 ? short(name) : names.length === 1 ? told[j] : `${short(name)} · ${told[j]}`,
      title: runs.length > 1 ? `${short(name)} · ${run.run}` : short(name),
      // one run: a colour for each measure, the control dashed; several: a colour for each run, dashes for each measure
      colour: runs.length > 1 ? run.colour : isControl(name) ? "#8a8a8a" : STYLES[i % STYLES.length],
      dash: runs.length > 1 ? DASHES[i % DASHES.length] : isControl(name) ? CONTROL : null,
      points: pointsOf(name, run),
    })));
    const known = names.filter((name) => name in ABOUT);
    const about = known.length ? help(title, ...known.map((name) => (names.length > 1 ? `${short(name)}: ${ABOUT[name]}` : ABOUT[name]))) : null;
    const share = isShare(names[0]);
    return lineChart({ title, lines, at, onPick, about, range: share ? [0, 1] : null, format: share ? percent : number });
  }
}

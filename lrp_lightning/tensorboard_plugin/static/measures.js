// Measures over steps, those with a random control beside it.

import { h } from "./dom.js";
import { lineChart } from "./line_chart.js";
import { number, percent } from "./numbers.js";

const CONTEST = ["contest_accuracy", "random_contest_accuracy", "runner_up_accuracy"];

/** Charts: the contest, all other accuracies in one, every other measure with its control in its own. */
export function chartsOf(names) {
  const contest = CONTEST.filter((name) => names.includes(name));
  const accuracies = names.filter((name) => name.endsWith("accuracy") && !contest.includes(name));
  const others = names.filter((name) => !contest.includes(name) && !accuracies.includes(name));
  const controls = others.map((name) => `random_${name}`).filter((name) => names.includes(name));
  return [
    ...(contest.length ? [{ title: "predicted class against runner-up", names: contest, range: [0, 1], format: percent }] : []),
    ...(accuracies.length ? [{ title: "accuracy", names: accuracies, range: [0, 1], format: percent }] : []),
    ...others.filter((name) => !controls.includes(name)).map((name) => ({
      title: name.replaceAll("_", " "), names: [name, `random_${name}`].filter((one) => names.includes(one)), range: null, format: number,
    })),
  ];
}

const isControl = (name) => name.startsWith("random_");
const CONTROL = "5 3";
const DASHES = [null, CONTROL, "1.5 2.5", "8 3 1.5 3"];
const ACCURACIES = ["critical neuron", "retained", "ablated"];
const STYLES = ["#e8710a", "#1f78b4", "#7b3fa0", "#0b8f6a", "#c2185b"];

/**
 * @param runs [{run, colour, steps}], those that are compared.
 * @param at the step that is shown.
 */
export function measures({ runs, at, onPick }) {
  const names = [...new Set(runs.flatMap(({ steps }) => steps.flatMap((step) => Object.keys(step.measures ?? {}))))];
  if (!names.length) return h("p", { class: "quiet" }, "These records have no measures.");
  return h("div", { class: "charts" }, chartsOf(names).map((chart) => {
    const lines = chart.names.flatMap((name, i) => runs.map(({ run, colour, steps }) => ({
      name: runs.length > 1 ? `${short(name)} · ${run}` : short(name),
      // one run: a colour for each measure, the control dashed; several: a colour for each run, dashes for each measure
      colour: runs.length > 1 ? colour : isControl(name) ? "#8a8a8a" : STYLES[styleOf(name, i)],
      dash: runs.length > 1 ? DASHES[i % DASHES.length] : isControl(name) ? CONTROL : null,
      points: steps.filter((step) => step.measures && name in step.measures).map((step) => [step.step, step.measures[name]]),
    })));
    return lineChart({ title: chart.title, lines, at, onPick, range: chart.range, format: chart.format });
  }));
}

const short = (name) => name.replace(/_accuracy$/, "").replaceAll("_", " ");
const styleOf = (name, i) => (ACCURACIES.includes(short(name)) ? ACCURACIES.indexOf(short(name)) : i) % STYLES.length;

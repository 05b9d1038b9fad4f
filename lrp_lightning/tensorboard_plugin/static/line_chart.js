// A small chart of numbers over steps.

import { h, s } from "./dom.js";
import { labels, number, ticks } from "./numbers.js";

const DIGIT = 6; // pixels
const RIGHT = 10;
const TOP = 8;
const BOTTOM = 20;

/**
 * @param lines [{name, title, colour, dash, points: [[step, value or null, [low, high] confidence interval], ...]}]; title and
 *   interval may be absent.
 * @param about what stands beside the title.
 * @param at the step that is shown; onPick(step) when another is clicked.
 * @param range [low, high] for an axis that does not move; null to fit.
 */
export function lineChart({ title, lines, at, onPick, range = null, width = 230, height = 110, format = number, about = null }) {
  const points = lines.flatMap((line) => line.points.filter(([, value]) => value !== null));
  const steps = [...new Set(points.map(([step]) => step))].sort((a, b) => a - b);
  if (!steps.length) return h("p", { class: "quiet" }, "no values");
  let [low, high] = range ?? [Math.min(...points.map((p) => p[1])), Math.max(...points.map((p) => p[1]))];
  if (high - low < 1e-12) [low, high] = low >= 0 ? [0, 2 * low || 1] : [2 * low, 0];
  const values = ticks(low, high);
  const texts = labels(values, format);
  const marks = values.map((value, i) => [value, texts[i]]);
  const left = 10 + DIGIT * Math.max(5, ...marks.map(([, text]) => text.length));
  const [first, last] = [steps[0], steps[steps.length - 1]];
  const x = (step) => left + (last === first ? 0.5 : (step - first) / (last - first)) * (width - left - RIGHT);
  const y = (value) => TOP + (1 - (value - low) / (high - low)) * (height - TOP - BOTTOM);

  const marker = s("line", { class: "marker", y1: TOP, y2: height - BOTTOM });
  const mark = (step) => {
    marker.setAttribute("x1", x(step));
    marker.setAttribute("x2", x(step));
  };
  const chart = s("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": describe(title, lines, format) },
    marks.map(([value, text]) => [
      s("line", { class: "grid", x1: left, x2: width - RIGHT, y1: y(value), y2: y(value) }),
      s("text", { class: "axis", x: left - 5, y: y(value) + 3, "text-anchor": "end" }, text),
    ]),
    [...new Set([first, last])].map((step, i) =>
      s("text", { class: "axis", x: x(step), y: height - 5, "text-anchor": last === first ? "middle" : i ? "end" : "start" }, `${step}`)),
    lines.map((line) => drawn(line, x, y)),
    marker);
  if (at !== null && at >= first && at <= last) mark(at);
  else marker.setAttribute("visibility", "hidden");

  const told = h("div", { class: "told", "aria-hidden": "true" });
  const nearest = (event) => {
    const box = chart.getBoundingClientRect();
    const where = ((event.clientX - box.left) / box.width) * width;
    return steps.reduce((best, step) => (Math.abs(x(step) - where) < Math.abs(x(best) - where) ? step : best));
  };
  chart.addEventListener("pointermove", (event) => {
    const step = nearest(event);
    const values = lines.flatMap((line) => line.points.filter((p) => p[0] === step && p[1] !== null).map((p) => [line, p[1]]));
    told.replaceChildren(h("b", {}, `step ${step}`),
      ...values.map(([line, value]) => h("span", {}, swatch(line), `${line.name} ${format(value)}`)));
    told.classList.add("seen");
    marker.setAttribute("visibility", "visible");
    mark(step);
  });
  chart.addEventListener("pointerleave", () => {
    told.classList.remove("seen");
    if (at === null) marker.setAttribute("visibility", "hidden");
    else mark(Math.min(last, Math.max(first, at)));
  });
  if (onPick) {
    chart.classList.add("picks");
    chart.addEventListener("click", (event) => onPick(nearest(event)));
  }
  return h("figure", { class: "line-chart" },
    h("figcaption", {}, h("div", { class: "chart-title" }, h("b", {}, title), lines.length === 1 ? valueAt(lines[0], at ?? last, format) : null, about),
      lines.length === 1 ? null : lines.map((line) =>
        h("span", { title: line.title ?? line.name }, swatch(line), h("span", { class: "name" }, line.name), valueAt(line, at ?? last, format)))),
    chart, told);
}

/** The line's value at the step that is shown, or at the last before it, with its confidence interval. */
function valueAt({ points }, at, format) {
  const [, value, range] = points.filter(([step, one]) => step <= at && one !== null).at(-1) ?? [];
  return value === undefined ? null : h("b", { class: "value", title: range && `95 % confidence interval: ${format(range[0])} to ${format(range[1])}` }, format(value));
}

function drawn(line, x, y) {
  const runs = [[]];
  for (const [step, value] of line.points) {
    if (value === null) runs.push([]);
    else runs[runs.length - 1].push([x(step), y(value)]);
  }
  const style = { stroke: line.colour, class: "line", "stroke-dasharray": line.dash };
  const bars = line.points.filter(([, value, range]) => value !== null && range)
    .map(([step, , [low, high]]) => `M${x(step).toFixed(1)} ${y(low).toFixed(1)}V${y(high).toFixed(1)}`).join("");
  return [bars && s("path", { class: "bars", d: bars, stroke: line.colour }), ...runs.filter((run) => run.length).map((run) => (run.length === 1
    ? s("circle", { cx: run[0][0], cy: run[0][1], r: 2.5, fill: line.colour })
    : s("polyline", { ...style, points: run.map((point) => point.map((v) => v.toFixed(1)).join(",")).join(" ") })))];
}

function swatch(line) {
  return s("svg", { class: "swatch", viewBox: "0 0 20 4", "aria-hidden": "true" },
    s("line", { x1: 0, x2: 20, y1: 2, y2: 2, stroke: line.colour, "stroke-width": 3, "stroke-dasharray": line.dash }));
}

function describe(title, lines, format) {
  const ends = lines.map((line) => {
    const values = line.points.filter(([, value]) => value !== null);
    return values.length ? `${line.name}: ${format(values[0][1])} to ${format(values[values.length - 1][1])}` : `${line.name}: no values`;
  });
  return `${title}, first to last step. ${ends.join("; ")}`;
}

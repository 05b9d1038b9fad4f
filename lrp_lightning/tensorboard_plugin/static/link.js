// What is looked at, as a part of TensorBoard's address: #relevance&p.relevance.run=...&p.relevance.step=... No DOM here.

import { groupOf, isGroup, membersOf } from "./groups.js";

const PREFIX = "p.relevance.";
const MOST_NAMES = 50;
export const LONGEST_NAME = 40; // of a neuron

/** What is looked at when nothing is said. step null: the last one, also when later ones come. */
export const START = Object.freeze({
  runs: [], // those in the charts, by name
  run: null, // the one whose graph is shown
  label: null, // the class
  step: null,
  against: null, // {run, step}: what it is compared with
  picked: null, // {neuron: key} | {edge: [key, key]} | {path: index}
  many: null, // neurons that the graph draws of each layer, besides those on best paths; null: a few
  called: Object.freeze({}), // own names of neurons, by key
  pinned: Object.freeze([]), // keys of neurons that are always drawn
  groups: Object.freeze([]), // keys of groups of neurons, each drawn as one node
  sort: "order", // of samples: order | error | label
  view: null, // of the samples of two steps: blink | slide; null: side by side
  slide: 50, // per cent of their pictures that show the first step, where they slide
});

/** The state that an address asks for; what it does not say, or says wrongly, is as at the start. */
export function readLink(hash) {
  const said = {};
  for (const item of hash.replace(/^#/, "").split("&")) {
    const at = item.indexOf("=");
    if (at < 0 || !item.startsWith(PREFIX)) continue;
    try {
      said[item.slice(PREFIX.length, at)] = decodeURIComponent(item.slice(at + 1));
    } catch {
      // not an address that was made here
    }
  }
  const whole = (text) => (/^-?\d{1,15}$/.test(text ?? "") ? Number(text) : null);
  return {
    ...START,
    runs: texts(said.runs),
    run: said.run ?? null,
    label: whole(said.class),
    step: whole(said.step),
    against: said.againstRun !== undefined && whole(said.againstStep) !== null
      ? { run: said.againstRun, step: whole(said.againstStep) }
      : null,
    picked: pickedIn(said),
    many: /^\d{1,3}$/.test(said.neurons ?? "") ? Number(said.neurons) : null,
    called: calledIn(said.names),
    pinned: texts(said.pinned).filter(isKey).slice(0, MOST_NAMES),
    groups: groupsIn(said.groups),
    sort: ["error", "label"].includes(said.sort) ? said.sort : "order",
    view: ["blink", "slide"].includes(said.view) ? said.view : null,
    slide: /^\d{1,2}$|^100$/.test(said.slide ?? "") ? Number(said.slide) : START.slide,
  };
}

/** The address with this state in it; what else it says stays. */
export function writeLink(hash, state) {
  const others = hash.replace(/^#/, "").split("&").filter((item) => item && !item.startsWith(PREFIX));
  const said = {
    run: state.run,
    runs: state.runs.length > 1 ? JSON.stringify(state.runs) : null,
    class: state.label,
    step: state.step,
    againstRun: state.against?.run,
    againstStep: state.against?.step,
    neuron: state.picked?.neuron,
    edge: state.picked?.edge && JSON.stringify(state.picked.edge),
    path: state.picked?.path,
    neurons: state.many,
    names: Object.keys(state.called).length ? JSON.stringify(state.called) : null,
    pinned: state.pinned.length ? JSON.stringify(state.pinned) : null,
    groups: state.groups.length ? JSON.stringify(state.groups) : null,
    sort: state.sort === "order" ? null : state.sort,
    view: state.view,
    slide: state.slide === START.slide ? null : state.slide,
  };
  const items = Object.entries(said)
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([name, value]) => `${PREFIX}${name}=${encodeURIComponent(value)}`);
  return `#${[...(others.length ? others : ["relevance"]), ...items].join("&")}`;
}

function texts(json) {
  try {
    const value = JSON.parse(json ?? "[]");
    return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
  } catch {
    return [];
  }
}

const isKey = (key) => /^\d{1,9}@/.test(key ?? "") || isGroup(key);

/** Of groups that share a neuron, the first. */
const groupsIn = (json) => texts(json).filter(isGroup).slice(0, MOST_NAMES).reduce(
  (groups, key) => (membersOf(key).some((member) => groupOf(groups, member)) ? groups : [...groups, key]), []);

function calledIn(json) {
  try {
    const names = Object.entries(JSON.parse(json ?? "{}")).filter(([key, name]) => isKey(key) && typeof name === "string" && name);
    return Object.fromEntries(names.slice(0, MOST_NAMES).map(([key, name]) => [key, name.slice(0, LONGEST_NAME)]));
  } catch {
    return {};
  }
}

function pickedIn(said) {
  if (isKey(said.neuron)) return { neuron: said.neuron };
  const edge = texts(said.edge);
  if (edge.length === 2 && edge.every(isKey)) return { edge };
  if (/^\d{1,3}$/.test(said.path ?? "")) return { path: Number(said.path) };
  return null;
}

// The graph of critical paths: layers as columns, neurons by relevance, edges as wide as what they carry.

import { h, s } from "./dom.js";
import { curve, fitEnd, layout, strengths } from "./layout.js";
import { edgesOf } from "./graph.js";
import { change, number, percent } from "./numbers.js";

const CHANGES = { appeared: "new", vanished: "gone", grew: "more relevant", shrank: "less relevant", same: "as before" };

export class GraphView {
  /** @param onPick called with {neuron: key}, {edge: [key, key]} or null. */
  constructor(onPick) {
    this.onPick = onPick;
    this.drawn = new Map(); // key -> <g> of a neuron, kept so that neurons move rather than jump
    this.columns = s("g");
    this.edges = s("g", { class: "edges" });
    this.paths = s("g", { class: "paths" });
    this.nodes = s("g", { class: "nodes" });
    this.svg = s("svg", { class: "graph", role: "group", "aria-label": "Graph of critical paths. Arrow keys move between neurons, Enter looks at one." },
      this.columns, this.edges, this.paths, this.nodes);
    this.told = h("div", { class: "told", "aria-hidden": "true" });
    this.scroller = h("div", { class: "scroller" }, this.svg);
    this.element = h("div", { class: "graph-view" }, this.scroller, this.told);
    this.svg.addEventListener("click", (event) => {
      if (!event.target.closest(".node, .hit")) this.onPick(null);
    });
    this.svg.addEventListener("keydown", (event) => this.onKey(event));
    new ResizeObserver(() => this.shown && this.draw()).observe(this.scroller);
  }

  /** @param shown {graph, compared, picked, nameOf(class), showPaths, cards: Map of key -> words}; compared: whether graph is a merged one. */
  show(shown) {
    this.shown = shown;
    this.draw();
  }

  draw() {
    const { graph, compared, nameOf, showPaths } = this.shown;
    this.at = layout(graph.layers, this.scroller.clientWidth || 900);
    const { width, height, step, columns, places } = this.at;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("width", width);
    this.svg.setAttribute("height", height);
    this.svg.classList.toggle("compared", Boolean(compared));

    this.columns.replaceChildren(...[...columns].map(([layer, x]) => s("g", { class: "column" },
      s("title", {}, `${layer.name} (${layer.kind})`),
      s("text", { class: "layer", x, y: 14, "text-anchor": "middle" }, fitEnd(layer.name, step - 6)),
      s("text", { class: "quiet", x, y: 28, "text-anchor": "middle" },
        compared ? `${layer.size} shown` : `${layer.nodes.length}/${layer.size} · ${Math.round(layer.shown * 100)}%`))));

    const most = new Map(graph.layers.map((layer) =>
      [layer, Math.max(1e-30, ...layer.nodes.map((node) => Math.max(Math.abs(node.share), Math.abs(node.before ?? 0))))]));
    const size = (edge) => (compared ? Math.max(Math.abs(edge.before ?? 0), Math.abs(edge.after ?? 0)) : edge.relevance);
    const strength = strengths(graph.edges, size);
    const visible = graph.edges.filter((edge) => places.has(edge.lower) && places.has(edge.upper));
    visible.sort((a, b) => strength.get(a) - strength.get(b));
    this.lines = new Map();
    const hits = [];
    for (const edge of visible) {
      const strong = strength.get(edge);
      const d = curve(places.get(edge.lower), places.get(edge.upper));
      const kind = compared ? edge.change : edge.relevance < 0 ? "negative" : "positive";
      const line = s("path", { class: `edge ${kind}`, d, "stroke-width": (0.4 + 4.6 * strong).toFixed(2), "stroke-opacity": (0.1 + 0.65 * strong).toFixed(2) });
      this.lines.set(edge, line);
      if (strong < 0.04) continue;
      const hit = s("path", { class: "hit", d });
      this.hover(hit, () => this.edgeWords(edge), () => [[edge.lower, edge.upper], [edge]]);
      hit.addEventListener("click", () => this.onPick({ edge: [edge.lower.key, edge.upper.key] }));
      hits.push(hit);
    }
    this.edges.replaceChildren(...this.lines.values(), ...hits);

    const best = Math.max(1e-30, ...graph.paths.map((path) => path.share));
    this.paths.replaceChildren(...(showPaths ? graph.paths : []).map((path) => s("path", {
      class: "path",
      d: path.nodes.slice(1).map((upper, i) => curve(places.get(path.nodes[i]), places.get(upper))).join(""),
      "stroke-width": (0.5 + 1.6 * (path.share / best)).toFixed(2),
    })));

    const kept = new Map();
    for (const [layer] of columns) {
      for (const node of layer.nodes) {
        const group = this.drawn.get(node.key) ?? this.newNode(node.key);
        kept.set(node.key, group);
        this.drawNode(group, node, places.get(node), most.get(layer), nameOf);
      }
    }
    for (const [key, group] of this.drawn) if (!kept.has(key)) group.remove();
    this.drawn = kept;
    this.nodes.append(...kept.values());
    if (!this.svg.querySelector('.node[tabindex="0"]')) [...kept.values()].at(-1)?.setAttribute("tabindex", "0");
    this.light(...this.picked());
  }

  newNode(key) {
    const group = s("g", { class: "node", tabindex: "-1", role: "button", "data-key": key }, 
      s("rect", { class: "room", x: -11, y: -11, width: 40, height: 22 }), s("circle", { class: "disc" }), s("text", { y: 3.5 }));
    const node = () => this.shown.graph.byKey.get(key);
    this.hover(group, () => this.nodeWords(node()), () => this.around(node()));
    group.addEventListener("click", () => this.onPick({ neuron: key }));
    group.addEventListener("focus", () => this.light(...this.around(node())));
    group.addEventListener("blur", () => this.light(...this.picked()));
    return group;
  }

  drawNode(group, node, { x, y }, most, nameOf) {
    const { compared } = this.shown;
    const strong = Math.sqrt(Math.min(1, Math.max(Math.abs(node.share), Math.abs(node.before ?? 0)) / most));
    const [, disc, text] = group.children;
    const radius = 3.2 + 6 * strong;
    disc.setAttribute("r", radius.toFixed(1));
    group.style.transform = `translate(${x.toFixed(1)}px, ${y.toFixed(1)}px)`;
    const kind = compared ? node.change : node.relevance < 0 ? "negative" : "positive";
    group.setAttribute("class", `node ${kind}`);
    disc.style.setProperty("--strength", `${Math.round(18 + 82 * strong)}%`);
    const name = node.output ? nameOf(node.neuron) : `${node.neuron}`;
    text.setAttribute("x", (radius + 3).toFixed(1));
    text.textContent = node.output ? fitEnd(name, 88) : name;
    group.setAttribute("aria-label", this.nodeWords(node).join(", "));
  }

  nodeWords(node) {
    const { nameOf, cards } = this.shown;
    const name = `${node.layer.name} : ${node.neuron}${node.output ? ` (${nameOf(node.neuron)})` : ""}`;
    if (node.change) {
      const moved = `${percent(node.before)} → ${percent(node.after)} of the output's relevance`;
      return [name, CHANGES[node.change], moved];
    }
    const card = cards.get(node.key);
    return [name, ...(card ? [`speaks for ${card}`] : []), `relevance ${number(node.relevance)}`, `${percent(node.share)} of the output's`, `activation ${number(node.activation)}`,
      `rank ${node.rank} of ${node.layer.size} in its layer`];
  }

  edgeWords(edge) {
    const name = `${edge.lower.layer.name} : ${edge.lower.neuron} → ${edge.upper.layer.name} : ${edge.upper.neuron}`;
    if (edge.change) {
      const difference = edge.before !== null && edge.after !== null ? ` (${change(edge.after - edge.before)})` : "";
      return [name, CHANGES[edge.change], `${percent(edge.before)} → ${percent(edge.after)} of the output's relevance${difference}`];
    }
    return [name, `relevance ${number(edge.relevance)}`, `${percent(edge.share)} of what the upper one has`];
  }

  // what is lit: nodes, edges

  around(node) {
    if (!node) return [[], []];
    const edges = [...node.below, ...node.above];
    return [[node, ...edges.flatMap((edge) => [edge.lower, edge.upper])], edges];
  }

  picked() {
    const { graph, picked } = this.shown;
    if (picked?.neuron) return this.around(graph.byKey.get(picked.neuron));
    if (picked?.edge) {
      const [lower, upper] = picked.edge.map((key) => graph.byKey.get(key));
      return [[lower, upper].filter(Boolean), upper ? upper.below.filter((edge) => edge.lower === lower) : []];
    }
    const path = picked?.path === undefined || picked === null ? null : graph.paths[picked.path];
    return path ? [path.nodes, edgesOf(path)] : [[], []];
  }

  light(nodes, edges) {
    this.svg.classList.toggle("hushed", nodes.length > 0);
    const lit = new Set(nodes.map((node) => node.key));
    const { picked } = this.shown;
    for (const [key, group] of this.drawn) {
      group.classList.toggle("lit", lit.has(key));
      const chosen = picked?.neuron === key || Boolean(picked?.edge?.includes(key));
      group.classList.toggle("picked", chosen);
      group.setAttribute("aria-pressed", chosen);
    }
    const bright = new Set(edges);
    for (const [edge, line] of this.lines) line.classList.toggle("lit", bright.has(edge));
    [...this.paths.children].forEach((line, i) => line.classList.toggle("picked", picked?.path === i));
  }

  hover(element, words, lit) {
    element.addEventListener("pointermove", (event) => this.tell(words(), event.clientX, event.clientY));
    element.addEventListener("pointerenter", () => this.light(...lit()));
    element.addEventListener("pointerleave", () => {
      this.told.classList.remove("seen");
      this.light(...this.picked());
    });
  }

  tell([title, ...lines], clientX, clientY) {
    this.told.replaceChildren(h("b", {}, title), ...lines.map((line) => h("span", {}, line)));
    this.told.classList.add("seen");
    const box = this.element.getBoundingClientRect();
    const x = Math.min(clientX - box.left + 14, box.width - this.told.offsetWidth - 6);
    const below = clientY - box.top + 16;
    const y = below + this.told.offsetHeight > box.height ? clientY - box.top - this.told.offsetHeight - 10 : below;
    this.told.style.transform = `translate(${Math.max(4, x)}px, ${Math.max(4, y)}px)`;
  }

  /** Bring a layer or neuron into sight, and a neuron into focus. */
  reveal(key) {
    const node = this.shown.graph.byKey.get(key);
    if (!node) return;
    const { x } = this.at.places.get(node);
    this.scroller.scrollTo({ left: x - this.scroller.clientWidth / 2, behavior: "smooth" });
  }

  onKey(event) {
    const group = event.target.closest(".node");
    if (event.key === "Escape") this.onPick(null);
    if (!group) return;
    const node = this.shown.graph.byKey.get(group.dataset.key);
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.onPick({ neuron: node.key });
      return;
    }
    const next = this.neighbour(node, event.key);
    if (!next) return;
    event.preventDefault();
    group.setAttribute("tabindex", "-1");
    const target = this.drawn.get(next.key);
    target.setAttribute("tabindex", "0");
    target.focus();
    this.reveal(next.key);
  }

  neighbour(node, key) {
    const columns = [...this.at.columns.keys()];
    const column = columns.indexOf(node.layer);
    const row = node.layer.nodes.indexOf(node);
    if (key === "ArrowUp") return node.layer.nodes[row - 1];
    if (key === "ArrowDown") return node.layer.nodes[row + 1];
    const there = columns[column + { ArrowLeft: -1, ArrowRight: 1 }[key]];
    if (!there) return undefined;
    const { y } = this.at.places.get(node);
    const far = (other) => Math.abs(this.at.places.get(other).y - y);
    return there.nodes.reduce((best, other) => (far(other) < far(best) ? other : best));
  }
}

// The graph of critical paths: layers as columns, neurons as pictures of what drives them, edges as wide as the relevance that they carry.

import { FEW, chosen, mostOf, weightOf } from "./amount.js";
import { cardsByKey, namedClasses } from "./cards.js";
import { colourOfClass } from "./colours.js";
import { button, h, s } from "./dom.js";
import { drawingOf } from "./exports.js";
import { edgesOf } from "./graph.js";
import { CHANGES, edgeWords, nodePanel, nodeWords, wordsPanel } from "./graph_words.js";
import { isGroup, join, membersOf, ungroup } from "./groups.js";
import { LONGEST_NAME } from "./link.js";
import { GLYPH, blocksOf, curve, fitMiddle, layerNames, layout } from "./layout.js";
import { thumbnails } from "./thumbnails.js";
import { brief } from "./words.js";

const HALF = GLYPH / 2;
const [ZOOM_LEAST, ZOOM_MOST, ZOOM_STEP] = [0.2, 4, 1.25];
const DRAG = 4; // pixels that a pointer moves before it drags

export class GraphView {
  /** @param act {pick({neuron: key}, {edge: [key, key]} or null), update(changes of the state), say(words), full(whether the graph is all there is)}. */
  constructor(act) {
    this.act = act;
    this.drawn = new Map(); // key -> <g> of a neuron, kept so that neurons move rather than jump
    this.choosing = null; // neurons of each layer, while the slider moves
    this.zoom = 1;
    this.full = false;
    this.pictures = new Map(); // key -> address
    this.columns = s("g");
    this.edges = s("g", { class: "edges" });
    this.paths = s("g", { class: "paths" });
    this.nodes = s("g", { class: "nodes" });
    this.svg = s("svg", { class: "graph", role: "group", "aria-label": "Graph of critical paths. Arrow keys move between neurons, Enter selects one, G groups another of its layer with it, + and − zoom, 0 fits, F is full screen." },
      this.columns, this.edges, this.paths, this.nodes);
    this.told = h("div", { class: "told", "aria-hidden": "true" });
    this.scroller = h("div", { class: "scroller" }, this.svg);
    this.title = h("h3");
    this.amount = h("input", { type: "range", min: 0, step: 1, "aria-label": "Neurons of each layer", oninput: () => this.choose() });
    this.showPaths = h("input", { type: "checkbox", checked: true, onchange: () => this.draw() });
    this.fill = button("Full screen", "Full screen (F)", () => this.toggleFull(), { "aria-pressed": "false" });
    this.naming = h("input", { type: "text", class: "naming", maxlength: LONGEST_NAME, placeholder: "Name this neuron", "aria-label": "Your name for the selected neuron",
      hidden: true, onchange: () => this.name() });
    this.pinning = button("Pin", "Always draw this neuron", () => this.pin(), { class: "pinning", hidden: true });
    this.opening = button("Open group", "Draw the neurons of this group one by one again", () => this.ungroup(), { class: "opening", hidden: true });
    this.legend = h("div", { class: "legend" });
    this.element = h("div", { class: "graph-view" },
      h("header", {}, this.title, this.naming, this.pinning, this.opening,
        h("label", { class: "amount" }, h("span", { class: "quiet" }, "fewer"), this.amount, h("span", { class: "quiet" }, "more neurons")),
        h("div", { class: "zoom", role: "group", "aria-label": "Zoom" },
          button("−", "Zoom out (−)", () => this.zoomBy(1 / ZOOM_STEP)), button("+", "Zoom in (+)", () => this.zoomBy(ZOOM_STEP)),
          button("Fit", "See the whole graph (0)", () => this.fit()), this.fill)),
      this.scroller, this.legend, this.told);
    this.edges.addEventListener("pointerover", (event) => {
      const edge = this.hits.get(event.target);
      if (edge) this.hover(event, () => wordsPanel(edgeWords(edge)), [[edge.lower, edge.upper], [edge]]);
    });
    this.edges.addEventListener("pointermove", (event) => this.place(event.clientX, event.clientY));
    this.edges.addEventListener("pointerout", () => this.quiet());
    this.edges.addEventListener("click", (event) => {
      const edge = this.hits.get(event.target);
      if (edge && !this.dragged) this.act.pick({ edge: [edge.lower.key, edge.upper.key] });
    });
    this.svg.addEventListener("click", (event) => {
      if (!event.target.closest(".node, .hit") && !this.dragged) this.act.pick(null);
    });
    this.element.addEventListener("keydown", (event) => this.onKey(event));
    this.scroller.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    this.scroller.addEventListener("pointerdown", (event) => this.onGrab(event));
    document.addEventListener("keydown", (event) => { if (event.key === "Escape" && this.full) this.toggleFull(); });
    document.addEventListener("fullscreenchange", () => { if (!document.fullscreenElement && this.full) this.toggleFull(); });
    new ResizeObserver(() => this.resized()).observe(this.scroller);
  }

  /**
   * @param shown {run, graph, compared, picked, nameOf(class), cards and samples: those of the record, many: neurons of each layer
   * or null, called: own names by key, pinned and groups: keys, get(ref): promise of a picture}; compared: whether graph is a merged one.
   */
  show(shown) {
    const { graph } = shown;
    if (shown.run !== this.shown?.run) this.pictures = new Map();
    const drawnOf = graph.byKey.get(shown.picked?.neuron); // of a neuron in a group, the group
    this.shown = { ...shown, picked: drawnOf ? { neuron: drawnOf.key } : shown.picked, cards: cardsByKey(shown.cards), names: layerNames(graph.layers) };
    this.title.textContent = shown.compared ? "What changed, neuron by neuron" : `Critical neurons for “${brief(shown.nameOf(graph.label))}”, layer by layer`;
    this.amount.max = mostOf(graph);
    const layers = JSON.stringify(graph.layers.map((layer) => layer.name));
    const others = layers !== this.layers;
    this.layers = layers;
    this.amount.value = this.choosing ?? shown.many ?? FEW;
    const named = drawnOf?.key ?? null;
    const what = isGroup(named) ? "group" : "neuron";
    Object.assign(this.naming, { placeholder: `Name this ${what}`, ariaLabel: `Your name for the selected ${what}` });
    this.pinning.ariaLabel = this.pinning.title = `Always draw this ${what}`;
    this.opening.hidden = what !== "group";
    this.naming.hidden = this.pinning.hidden = named === null;
    this.pinning.setAttribute("aria-pressed", String(shown.pinned.includes(named)));
    if (this.naming.dataset.key !== String(named)) this.naming.value = shown.called[named] ?? "";
    this.naming.dataset.key = String(named);
    this.draw();
    if (others) this.scroller.scrollLeft = this.scroller.scrollWidth; // where not all is in sight, the class is
    this.drawLegend();
    this.fetchPictures();
  }

  /** The patch that drives each drawn neuron most, and a sample for the input; until they are there, earlier ones stay. */
  async fetchPictures() {
    const { run, cards, graph, samples, get } = this.shown;
    const wanted = new Map([...cards].filter(([key, card]) => this.drawn.has(key) && card.driven.images)
      .map(([key, card]) => [key, { ref: card.driven.images, at: 0 }]));
    const [input] = graph.layers.filter((layer) => layer.kind === "input" && layer.nodes.length === 1);
    const at = samples ? sampleOf(samples, graph.label) : -1;
    if (input && samples?.images && at >= 0) wanted.set(input.nodes[0].key, { ref: samples.images, at });
    const asked = JSON.stringify([run, ...wanted]);
    if (asked === this.asked) return;
    this.asked = asked;
    const pictures = await thumbnails(wanted, get);
    if (asked !== this.asked) return;
    this.pictures = pictures;
    this.draw();
    this.drawLegend();
  }

  /** Draws at once; the state, and with it the rest of the page, follows when the slider rests. */
  choose() {
    this.choosing = Number(this.amount.value);
    this.draw();
    clearTimeout(this.rests);
    this.rests = setTimeout(() => {
      const many = this.choosing;
      this.choosing = null;
      this.act.update({ many: many === FEW ? null : many });
    }, 150);
  }

  /** The neuron that is picked gets its own name, or loses it. */
  name() {
    const called = { ...this.shown.called, [this.naming.dataset.key]: this.naming.value.trim() };
    this.act.update({ called: Object.fromEntries(Object.entries(called).filter(([, name]) => name)) });
  }

  /** The neuron that is picked is always drawn, or no longer. */
  pin() {
    const [{ pinned }, { key }] = [this.shown, this.naming.dataset];
    this.act.update({ pinned: pinned.includes(key) ? pinned.filter((one) => one !== key) : [...pinned, key] });
  }

  /** A neuron, or a group, is put into one group with what is picked. */
  join(key) {
    const { picked, graph } = this.shown;
    const joined = picked?.neuron && graph.byKey.has(picked.neuron) && join(this.shown, picked.neuron, key);
    if (!joined) this.act.say("To make a group, select a neuron, then Shift-click others of the same layer, or press G on them.");
    else this.change(joined, joined.picked.neuron);
  }

  /** The group that is picked is drawn as its neurons. */
  ungroup() {
    const { key } = this.naming.dataset;
    this.change(ungroup(this.shown, key), membersOf(key).find((member) => this.drawn.has(member)) ?? null);
  }

  /** Nodes give way to others: the keyboard goes on at one of these. */
  async change(changes, key) {
    await this.act.update(changes);
    if (key === null) this.drawn.values().next().value?.focus();
    else this.goTo(key);
  }

  draw() {
    const { graph, compared, picked, many, called, pinned } = this.shown;
    const { columns, edges } = chosen(graph, this.choosing ?? many ?? FEW, { picked, called, pinned });
    this.rows = new Map(columns);
    this.room = this.scroller.clientWidth || 900;
    this.at = layout(columns, this.room / this.zoom, this.full ? this.scroller.clientHeight / this.zoom : 0);
    const { width, height, places } = this.at;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("width", Math.floor(width * this.zoom));
    this.svg.setAttribute("height", Math.floor(height * this.zoom));
    this.svg.classList.toggle("compared", Boolean(compared));
    this.drawColumns();
    this.drawEdges(edges);

    const best = Math.max(1e-30, ...graph.paths.map((path) => path.share));
    this.paths.replaceChildren(...(this.showPaths.checked ? graph.paths : []).map((path) => s("path", {
      class: "path",
      d: path.nodes.slice(1).map((upper, i) => curve(places.get(path.nodes[i]), places.get(upper))).join(""),
      "stroke-width": (0.5 + 1.3 * (path.share / best)).toFixed(2),
    })));

    const kept = new Map();
    const parts = new Map(columns.map(([layer]) => [layer, partsOf(layer)]));
    const most = Math.max(1e-30, ...columns.flatMap(([layer, nodes]) => (layer.size > 1 ? nodes.map((node) => parts.get(layer)(node)) : [])));
    for (const [layer, nodes] of columns) {
      for (const node of nodes) {
        const group = this.drawn.get(node.key) ?? this.newNode(node.key);
        kept.set(node.key, group);
        this.drawNode(group, node, Math.min(1, parts.get(layer)(node) / most));
      }
    }
    for (const [key, group] of this.drawn) if (!kept.has(key)) group.remove();
    this.drawn = kept;
    this.nodes.append(...[...kept.values()].filter((group, i) => this.nodes.children[i] !== group));
    if (!this.svg.querySelector('.node[tabindex="0"]')) [...kept.values()].at(-1)?.setAttribute("tabindex", "0");
    this.light(...this.picked());
  }

  drawColumns() {
    const { names, compared } = this.shown;
    const { columns, step } = this.at;
    const blocks = blocksOf([...columns.keys()], names).map(({ block, layers }) => {
      const [from, to] = [columns.get(layers[0]) - step / 2 + 4, columns.get(layers.at(-1)) + step / 2 - 4];
      return s("g", { class: "block" }, s("title", {}, block),
        s("text", { x: (from + to) / 2, y: 12, "text-anchor": "middle" }, fitMiddle(block, to - from, 7)),
        s("path", { d: `M${from} 21V18H${to}V21` }));
    });
    this.columns.replaceChildren(...blocks, ...[...columns].map(([layer, x]) => {
      const nodes = this.rows.get(layer);
      const part = nodes.reduce((sum, node) => sum + (node.part ?? 0), 0);
      const count = nodes.reduce((all, node) => all + (node.members?.length ?? 1), 0);
      const shown = `${count} of ${layer.size} neurons${compared ? "" : `, with ${Math.round(part * 100)} % of its relevance`}`;
      return s("g", { class: "of-layer" }, s("title", {}, `${layer.name} (${layer.kind}): ${shown}`),
        s("text", { class: "layer", x, y: 34, "text-anchor": "middle" }, fitMiddle(names.get(layer).short, step - 2, 6)),
        layer.size > 1 ? s("text", { class: "quiet", x, y: 47, "text-anchor": "middle" }, `${count} of ${layer.size}`) : null);
    }));
  }

  drawEdges(edges) {
    const { compared } = this.shown;
    const { places } = this.at;
    this.lines = new Map();
    this.hits = new Map(); // what the pointer finds -> edge
    for (const [edge, strong] of edges) {
      const d = curve(places.get(edge.lower), places.get(edge.upper));
      const kind = compared ? edge.change : edge.relevance < 0 ? "negative" : "positive";
      this.lines.set(edge, s("path", { class: `edge ${kind}`, d, "stroke-width": (0.5 + 4.5 * strong).toFixed(2), "stroke-opacity": (0.15 + 0.4 * strong).toFixed(2) }));
      if (strong >= 0.04) this.hits.set(s("path", { class: "hit", d }), edge);
    }
    this.edges.replaceChildren(...this.lines.values(), ...this.hits.keys());
  }

  newNode(key) {
    const parts = {
      disc: s("circle", { class: "disc" }),
      picture: s("image", { class: "picture", x: -HALF, y: -HALF, width: GLYPH, height: GLYPH, preserveAspectRatio: "none" }),
      rim: s("rect", { class: "rim", x: -HALF, y: -HALF, width: GLYPH, height: GLYPH, rx: 3 }),
      track: s("rect", { class: "track", x: -HALF, y: HALF + 2.5, width: GLYPH, height: 3, rx: 1 }),
      bar: s("rect", { class: "part", x: -HALF, y: HALF + 2.5, height: 3, rx: 1 }),
      voice: s("circle", { class: "voice", r: 5 }),
      number: s("text", { class: "number" }),
    };
    const group = s("g", { class: "node", tabindex: "-1", role: "button", "data-key": key },
      s("rect", { class: "room", x: -HALF - 4, y: -HALF - 4, width: GLYPH + 8, height: GLYPH + 20 }), Object.values(parts));
    group.parts = parts;
    const node = () => this.shown.graph.byKey.get(key);
    const panel = () => nodePanel(node(), this.shown, this.thumbnail(key));
    group.addEventListener("pointerenter", (event) => this.hover(event, panel, this.around(node())));
    group.addEventListener("pointermove", (event) => this.place(event.clientX, event.clientY));
    group.addEventListener("pointerleave", () => this.quiet());
    group.addEventListener("click", (event) => {
      if (this.dragged) return;
      if (event.shiftKey) this.join(key);
      else this.act.pick({ neuron: key });
    });
    group.addEventListener("focus", () => {
      this.light(...this.around(node()));
      if (!group.matches(":focus-visible")) return;
      const box = group.getBoundingClientRect();
      this.tell(panel());
      this.place(box.right, box.top);
    });
    group.addEventListener("blur", () => this.quiet());
    return group;
  }

  /** @param part of what the greatest neuron has of its layer. */
  drawNode(group, node, part) {
    const { compared, cards, nameOf, called, pinned } = this.shown;
    const { x, y } = this.at.places.get(node);
    const { disc, picture, bar, voice, number } = group.parts;
    const strong = Math.sqrt(part);
    const alone = node.layer.size === 1 || node.output;
    const seen = this.pictures.get(node.key);
    const [named] = cards.has(node.key) ? namedClasses(cards.get(node.key)) : [];
    const radius = alone ? 11 : 4 + 9 * strong;
    group.style.transform = `translate(${x.toFixed(1)}px, ${y.toFixed(1)}px)`;
    const kind = compared ? node.change : node.relevance < 0 ? "negative" : "positive";
    group.setAttribute("class", `node ${kind}${seen ? " pictured" : ""}${named ? " speaking" : ""}${alone ? " alone" : ""}${pinned.includes(node.key) ? " pinned" : ""}${node.members ? " grouped" : ""}`);
    disc.setAttribute("r", radius.toFixed(1));
    disc.style.setProperty("--strength", `${Math.round(20 + 70 * strong)}%`);
    if (seen && picture.getAttribute("href") !== seen) picture.setAttribute("href", seen);
    bar.setAttribute("width", (GLYPH * part).toFixed(1));
    const corner = seen ? HALF - 1 : 0.7 * radius + 1;
    voice.setAttribute("cx", corner.toFixed(1));
    voice.setAttribute("cy", (-corner).toFixed(1));
    if (named) voice.style.fill = colourOfClass(named[0]);
    const below = (seen ? HALF : radius) + 14;
    for (const [name, value] of Object.entries(node.output ? { x: radius + 5, y: 4, "text-anchor": "start" } : { x: 0, y: below, "text-anchor": "middle" })) {
      number.setAttribute(name, value);
    }
    const digits = `${node.neuron}`;
    const room = this.at.step - 12 - 6 * digits.length;
    const own = called[node.key];
    if (node.output) number.replaceChildren(s("tspan", { class: "word" }, fitMiddle(nameOf(node.neuron), 76, 7)));
    else if (own) number.replaceChildren(s("tspan", { class: "own" }, fitMiddle(own, this.at.step + 16, 5.6)));
    else if (node.members) number.replaceChildren(s("tspan", { class: "quiet" }, `${node.members.length} neurons`));
    else {
      number.replaceChildren(...(node.layer.size === 1 ? [] : [s("tspan", { class: "quiet" }, digits),
        named ? s("tspan", {}, ` ${fitMiddle(nameOf(named[0]), room, 6)}`) : ""]));
    }
    group.setAttribute("aria-label", nodeWords(node, this.shown).join(", "));
  }

  /** The picture of a neuron, for the panel; null where there is none. */
  thumbnail(key) {
    const seen = this.pictures.get(key);
    if (!seen) return null;
    const found = h("span", { class: "thumbnail" });
    found.style.backgroundImage = `url("${seen}")`;
    return found;
  }

  /** What the legend says, on the page and in files: [kind, text]. */
  keys() {
    const { compared, graph } = this.shown;
    if (compared) return Object.entries(CHANGES);
    const against = [...graph.nodes, ...graph.edges].some(({ relevance }) => relevance < 0);
    return [["positive", "relevance for the class"], ...(against ? [["negative", "against it"]] : []), ["part", "bar or size: share of the layer's relevance"],
      ...(this.pictures.size ? [["picture", "picture: what drives the neuron most; dot: the class it is most relevant for"]] : []), ["path", "best paths"], ...(graph.nodes.some((node) => node.members) ? [["grouped", "dashed: neurons that you grouped"]] : [])];
  }

  drawLegend() {
    const signs = { part: "stroke part", picture: "picture", path: "stroke" };
    this.legend.replaceChildren(...this.keys().map(([kind, text]) => h(kind === "path" ? "label" : "span", { class: signs[kind] ? "key" : `key ${kind}` },
      kind === "path" ? this.showPaths : null, h("span", { class: signs[kind] ?? "dot" }), text)),
    ...(this.shown.compared ? [h("span", { class: "quiet wide" }, "compared by share of the output's relevance")] : []));
  }

  /** @param about where it is from. */
  drawing(about) {
    return drawingOf(this.svg, { title: this.title.textContent, about, keys: this.keys().filter(([kind]) => kind !== "path" || this.showPaths.checked) });
  }

  // what is lit: nodes, edges

  around(node) {
    if (!node) return [[], []];
    const edges = [...node.below, ...node.above].filter((edge) => this.lines.has(edge));
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
      const chosen_ = picked?.neuron === key || Boolean(picked?.edge?.includes(key));
      group.classList.toggle("picked", chosen_);
      group.setAttribute("aria-pressed", chosen_);
    }
    const bright = new Set(edges);
    for (const [edge, line] of this.lines) line.classList.toggle("lit", bright.has(edge));
    [...this.paths.children].forEach((line, i) => line.classList.toggle("picked", picked?.path === i));
  }

  hover(event, panel, lit) {
    if (event.buttons !== 0) return; // it drags
    this.tell(panel());
    this.place(event.clientX, event.clientY);
    this.light(...lit);
  }

  tell(parts) {
    this.told.replaceChildren(...parts);
    this.told.classList.add("seen");
  }

  quiet() {
    this.told.classList.remove("seen");
    this.light(...this.picked());
  }

  /** Put what is told beside a place, within the window. */
  place(clientX, clientY) {
    const box = this.element.getBoundingClientRect();
    const { offsetWidth, offsetHeight } = this.told;
    const x = clientX + 14 + offsetWidth > box.right ? clientX - offsetWidth - 14 : clientX + 14;
    const y = Math.max(4, Math.min(clientY + 16, window.innerHeight - offsetHeight - 6));
    this.told.style.transform = `translate(${Math.max(4, x - box.left)}px, ${y - box.top}px)`;
  }

  // how near, and what part

  resized() {
    if (!this.shown || this.scroller.clientWidth === 0) return;
    if (this.full && this.fitting) this.fit();
    else if (this.scroller.clientWidth !== this.room) this.draw();
  }

  /** Zoom, with what is at a place of the scroller staying there. */
  zoomBy(factor, x = this.scroller.clientWidth / 2, y = this.scroller.clientHeight / 2) {
    this.fitting = false;
    const { scroller } = this;
    const [left, top] = [(scroller.scrollLeft + x) / scroller.scrollWidth, (scroller.scrollTop + y) / scroller.scrollHeight];
    this.zoomTo(this.zoom * factor);
    scroller.scrollLeft = left * scroller.scrollWidth - x;
    scroller.scrollTop = top * scroller.scrollHeight - y;
  }

  zoomTo(zoom) {
    this.zoom = Math.min(ZOOM_MOST, Math.max(ZOOM_LEAST, zoom));
    if (Math.abs(this.zoom - 1) < 0.01) this.zoom = 1;
    this.scroller.classList.toggle("near", this.zoom > 1);
    this.draw();
  }

  /** All of the graph within sight; larger than it was made only where it has the window for itself. */
  fit() {
    this.fitting = true;
    const [least, height] = this.at.least;
    const { clientWidth, clientHeight } = this.scroller;
    this.zoomTo(this.full ? Math.min(2, clientWidth / least, clientHeight / height) : Math.min(1, clientWidth / least));
  }

  toggleFull() {
    this.full = !this.full;
    this.fill.setAttribute("aria-pressed", String(this.full));
    this.act.full(this.full);
    this.fit();
    const { documentElement } = document; // of the screen too, where that is allowed
    if (this.full) documentElement.requestFullscreen?.().catch(() => {});
    else if (document.fullscreenElement) document.exitFullscreen();
  }

  /** Bring a neuron into sight. */
  reveal(key) {
    const place = this.at.places.get(this.shown.graph.byKey.get(key));
    if (!place) return;
    const { clientWidth, clientHeight } = this.scroller;
    this.scroller.scrollTo({ left: place.x * this.zoom - clientWidth / 2, top: place.y * this.zoom - clientHeight / 2, behavior: "smooth" });
  }

  onWheel(event) {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const box = this.scroller.getBoundingClientRect();
    this.zoomBy(Math.exp(-Math.max(-60, Math.min(60, event.deltaY)) / 200), event.clientX - box.left, event.clientY - box.top);
  }

  /** What does not fit is drawn into sight by the pointer, as a map is. */
  onGrab(event) {
    this.dragged = false;
    if (event.button !== 0 || event.pointerType === "touch" || event.target.closest(".node, .hit")) return;
    const { scroller } = this;
    const from = { x: event.clientX, y: event.clientY, left: scroller.scrollLeft, top: scroller.scrollTop };
    const move = ({ clientX, clientY }) => {
      if (Math.hypot(clientX - from.x, clientY - from.y) > DRAG) this.dragged = true;
      if (this.dragged) scroller.scrollTo(from.left - clientX + from.x, from.top - clientY + from.y);
    };
    const leave = () => window.removeEventListener("pointermove", move);
    window.addEventListener("pointermove", move);
    window.addEventListener("pointerup", leave, { once: true });
    window.addEventListener("pointercancel", leave, { once: true });
  }

  onKey(event) {
    if (event.key === "Escape" && !this.full) this.act.pick(null);
    if (event.target === this.naming && event.key === "Escape") this.naming.blur();
    if (event.target.tagName === "INPUT" || event.ctrlKey || event.metaKey || event.altKey) return;
    const does = {
      "+": () => this.zoomBy(ZOOM_STEP), "=": () => this.zoomBy(ZOOM_STEP), "-": () => this.zoomBy(1 / ZOOM_STEP), 0: () => this.fit(), f: () => this.toggleFull(),
    }[event.key];
    if (does) {
      event.preventDefault();
      does();
    }
    const group = event.target.closest(".node");
    if (!group) return;
    const node = this.shown.graph.byKey.get(group.dataset.key);
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.act.pick({ neuron: node.key });
      return;
    }
    if (event.key.toLowerCase() === "g") {
      event.preventDefault();
      this.join(node.key);
      return;
    }
    const next = this.neighbour(node, event.key);
    if (!next) return;
    event.preventDefault();
    this.goTo(next.key);
  }

  /** The neuron that has the keyboard from now on. */
  goTo(key) {
    const target = this.drawn.get(key);
    if (!target) return;
    for (const group of this.drawn.values()) group.setAttribute("tabindex", group === target ? "0" : "-1");
    target.focus();
    this.reveal(key);
  }

  neighbour(node, key) {
    const columns = [...this.at.columns.keys()];
    const nodes = this.rows.get(node.layer);
    if (key === "ArrowUp") return nodes[nodes.indexOf(node) - 1];
    if (key === "ArrowDown") return nodes[nodes.indexOf(node) + 1];
    const there = columns[columns.indexOf(node.layer) + { ArrowLeft: -1, ArrowRight: 1 }[key]];
    if (!there) return undefined;
    const { y } = this.at.places.get(node);
    const far = (other) => Math.abs(this.at.places.get(other).y - y);
    return this.rows.get(there).reduce((best, other) => (far(other) < far(best) ? other : best));
  }
}

/** A sample that the model takes for the class, rightly if there is one; -1 where there is none. */
function sampleOf({ labels, predictions }, label) {
  const right = predictions.findIndex((prediction, i) => prediction === label && labels[i] === label);
  return right >= 0 ? right : predictions.indexOf(label);
}

/** A neuron's part of its layer; of two graphs in one, of what both show. */
function partsOf(layer) {
  const whole = layer.nodes.reduce((sum, node) => sum + weightOf(node), 0) || 1;
  return (node) => node.part ?? weightOf(node) / whole;
}

// Where neurons stand: layers as columns, neurons from the top by relevance. No DOM here.

const HEADER = 62;
export const GLYPH = 32; // a picture's side, and the largest disc
const ROW = 52;
const WIDE_ROW = 110;
const COLUMN = 64;
const MARGIN = 12;
const END_LABEL = 64; // what the output's name needs beside its neuron

/**
 * @param columns [[layer, nodes], ...] in the order of the forward pass, nodes from the top.
 * @param width pixels there are; more are taken where columns would stand too close.
 * @param height pixels that rows may spread over.
 * @returns width, height, least: [width, height] below which they do not go, step, columns: x by layer, places: {x, y} by node.
 */
export function layout(columns, width, height = 0) {
  const filled = columns.filter(([, nodes]) => nodes.length > 0);
  const around = 2 * MARGIN + END_LABEL;
  const step = Math.max(COLUMN, (width - around) / Math.max(1, filled.length));
  const rows = Math.max(1, ...filled.map(([, nodes]) => nodes.length));
  const row = Math.max(ROW, Math.min(WIDE_ROW, (height - HEADER) / rows));
  const least = [around + COLUMN * filled.length, HEADER + rows * ROW];
  const [xs, places] = [new Map(), new Map()];
  filled.forEach(([layer, nodes], column) => {
    const x = MARGIN + step * (column + 0.5);
    xs.set(layer, x);
    const top = HEADER + ((rows - nodes.length) * row) / 2 + GLYPH / 2 + 4;
    nodes.forEach((node, at) => places.set(node, { x, y: top + at * row }));
  });
  return { width: Math.max(width, least[0]), height: HEADER + rows * row, least, step, columns: xs, places };
}

/** An edge's line, leaving and arriving level. */
export function curve(from, to) {
  const bend = (to.x - from.x) * 0.5;
  return `M${round(from.x)} ${round(from.y)}C${round(from.x + bend)} ${round(from.y)} ${round(to.x - bend)} ${round(to.y)} ${round(to.x)} ${round(to.y)}`;
}

/** How strong each edge is among those of its pair of layers, 0 to 1: what counts is which way relevance takes. */
export function strengths(edges, value = (edge) => edge.relevance) {
  const most = new Map();
  const pair = (edge) => `${edge.lower.layer.order}>${edge.upper.layer.order}`;
  for (const edge of edges) most.set(pair(edge), Math.max(most.get(pair(edge)) ?? 0, Math.abs(value(edge))));
  return new Map(edges.map((edge) => [edge, most.get(pair(edge)) === 0 ? 0 : Math.abs(value(edge)) / most.get(pair(edge))]));
}

/**
 * Names of layers as they are read: what all begin with dropped, the block told apart from what stands in it, and what all blocks within others
 * begin with dropped too.
 *
 * A block is what comes before the last part, up to the last part that is numbered: layer1.0 of layer1.0.conv1,
 * encoder.layer_3 of encoder.layer_3.mlp.0, features of features.28.
 *
 * @returns {name, block, short} of each layer; block is empty where a name has one part.
 */
export function layerNames(layers) {
  const split = layers.map((layer) => (layer.kind === "input" ? [layer.name] : layer.name.split(".")));
  const dropped = common(split.filter((_, i) => layers[i].kind !== "input"));
  const parts = split.map((names, i) => (layers[i].kind === "input" ? names : names.slice(dropped)));
  const ends = parts.map((names) => {
    const numbered = names.slice(0, -1).findLastIndex((name) => /\d$/.test(name));
    return numbered < 0 ? names.length - 1 : numbered + 1;
  });
  const blocks = parts.map((names, i) => names.slice(0, ends[i]));
  const deep = blocks.filter((names) => names.length > 1);
  let above = common([...new Map(deep.map((names) => [names.join("."), names])).values()]);
  if (above > 0 && deep.some((names) => /^\d+$/.test(names[above]))) above -= 1; // a number alone says little
  return new Map(layers.map((layer, i) => [layer, {
    name: parts[i].join("."), block: blocks[i].slice(blocks[i].length > 1 ? above : 0).join("."), short: parts[i].slice(ends[i]).join("."),
  }]));
}

/** How many parts all of several names begin with, at least one part left. */
function common(names) {
  let same = 0;
  while (names.length > 1 && names.every((parts) => parts.length > same + 1 && parts[same] === names[0][same])) same += 1;
  return same;
}

/** Neighbouring columns of one block: [{block, layers}, ...], without those that have none. */
export function blocksOf(layers, names) {
  const blocks = [];
  for (const layer of layers) {
    const { block } = names.get(layer);
    if (blocks.at(-1)?.block === block) blocks.at(-1).layers.push(layer);
    else blocks.push({ block, layers: [layer] });
  }
  return blocks.filter(({ block }) => block !== "");
}

/** A name that fits, cut in its middle, since names differ at their ends and are known by their beginnings. */
export function fitMiddle(name, pixels, perCharacter = 6) {
  const room = Math.max(3, Math.floor(pixels / perCharacter));
  const characters = [...name];
  if (characters.length <= room) return name;
  const end = Math.floor((room - 1) / 2);
  return `${characters.slice(0, room - 1 - end).join("")}…${characters.slice(characters.length - end).join("")}`;
}

const round = (value) => Math.round(value * 10) / 10;

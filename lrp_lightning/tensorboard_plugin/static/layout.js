// Where neurons stand: layers as columns, neurons from the top by relevance. No DOM here.

export const HEADER = 46;
const ROW = 24;
const COLUMN = 62;
const MARGIN = 16;

/**
 * @param layers [{nodes: [...]}] in the order of the forward pass, nodes from the top.
 * @param width pixels there are; more are taken where columns would stand too close.
 * @param endLabel pixels that the last column's names need.
 * @returns width, height, columns' x by layer, places {x, y} by node.
 */
export function layout(layers, width, endLabel = 90) {
  const filled = layers.filter((layer) => layer.nodes.length > 0);
  const step = Math.max(COLUMN, (width - 2 * MARGIN - endLabel) / Math.max(1, filled.length));
  const rows = Math.max(1, ...filled.map((layer) => layer.nodes.length));
  const height = HEADER + rows * ROW + MARGIN;
  const columns = new Map();
  const places = new Map();
  filled.forEach((layer, column) => {
    const x = MARGIN + step * (column + 0.4);
    columns.set(layer, x);
    const top = HEADER + ((rows - layer.nodes.length) * ROW) / 2 + ROW / 2;
    layer.nodes.forEach((node, row) => places.set(node, { x, y: top + row * ROW }));
  });
  return { width: Math.max(width, 2 * MARGIN + endLabel + step * filled.length), height, step, columns, places };
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

/** The end of a name that fits, since names of layers differ at their ends. */
export function fitEnd(name, pixels, perCharacter = 6) {
  const room = Math.max(3, Math.floor(pixels / perCharacter));
  const characters = [...name];
  return characters.length <= room ? name : `…${characters.slice(characters.length - room + 1).join("")}`;
}

const round = (value) => Math.round(value * 10) / 10;

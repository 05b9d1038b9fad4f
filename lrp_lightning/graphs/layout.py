"""Layout of a relevance graph: layers are columns, and neurons are ordered so that few edges cross."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np

from lrp_lightning.checks import meant
from lrp_lightning.errors import GraphError, LayerError
from lrp_lightning.graphs.build import check_graph
from lrp_lightning.graphs.paths import Node, Path

__all__ = ["DrawnEdge", "Layout", "label_of", "lay_out"]

_COLUMNS = 24
"""More layers than this are drawn by block."""
_SWEEPS = 12


@dataclass(frozen=True)
class DrawnEdge:
    """The relevance from one drawn neuron to another, along one edge or through layers that are not drawn."""

    lower: Node
    upper: Node
    relevance: float
    share: float
    strength: float
    """``|relevance|`` over the largest between these two columns, in [0, 1]: each pair of layers has its own scale."""


@dataclass(frozen=True)
class Layout:
    """The neurons and edges to draw, and their positions: ``x`` is the column's number, ``y`` is 0 in its middle."""

    layers: list[str]
    place: dict[Node, tuple[float, float]]
    edges: list[DrawnEdge]
    chains: list[list[Node]]
    """The neurons of each path that are drawn."""
    colour: dict[Node, float]
    """Relevance over the largest ``|relevance|`` in its column, in [-1, 1]."""

    @property
    def lowest(self) -> float:
        return min(y for _, y in self.place.values())

    @property
    def highest(self) -> float:
        return max(y for _, y in self.place.values())


def lay_out(
    graph: nx.DiGraph, neurons_per_layer: int, paths: Sequence[Path] = (), layers: Sequence[str] | None = None
) -> Layout:
    """Choose the part of a graph to draw, and its layout.

    Args:
        graph: from :func:`lrp_lightning.build_graph`.
        neurons_per_layer: the number of neurons of a layer, by ``|relevance|``; neurons on paths are drawn in addition.
        paths: from :func:`lrp_lightning.k_best_paths`.
        layers: the layers to draw; None for all or, if there are more than 24, for the last of each block. Relevance through
            layers that are not drawn is merged into one edge.

    Raises:
        GraphError: if it is not a relevance graph or is empty, a path is not in it, or ``neurons_per_layer`` is below 1.
        LayerError: if a layer is not in the graph.
    """
    check_graph(graph, nodes=("relevance", "order"), edges=("relevance", "share"))
    if not isinstance(neurons_per_layer, int) or neurons_per_layer < 1:
        raise GraphError(f"neurons_per_layer must be at least 1, got {neurons_per_layer}")
    on_paths = {node for path in paths for node in path.nodes}
    if not on_paths <= set(graph):
        raise GraphError(f"the paths run through {sorted(on_paths - set(graph))[0]!r}, which is not in the graph")

    members: dict[str, list[Node]] = {}
    for node in graph:
        members.setdefault(node[0], []).append(node)
    names = sorted(members, key=lambda layer: graph.nodes[members[layer][0]]["order"])
    for layer in layers or ():
        if layer not in members:
            raise LayerError(f"there is no layer {layer!r} in the graph; {meant(layer, names)}")
    drawn = [layer for layer in names if layer in layers] if layers else _blocks(names, graph, members)
    relevance = dict(graph.nodes(data="relevance"))

    columns: list[list[Node]] = []
    for layer in drawn:
        ranked = sorted(members[layer], key=lambda n: (n not in on_paths, -abs(relevance[n])))
        shown = ranked[: max(neurons_per_layer, sum(n in on_paths for n in ranked))]
        columns.append(sorted(shown, key=lambda n: -relevance[n]))
    edges = _edges_between(graph, names, members, columns)
    _uncross(columns, edges)

    place, colour = {}, {}
    for x, column in enumerate(columns):
        largest = max(abs(relevance[node]) for node in column) or 1.0
        for row, node in enumerate(column):
            place[node] = (float(x), (len(column) - 1) / 2 - row)
            colour[node] = relevance[node] / largest
    strongest: dict[tuple[float, float], float] = {}
    for a, b, r, _ in edges:
        pair = place[a][0], place[b][0]
        strongest[pair] = max(strongest.get(pair, 0.0), abs(r))
    drawn_edges = [DrawnEdge(a, b, r, s, abs(r) / (strongest[place[a][0], place[b][0]] or 1.0)) for a, b, r, s in edges]
    chains = [[node for node in path.nodes if node in place] for path in paths]
    return Layout(drawn, place, sorted(drawn_edges, key=lambda edge: edge.strength), chains, colour)


def label_of(graph: nx.DiGraph, node: Node, class_names: Sequence[str] | None) -> str:
    """A neuron's number; for the output's neurons, the class."""
    about = graph.nodes[node]
    if class_names is not None and node[1] < len(class_names) and about.get("output", graph.out_degree(node) == 0):
        return str(class_names[node[1]])
    return str(about.get("class_name", node[1]))


def _blocks(names: list[str], graph: nx.DiGraph, members: dict[str, list[Node]]) -> list[str]:
    """All layers, or the last of each block; blocks are prefixes of layers' names at the greatest depth that fits."""
    if len(names) <= _COLUMNS:
        return names
    parts = [name.partition("#")[0].split(".") for name in names]
    deepest = max(map(len, parts))
    for depth in range(deepest, 0, -1):
        last = {".".join(part[:depth]): name for part, name in zip(parts, names, strict=True)}
        if len(last) <= _COLUMNS:
            break
    ends = {name for name in names if graph.nodes[members[name][0]].get("output") or name == names[0]}
    return [name for name in names if name in ends or name in last.values()]


def _edges_between(
    graph: nx.DiGraph, names: list[str], members: dict[str, list[Node]], columns: list[list[Node]]
) -> list[tuple[Node, Node, float, float]]:
    """Edges between drawn neurons, with relevance and share, directly or through layers that are not drawn.

    A share through a skipped layer is the sum over its neurons of the product of the shares below and above.
    """
    drawn = {column[0][0] for column in columns}
    shown = {node for column in columns for node in column}
    if len(drawn) == len(names):
        return [(a, b, e["relevance"], e["share"]) for a, b, e in graph.edges(data=True) if a in shown and b in shown]
    index = {node: i for nodes in members.values() for i, node in enumerate(nodes)}
    shares: dict[tuple[str, str], np.ndarray] = {}
    for a, b, share in graph.edges(data="share"):
        pair = a[0], b[0]
        if pair not in shares:
            shares[pair] = np.zeros((len(members[pair[0]]), len(members[pair[1]])))
        shares[pair][index[a], index[b]] = share
    for hidden in (name for name in names if name not in drawn):
        below = {pair: shares.pop(pair) for pair in list(shares) if pair[1] == hidden}
        above = {pair: shares.pop(pair) for pair in list(shares) if pair[0] == hidden}
        for (lower, _), to_hidden in below.items():
            for (_, upper), from_hidden in above.items():
                through = to_hidden @ from_hidden
                shares[lower, upper] = shares[lower, upper] + through if (lower, upper) in shares else through
    found = []
    by_layer = {column[0][0]: column for column in columns}
    for (lower, upper), matrix in shares.items():
        for a in by_layer[lower]:
            for b in by_layer[upper]:
                share = float(matrix[index[a], index[b]])
                if share:
                    found.append((a, b, share * graph.nodes[b]["relevance"], share))
    return found


def _uncross(columns: list[list[Node]], edges: list[tuple[Node, Node, float, float]]) -> None:
    """Order each column by the positions of the neurons' neighbours, weighted by relevance (Sugiyama et al. 1981)."""
    neighbours: dict[Node, list[tuple[Node, float]]] = {node: [] for column in columns for node in column}
    for a, b, relevance, _ in edges:
        neighbours[a].append((b, abs(relevance)))
        neighbours[b].append((a, abs(relevance)))
    height = {node: (len(c) - 1) / 2 - row for c in columns for row, node in enumerate(c)}
    column_of = {node: x for x, column in enumerate(columns) for node in column}
    for sweep in range(_SWEEPS):
        downwards = sweep % 2 == 0
        for column in columns if downwards else reversed(columns):

            def barycentre(node: Node, downwards: bool = downwards) -> float:
                beside = [(n, w) for n, w in neighbours[node] if (column_of[n] < column_of[node]) == downwards]
                total = sum(w for _, w in beside)
                return sum(height[n] * w for n, w in beside) / total if total else height[node]

            column.sort(key=barycentre, reverse=True)
            height.update({node: (len(column) - 1) / 2 - row for row, node in enumerate(column)})

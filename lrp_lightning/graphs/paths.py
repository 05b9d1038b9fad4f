"""Critical paths: the chains of edges, from the input to the output, that carry the most relevance."""

from __future__ import annotations

import bisect
import heapq
import itertools
import random
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import networkx as nx

from lrp_lightning.checks import is_whole
from lrp_lightning.errors import GraphError
from lrp_lightning.graphs.build import check_graph

__all__ = ["Path", "Paths", "by_layer", "k_best_paths"]

Node = tuple[str, int]


def by_layer(nodes: Iterable[Node]) -> dict[str, list[int]]:
    """``{layer: numbers}`` of neurons, both in the order of the nodes."""
    neurons: dict[str, list[int]] = {}
    for layer, neuron in nodes:
        neurons.setdefault(layer, []).append(neuron)
    return neurons


_TELLING = 1e-3
"""Shares from here on are told in per cent."""
_SHOWN = 12
"""Paths that a notebook shows."""
_DRAWN = 1001
"""So many chains, drawn at random, stand for all of them where there are more."""


@dataclass(frozen=True)
class Path:
    """A chain of neurons and the share of the output's relevance that it carries.

    Args:
        nodes: ``(layer, neuron)``, lowest first.
        share: the product of what each edge is of all that its upper neuron hands on and keeps; negative for one that runs
            against the output.
        times_median: how many times as much as the median of all chains between the same ends it carries, which says more
            than a share: of 10^26 chains the best may carry 10^-23. None where it is not known. Not compared.

    Example:
        >>> from lrp_lightning import Path
        >>> Path((("input", 0), ("features.0", 5), ("classifier.6", 1)), share=0.25)
        Path(input[0] -> features.0[5] -> classifier.6[1], share=0.25)
    """

    nodes: tuple[Node, ...]
    share: float
    times_median: float | None = field(default=None, compare=False)

    @property
    def carries(self) -> str:
        """In words what it carries, a share of the output or, of less than 0.1 %, a multiple of the median path."""
        if self.times_median is None or abs(self.share) >= _TELLING:
            return f"{100 * self.share:.2g} %"
        sign, size = "-" if self.times_median < 0 else "", abs(self.times_median)
        return f"{sign}{size:,.0f} x median" if 10 <= size < 1e6 else f"{sign}{size:.2g} x median"

    def __repr__(self) -> str:
        chain = " -> ".join(f"{layer}[{neuron}]" for layer, neuron in self.nodes)
        times = "" if self.times_median is None else f", times_median={self.times_median:.3g}"
        return f"Path({chain}, share={self.share:.3g}{times})"

    def _repr_html_(self) -> str:
        """For a notebook."""
        return Paths([self])._repr_html_()


class Paths(list[Path]):
    """A list of paths, which a notebook shows as the report does.

    Example:
        >>> from lrp_lightning import Path
        >>> from lrp_lightning.graphs.paths import Paths
        >>> Paths([Path((("input", 0), ("2", 1)), share=0.25)])
        [Path(input[0] -> 2[1], share=0.25)]
    """

    def _repr_html_(self) -> str:
        """For a notebook: the first chains, with what they carry."""
        from lrp_lightning.html import sections
        from lrp_lightning.html.markup import part

        return part(
            "Path" if len(self) == 1 else f"{len(self)} paths, best first", ("paths", sections.paths(self, most=_SHOWN))
        )


def k_best_paths(
    graph: nx.DiGraph, k: int = 5, source: Node | None = None, target: Node | None = None, signed: bool = False
) -> Paths:
    """The ``k`` paths that carry the most positive relevance, exactly, by dynamic programming over shares.

    A path's share is the product along it of ``R[i<-o] / R[o]``, times its last neuron's share of the relevance that starts
    at the output; where shares of both signs come together, as a part of their sizes added up, with that of what stays in
    the neuron. So no path has more than there is, and one through a neuron whose relevance nearly cancels is not thought
    great. Only edges with positive relevance and share count; of a negative output there are none. With ``signed`` edges of
    both signs count, paths are ranked by the size of their share, and one that runs against the output, along an odd number
    of negative edges, has a negative share.

    Args:
        graph: from :func:`lrp_lightning.build_graph`.
        k: how many, at least 1; fewer come back where there are fewer.
        source: where paths start; None for the input's features or, of an image or another input whose neurons have many
            values, for the neurons that read it: that red, say, was read tells nothing. In a graph without an input, every
            neuron without an edge from below.
        target: where paths end; None for the output's neurons (in a graph that does not name them, every neuron without an
            edge to above). Given, its own share counts as 1. ``("classifier.6", 3)`` is class 3.
        signed: whether negative edges count too.

    Returns:
        Best first, in a list that a notebook shows as the report does. None of a negative output, unless ``signed``.

    Raises:
        GraphError: if the graph is none, empty or has a cycle, ``k`` is below 1, or a node is not in the graph.

    Example:
        >>> import networkx as nx
        >>> from lrp_lightning import k_best_paths
        >>> graph = nx.DiGraph()
        >>> graph.add_node(("out", 0), relevance=1.0)
        >>> graph.add_weighted_edges_from(
        ...     [(("in", 0), ("out", 0), 0.7), (("in", 1), ("out", 0), 0.3)], weight="share")
        >>> k_best_paths(graph, k=1)
        [Path(in[0] -> out[0], share=0.7, times_median=1.4)]
    """
    check_graph(graph, edges=("share",))
    if not is_whole(k) or k < 1:
        raise GraphError(f"k must be at least 1, got {k!r}")
    for node in (source, target):
        if node is not None and node not in graph:
            raise GraphError(f"node {node!r} is not in the graph; nodes are (layer, neuron)")
    if not nx.is_directed_acyclic_graph(graph):
        raise GraphError("the graph has a cycle; relevance graphs have none")

    outputs = [n for n, output in graph.nodes(data="output") if output] or [n for n in graph if graph.out_degree(n) == 0]
    ends = outputs if target is None else [target]
    relevance = {n: graph.nodes[n].get("relevance", 1.0) for n in ends}
    whole = sum(map(abs, relevance.values())) * (1 if sum(relevance.values()) >= 0 else -1)
    weight = {n: 1.0 if target is not None else whole and relevance[n] / whole for n in ends}

    starts = {source} if source is not None else _starts(graph)

    # best[n]: up to k of (share of n's relevance, node below, rank of the path there), best first
    best: dict[Node, list[tuple[float, Node | None, int]]] = {}
    edges: dict[Node, list[tuple[Node, float]]] = {}
    for node in nx.topological_sort(graph):
        candidates: Iterable[tuple[float, Node | None, int]] = [(1.0, None, 0)] if node in starts else []
        of_edges = list(graph.in_edges(node, data=True))
        shares = [edge["share"] for *_, edge in of_edges]
        sizes = sum(map(abs, shares)) + abs(1 - sum(shares))  # what no edge hands on stays in the neuron
        edges[node] = [
            (lower, edge["share"] / sizes)
            for lower, _, edge in of_edges
            if (edge["share"] != 0 if signed else edge["share"] > 0 and edge.get("relevance", 1.0) > 0)
        ]
        below = (
            (share * of_lower, lower, rank)
            for lower, share in edges[node]
            for rank, (of_lower, _, _) in enumerate(best[lower])
        )
        best[node] = heapq.nlargest(k, [*candidates, *below], key=lambda c: abs(c[0]))

    def chain(node: Node, rank: int) -> tuple[Node, ...]:
        nodes: list[Node] = []
        here: Node | None = node
        while here is not None:
            nodes.append(here)
            _, here, rank = best[here][rank]
        return tuple(reversed(nodes))

    found = [
        (weight[n] * share, n, rank)
        for n in ends
        for rank, (share, _, _) in enumerate(best[n])
        if weight[n] > 0 or (signed and weight[n])
    ]
    ranked = heapq.nlargest(k, found, key=lambda c: abs(c[0]))
    ends_with = {n: weight[n] for _, n, _ in found}
    median = _median(edges, starts, ends_with) if ranked else 0.0
    return Paths(Path(chain(n, rank), share, share / median if median else None) for share, n, rank in ranked)


def _starts(graph: nx.DiGraph) -> set[Node]:
    """Features of the input, and neurons that read its channels."""
    inputs = {n for n, kind in graph.nodes(data="kind") if kind == "input"}
    channels = {n for n in inputs if graph.nodes[n].get("places", 1) > 1}
    read_by = {upper for n in channels for upper in graph.successors(n)}
    return (inputs - channels) | read_by or {n for n in graph if graph.in_degree(n) == 0}


def _median(edges: Mapping[Node, list[tuple[Node, float]]], starts: set[Node], ends: Mapping[Node, float]) -> float:
    """The median ``|share|`` of all chains, of which :data:`_DRAWN` are drawn, each as likely, where there are more.

    Args:
        edges: ``{node: [(node below, share)]}``, nodes below first.
        starts: where chains start.
        ends: where they end, with the weight that their share is multiplied by.
    """
    chains: dict[Node, int] = {}
    for node, below in edges.items():
        chains[node] = (node in starts) + sum(chains[lower] for lower, _ in below)
    if sum(chains[end] for end in ends) <= _DRAWN:
        shares: dict[Node, list[float]] = {}
        for node, below in edges.items():
            shares[node] = [1.0] * (node in starts) + [share * s for lower, share in below for s in shares[lower]]
            if chains[node] > _DRAWN:
                shares[node] = []  # of a node that leads to none of the ends
        return statistics.median(abs(w * share) for end, w in ends.items() for share in shares[end])
    chance = random.Random(0)
    counts: dict[Node, list[float]] = {}

    def drawn() -> float:
        [node] = chance.choices(list(ends), [float(chains[end]) for end in ends])
        share = ends[node]
        while True:
            if node not in counts:
                counts[node] = list(itertools.accumulate(float(chains[lower]) for lower, _ in edges[node]))
            there = counts[node][-1] if counts[node] else 0.0
            if node in starts and chance.random() * (there + 1) >= there:
                return abs(share)
            at = bisect.bisect(counts[node], chance.random() * there)
            node, factor = edges[node][min(at, len(edges[node]) - 1)]
            share *= factor

    return statistics.median(drawn() for _ in range(_DRAWN))

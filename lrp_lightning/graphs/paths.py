"""Critical paths: the chains of edges, from the input to the output, that carry the most relevance."""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

import networkx as nx
import numpy as np

from lrp_lightning.checks import is_whole
from lrp_lightning.errors import GraphError
from lrp_lightning.graphs.arrays import Arrays, Node
from lrp_lightning.graphs.build import check_graph, outputs_of

__all__ = ["Node", "Path", "Paths", "by_layer", "k_best_paths"]


def by_layer(nodes: Iterable[Node]) -> dict[str, list[int]]:
    """``{layer: numbers}`` of neurons, in the order of the nodes."""
    neurons: dict[str, list[int]] = {}
    for layer, neuron in nodes:
        neurons.setdefault(layer, []).append(neuron)
    return neurons


_TELLING = 1e-3
"""The least share that is given in per cent."""
_WORDS = {1e6: "million", 1e9: "billion", 1e12: "trillion"}
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_SHOWN = 12
"""Number of paths that a notebook shows."""
_DRAWN = 1001
"""The number of randomly drawn chains that estimate the median if there are more."""
_AT_ONCE = 1 << 22
"""The number of chains that are compared at a time; each takes about 100 bytes."""


@dataclass(frozen=True)
class Path:
    """A chain of neurons and the share of the output's relevance that it carries.

    Args:
        nodes: ``(layer, neuron)``, lowest first.
        share: the product over its edges of each edge's share of all that its upper neuron propagates and absorbs; negative
            for a path that lowers the output.
        times_median: its share as a multiple of the median share of all chains between the same ends, which is easier to
            read: of 10^26 chains the best may carry 10^-23. None if unknown. Ignored in comparisons.

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
        """Its share of the output as text; below 0.1 %, as a multiple of the median path's share."""
        if self.times_median is None or abs(self.share) >= _TELLING:
            return f"{100 * self.share:.2g} %"
        sign, size = "-" if self.times_median < 0 else "", abs(self.times_median)
        rounded = float(f"{size:.3g}")
        for unit, word in _WORDS.items():
            if unit <= rounded < 1000 * unit:
                return f"{sign}{rounded / unit:.3g} {word} x median"
        if rounded >= 1e15:
            digits, exponent = f"{size:.1e}".split("e+")
            return f"{sign}{digits} · 10{exponent.translate(_RAISED)} x median"
        return f"{sign}{size:,.0f} x median" if size >= 10 else f"{sign}{size:.2g} x median"

    def __repr__(self) -> str:
        chain = " -> ".join(f"{layer}[{neuron}]" for layer, neuron in self.nodes)
        times = "" if self.times_median is None else f", times_median={self.times_median:.3g}"
        return f"Path({chain}, share={self.share:.3g}{times})"

    def _repr_html_(self) -> str:
        """For a notebook."""
        return Paths([self])._repr_html_()


class Paths(list[Path]):
    """A list of paths, which a notebook displays like the report.

    Example:
        >>> from lrp_lightning import Path
        >>> from lrp_lightning.graphs.paths import Paths
        >>> Paths([Path((("input", 0), ("2", 1)), share=0.25)])
        [Path(input[0] -> 2[1], share=0.25)]
    """

    def _repr_html_(self) -> str:
        """For a notebook: the first paths, with their shares."""
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
    at the output. If shares of both signs meet in a neuron, each is divided by the sum of their magnitudes and of what the
    neuron absorbs. So no path carries more than the output, and a path through a neuron whose relevance nearly cancels does
    not look strong. Only edges with positive relevance and share are used, so a negative output has no paths. With
    ``signed``, edges of both signs are used, paths are ranked by the magnitude of their share, and a path with an odd number
    of negative edges, which lowers the output, has a negative share.

    Args:
        graph: from :func:`lrp_lightning.build_graph`.
        k: number of paths, at least 1; fewer are returned if there are fewer.
        source: where paths start; None for the input's features or, if the input is an image or its neurons have many values
            for another reason, for the neurons that read it, since a colour channel says little. In a graph without an
            input, every neuron without an edge from below.
        target: where paths end; None for the output's neurons (in a graph that does not mark them, every neuron without an
            edge to a higher one). The share of a given target counts as 1. ``("classifier.6", 3)`` is class 3.
        signed: whether to use negative edges too.

    Returns:
        Paths, best first, in a list that a notebook displays like the report; equal shares in the order of the graph's nodes
        and ``in_edges``. Empty for a negative output, unless ``signed``.

    Raises:
        GraphError: if ``graph`` is not a relevance graph, is empty or has a cycle, ``k`` is below 1, or a node is not in it.

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
    arrays = Arrays(graph)

    ends = outputs_of(graph) if target is None else [target]
    relevance = {n: graph.nodes[n].get("relevance", 1.0) for n in ends}
    whole = sum(map(abs, relevance.values())) * (1 if sum(relevance.values()) >= 0 else -1)
    weight = {n: 1.0 if target is not None else whole and relevance[n] / whole for n in ends}
    weight_of = {arrays.number[n]: w for n, w in weight.items() if w > 0 or (signed and w)}

    chains = _Chains(arrays, {source} if source is not None else _starts(graph), list(weight_of), signed)
    few = sum(chains.count[n] for n in weight_of) <= _DRAWN
    best = _Best(chains, max(k, _DRAWN) if few else k)
    found = [(weight_of[n] * share, n, rank) for n in weight_of for rank, share in enumerate(best.shares(n))]
    ranked = heapq.nlargest(k, found, key=lambda c: abs(c[0]))
    if few:  # then all paths were found
        median = statistics.median(abs(share) for share, _, _ in found) if found else 0.0
    else:
        median = _median(chains, {n: w for n, w in weight_of.items() if chains.count[n]})
    return Paths(
        Path(tuple(arrays.nodes[n] for n in best.chain(end, rank)), share, share / median if median else None)
        for share, end, rank in ranked
    )


def _starts(graph: nx.DiGraph) -> set[Node]:
    """The input's features, or the neurons that read its channels."""
    inputs = {n for n, kind in graph.nodes(data="kind") if kind == "input"}
    channels = {n for n in inputs if graph.nodes[n].get("places", 1) > 1}
    read_by = {upper for n in channels for upper in graph.successors(n)}
    return (inputs - channels) | read_by or {n for n in graph if graph.in_degree(n) == 0}


class _Chains:
    """All chains of the edges in use, as arrays.

    Attributes:
        nodes, generations: the number of nodes, and the nodes without edges between them, as in :class:`Arrays`.
        starts: ``(nodes,) bool``, whether chains start there.
        lower, upper: ``(E,)``, the nodes of the edges that are used and lead to one of the ends; ``upper`` is ascending.
        share: ``(E,)``, each edge's share of all that its upper neuron propagates and absorbs.
        first: ``(nodes + 1,)``, the index of the first edge into each node.
        count: ``(nodes,)``, the number of chains to each node; infinite from 1e308.
    """

    def __init__(self, arrays: Arrays, starts: Collection[Node], ends: Sequence[int], signed: bool) -> None:
        self.nodes, self.generations = len(arrays.nodes), arrays.generations
        self.starts = np.zeros(self.nodes, dtype=bool)
        self.starts[[arrays.number[n] for n in starts]] = True
        lower, upper, share = arrays.lower, arrays.upper, arrays.of_edges(itemgetter("share"))
        # the neuron absorbs what no edge propagates
        sizes = np.bincount(upper, np.abs(share), self.nodes) + np.abs(1 - np.bincount(upper, share, self.nodes))
        counts = share != 0 if signed else (share > 0) & (arrays.of_edges(lambda edge: edge.get("relevance", 1.0)) > 0)
        leads = np.zeros(self.nodes, dtype=bool)
        leads[ends] = True
        first = np.searchsorted(upper, np.arange(self.nodes + 1))
        for low, high in reversed(self.generations):
            some = slice(first[low], first[high])
            leads[lower[some][counts[some] & leads[upper[some]]]] = True
        counts &= leads[upper]
        self.lower, self.upper, self.share = lower[counts], upper[counts], (share / sizes[upper])[counts]
        self.first = np.searchsorted(self.upper, np.arange(self.nodes + 1))
        self.count = self.starts.astype(float)
        for low, high in self.generations:
            some = slice(self.first[low], self.first[high])
            more = self.count[self.lower[some]]
            self.count[low:high] += np.bincount(self.upper[some] - low, more, high - low)


class _Best:
    """The ``k`` best chains to each node; of equal shares, first one that starts there, then in the order of ``in_edges``.

    Chain ``rank`` to ``node`` is at ``first[node] + rank``, with its share, the node below and its rank there, both -1 if
    it starts at ``node``.
    """

    def __init__(self, chains: _Chains, k: int) -> None:
        self.chains, self.k = chains, k
        self.count = np.minimum(chains.count, k).astype(int)
        self.first = np.cumsum([0, *self.count])
        self.share = np.empty(self.first[-1])
        self.below, self.rank = np.full((2, self.first[-1]), -1)
        for low, high in chains.generations:
            self._fill(low, high)

    def shares(self, node: int) -> list[float]:
        """The shares of the chains to a node, best first."""
        return self.share[self.first[node] : self.first[node + 1]].tolist()

    def chain(self, node: int, rank: int) -> list[int]:
        """The nodes of a chain, lowest first."""
        nodes = []
        while node >= 0:
            nodes.append(node)
            at = self.first[node] + rank
            node, rank = int(self.below[at]), int(self.rank[at])
        return nodes[::-1]

    def _fill(self, low: int, high: int) -> None:
        """The best chains to nodes ``low`` to ``high``, which have no edges between them."""
        chains = self.chains
        some = np.arange(chains.first[low], chains.first[high])
        some = some[self.count[chains.lower[some]] > 0]
        # of the j-th edge by best chain, only the first k - j chains can be among the k best
        place = _places(chains.upper[some], chains.share[some] * self.share[self.first[chains.lower[some]]])
        many = np.clip(np.minimum(self.count[chains.lower[some]], self.k - place), 0, None)
        if many.sum() > _AT_ONCE and high - low > 1:
            self._fill(low, (low + high) // 2)
            self._fill((low + high) // 2, high)
            return
        edge = np.repeat(some, many)
        rank = np.arange(len(edge)) - np.repeat(np.cumsum(many) - many, many)
        below = chains.lower[edge]
        here = low + np.flatnonzero(chains.starts[low:high])
        begin = np.full_like(here, -1)
        upper, below, rank, share = map(np.concatenate, (
            (here, chains.upper[edge]), (begin, below), (begin, rank),
            (np.ones(len(here)), chains.share[edge] * self.share[self.first[below] + rank]),
        ))  # fmt: skip
        place = _places(upper, share)
        kept = place < self.k
        at = self.first[upper[kept]] + place[kept]
        self.share[at], self.below[at], self.rank[at] = share[kept], below[kept], rank[kept]


def _places(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The rank of each value in its group, greatest first; equal values in their order."""
    order = np.lexsort((-np.abs(values), groups))
    ordered = groups[order]
    places = np.empty_like(order)
    places[order] = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return places


def _median(chains: _Chains, ends: Mapping[int, float]) -> float:
    """The median ``|share|`` of :data:`_DRAWN` chains, drawn uniformly; 0 if there are too many to count.

    Args:
        chains: all chains.
        ends: the nodes where they end, with the weight of their share.
    """
    node = np.array(list(ends))
    there = chains.count[node]
    if not np.isfinite(there).all():
        return 0.0
    chance = np.random.default_rng(0)
    node = chance.choice(node, _DRAWN, p=there / there.sum())
    share = np.array([ends[n] for n in node.tolist()])
    # the probability that a chain to its upper node uses each edge; sums to 1 per node, unless chains start there
    part = np.divide(chains.count[chains.lower], whole := chains.count[chains.upper], where=whole > 0, out=0 * whole)
    up_to = np.concatenate([[0], np.cumsum(part)])
    going = np.arange(_DRAWN)
    while len(going):
        first, last = chains.first[node[going]], chains.first[node[going] + 1]
        starts = np.where(chains.starts[node[going]], 1 / chains.count[node[going]], 0)
        on = (first < last) & (chance.random(len(going)) >= starts)
        going, first, last = going[on], first[on], last[on]
        wanted = up_to[first] + chance.random(len(going)) * (up_to[last] - up_to[first])
        edge = np.clip(np.searchsorted(up_to, wanted, side="right") - 1, first, last - 1)
        share[going] *= chains.share[edge]
        node[going] = chains.lower[edge]
    return float(np.median(np.abs(share)))

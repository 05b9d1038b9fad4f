"""Critical paths: the chains of edges, from the input to the output, that carry the most relevance."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

import networkx as nx

from lrp_lightning.checks import is_whole
from lrp_lightning.errors import GraphError
from lrp_lightning.graphs.build import check_graph

__all__ = ["Path", "k_best_paths"]

Node = tuple[str, int]


@dataclass(frozen=True)
class Path:
    """A chain of neurons and the share of the output's relevance that it carries.

    Args:
        nodes: ``(layer, neuron)``, lowest first.
        share: the product of the shares of its edges; negative for one that runs against the output.

    Example:
        >>> from lrp_lightning import Path
        >>> Path((("input", 0), ("features.0", 5), ("classifier.6", 1)), share=0.25)
        Path(input[0] -> features.0[5] -> classifier.6[1], share=0.25)
    """

    nodes: tuple[Node, ...]
    share: float

    def __repr__(self) -> str:
        chain = " -> ".join(f"{layer}[{neuron}]" for layer, neuron in self.nodes)
        return f"Path({chain}, share={self.share:.3g})"


def k_best_paths(
    graph: nx.DiGraph, k: int = 5, source: Node | None = None, target: Node | None = None, signed: bool = False
) -> list[Path]:
    """The ``k`` paths that carry the most positive relevance, exactly, by dynamic programming over shares.

    A path's share is the product of ``R[i<-o] / R[o]`` along it, times its last neuron's share of the relevance that
    starts at the output. Only edges with positive relevance and share count; of a negative output there are
    none. With ``signed`` edges of both signs count, paths are ranked by the size of their share, and one that runs against
    the output, along an odd number of negative edges, has a negative share.

    Args:
        graph: from :func:`lrp_lightning.build_graph`.
        k: how many, at least 1; fewer come back where there are fewer.
        source: where paths start; None for the input's channels (in a graph without any, every neuron without an edge from
            below).
        target: where paths end; None for the output's neurons (in a graph that does not name them, every neuron without an
            edge to above). Given, its own share counts as 1. ``("classifier.6", 3)`` is class 3.
        signed: whether negative edges count too.

    Returns:
        Best first. None of a negative output, unless ``signed``.

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
        [Path(in[0] -> out[0], share=0.7)]
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
    total = sum(graph.nodes[n].get("relevance", 1.0) for n in ends)
    weight = {n: 1.0 if target is not None else total and graph.nodes[n].get("relevance", 1.0) / total for n in ends}

    starts = {source} if source is not None else {n for n, kind in graph.nodes(data="kind") if kind == "input"}
    starts = starts or {n for n in graph if graph.in_degree(n) == 0}

    # best[n]: up to k of (share of n's relevance, node below, rank of the path there), best first
    best: dict[Node, list[tuple[float, Node | None, int]]] = {}
    for node in nx.topological_sort(graph):
        candidates: Iterable[tuple[float, Node | None, int]] = [(1.0, None, 0)] if node in starts else []
        below = (
            (edge["share"] * share, lower, rank)
            for lower, _, edge in graph.in_edges(node, data=True)
            if (edge["share"] != 0 if signed else edge["share"] > 0 and edge.get("relevance", 1.0) > 0)
            for rank, (share, _, _) in enumerate(best[lower])
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
    return [Path(chain(n, rank), share) for share, n, rank in heapq.nlargest(k, found, key=lambda c: abs(c[0]))]

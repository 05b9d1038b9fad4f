"""A graph's edges as arrays, for computations layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, pairwise
from typing import Any

import networkx as nx
import numpy as np

from lrp_lightning.errors import GraphError

__all__ = ["Arrays", "Node"]

Node = tuple[str, int]


class Arrays:
    """The nodes of a graph, numbered from the input upwards, and its edges by upper node, in the order of ``in_edges``.

    Attributes:
        nodes: every node comes after those below it.
        number: ``{node: its index in nodes}``.
        generations: ``(first, one past last)`` numbers of nodes without edges between them, lowest first.
        lower, upper: ``(E,)``, the numbers of each edge's ends; ``upper`` is ascending.

    Raises:
        GraphError: if the graph has a cycle.
    """

    def __init__(self, graph: nx.DiGraph) -> None:
        try:
            generations = list(nx.topological_generations(graph))
        except nx.NetworkXUnfeasible:
            raise GraphError("the graph has a cycle; a relevance graph must not have one") from None
        self.nodes: list[Node] = list(chain.from_iterable(generations))
        self.number = {node: n for n, node in enumerate(self.nodes)}
        self.generations = list(pairwise(np.cumsum([0, *map(len, generations)]).tolist()))
        below = dict(nx.reverse_view(graph).adjacency())
        self._below: list[dict[Node, dict[str, Any]]] = [below[node] for node in self.nodes]
        self.upper = np.repeat(np.arange(len(self.nodes)), np.fromiter(map(len, self._below), int, len(self.nodes)))
        self.lower = np.fromiter(map(self.number.__getitem__, chain.from_iterable(self._below)), int, len(self.upper))

    def of_edges(self, value: Callable[[dict[str, Any]], Any]) -> np.ndarray:
        """``(E,)`` double, a function of the attributes of each edge."""
        return np.fromiter((value(edge) for edge in self.edges()), float, len(self.upper))

    def edges(self) -> Iterator[dict[str, Any]]:
        """The attributes of each edge, as in the graph."""
        return chain.from_iterable(below.values() for below in self._below)

"""The part of a relevance graph that matters for the output."""

from __future__ import annotations

from operator import itemgetter

import networkx as nx
import numpy as np

from lrp_lightning.errors import GraphError
from lrp_lightning.graphs.arrays import Arrays
from lrp_lightning.graphs.build import check_graph, outputs_of

__all__ = ["prune_graph"]


def prune_graph(graph: nx.DiGraph, node_share: float = 0.8, edge_share: float = 0.98) -> nx.DiGraph:
    """The fewest nodes, then edges, that hold a share of all influence on the output.

    A node's influence is distributed over the neurons below it, and over what it absorbs, by their shares of its
    ``|relevance|``; so influence is the sum over all paths to the output of the product of these shares. Pruning follows
    that of attribution graphs of language models (Ameisen et al. 2025, "Circuit tracing", appendix on graph pruning): first
    nodes are removed, then edges, then, repeatedly, nodes without connection to the input or the output. Neurons of the
    output always stay.

    Args:
        graph: from :func:`lrp_lightning.build_graph`.
        node_share: of the influence of all nodes, in (0, 1].
        edge_share: of the influence of all remaining edges, in (0, 1].

    Returns:
        A part of the graph; nodes and edges have ``influence``, and nodes ``kept_inflow``, the share of their inflow (in
        ``|relevance|``) that is left. ``graph.graph`` has two scores in [0, 1]:

        ================  ============================================================================================
        ``replacement``   how much of the output's influence starts at the input rather than in what nodes absorb
        ``completeness``  how much of their inflow the pruned graph's nodes keep, weighted by their influence
        ================  ============================================================================================

    Raises:
        GraphError: if ``graph`` is not a relevance graph, is empty or has a cycle, a share is not in (0, 1], or the output
            has no relevance.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP, build_graph, prune_graph
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3))
        >>> graph = build_graph(SelectiveLRP(model).trace(torch.rand(5, 4), target=1, edges=True))
        >>> pruned = prune_graph(graph)
        >>> len(pruned) < len(graph), 0 < pruned.graph["completeness"] <= 1
        (True, True)
    """
    check_graph(graph, nodes=("relevance",), edges=("relevance",))
    for name, share in (("node_share", node_share), ("edge_share", edge_share)):
        if not 0 < share <= 1:
            raise GraphError(f"{name} must be in (0, 1], got {share!r}")
    arrays = Arrays(graph)
    outputs = set(outputs_of(graph))
    inputs = {n for n, kind in graph.nodes(data="kind") if kind == "input"}
    if not any(graph.nodes[n]["relevance"] for n in outputs):
        raise GraphError("the graph's output has no relevance, so no neuron contributes to it")
    is_output, is_input = (np.array([n in of for n in arrays.nodes]) for of in (outputs, inputs))
    relevance, absorbed = (
        np.abs([about.get(name, 0.0) for about in map(graph.nodes.__getitem__, arrays.nodes)]).astype(float)
        for name in ("relevance", "absorbed")
    )
    own = np.where(is_output, relevance, 0)
    flow = _Flow(arrays, np.abs(arrays.of_edges(itemgetter("relevance"))), own / own.sum(), absorbed)

    inflow = flow.inflow() + absorbed
    keep = _strongest(flow.influence()[0], node_share) | is_output | is_input
    flow.keep_edges(keep[flow.lower] & keep[flow.upper])
    flow.keep_edges(_strongest(flow.influence()[1], edge_share))
    while (loose := keep & flow.loose(is_output, is_input)).any():
        keep &= ~loose
        flow.keep_edges(keep[flow.lower] & keep[flow.upper])

    influence, of_edges = flow.influence()
    kept = np.divide(flow.inflow(), inflow, out=np.ones_like(inflow), where=inflow != 0)
    hidden = np.where(keep & ~is_input, influence, 0)
    pruned = nx.DiGraph(
        **graph.graph,
        replacement=influence[keep & is_input].sum().item(),
        completeness=((hidden * kept).sum() / hidden.sum()).item() if hidden.any() else 0.0,
    )
    pruned.add_nodes_from(
        (n, {**about, "influence": influence[i].item(), "kept_inflow": kept[i].item()})
        for n, about in graph.nodes(data=True)
        if keep[i := arrays.number[n]]
    )
    edges = list(arrays.edges())
    pruned.add_edges_from(
        (arrays.nodes[lower], arrays.nodes[upper], {**edges[at], "influence": part})
        for lower, upper, at, part in zip(*(a.tolist() for a in (flow.lower, flow.upper, flow.at, of_edges)), strict=True)
    )
    return pruned


class _Flow:
    """Influence on the output along the remaining edges.

    Args:
        arrays: the graph.
        size: ``|relevance|`` of each edge.
        own: for each node, its own part of the output's influence.
        absorbed: for each node, the magnitude of what it absorbs.

    Attributes:
        lower, upper, size: of the remaining edges.
        at: their indices among the graph's edges.
    """

    def __init__(self, arrays: Arrays, size: np.ndarray, own: np.ndarray, absorbed: np.ndarray) -> None:
        self.generations, self.own, self.absorbed = arrays.generations, own, absorbed
        self.lower, self.upper, self.size, self.at = arrays.lower, arrays.upper, size, np.arange(len(size))

    def keep_edges(self, keep: np.ndarray) -> None:
        self.lower, self.upper, self.size, self.at = (a[keep] for a in (self.lower, self.upper, self.size, self.at))

    def inflow(self) -> np.ndarray:
        """The sum of each node's incoming ``|relevance|``."""
        return np.bincount(self.upper, self.size, len(self.own))

    def influence(self) -> tuple[np.ndarray, np.ndarray]:
        """The influence of nodes and of edges on the output, whose own influence is 1."""
        whole = (self.inflow() + self.absorbed)[self.upper]
        part = np.divide(self.size, whole, out=np.zeros_like(whole), where=whole != 0)
        influence = self.own.copy()
        for low, high in reversed(self.generations):
            first, last = np.searchsorted(self.upper, (low, high))
            part[first:last] *= influence[self.upper[first:last]]
            influence += np.bincount(self.lower[first:last], part[first:last], len(influence))
        return influence, part

    def loose(self, is_output: np.ndarray, is_input: np.ndarray) -> np.ndarray:
        """Nodes without an edge to a higher node, or without an edge from a lower one."""
        led, reached = (np.bincount(ends, minlength=len(self.own)) > 0 for ends in (self.lower, self.upper))
        return ~is_output & ~(led & (reached | is_input))


def _strongest(influence: np.ndarray, share: float) -> np.ndarray:
    """The smallest set with this share of the sum, as ``bool``; of equal ones the first."""
    if share == 1:
        return np.ones(len(influence), dtype=bool)
    ranked = np.argsort(-influence, kind="stable")
    held = np.cumsum(influence[ranked])
    keep = np.zeros(len(influence), dtype=bool)
    keep[ranked[: np.searchsorted(held, share * influence.sum()) + 1]] = True
    return keep

"""The part of a relevance graph that matters for the output."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import networkx as nx

from lrp_lightning.errors import GraphError
from lrp_lightning.graphs.build import check_graph
from lrp_lightning.graphs.paths import Node

__all__ = ["prune_graph"]


def prune_graph(graph: nx.DiGraph, node_share: float = 0.8, edge_share: float = 0.98) -> nx.DiGraph:
    """The fewest nodes, then edges, that hold a share of all influence on the output.

    A node hands its influence on to the neurons below it by what they get of its ``|relevance|``, and to what it absorbs;
    so influence is the sum over all paths to the output of the product of these shares. As attribution graphs of language
    models are pruned (Ameisen et al. 2025, "Circuit tracing", appendix on graph pruning): nodes first, then, with
    what is left, edges, then nodes that nothing reaches or that reach nothing, until there are none. Neurons of the
    output always stay.

    Args:
        graph: from :func:`lrp_lightning.build_graph`.
        node_share: of the influence of all nodes, in (0, 1].
        edge_share: of the influence of all edges that are left, in (0, 1].

    Returns:
        A part of the graph; nodes and edges have ``influence``, and nodes ``kept_inflow``, the share of their inflow (in
        ``|relevance|``) that is left. ``graph.graph`` has two scores in [0, 1]:

        ================  ============================================================================================
        ``replacement``   how much of the output's influence starts at the input rather than in what nodes absorb
        ``completeness``  how much of their inflow the pruned graph's nodes keep, weighted by their influence
        ================  ============================================================================================

    Raises:
        GraphError: if the graph is none, empty or has a cycle, a share is not in (0, 1], or the output has no relevance.

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
    if not nx.is_directed_acyclic_graph(graph):
        raise GraphError("the graph has a cycle; relevance graphs have none")
    outputs = {n for n, output in graph.nodes(data="output") if output} or {n for n in graph if graph.out_degree(n) == 0}
    inputs = {n for n, kind in graph.nodes(data="kind") if kind == "input"}
    if not any(graph.nodes[n]["relevance"] for n in outputs):
        raise GraphError("the graph's output has no relevance, so nothing has influence on it")
    inflow = {
        n: sum(abs(r) for *_, r in graph.in_edges(n, data="relevance")) + abs(graph.nodes[n].get("absorbed", 0.0))
        for n in graph
    }

    influence, _ = _influence(graph, outputs)
    pruned = graph.subgraph(_strongest(influence, node_share) | outputs | inputs).copy()
    _, of_edges = _influence(pruned, outputs)
    keep = _strongest(of_edges, edge_share)
    pruned.remove_edges_from([edge for edge in list(pruned.edges) if edge not in keep])
    _drop_loose_ends(pruned, outputs, inputs)

    influence, of_edges = _influence(pruned, outputs)
    for node, about in pruned.nodes(data=True):
        kept = sum(abs(r) for *_, r in pruned.in_edges(node, data="relevance"))
        about.update(influence=influence[node], kept_inflow=kept / inflow[node] if inflow[node] else 1.0)
    nx.set_edge_attributes(pruned, of_edges, "influence")
    hidden = [n for n in pruned if n not in inputs]
    weight = sum(influence[n] for n in hidden)
    pruned.graph["replacement"] = sum(influence[n] for n in inputs if n in pruned)
    pruned.graph["completeness"] = (
        sum(influence[n] * pruned.nodes[n]["kept_inflow"] for n in hidden) / weight if weight else 0.0
    )
    return pruned


def _influence(graph: nx.DiGraph, outputs: Iterable[Node]) -> tuple[dict[Node, float], dict[tuple[Node, Node], float]]:
    """Of nodes and of edges, on the output, whose own is 1."""
    total = sum(abs(graph.nodes[n]["relevance"]) for n in outputs)
    influence = dict.fromkeys(graph, 0.0)
    influence.update({n: abs(graph.nodes[n]["relevance"]) / total for n in outputs})
    of_edges = {}
    for node in reversed(list(nx.topological_sort(graph))):
        below = [(lower, abs(r)) for lower, _, r in graph.in_edges(node, data="relevance")]
        whole = sum(r for _, r in below) + abs(graph.nodes[node].get("absorbed", 0.0))
        for lower, r in below:
            part = influence[node] * r / whole if whole else 0.0
            of_edges[lower, node] = part
            influence[lower] += part
    return influence, of_edges


def _strongest(influence: dict[Any, float], share: float) -> set[Any]:
    """The fewest that hold this share of the whole."""
    ranked = sorted(influence, key=lambda thing: -influence[thing])
    enough, held, kept = share * sum(influence.values()), 0.0, set()
    for thing in ranked:
        if held >= enough and share < 1:
            break
        kept.add(thing)
        held += influence[thing]
    return kept


def _drop_loose_ends(graph: nx.DiGraph, outputs: set[Node], inputs: set[Node]) -> None:
    """Nodes that reach nothing, or that nothing reaches, until none remain."""

    def loose(node: Node) -> bool:
        nowhere = graph.out_degree(node) == 0 or (node not in inputs and graph.in_degree(node) == 0)
        return node not in outputs and nowhere

    todo = [n for n in graph if loose(n)]
    while todo:
        beside = {other for n in todo for other in (*graph.predecessors(n), *graph.successors(n))}
        graph.remove_nodes_from(todo)
        todo = [n for n in beside if n in graph and loose(n)]

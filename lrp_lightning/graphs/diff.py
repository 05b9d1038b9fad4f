"""The changes between two relevance graphs, of two epochs or of two classes."""

from __future__ import annotations

import networkx as nx

from lrp_lightning.errors import GraphError
from lrp_lightning.graphs.build import check_graph, outputs_of

__all__ = ["diff_graphs"]

_SAME = 0.1
"""A change of at most this share of the greater value does not count. The *Relevance* tab uses the same limit."""


def diff_graphs(before: nx.DiGraph, after: nx.DiGraph) -> nx.DiGraph:
    """The nodes and edges that appeared, vanished, grew or shrank from one graph to another.

    Relevance is compared as a share of the output, because outputs of two epochs or classes differ in size.

    Args:
        before, after: from :func:`lrp_lightning.build_graph` or :func:`lrp_lightning.class_graph`.

    Returns:
        The union of both. Nodes and edges have ``before`` and ``after``, their relevance divided by that of the output (0 if
        absent), ``relevance``, which is after minus before, and ``change``: ``"appeared"`` and ``"vanished"`` if one graph
        lacks them, ``"grew"`` and ``"shrank"`` if the relevance for the class is more or less, ``"same"`` if the two differ
        by at most a tenth of the greater. Edges have ``share``, with the change of the share. Other attributes are those of
        ``after`` or, for nodes and edges that it lacks, ``before``. It can be drawn like any graph: red is more, blue less.

    Raises:
        GraphError: if an argument is not a relevance graph or is empty, its output has no relevance, or the two are of
            different networks.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP, build_graph, diff_graphs
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> lrp, x = SelectiveLRP(model), torch.rand(5, 4)
        >>> one, other = (build_graph(lrp.trace(x, target=c, edges=True)) for c in (0, 1))
        >>> diff = diff_graphs(one, other)
        >>> diff.nodes["2", 0]["change"], diff.nodes["2", 1]["change"]
        ('vanished', 'appeared')
    """
    for graph in (before, after):
        check_graph(graph, nodes=("relevance", "order"), edges=("relevance", "share"))
    _check_same_network(before, after)
    totals = [_output_relevance(graph) for graph in (before, after)]
    diff = nx.DiGraph()
    order = _common_order(before, after)
    for node in [*before, *(n for n in after if n not in before)]:
        about = before.nodes.get(node), after.nodes.get(node)
        known = {**(about[0] or {}), **(about[1] or {})}
        diff.add_node(node, **{**known, **_change(*about, totals), "order": order[node[0]]})
        for name in ("activation", "absorbed"):
            diff.nodes[node].pop(name, None)
    one, other = (dict(graph.adjacency()) for graph in (before, after))
    diff.add_edges_from(
        (lower, upper, _edge_change(about, other.get(lower, {}).get(upper), totals))
        for lower, above in one.items()
        for upper, about in above.items()
    )
    diff.add_edges_from(
        (lower, upper, _edge_change(None, about, totals))
        for lower, above in other.items()
        for upper, about in above.items()
        if upper not in one.get(lower, {})
    )
    return diff


def _check_same_network(before: nx.DiGraph, after: nx.DiGraph) -> None:
    """Raise an error for graphs of different networks; a layer may be missing if none of its neurons are left."""
    one, other = ({node[0]: order for node, order in graph.nodes(data="order")} for graph in (before, after))
    at_one, at_other = ({order: layer for layer, order in layers.items()} for layers in (one, other))
    agree = all(one[layer] == other[layer] for layer in one.keys() & other.keys())
    agree = agree and all(at_one[place] == at_other[place] for place in at_one.keys() & at_other.keys())
    outputs = [{node[0] for node in outputs_of(graph)} for graph in (before, after)]
    if not agree or outputs[0] != outputs[1]:
        mine, theirs = (sorted({*layers} - {*others}, key=str) for layers, others in ((one, other), (other, one)))
        raise GraphError(
            "the graphs are of different networks, so they cannot be compared: layers in the first only are "
            f"{_listed(mine)}, in the second only {_listed(theirs)}"
        )


def _listed(layers: list[str], most: int = 5) -> str:
    shown = ", ".join(map(repr, layers[:most])) or "none"
    return f"{shown} and {len(layers) - most} more" if len(layers) > most else shown


def _output_relevance(graph: nx.DiGraph) -> float:
    total = sum(graph.nodes[n]["relevance"] for n in outputs_of(graph))
    if total == 0:
        raise GraphError("the graph's output has no relevance, so shares of it cannot be compared")
    return total


def _edge_change(one: dict | None, other: dict | None, totals: list[float]) -> dict[str, float | str]:
    share = (0.0 if other is None else other["share"]) - (0.0 if one is None else one["share"])
    return {**_change(one, other, totals), "share": share}


def _change(one: dict | None, other: dict | None, totals: list[float]) -> dict[str, float | str]:
    before = 0.0 if one is None else one["relevance"] / totals[0]
    after = 0.0 if other is None else other["relevance"] / totals[1]
    if one is None:
        change = "appeared"
    elif other is None:
        change = "vanished"
    elif abs(after - before) <= _SAME * max(abs(before), abs(after)):
        change = "same"
    else:
        change = "grew" if after > before else "shrank"
    return {"before": before, "after": after, "relevance": after - before, "change": change}


def _common_order(before: nx.DiGraph, after: nx.DiGraph) -> dict[str, int]:
    """The layers of both graphs in the order of the forward pass, which is the same in both."""
    place: dict[str, float] = {}
    for graph in (after, before):
        for node, order in graph.nodes(data="order"):
            place.setdefault(node[0], order)
    return {layer: i for i, layer in enumerate(sorted(place, key=lambda layer: place[layer]))}

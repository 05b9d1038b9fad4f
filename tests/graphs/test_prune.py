"""Influence against all paths one by one, and what pruning keeps."""

from __future__ import annotations

import itertools
import math
import random

import networkx as nx
import pytest
import torch
from torch import nn

from lrp_lightning import SelectiveLRP, build_graph, prune_graph
from lrp_lightning.errors import GraphError


def layered(seed: int, layers: int = 4, neurons: int = 4) -> nx.DiGraph:
    """A graph as build_graph makes it, with edges of both signs, some skipping a layer, and absorbed relevance."""
    draw = random.Random(seed)
    graph = nx.DiGraph()
    for n, i in itertools.product(range(layers), range(neurons)):
        graph.add_node(
            (f"l{n}", i), relevance=draw.gauss(0, 1), absorbed=0.0 if n == 0 else draw.gauss(0, 0.2),
            kind="input" if n == 0 else "linear", output=n == layers - 1,
        )  # fmt: skip
    for (lower, i), (upper, o) in itertools.product(graph, graph):
        if 0 < int(upper[1]) - int(lower[1]) <= 2 and draw.random() < 0.7:
            graph.add_edge((lower, i), (upper, o), relevance=draw.gauss(0, 1), share=draw.gauss(0, 1))
    return graph


def by_enumeration(graph: nx.DiGraph) -> dict:
    """Influence as the sum over all paths to the output of the product of normalised |relevance|."""
    inflow = {
        n: sum(abs(r) for *_, r in graph.in_edges(n, data="relevance")) + abs(graph.nodes[n]["absorbed"]) for n in graph
    }
    outputs = [n for n in graph if graph.nodes[n]["output"]]
    total = sum(abs(graph.nodes[n]["relevance"]) for n in outputs)

    def walk(node: tuple) -> float:
        own = abs(graph.nodes[node]["relevance"]) / total if node in outputs else 0.0
        return own + sum(walk(o) * abs(e["relevance"]) / inflow[o] for _, o, e in graph.out_edges(node, data=True))

    return {n: walk(n) for n in graph}


@pytest.mark.parametrize("seed", range(5))
def test_influence_is_the_sum_over_all_paths(seed: int) -> None:
    graph = layered(seed)
    pruned = prune_graph(graph, 1.0, 1.0)
    expected = by_enumeration(pruned)
    for node, influence in pruned.nodes(data="influence"):
        assert influence == pytest.approx(expected[node])
    for _, upper, about in pruned.edges(data=True):
        inflow = sum(abs(r) for *_, r in pruned.in_edges(upper, data="relevance")) + abs(pruned.nodes[upper]["absorbed"])
        assert about["influence"] == pytest.approx(expected[upper] * abs(about["relevance"]) / inflow)
    starts = sum(expected[n] for n in pruned if pruned.nodes[n]["kind"] == "input")
    assert pruned.graph["replacement"] == pytest.approx(starts)
    assert 0 <= pruned.graph["replacement"] <= 1 + 1e-12


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("node_share", "edge_share"), [(0.5, 1.0), (0.8, 0.98), (1.0, 0.6)])
def test_keeps_the_fewest_nodes_that_hold_the_share(seed: int, node_share: float, edge_share: float) -> None:
    graph = layered(seed, 5, 6)
    pruned = prune_graph(graph, node_share, edge_share)
    influence = by_enumeration(graph)
    ranked = sorted(influence.values(), reverse=True)
    fewest = next(n for n in range(len(ranked) + 1) if sum(ranked[:n]) >= node_share * sum(ranked) * (1 - 1e-12))
    always = {n for n in graph if graph.nodes[n]["output"] or graph.nodes[n]["kind"] == "input"}
    strongest = set(sorted(influence, key=lambda n: -influence[n])[:fewest])
    assert set(pruned) <= strongest | always
    for node, about in pruned.nodes(data=True):
        assert about["output"] or pruned.out_degree(node)
        assert about["output"] or about["kind"] == "input" or pruned.in_degree(node)
    assert {n for n in graph if graph.nodes[n]["output"]} <= set(pruned)
    assert all(pruned.edges[e]["relevance"] == graph.edges[e]["relevance"] for e in pruned.edges)
    if edge_share < 1:
        assert pruned.number_of_edges() < graph.subgraph(pruned).number_of_edges()


def test_completeness_is_the_kept_inflow_weighted_by_influence() -> None:
    graph = layered(3, 5, 6)
    pruned = prune_graph(graph, 0.6, 0.9)
    kept = {}
    for node in pruned:
        inflow = sum(abs(r) for *_, r in graph.in_edges(node, data="relevance")) + abs(graph.nodes[node]["absorbed"])
        now = sum(abs(r) for *_, r in pruned.in_edges(node, data="relevance"))
        kept[node] = now / inflow if inflow else 1.0
        assert pruned.nodes[node]["kept_inflow"] == pytest.approx(kept[node])
    hidden = [n for n in pruned if pruned.nodes[n]["kind"] != "input"]
    weight = {n: pruned.nodes[n]["influence"] for n in hidden}
    assert pruned.graph["completeness"] == pytest.approx(sum(weight[n] * kept[n] for n in hidden) / sum(weight.values()))


def test_nothing_is_pruned_where_all_is_asked_for() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Sigmoid(), nn.Linear(6, 3, bias=False)).double()
    graph = build_graph(SelectiveLRP(model).trace(torch.rand(3, 4).double(), target=1, edges=True))
    pruned = prune_graph(graph, 1.0, 1.0)
    assert set(pruned.edges) == set(graph.edges)
    assert math.isclose(pruned.graph["completeness"], 1.0, rel_tol=1e-4)
    assert "influence" not in graph.nodes["0", 0]  # the graph given is left as it was


def cycle() -> nx.DiGraph:
    graph = nx.DiGraph([(("a", 0), ("b", 0), {"relevance": 1.0}), (("b", 0), ("a", 0), {"relevance": 1.0})])
    nx.set_node_attributes(graph, 1.0, "relevance")
    return graph


@pytest.mark.parametrize(
    ("graph", "shares", "message"),
    [
        (nx.DiGraph(), {}, "empty"),
        (layered(0), {"node_share": 0.0}, r"node_share must be in \(0, 1\]"),
        (layered(0), {"edge_share": 1.1}, r"edge_share must be in \(0, 1\]"),
        (cycle(), {}, "cycle"),
    ],
)
def test_graphs_that_cannot_be_pruned(graph: nx.DiGraph, shares: dict, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        prune_graph(graph, **shares)

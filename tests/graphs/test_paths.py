"""The k best paths against all paths, one by one."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterable, Iterator
from itertools import product

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import convolutions, mlp
from torch import Tensor, nn

from lrp_lightning import Epsilon, EpsilonPlus, Path, SelectiveLRP, build_graph, k_best_paths
from lrp_lightning.errors import GraphError
from lrp_lightning.graphs.paths import Node


def layered(seed: int) -> nx.DiGraph:
    """A small graph as build_graph makes it: layers, edges that may skip one, shares of both signs, some above 1.

    Of every second, the input's neurons are an image's channels.
    """
    draw = random.Random(seed)
    graph = nx.DiGraph()
    layers = [[(f"layer{n}", i) for i in range(draw.randint(1, 4))] for n in range(draw.randint(2, 5))]
    for n, layer in enumerate(layers):
        kind = "input" if n == 0 else "linear"
        graph.add_nodes_from(layer, kind=kind, places=9 if seed % 2 else 1)
    for n, layer in enumerate(layers[1:], start=1):
        for upper in layer:
            for lower in [*layers[n - 1], *(layers[n - 2] if n > 1 else [])]:
                if draw.random() < 0.8:
                    graph.add_edge(lower, upper, share=draw.uniform(-0.4, 1.2))
    for n in graph:
        graph.nodes[n]["relevance"] = draw.uniform(-0.5, 2)
    return graph


def all_paths(graph: nx.DiGraph, starts: Iterable[Node], end: Node) -> Iterator[tuple[Node, ...]]:
    if end in starts:
        yield (end,)
    for lower in graph.predecessors(end):
        edge = graph.edges[lower, end]
        if edge["share"] > 0 and edge.get("relevance", 1.0) > 0:
            for chain in all_paths(graph, starts, lower):
                yield (*chain, end)


def share_along(graph: nx.DiGraph, nodes: tuple[Node, ...]) -> float:
    def part(lower: Node, upper: Node) -> float:
        shares = {n: graph.edges[n, upper]["share"] for n in graph.predecessors(upper)}
        return shares[lower] / (sum(map(abs, shares.values())) + abs(1 - sum(shares.values())))

    return math.prod(part(*edge) for edge in nx.utils.pairwise(nodes))


def starts_of(graph: nx.DiGraph) -> set[Node]:
    """Where paths start if nothing else is said."""
    starts = {n for n in graph if graph.nodes[n]["kind"] == "input"}
    if any(graph.nodes[n].get("places", 1) > 1 for n in starts):
        starts = {upper for n in starts for upper in graph.successors(n)}
    return starts or {n for n in graph if graph.in_degree(n) == 0}


def by_enumeration(graph: nx.DiGraph, source: Node | None, target: Node | None) -> dict[tuple[Node, ...], float]:
    starts = {source} if source is not None else starts_of(graph)
    if target is not None:
        weight = {target: 1.0}
    else:
        ends = [n for n, output in graph.nodes(data="output") if output] or [n for n in graph if graph.out_degree(n) == 0]
        relevance = {n: graph.nodes[n]["relevance"] for n in ends}
        whole = math.copysign(sum(map(abs, relevance.values())), sum(relevance.values()))
        weight = {n: r / whole for n, r in relevance.items()}
    paths = {nodes: w * share_along(graph, nodes) for end, w in weight.items() for nodes in all_paths(graph, starts, end)}
    return {nodes: share for nodes, share in paths.items() if share > 0}


def check(graph: nx.DiGraph, k: int, source: Node | None, target: Node | None) -> None:
    expected = by_enumeration(graph, source, target)
    found = k_best_paths(graph, k, source, target)
    assert len(found) == min(k, len(expected))
    assert len({path.nodes for path in found}) == len(found)
    assert [path.share for path in found] == pytest.approx(sorted(expected.values(), reverse=True)[:k])
    for path in found:
        assert path.share == pytest.approx(expected[path.nodes])


@settings(deadline=None, derandomize=True, max_examples=150)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 12))
def test_as_enumeration(seed: int, k: int) -> None:
    graph = layered(seed)
    nodes = list(graph)
    check(graph, k, None, None)
    check(graph, k, nodes[seed % len(nodes)], None)
    check(graph, k, None, nodes[seed % len(nodes)])
    check(graph, k, nodes[0], nodes[-1])


@pytest.mark.parametrize("seed", range(20))
def test_signed_as_enumeration(seed: int) -> None:
    graph = layered(seed)
    ends = [n for n in graph if graph.out_degree(n) == 0]
    starts = starts_of(graph)
    total = math.copysign(
        sum(abs(graph.nodes[n]["relevance"]) for n in ends), sum(graph.nodes[n]["relevance"] for n in ends)
    )

    def chains(end: Node) -> Iterator[tuple[Node, ...]]:
        if end in starts:
            yield (end,)
        for lower in graph.predecessors(end):
            yield from ((*chain, end) for chain in chains(lower))

    expected = {c: graph.nodes[end]["relevance"] / total * share_along(graph, c) for end in ends for c in chains(end)}
    found = k_best_paths(graph, k=7, signed=True)
    ranked = sorted(map(abs, expected.values()), reverse=True)[:7]
    assert [abs(path.share) for path in found] == pytest.approx(ranked)
    assert [path.share for path in found] == pytest.approx([expected[path.nodes] for path in found])


@pytest.mark.parametrize("seed", range(5))
def test_all_of_them_where_k_is_larger(seed: int) -> None:
    graph = layered(seed)
    check(graph, 10_000, None, None)


@pytest.mark.parametrize("at_once", [1 << 22, 3])
@pytest.mark.parametrize("seed", range(40))
def test_of_equal_shares_the_first_edge_from_below_goes_first(
    seed: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chain that starts in a neuron before those that run through it; then as ``in_edges`` has the edges."""
    monkeypatch.setattr("lrp_lightning.graphs.paths._AT_ONCE", at_once)
    draw, graph = random.Random(seed), layered(seed)
    edges = [(*edge, {"share": draw.choice([0.25, 0.5])}) for edge in graph.edges]
    graph.remove_edges_from([edge[:2] for edge in edges])
    graph.add_edges_from(draw.sample(edges, len(edges)))

    def best(node: Node) -> list[tuple[float, tuple[Node, ...]]]:
        found = [(1.0, (node,))] if node in starts_of(graph) else []
        found += [
            (share_along(graph, (lower, node)) * share, (*nodes, node))
            for lower, _ in graph.in_edges(node)
            for share, nodes in best(lower)
        ]
        return sorted(found, key=lambda chain: -chain[0])[:5]

    target = list(graph)[-1]
    assert [path.nodes for path in k_best_paths(graph, 5, target=target)] == [nodes for _, nodes in best(target)]


def test_a_graph_that_is_changed_has_the_paths_of_what_it_is_now() -> None:
    torch.manual_seed(0)
    model = mlp(4, 8, 3)
    graph = build_graph(SelectiveLRP(model, EpsilonPlus()).trace(torch.rand(5, 4), target=1, edges=True))
    first, second, *_ = k_best_paths(graph, signed=True)
    graph.remove_edge(*first.nodes[:2])
    assert first.nodes not in [path.nodes for path in k_best_paths(graph, 100, signed=True)]
    assert second.nodes in [path.nodes for path in k_best_paths(graph.copy(), 100, signed=True)]


def test_chains_beyond_all_numbers() -> None:
    """Of 4^600 none can be drawn at random; the best are found all the same."""
    graph = nx.DiGraph()
    for layer, (lower, upper) in product(range(600), product(range(4), range(4))):
        graph.add_edge((str(layer), lower), (str(layer + 1), upper), share=0.4 if lower == upper == 2 else 0.2)
    graph.nodes["600", 2]["relevance"] = 2.0
    (path,) = k_best_paths(graph, 1)
    assert {neuron for _, neuron in path.nodes} == {2}
    assert path.times_median is None


def diamond() -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_node(("out", 0), relevance=3.0)
    graph.add_node(("out", 1), relevance=1.0)
    graph.add_weighted_edges_from(
        [
            (("in", 0), ("mid", 0), 0.5),
            (("in", 1), ("mid", 0), -0.25),
            (("in", 1), ("mid", 1), 1.0),
            (("mid", 0), ("out", 0), 0.8),
            (("mid", 1), ("out", 0), 0.2),
            (("mid", 1), ("out", 1), 0.6),
        ],
        weight="share",
    )
    return graph


def test_by_hand() -> None:
    first, second, third = k_best_paths(diamond())
    assert first == Path((("in", 0), ("mid", 0), ("out", 0)), pytest.approx(0.5 / 1.5 * 0.8 * 0.75))
    assert {second.nodes, third.nodes} == {(("in", 1), ("mid", 1), ("out", n)) for n in (0, 1)}
    assert [second.share, third.share] == pytest.approx([1 * 0.2 * 0.75, 1 * 0.6 * 0.25])
    assert [path.nodes for path in k_best_paths(diamond(), k=1)] == [first.nodes]


def test_a_neuron_whose_relevance_nearly_cancels_is_on_no_great_path() -> None:
    graph = nx.DiGraph()
    for n, relevance in enumerate((1.0, 1e-9)):
        graph.add_node(("mid", n), relevance=relevance)
        graph.add_edge(("mid", n), ("out", 0), relevance=relevance, share=relevance / (1 + 1e-9))
    graph.add_node(("out", 0), relevance=1 + 1e-9)
    graph.add_edge(("in", 0), ("mid", 0), relevance=1.0, share=1.0)
    for n, relevance in ((1, 5.0), (2, -5.0 + 1e-9)):  # shares of 5e9 and -5e9
        graph.add_edge(("in", n), ("mid", 1), relevance=relevance, share=relevance / 1e-9)
    first, second = k_best_paths(graph)
    assert first.nodes == (("in", 0), ("mid", 0), ("out", 0))
    assert (first.share, second.share) == (pytest.approx(1), pytest.approx(0.5e-9))


def test_sizes_of_all_paths_add_up_to_what_reaches_the_input() -> None:
    """To 1 less what biases keep on the way, so to 1 at most."""
    torch.manual_seed(0)
    model = mlp(4, 5, 6, 2)
    x = torch.randn(9, 4)
    with_bias = k_best_paths(build_graph(SelectiveLRP(model, Epsilon()).trace(x, 1, edges=True)), 1000, signed=True)
    assert 0 < sum(abs(path.share) for path in with_bias) < 1
    for layer in model[::2]:
        nn.init.zeros_(layer.bias)
    without = k_best_paths(build_graph(SelectiveLRP(model, Epsilon(1e-12)).trace(x, 1, edges=True)), 1000, signed=True)
    assert sum(abs(path.share) for path in without) == pytest.approx(1, abs=1e-4)


def test_from_a_source_to_a_target() -> None:
    (path,) = k_best_paths(diamond(), source=("mid", 1), target=("out", 1))
    assert path == Path((("mid", 1), ("out", 1)), pytest.approx(0.6))  # a target's own share counts as 1
    (path,) = k_best_paths(diamond(), target=("mid", 0))
    assert path.nodes == (("in", 0), ("mid", 0))
    assert [path.nodes[0] for path in k_best_paths(diamond(), source=("in", 1))] == [("in", 1), ("in", 1)]


def test_negative_edges_are_no_way() -> None:
    assert k_best_paths(diamond(), source=("in", 1), target=("mid", 0)) == []
    assert k_best_paths(diamond(), source=("in", 0), target=("out", 1)) == []


def test_the_input_where_it_is_known_else_neurons_without_an_edge_from_below() -> None:
    graph = diamond()
    graph.add_edge(("bias", 0), ("out", 0), share=5.0)
    assert k_best_paths(graph, k=1)[0].nodes[0] == ("bias", 0)
    graph.nodes["in", 0]["kind"] = graph.nodes["in", 1]["kind"] = "input"
    assert [path.nodes[0][0] for path in k_best_paths(graph)] == ["in"] * 3


def test_paths_of_a_network_run_from_input_to_target() -> None:
    torch.manual_seed(0)
    model = convolutions(2, 8, 6, side=6, classes=3)
    lrp, x = SelectiveLRP(model, EpsilonPlus()), torch.rand(1, 2, 6, 6)
    winner = int(model(x).argmax())
    graph = build_graph(lrp.trace(x, target=winner, edges=True))
    paths = k_best_paths(graph, k=1000)
    assert {path.nodes[0][0] for path in paths} == {"0"}, "a colour is no part of a path"
    assert {path.nodes[-1] for path in paths} == {("5", winner)}
    assert {len(path.nodes) for path in paths} == {3}
    check(graph, 7, None, None)
    assert {path.nodes[0] for path in k_best_paths(graph, k=1000, source=("input", 0))} == {("input", 0)}
    check(graph, 7, ("input", 0), None)


def test_features_begin_paths_and_so_do_neurons_that_read_tokens_or_images() -> None:
    torch.manual_seed(0)
    model = mlp(4, 8, 3)
    for x, first in ((torch.rand(5, 4), "input"), (torch.rand(5, 7, 4), "0")):
        logits = model if x.ndim == 2 else nn.Sequential(*model, Mean())
        graph = build_graph(SelectiveLRP(logits, Epsilon()).trace(x, target=1, edges=True))
        assert {path.nodes[0][0] for path in k_best_paths(graph, signed=True)} == {first}


class Mean(nn.Module):
    """Over tokens."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def test_repr_reads_like_a_path() -> None:
    assert repr(Path((("input", 2), ("features.0", 17)), 0.12345)) == "Path(input[2] -> features.0[17], share=0.123)"


# Errors


@pytest.mark.parametrize("k", [0, -1, 1.5, None])
def test_at_least_one_path(k: object) -> None:
    with pytest.raises(GraphError, match="k must be at least 1"):
        k_best_paths(diamond(), k)  # type: ignore[arg-type]


def test_an_empty_graph() -> None:
    with pytest.raises(GraphError, match="empty"):
        k_best_paths(nx.DiGraph())


@pytest.mark.parametrize("end", ["source", "target"])
def test_a_node_that_is_not_there(end: str) -> None:
    with pytest.raises(GraphError, match=r"\('mid', 7\) is not in the graph"):
        k_best_paths(diamond(), **{end: ("mid", 7)})  # type: ignore[arg-type]


def test_a_cycle() -> None:
    graph = diamond()
    graph.add_edge(("out", 0), ("in", 0), share=0.5)
    with pytest.raises(GraphError, match="cycle"):
        k_best_paths(graph)


def test_pruned_edges_make_no_new_ends() -> None:
    torch.manual_seed(0)
    model = mlp(4, 16, 16, 3)
    trace = SelectiveLRP(model).trace(torch.rand(5, 4), target=1, edges=True)
    graph = build_graph(trace, min_share=0.2)
    assert any(graph.out_degree(n) == 0 and n[0] != "4" for n in graph)  # hidden neurons whose edges to above are gone
    assert all(path.nodes[-1][0] == "4" for path in k_best_paths(graph, k=50))
    assert ("4", 1) in build_graph(trace, min_share=1.0)


def test_paths_run_through_positive_edges_only() -> None:
    graph = nx.DiGraph()
    for node, relevance in {("a", 0): 1.0, ("b", 0): -0.3, ("c", 0): 1.0}.items():
        graph.add_node(node, relevance=relevance)
    graph.add_edge(("a", 0), ("b", 0), relevance=-0.3, share=1.0)  # opposes, as does the neuron that it leads to
    graph.add_edge(("b", 0), ("c", 0), relevance=0.2, share=0.2)
    assert k_best_paths(graph) == []


def test_ends_without_relevance_give_no_path() -> None:
    graph = nx.DiGraph()
    graph.add_node(("b", 0), relevance=0.0)
    graph.add_edge(("a", 0), ("b", 0), relevance=1.0, share=1.0)
    assert k_best_paths(graph) == []


@pytest.mark.parametrize("drawn", [10_000, 301])
def test_times_the_median_path(drawn: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all chains where there are few; else of some, each as likely to be drawn."""
    monkeypatch.setattr("lrp_lightning.graphs.paths._DRAWN", drawn)
    draw, graph, widths = random.Random(1), nx.DiGraph(), (2, 6, 6, 6, 4)
    for layer, (many, above) in enumerate(nx.utils.pairwise(widths)):
        for lower, upper in product(range(many), range(above)):
            graph.add_edge((str(layer), lower), (str(layer + 1), upper), share=draw.uniform(-0.2, 1))
            graph.add_edge(("nowhere", 0), (str(layer + 1), upper), share=0.0)  # which no chain comes along
    graph.add_edge(("nowhere", 0), ("nowhere", 1), share=1.0)
    graph.add_edge(("nowhere", 1), ("4", 0), share=1e-9)
    for n in range(4):
        graph.nodes["4", n]["relevance"] = n + 1.0
    for n in range(2):
        graph.nodes["0", n]["kind"] = "input"
    shares = []
    for end in range(4):
        for chain in product(*(range(width) for width in widths[:-1])):
            nodes = (*((str(layer), n) for layer, n in enumerate(chain)), ("4", end))
            if min(graph.edges[edge]["share"] for edge in nx.utils.pairwise(nodes)) > 0:
                shares.append((end + 1) / 10 * share_along(graph, nodes))
    median = statistics.median(shares)
    for path in k_best_paths(graph, 5):
        assert path.times_median == pytest.approx(path.share / median, rel=1e-9 if drawn > len(shares) else 0.3)
    again = k_best_paths(graph, 5)
    assert [path.times_median for path in again] == [path.times_median for path in k_best_paths(graph, 5)]


def test_what_a_path_carries_in_words() -> None:
    nodes = (("a", 0), ("b", 1))
    assert Path(nodes, 0.25).carries == "25 %"
    assert Path(nodes, 1e-18, 3.25e11).carries == "325 billion x median"
    assert Path(nodes, 1e-18, 1.3e6).carries == "1.3 million x median"
    assert Path(nodes, 1e-18, 999.9e6).carries == "1 billion x median"
    assert Path(nodes, 1e-18, -1e12).carries == "-1 trillion x median"
    assert Path(nodes, 1e-18, 3.25e17).carries == "3.2 · 10¹⁷ x median"
    assert Path(nodes, -1e-20, -2e15).carries == "-2.0 · 10¹⁵ x median"
    assert Path(nodes, 1e-18, 1234.4).carries == "1,234 x median"
    assert Path(nodes, -1e-18, -2.5).carries == "-2.5 x median"
    assert Path(nodes, 0.5, 3.0) == Path(nodes, 0.5)
    assert Path(nodes, 0.5, 3.0).carries == "50 %"

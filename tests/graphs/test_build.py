"""The relevance graph against the trace that it is made of."""

from __future__ import annotations

import json
from pathlib import Path

import networkx as nx
import pytest
import torch
from small_networks import cnn, mlp
from torch import Tensor, nn
from torchvision.models import resnet18

from lrp_lightning import Epsilon, SelectiveLRP, TopK, Trace, build_graph
from lrp_lightning.errors import GraphError

WIDTHS = (5, 9, 7, 3)


def of_images() -> nn.Module:
    return cnn(2, 6, 8, classes=4)


def traced(model: nn.Module, x: Tensor, selection: TopK | None = None) -> Trace:
    return SelectiveLRP(model, selection=selection).trace(x, target=1, edges=True)


def images(samples: int = 3) -> Tensor:
    return torch.rand(samples, 2, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["mlp", "cnn", "selected"])
def trace(request: pytest.FixtureRequest) -> Trace:
    if request.param == "mlp":
        return traced(mlp(*WIDTHS), torch.randn(4, 5, generator=torch.Generator().manual_seed(1)))
    return traced(of_images(), images(), TopK(3) if request.param == "selected" else None)


def test_nodes_and_edges_are_those_of_the_trace(trace: Trace) -> None:
    graph = build_graph(trace)
    assert isinstance(graph, nx.DiGraph)
    order = list(trace.relevance)
    for (layer, neuron), about in graph.nodes(data=True):
        assert about == {
            "relevance": pytest.approx(trace.relevance[layer][:, neuron].sum().item(), rel=1e-5, abs=1e-7),
            "activation": pytest.approx(trace.activation[layer][:, neuron].mean().item(), rel=1e-5, abs=1e-7),
            "layer": layer,
            "neuron": neuron,
            "kind": trace.kinds[layer],
            "places": trace.places[layer],
            "order": order.index(layer),
            "output": layer == order[-1],
            "absorbed": pytest.approx(about["absorbed"]),  # looked at below
        }
    for ((lower, i), (upper, o)), about in graph.edges.items():
        relevance = trace.edges[lower, upper][i, o].item()
        assert about == {
            "relevance": pytest.approx(relevance),
            "share": pytest.approx(relevance / graph.nodes[upper, o]["relevance"], rel=1e-4),
        }
        assert order.index(lower) < order.index(upper)  # arrows point the way of the forward pass
    carried = {
        pair: (edges != 0) & (trace.masks[pair[0]].any(0)[:, None] if pair[0] in trace.masks else True)
        for pair, edges in trace.edges.items()
    }
    assert graph.number_of_edges() == sum(int(c.sum()) for c in carried.values())
    assert nx.number_of_isolates(graph) == 0
    assert nx.is_directed_acyclic_graph(graph)


def test_attributes_are_plain_numbers_and_strings(trace: Trace) -> None:
    graph = build_graph(trace)
    values = [v for _, about in graph.nodes(data=True) for v in about.values()]
    values += [v for *_, about in graph.edges(data=True) for v in about.values()]
    assert {type(v) for v in values} == {bool, int, float, str}
    assert {(type(layer), type(neuron)) for layer, neuron in graph} == {(str, int)}


def test_shares_into_a_neuron_sum_to_one_without_biases_and_stabiliser() -> None:
    torch.manual_seed(0)
    model = mlp(*WIDTHS, bias=False).double()
    x = torch.randn(4, 5, dtype=torch.double)
    graph = build_graph(SelectiveLRP(model, Epsilon(0)).trace(x, target=1, edges=True))
    for node, about in graph.nodes(data=True):
        if about["kind"] != "input":
            assert sum(share for *_, share in graph.in_edges(node, data="share")) == pytest.approx(1)
        if about["layer"] != "4":  # and all relevance that a neuron has came to it along its edges
            arrived = sum(r for *_, r in graph.out_edges(node, data="relevance"))
            assert arrived == pytest.approx(about["relevance"], abs=1e-12)


def test_what_a_layers_edges_lack_is_what_its_biases_and_stabiliser_took(trace: Trace) -> None:
    assert trace.edges
    for (_, upper), edges in trace.edges.items():
        kept = trace.relevance[upper] * trace.masks[upper] if upper in trace.masks else trace.relevance[upper]
        stayed = trace.absorbed[f"{upper}.bias"].sum() + trace.absorbed[f"{upper}.stabiliser"].sum()
        torch.testing.assert_close(edges.sum(), kept.sum() - stayed, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("min_share", [0.0, 0.02, 0.1, 0.4])
def test_min_share_leaves_out_exactly_the_weak_edges(trace: Trace, min_share: float) -> None:
    whole, pruned = build_graph(trace), build_graph(trace, min_share)
    strong = {(a, b) for a, b, share in whole.edges(data="share") if abs(share) >= min_share}
    assert set(pruned.edges) == strong
    outputs = {node for node, output in whole.nodes(data="output") if output}
    assert set(pruned) == {node for edge in strong for node in edge} | outputs
    for node, about in pruned.nodes(data=True):
        left_out = sum(r for *edge, r in whole.in_edges(node, data="relevance") if tuple(edge) not in strong)
        expected = {**whole.nodes[node], "absorbed": pytest.approx(whole.nodes[node]["absorbed"] + left_out, abs=1e-6)}
        assert about == expected
    assert all(pruned.edges[edge] == whole.edges[edge] for edge in pruned.edges)
    assert min_share == 0 or len(strong) < whole.number_of_edges()


def test_only_critical_neurons_are_in_the_graph_of_a_selection() -> None:
    trace = traced(of_images(), images(), TopK(2))
    graph = build_graph(trace)
    for layer, mask in trace.masks.items():
        found = {neuron for name, neuron in graph if name == layer}
        assert found <= set(mask.any(0).nonzero().flatten().tolist())
        assert found
    everyone = build_graph(traced(of_images(), images()))
    assert len(graph) < len(everyone)


def test_of_one_sample_the_graph_holds_its_critical_neurons() -> None:
    trace = traced(of_images(), images(1), TopK(2))
    graph = build_graph(trace)
    for layer, mask in trace.masks.items():
        carries = mask[0] & (trace.relevance[layer][0] != 0)
        assert {neuron for name, neuron in graph if name == layer} == set(carries.nonzero().flatten().tolist())


def test_too_many_edges_are_cut_to_the_strongest(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = traced(of_images(), images())
    whole = build_graph(trace)
    count = f"{whole.number_of_edges():,}"
    monkeypatch.setattr("lrp_lightning.graphs.build._MOST_EDGES", 30)
    with pytest.warns(UserWarning, match=f"has {count} edges; the 30 strongest are kept"):
        cut = build_graph(trace)
    ranked = sorted(whole.edges, key=lambda edge: -abs(whole.edges[edge]["relevance"]))
    assert set(cut.edges) == set(ranked[:30])


def test_both_directions_are_as_add_edges_from_makes_them(trace: Trace) -> None:
    """Order included, and an edge's attributes are one dictionary, so that a change is seen from both of its ends."""
    graph = build_graph(trace)
    made = nx.DiGraph()
    made.add_nodes_from(graph.nodes(data=True))
    for (lower, upper), edges in trace.edges.items():
        some = edges.diag() if edges.ndim == 1 else edges
        ends = [((lower, i), (upper, o)) for i, o in some.nonzero().tolist()]
        made.add_edges_from((*edge, graph.edges[edge]) for edge in ends if edge in graph.edges)
    for one, other in ((graph, made), (graph.reverse(copy=False), made.reverse(copy=False))):
        assert [(n, list(ends.items())) for n, ends in one.adjacency()] == [
            (n, list(ends.items())) for n, ends in other.adjacency()
        ]
    assert all(graph.pred[upper][lower] is graph.succ[lower][upper] for lower, upper in graph.edges)
    assert graph.number_of_edges() == graph.copy().number_of_edges() == made.number_of_edges() > 0


def test_class_names_name_the_outputs() -> None:
    graph = build_graph(traced(of_images(), images()), classes=["a", "b", "c", "d"])
    assert dict(graph.nodes(data="class_name"))["7", 1] == "b"
    assert {n for n, name in graph.nodes(data="class_name") if name} == {n for n in graph if n[0] == "7"}
    with pytest.raises(GraphError, match="2 class names were given for 4 outputs"):
        build_graph(traced(of_images(), images()), classes=["a", "b"])


def test_junctions_join_channel_to_same_channel() -> None:
    torch.manual_seed(0)
    model = resnet18(num_classes=3)
    trace = SelectiveLRP(model, selection=TopK(0.1)).trace(torch.rand(1, 3, 32, 32), target=0, edges=True)
    graph = build_graph(trace)
    into = [((lower, i), (upper, o)) for (lower, i), (upper, o) in graph.edges if upper == "layer2.0.add"]
    assert {lower for (lower, _), _ in into} == {"layer2.0.conv2", "layer2.0.downsample.0"}
    assert all(i == o for (_, i), (_, o) in into)
    for (lower, i), upper in into:
        assert graph.edges[(lower, i), upper]["relevance"] == pytest.approx(trace.edges[lower, upper[0]][i].item())
    assert graph.nodes[into[0][1]]["kind"] == "junction"


# By networkx's own writers


def test_graphml_keeps_all_but_the_form_of_names(trace: Trace, tmp_path: Path) -> None:
    graph = build_graph(trace)
    nx.write_graphml(graph, tmp_path / "graph.graphml")
    read = nx.read_graphml(tmp_path / "graph.graphml")
    # GraphML knows no tuples, so nodes come back as their text; layer and neuron are attributes, which name them again
    read = nx.relabel_nodes(read, {node: (about["layer"], about["neuron"]) for node, about in read.nodes(data=True)})
    assert dict(read.nodes(data=True)) == dict(graph.nodes(data=True))
    assert dict(read.edges) == dict(graph.edges)


def test_node_link_json_keeps_all(trace: Trace) -> None:
    graph = build_graph(trace)
    read = nx.node_link_graph(json.loads(json.dumps(nx.node_link_data(graph))))
    assert dict(read.nodes(data=True)) == dict(graph.nodes(data=True))
    assert dict(read.edges) == dict(graph.edges)


def test_the_adjacency_matrix_is_the_trace_again() -> None:
    trace = traced(of_images(), images())
    graph = build_graph(trace)
    lower, upper = ([(layer, n) for n in range(trace.relevance[layer].shape[1])] for layer in ("0", "4"))
    graph.add_nodes_from([*lower, *upper])  # those that carry nothing are not in it
    matrix = nx.to_numpy_array(graph, nodelist=[*lower, *upper], weight="relevance")[: len(lower), len(lower) :]
    torch.testing.assert_close(torch.from_numpy(matrix).float(), trace.edges["0", "4"])


# Errors


@pytest.mark.parametrize("min_share", [-0.1, 1.1, float("nan")])
def test_min_share_is_a_share(min_share: float) -> None:
    with pytest.raises(GraphError, match=r"min_share must be in \[0, 1\]"):
        build_graph(traced(of_images(), images()), min_share)


def test_a_graph_needs_a_trace_with_edges() -> None:
    without = SelectiveLRP(of_images()).trace(images(), target=0)
    for given in (without, None, without.relevance):
        with pytest.raises(GraphError, match="edges=True"):
            build_graph(given)  # type: ignore[arg-type]


def test_edges_through_padding_that_is_an_operator_of_its_own() -> None:
    """As in networks that pad "same" by hand."""
    torch.manual_seed(0)
    padded = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.ZeroPad2d((1, 2, 0, 1)), nn.Conv2d(4, 3, 3), nn.Flatten(),
                           nn.LazyLinear(2))  # fmt: skip
    x = torch.rand(3, 2, 8, 8)
    padded(x)
    trace = SelectiveLRP(padded).trace(x, target=1, edges=True)
    torch.testing.assert_close(trace.edges["0", "3"].sum(1), trace.relevance["0"].sum(0), rtol=1e-4, atol=1e-4)

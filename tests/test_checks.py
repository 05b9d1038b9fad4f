"""What is no valid input is refused in words: what was wrong, where, and what to do; NumPy's whole numbers are ints."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from small_networks import convolutions
from torch import Tensor, nn

import lrp_lightning
from lrp_lightning import (
    Composite,
    Coverage,
    Epsilon,
    EpsilonGammaBox,
    Fixed,
    Gamma,
    LayerSelectiveLRP,
    Pass,
    Path,
    SelectiveLRP,
    TopK,
    ZBox,
    build_graph,
    class_graph,
    diff_graphs,
    k_best_paths,
    masked_forward,
    path_heatmaps,
    prune_graph,
    reconstruct,
    reconstruct_top_activations,
    register_operator,
)
from lrp_lightning.drawing import draw_contact_sheet, draw_graph, draw_heatmaps, relevance_as_images
from lrp_lightning.errors import (
    GraphError,
    InputError,
    LayerError,
    LRPError,
    ModelError,
    RuleError,
    SelectionError,
    TargetError,
)
from lrp_lightning.metrics import (
    ConservationError,
    CriticalNeuronAccuracy,
    RetainedAccuracy,
    RetentionCurve,
    SelectionStability,
    class_frequencies,
    jaccard,
    smape,
)

torch.manual_seed(0)
NET = convolutions(2, 4, 4, side=8, classes=10)
X = torch.rand(3, 2, 8, 8)
MODEL_GIVES = NET(X).detach().sum(0)
BEST, WORST = int(MODEL_GIVES.argmax()), int(MODEL_GIVES.argmin())
TRACE = SelectiveLRP(NET, selection=TopK(2, by="relevance")).trace(X, target=BEST, edges=True)
GRAPH = build_graph(TRACE)
PATHS = k_best_paths(GRAPH)
ARRAY = np.ones((3, 10))


class Loss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x).sum()


def shareless() -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_edge(("in", 0), ("out", 0))
    return graph


# the box of an input


def warned(call: Callable[[], Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(w.message) for w in caught]


@pytest.mark.parametrize(
    ("composite", "x", "layer"),
    [
        (EpsilonGammaBox(0.0, 1.0), 5 * X, "0"),
        (EpsilonGammaBox(0.0, 1.0), X - 0.1, "0"),
        (EpsilonGammaBox((0.0, 0.0), (1.0, 0.3)), X, "0"),
        (Composite(Epsilon(), layers={"0": ZBox(0.0, 0.5)}), X, "0"),
        (ZBox(0.0, 0.5), X, "0"),
        (EpsilonGammaBox(0.0, 1.0), X, None),
        (EpsilonGammaBox(0.0, 1.0), X * (1 + 1e-6), None),
        (EpsilonGammaBox((0.0, 0.0), (1.0, 5.0)), X * torch.tensor([1.0, 5.0]).view(2, 1, 1), None),
        (Composite(Epsilon(), layers={"2": ZBox(-1e-3, 1e-3)}), X, None),  # reads no input of the model's
        (Gamma(), 5 * X, None),
    ],
    ids=["above", "below", "channel", "pattern", "rule", "inside", "rounding", "channels", "hidden", "no-box"],
)
def test_an_input_outside_of_its_box_is_warned_of(composite: Any, x: Tensor, layer: str | None) -> None:
    messages = warned(lambda: SelectiveLRP(NET, composite).attribute(x, target=1))
    assert len(messages) == (layer is not None)
    if layer is not None:
        assert f"layer '{layer}' reads values outside of its box, ZBox(" in messages[0]


def test_the_box_is_that_of_what_the_layer_reads() -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = NET

        def forward(self, x: Tensor) -> Tensor:
            return self.net((x - 0.5) / 0.25)

    lrp = SelectiveLRP(Normalised(), EpsilonGammaBox(-2.0, 2.0))
    assert not warned(lambda: lrp.attribute(X, target=1))
    assert warned(lambda: lrp.attribute(2 * X, target=1))


# refused


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        # masked forward
        (lambda: masked_forward(NET, X * torch.nan, TRACE.masks), InputError, "the input holds NaN or infinite"),
        (lambda: masked_forward(NET, X, TRACE.masks, keep=0.1), SelectionError, "keep must be True.*TopK"),
        (lambda: masked_forward(NET, X.numpy(), TRACE.masks), InputError, "got ndarray; convert it with torch.from_numpy"),
        (lambda: masked_forward(NET, X.double(), TRACE.masks), InputError, "the input is torch.float64.*torch.float32"),
        (lambda: masked_forward(NET, (), TRACE.masks), InputError, "there is no input"),
        # class names
        (lambda: build_graph(TRACE, classes=["a"] * 12), GraphError, "12 class names were given for 10 outputs"),
        (lambda: build_graph(TRACE, classes="abcdefghij"), GraphError, "names, one for each output.*'abcdefghij'"),
        (lambda: build_graph(TRACE, classes=10), GraphError, "names, one for each output.*10"),
        # graphs
        *[
            (lambda f=f: f(TRACE), GraphError, r"expected a graph, got a trace; make one with build_graph\(trace\)")
            for f in (draw_graph, k_best_paths, prune_graph, lambda trace: diff_graphs(trace, trace))
        ],
        (lambda: k_best_paths([1]), GraphError, "expected a graph.*got list"),
        (lambda: k_best_paths(shareless()), GraphError, "edge .*'in'.* has no 'share'"),
        *[
            (lambda f=f: f(shareless()), GraphError, "node .*'in'.* has no '(order|relevance)'")
            for f in (draw_graph, prune_graph, lambda graph: diff_graphs(graph, graph))
        ],
        # paths
        (lambda: path_heatmaps(NET, X, PATHS[0]), GraphError, "a list of Path, from k_best_paths, got Path"),
        (lambda: path_heatmaps(NET, X, GRAPH), GraphError, "a list of Path, from k_best_paths, got DiGraph"),
        (lambda: path_heatmaps(NET, X, ["a"]), GraphError, "a list of Path, from k_best_paths, got list"),
        (lambda: path_heatmaps(NET, X, []), GraphError, "there are no paths.*signed=True"),
        (lambda: k_best_paths(GRAPH, True), GraphError, "k must be at least 1, got True"),
        # the model and its input
        (lambda: SelectiveLRP(Loss()).attribute(torch.rand(2, 4)), ModelError, "a single number for the whole batch"),
        (
            lambda: SelectiveLRP(nn.Sequential(nn.Flatten(), nn.LazyLinear(3))).attribute(X, target=0),
            ModelError,
            "parameter 'weight' of module '1' has no size yet; run the model once",
        ),
        (lambda: masked_forward(nn.LazyLinear(3), X, {}), ModelError, "has no size yet"),
        (lambda: SelectiveLRP(NET).attribute(X.to("meta"), target=0), InputError, "the input is on the meta device"),
        (lambda: SelectiveLRP(copy.deepcopy(NET).to("meta")).attribute(X.to("meta")), InputError, "on the meta device"),
        (lambda: SelectiveLRP(NET).attribute(X, target=True), TargetError, "target True does not fit"),
        (lambda: SelectiveLRP(NET).attribute(X, target=np.int64(10)), TargetError, "target 10 does not fit"),
        (lambda: register_operator("x", "activation"), RuleError, "func must be the operator itself.*'x'"),
        # rules
        *[
            (make, RuleError, message)
            for make, message in (
                (lambda: Epsilon("a"), "Epsilon.*eps must be finite"),
                (lambda: Epsilon(None), "eps must be finite"),
                (lambda: Gamma("a"), "gamma must be finite"),
                (lambda: lrp_lightning.AlphaBeta("a", 1), "alpha - beta must be 1"),
                (lambda: ZBox("a", 1), "one number or a tuple of one per channel, got low=a"),
                (lambda: ZBox(torch.zeros(3), torch.ones(3)), "one number or a tuple of one per channel"),
            )
        ],
        (
            lambda: SelectiveLRP(NET, ZBox((0, 0), (1, 1))).attribute(X, target=1),
            RuleError,
            r"layer '5' with ZBox\(low=\(0, 0\), high=\(1, 1\)\): 2 values, one per channel",
        ),
        (lambda: SelectiveLRP(NET, Pass()).attribute(X, target=1), RuleError, r"layer '5' with Pass\(\)"),
        # layers and neurons
        (lambda: reconstruct(NET, X, "2", torch.ones(4) > 0), LayerError, r"mask.nonzero\(\).flatten\(\), got tensor"),
        (lambda: reconstruct(NET, X, "2", [True]), LayerError, "numbers of neurons"),
        (lambda: TRACE.critical("typo"), LayerError, "no layer 'typo'.*layers are '0', '2'"),
        (lambda: TRACE.critical("5"), LayerError, "layer '5' was left whole.*masks are of '0', '2'"),
        (lambda: SelectiveLRP(NET).trace(X, target=1).critical("0"), LayerError, "layer '0' was left whole.*no selection"),
        (lambda: TopK(True), SelectionError, "keep must be a number of neurons"),
        # loaders
        (lambda: class_graph(NET, X, 1), InputError, r"loader must give batches.*Tensor; pass a single batch as \[batch\]"),
        (lambda: reconstruct_top_activations(NET, X, "2", 1), InputError, "the loader must give batches.*got Tensor"),
        (lambda: class_graph(NET, [X], torch.tensor([1, 2])), TargetError, "target must be the number of one class.*Tensor"),
        (lambda: class_graph(NET, [X], True), TargetError, "target must be the number of one class.*bool"),
        # pictures and metrics
        (lambda: draw_heatmaps(X, TRACE), InputError, "relevance must be a tensor, got Trace"),
        (lambda: draw_contact_sheet(X, TRACE), InputError, "relevance must be a tensor, got Trace"),
        (lambda: relevance_as_images(X.numpy()), InputError, "relevance must be a tensor, got ndarray"),
        (lambda: ConservationError().update(TRACE), InputError, "trace.conservation_error, got Trace"),
        *[
            (lambda f=f: f(ARRAY, ARRAY), InputError, "must be a tensor, got ndarray")
            for f in (smape, jaccard, CriticalNeuronAccuracy().update, RetainedAccuracy().update)
        ],
        (lambda: class_frequencies({"a": ARRAY}, torch.zeros(3).long(), 2), InputError, "a must be a tensor, got ndarray"),
        (lambda: SelectionStability(2, {"a": 10}).update({"a": ARRAY}, torch.zeros(3)), InputError, "a must be a tensor"),
        (lambda: RetentionCurve([0.1]).update({0.1: ARRAY}, ARRAY, ARRAY), InputError, "logits must be a tensor"),
        (lambda: RetentionCurve(0.1), SelectionError, "budgets must be shares in .0, 1., ascending, got 0.1"),
        (lambda: RetentionCurve("ab"), SelectionError, "budgets must be shares.*'ab'"),
    ],
)  # fmt: skip
def test_is_refused_in_words(call: Callable[[], Any], error: type[LRPError], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.skipif(not hasattr(Exception, "add_note"), reason="notes came with Python 3.11")
@pytest.mark.parametrize(
    "run", [lambda x: masked_forward(NET, x, TRACE.masks), lambda x: SelectiveLRP(NET).attribute(x, target=1)]
)
@pytest.mark.parametrize(
    ("x", "layer", "reads"),
    [
        (torch.rand(3, 5, 8, 8), "0", "2 channels, in dimension 1"),
        (torch.rand(3, 2, 9, 9), "5", "64 features, in the last dimension"),
    ],
)
def test_what_torch_refuses_names_the_layer(run: Callable[[Tensor], Any], x: Tensor, layer: str, reads: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        run(x)
    assert caught.value.__notes__ == [f"in module '{layer}' of the model; does the input fit it? It reads {reads}"]


# graphs of two networks


def test_graphs_of_different_networks_are_not_compared() -> None:
    other = nn.Sequential(nn.Flatten(), nn.Linear(128, 8), nn.ReLU(), nn.Linear(8, 10))
    graph = build_graph(SelectiveLRP(other).trace(X, target=1, edges=True))
    with pytest.raises(GraphError, match=r"layers in the first only are '0', '2', '5', in the second only '1', '3'"):
        diff_graphs(GRAPH, graph)
    deeper = nn.Sequential(*NET[:4], nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(GraphError, match="first only are '5', in the second only '4', '6'"):
        diff_graphs(GRAPH, build_graph(SelectiveLRP(deeper).trace(X, target=1, edges=True)))


def test_graphs_of_one_network_with_other_neurons_are_compared() -> None:
    graph = build_graph(SelectiveLRP(NET, selection=Coverage(0.5)).trace(X[:1], target=WORST, edges=True), min_share=0.1)
    for pruned in (prune_graph(graph, 0.3, 0.5), prune_graph(GRAPH, 0.3, 0.5)):
        assert set(diff_graphs(GRAPH, pruned)) == {*GRAPH, *pruned}
    bare = graph.subgraph([n for n in graph if n[0] != "2"]).copy()  # nothing left of a layer
    assert set(diff_graphs(GRAPH, bare)) == {*GRAPH, *bare}


# a negative output


def test_paths_of_a_negative_output_are_signed() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2, bias=False))
    model[2].weight.data.abs_().neg_()
    graph = build_graph(SelectiveLRP(model).trace(torch.rand(3, 4), target=0, edges=True))
    assert k_best_paths(graph) == []
    assert k_best_paths(graph, signed=True)
    with pytest.raises(GraphError, match="signed=True"):
        path_heatmaps(model, torch.rand(3, 4), [])


# NumPy's numbers


def test_whole_numbers_of_numpy_are_ints() -> None:
    lrp, two = SelectiveLRP(NET), np.int64(2)
    expected = lrp.attribute(X, target=2)
    for target in (two, np.uint8(2), [two] * 3, (two,), [(two,)] * 3):
        assert torch.equal(lrp.attribute(X, target=target), expected)
    assert k_best_paths(GRAPH, two) == PATHS[:2]
    assert repr(TopK(np.int64(3))) == repr(TopK(3))
    assert repr(TopK(np.float64(0.5))) == repr(TopK(0.5))
    assert Fixed({"0": [np.int32(1), two]}).layers == Fixed({"0": [1, 2]}).layers
    assert Fixed({"0": two}).layers == Fixed({"0": 2}).layers
    assert torch.equal(reconstruct(NET, X, "2", [two]), reconstruct(NET, X, "2", [2]))
    assert len(reconstruct_top_activations(NET, [X], "2", two, k=two, progress=False).values) == 2
    assert class_graph(NET, [X], two, max_samples=two, progress=False).graph == {"target": 2, "samples": 2}


# what is shown


def test_a_layer_attribution_shows_its_layer() -> None:
    assert repr(LayerSelectiveLRP(NET, "conv1")).startswith("LayerSelectiveLRP(Sequential, layer='conv1', Composite(")
    assert "layer='2'" in repr(LayerSelectiveLRP(NET, NET[2]))
    assert "layer=['0', 'a']" in repr(LayerSelectiveLRP(NET, [NET[0], "a"]))
    assert "layer=None" in repr(LayerSelectiveLRP(NET))


def test_what_the_package_is_made_with_is_not_listed() -> None:
    assert not {"Any", "TYPE_CHECKING", "annotations", "importlib"} & set(dir(lrp_lightning))
    assert set(lrp_lightning.__all__) <= set(dir(lrp_lightning))
    assert isinstance(PATHS[0], Path)

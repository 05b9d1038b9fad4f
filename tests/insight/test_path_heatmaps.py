"""Heatmaps of paths, all in one pass, against one conditional pass each, and against the whole that they add up to."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from small_networks import TwoInputs, convolutions
from torch import Tensor, nn

from lrp_lightning import (
    Composite,
    Epsilon,
    EpsilonPlus,
    Fixed,
    Path,
    SelectiveLRP,
    build_graph,
    k_best_paths,
    path_heatmaps,
)
from lrp_lightning.errors import GraphError, LayerError
from lrp_lightning.insight.heatmaps import along_own_path


class Residual(nn.Module):
    """A stem, a block with a skip, a batch norm that stands alone, a head; few channels, so that all paths can be listed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.head = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 4)
        self.alone = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.conv(x))
        return self.head(F.relu(self.alone(x)).mean([2, 3]))


def chain() -> nn.Module:
    return convolutions(2, 6, 5, side=8, classes=4, norm=True)


def images() -> Tensor:
    return torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.double)


@pytest.mark.parametrize("composite", [Epsilon(), EpsilonPlus()])
def test_as_one_conditional_pass_each(composite: Composite) -> None:
    torch.manual_seed(0)
    model, x = chain().double(), images()
    graph = build_graph(SelectiveLRP(model, composite).trace(x, target=1, edges=True))
    paths = k_best_paths(graph, k=6) + k_best_paths(graph, k=2, source=("input", 1))
    heatmaps = path_heatmaps(model, x, paths, composite)
    assert heatmaps.shape == (len(paths), *x.shape)
    for path, heatmap in zip(paths, heatmaps, strict=True):
        at = dict(path.nodes)
        expected = SelectiveLRP(model, composite, Fixed({"0": at["0"], "3": at["3"]})).attribute(x, target=at["6"])
        if "input" in at:
            expected[:, 1 - at["input"]] = 0
        torch.testing.assert_close(heatmap, expected, rtol=1e-10, atol=1e-14)
        assert heatmap.any()


def test_below_its_lowest_neuron_a_path_is_free() -> None:
    """Down to the input, past layers that other paths of the batch run through."""
    torch.manual_seed(0)
    model, x = chain().double(), images()
    paths = [Path(nodes, 1.0) for nodes in ((("6", 2),), (("3", 1), ("6", 2)), (("0", 4), ("3", 1), ("6", 2)))]
    for heatmap, kept in zip(path_heatmaps(model, x, paths, Epsilon()), ({}, {"3": 1}, {"3": 1, "0": 4}), strict=True):
        torch.testing.assert_close(heatmap, SelectiveLRP(model, Epsilon(), Fixed(kept)).attribute(x, target=2))


def test_all_paths_add_up_to_the_whole() -> None:
    torch.manual_seed(0)
    model, x = Residual().double(), images()
    middles = [*(("stem", i, "add") for i in range(3)), *(("stem", i, "conv", j, "add") for i in range(3) for j in range(3))]
    paths = []
    for channel, middle in itertools.product(range(2), middles):
        last = middle[1] if len(middle) == 3 else middle[3]  # a junction joins channel to same channel
        nodes = [("input", channel), ("stem", middle[1])]
        nodes += [("conv", middle[3])] if len(middle) == 5 else []
        paths.append(Path((*nodes, ("add", last), ("alone", last), ("head", 2)), 1.0))
    heatmaps = path_heatmaps(model, x, paths, Epsilon())
    torch.testing.assert_close(heatmaps.sum(0), SelectiveLRP(model, Epsilon()).attribute(x, target=2), rtol=1e-9, atol=1e-12)


def test_several_inputs_and_arguments_beside_them() -> None:
    model, given = TwoInputs(3, 5, hidden=4).double(), (torch.rand(3, 3).double(), torch.rand(3, 5).double())
    weight = torch.rand(3, 1).double()
    path = Path((("input#2", 4), ("other", 1), ("add", 1), ("head", 0)), 1.0)
    first, second = path_heatmaps(model, given, [path, path], Epsilon(), weight)
    assert (first.shape, second.shape) == ((2, 3, 3), (2, 3, 5))
    assert not first.any()
    assert second[0][:, 4].any()
    assert not second[:, :, :4].any()
    assert torch.equal(second[0], second[1])


def test_the_model_is_left_as_it_was() -> None:
    torch.manual_seed(0)
    model, x = chain().double().train(), images()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    path_heatmaps(model, x, [Path((("input", 0), ("0", 1), ("3", 2), ("6", 0)), 1.0)])
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert model.training
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("nodes", "error", "message"),
    [
        (None, GraphError, "there are no paths"),
        ((("input", 0), ("7", 1), ("6", 0)), LayerError, "no layer '7'"),
        ((("input", 0), ("0", 1), ("3", 0)), GraphError, "does not end at the output"),
        ((("0", 6), ("3", 0), ("6", 0)), GraphError, "layer '0' has neurons 0 to 5, got 6"),
    ],
)
def test_paths_that_cannot_be_followed(nodes: tuple | None, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        path_heatmaps(chain().double(), images(), [Path(nodes, 1.0)] if nodes else [])


class Flat(nn.Module):
    """Without space, and with skips, a norm, a product of two signals, and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(4, 4) for _ in range(4))
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        y = self.norm(x + self.b(x)) + 0.3
        return self.head(torch.cat([self.c(y) * self.d(x), y], 1))


def test_of_one_sample_without_space_a_paths_heatmap_sums_to_the_product_of_its_edges_shares() -> None:
    """There shares are of single values, so their product is exact: through every kind of node there is."""
    torch.manual_seed(0)
    model, x = Flat().double(), torch.rand(1, 4).double()
    trace = SelectiveLRP(model, Epsilon()).trace(x, target=1, edges=True)
    graph = build_graph(trace)
    paths = k_best_paths(graph, k=60, signed=True)
    assert {layer for path in paths for layer, _ in path.nodes} == set(trace.relevance)
    shares = [math.prod(graph.edges[edge]["share"] for edge in itertools.pairwise(path.nodes)) for path in paths]
    expected = torch.tensor(shares, dtype=torch.double) * trace.explained
    torch.testing.assert_close(path_heatmaps(model, x, paths, Epsilon()).flatten(1).sum(1), expected, rtol=1e-8, atol=1e-12)


def test_at_a_layer_a_path_is_its_neuron_there() -> None:
    model = convolutions(1, 4, 5, side=8, classes=3, bias=False).double()
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    trace = SelectiveLRP(model, Epsilon()).trace(x, target=lambda logits: logits.argmax(1), edges=True)
    paths = k_best_paths(build_graph(trace), k=3)
    on_input = path_heatmaps(model, x, paths, Epsilon())
    for layer in (0, 2):
        heat = path_heatmaps(model, x, paths, Epsilon(), at=model[layer])
        assert heat.shape == (3, 2, *model[: layer + 1](x).shape[1:])
        for path, of_path in zip(paths, heat, strict=True):
            neuron = dict(path.nodes)[str(layer)]
            assert of_path[:, neuron].any()
            assert of_path.sum((0, 2, 3)).nonzero().flatten().tolist() == [neuron]
    torch.testing.assert_close(path_heatmaps(model, x, paths, Epsilon(), at="0").sum((2, 3, 4)), on_input.sum((2, 3, 4)))


def test_each_sample_along_a_path_of_its_own() -> None:
    model = convolutions(1, 4, 5, side=8, classes=3)
    x = torch.rand(3, 1, 8, 8)
    graphs = [build_graph(SelectiveLRP(model, EpsilonPlus()).trace(x, target=c, edges=True)) for c in range(3)]
    paths = [k_best_paths(graph, k=1, signed=True)[0] for graph in graphs]
    expected = torch.stack([path_heatmaps(model, x[[n]], [path])[0, 0] for n, path in enumerate(paths)])
    assert expected.flatten(1).any(1).all()
    torch.testing.assert_close(along_own_path(model, x, paths), expected)

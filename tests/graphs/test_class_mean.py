"""The mean graph of a class against one trace over all of its samples."""

from __future__ import annotations

import pytest
import torch
from small_networks import convolutions
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lrp_lightning import Coverage, Epsilon, SelectiveLRP, TopK, build_graph, class_graph
from lrp_lightning.errors import GraphError, InputError


def model() -> nn.Module:
    return convolutions(2, 6, 5, side=8, classes=4, norm=True).double()


def data() -> TensorDataset:
    return TensorDataset(
        torch.rand(23, 2, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.double), torch.arange(23) % 3
    )


@pytest.mark.parametrize("selection", [None, TopK(2), Coverage(0.5)])
def test_is_the_mean_over_the_samples_of_the_class(selection: TopK | None) -> None:
    loader = DataLoader(data(), batch_size=5)
    graph = class_graph(model(), loader, 2, Epsilon(), selection, classes=["a", "b", "c", "d"], progress=False)
    x = data().tensors[0][2::3]
    whole = build_graph(SelectiveLRP(model(), Epsilon(), selection).trace(x, target=2, edges=True), classes=list("abcd"))
    assert graph.graph == {"target": 2, "samples": len(x)}
    assert set(graph) == set(whole)
    assert set(graph.edges) == set(whole.edges)
    for node, about in whole.nodes(data=True):
        assert graph.nodes[node]["relevance"] == pytest.approx(about["relevance"] / len(x), abs=1e-14)
        assert graph.nodes[node]["absorbed"] == pytest.approx(about["absorbed"] / len(x), abs=1e-14)
        assert graph.nodes[node]["activation"] == pytest.approx(about["activation"], abs=1e-14)
    for edge, about in whole.edges.items():
        assert graph.edges[edge]["share"] == pytest.approx(about["share"])
    assert graph.nodes["6", 2]["class_name"] == "c"


def test_stops_at_the_number_of_samples_asked_for() -> None:
    looked_at = []

    def loader():
        for batch in DataLoader(data(), batch_size=5):
            looked_at.append(len(batch[0]))
            yield batch

    graph = class_graph(model(), loader(), 1, max_samples=4, progress=False)
    assert graph.graph["samples"] == 4
    assert sum(looked_at) < len(data())


def test_batches_without_labels_count_whole() -> None:
    loader = DataLoader(TensorDataset(data().tensors[0]), batch_size=9)
    assert class_graph(model(), loader, 1, progress=False).graph["samples"] == 23
    assert class_graph(model(), data().tensors[0].split(4), 1, progress=False).graph["samples"] == 23


def test_a_bar_shows_how_far_it_is(capsys: pytest.CaptureFixture) -> None:
    class_graph(model(), DataLoader(data(), batch_size=5), 2)
    assert "graph of class 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("loader", "arguments", "error", "message"),
    [
        (DataLoader(data()), {"target": 3}, GraphError, "no sample of class 3"),
        ([], {"target": 0}, GraphError, "no sample of class 0"),
        ([{"image": 1}], {"target": 0}, InputError, r"\(inputs, labels\)"),
        ([], {"target": 0, "max_samples": 0}, GraphError, "max_samples must be at least 1"),
    ],
)
def test_what_gives_no_graph(loader: object, arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        class_graph(model(), loader, **arguments, progress=False)  # type: ignore[arg-type]

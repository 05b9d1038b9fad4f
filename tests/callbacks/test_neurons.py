"""What the tab gets of single neurons: that it is right, bounded, and leaves training as it was."""

from __future__ import annotations

import io
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from trainings import Classifier, Witness, loaders, same, trainer

from lrp_lightning import TopK, neuron_heatmaps, path_heatmaps, reconstruct
from lrp_lightning.callbacks import RelevanceMonitor, loggers, neurons
from lrp_lightning.callbacks.settings import LOGGED
from lrp_lightning.graphs.class_graph import ClassGraph
from lrp_lightning.tensorboard_plugin.summary import Record

POSITIVE = TopK(0.1, by="relevance")
"""Paths run along positive relevance, of which few neurons of a network hardly trained may have none."""
LOG = ["heatmaps", "critical_paths", "neurons", "path_heatmaps", "reconstructions"]


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    """The records that monitors hand over while a test runs."""
    seen: list[Record] = []
    write = loggers.RelevanceSummary.write

    def watched(self: loggers.RelevanceSummary, record: Record, step: int) -> int:
        seen.append(record)
        return write(self, record, step)

    monkeypatch.setattr(loggers.RelevanceSummary, "write", watched)
    return seen


def train(folder: Path, *callbacks, model: nn.Module | None = None, **more) -> nn.Module:
    torch.manual_seed(0)
    model = model or Classifier()
    trainer(folder, *callbacks, **({"logger": TensorBoardLogger(folder), "epochs": 1} | more)).fit(model, *loaders())
    return model


def test_pictures_are_those_of_the_functions(tmp_path: Path, records: list[Record]):
    monitor = RelevanceMonitor(selection=POSITIVE, max_samples=12, n_heatmaps=3, graph_classes=2, log=LOG)
    model = train(tmp_path, monitor)
    [record] = records
    [shown] = [torch.cat([s.inputs[0] for s in remembered.shown]) for remembered in monitor._remembered.values()]
    assert record.samples is not None
    predicted = torch.tensor(record.samples.predictions)

    on_paths = {node for graph in record.graphs for path in graph.paths for node in path.nodes if node[0].startswith("conv")}
    on_best = {node for graph in record.graphs for node in graph.paths[0].nodes if node[0].startswith("conv")}
    assert on_paths <= set(record.neuron_heatmaps)
    there = {node: np.isfinite(heat).all((1, 2)) for node, heat in record.neuron_heatmaps.items()}
    assert sum(of.sum() for of in there.values()) <= 2 * 12  # passes of one sample: twice max_samples
    for (layer, neuron), heatmap in record.neuron_heatmaps.items():
        expected = neuron_heatmaps(model, shown, layer, [neuron], predicted)[0].sum(1)
        np.testing.assert_allclose(heatmap[there[layer, neuron]], expected.numpy()[there[layer, neuron]], atol=1e-6)
        assert np.isnan(heatmap[~there[layer, neuron]]).all()
    for graph in record.graphs:
        assert graph.path_heatmaps is not None
        of_class = np.flatnonzero(record.samples.labels == graph.label)
        rows = of_class if len(of_class) else np.arange(2)
        expected = path_heatmaps(model, shown, graph.paths).sum(2)[:, rows]
        np.testing.assert_allclose(graph.path_heatmaps[:, rows], expected.numpy(), atol=1e-6)
        assert np.isnan(np.delete(graph.path_heatmaps, rows, 1)).all()
    assert record.reconstructions
    assert set(record.reconstructions) == on_best
    for (layer, neuron), picture in record.reconstructions.items():
        np.testing.assert_allclose(picture, reconstruct(model, shown, layer, [neuron], at="strongest")[0].numpy(), atol=1e-6)


def test_those_on_paths_come_first(tmp_path: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(neurons, "_PASSES", 1)
    train(tmp_path, RelevanceMonitor(selection=POSITIVE, max_samples=12, n_heatmaps=3, graph_classes=2, log=LOG))
    [record] = records
    on_paths = {node for graph in record.graphs for path in graph.paths for node in path.nodes}
    assert sum(np.isfinite(heat).all((1, 2)).sum() for heat in record.neuron_heatmaps.values()) == 12
    assert set(record.neuron_heatmaps) <= on_paths


def test_then_those_that_are_first_in_their_layer_however_little_reaches_it():
    graph = nx.DiGraph()
    for order, (layer, scale) in enumerate({"low": 1e-9, "high": 1.0}.items()):
        for neuron in range(3):
            graph.add_node((layer, neuron), relevance=scale * (-1) ** neuron * (1 + neuron), layer=layer, order=order,
                           kind="linear", output=False)  # fmt: skip
    found = neurons.most_relevant([ClassGraph(0, graph)])
    assert [{neuron for _, neuron in found[at : at + 2]} for at in (0, 2, 4)] == [{2}, {1}, {0}]
    assert {layer for layer, _ in found[:2]} == {"low", "high"}


def test_training_ends_in_the_same_bits(tmp_path: Path, records: list[Record]):
    without, beside = Witness(), Witness()
    a = train(tmp_path / "a", without, epochs=2)
    b = train(tmp_path / "b", RelevanceMonitor(max_samples=12, n_heatmaps=3, log=LOGGED), beside, epochs=2)
    assert len(records) == 2
    assert all(record.neuron_heatmaps for record in records)
    assert same(a.state_dict(), b.state_dict())
    assert same(without.seen, beside.seen)


def test_a_model_that_is_hard_to_look_into_goes_without(tmp_path: Path, records: list[Record]):
    """An operator without a rule; samples are there all the same."""

    class Cumulating(Classifier):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.cumprod(-1))

    train(tmp_path, RelevanceMonitor(max_samples=12, n_heatmaps=3, log=LOG, on_error="warn"), model=Cumulating())
    [record] = records
    assert record.samples is not None
    assert not record.neuron_heatmaps


@pytest.mark.parametrize(
    ("log", "more"),
    [(["heatmaps", "critical_paths"], {}), (LOG, {"max_seconds": 1e-6}), (LOG, {"n_heatmaps": 0})],
    ids=["not asked for", "no time", "no samples"],
)
def test_when_there_are_none(tmp_path: Path, records: list[Record], log: list[str], more: dict):
    train(tmp_path, RelevanceMonitor(**{"max_samples": 12, "n_heatmaps": 3, "log": log, **more}))
    [record] = records
    assert not record.neuron_heatmaps
    assert not record.reconstructions


def test_without_a_tab_nothing_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    computed = []  # an error would be a warning
    monkeypatch.setattr("lrp_lightning.callbacks.neurons.through_own_neuron", lambda *args: computed.append(args))
    monitor = RelevanceMonitor(max_samples=12, n_heatmaps=3, log=["heatmaps", "critical_paths", "neurons"])
    train(tmp_path, monitor, logger=False)
    assert monitor._has_worked
    assert computed == []


def test_an_epoch_takes_little_of_the_log(tmp_path: Path):
    """At defaults, on a network with more neurons than are drawn."""

    class Wide(Classifier):
        def __init__(self) -> None:
            super().__init__(classes=10)
            self.conv1, self.bn = nn.Conv2d(1, 48, 3, padding=1), nn.BatchNorm2d(48)
            self.conv2, self.head = nn.Conv2d(48, 64, 3, padding=1), nn.Linear(64, 10)

    train(tmp_path, RelevanceMonitor(max_share=None), model=Wide(), epochs=2)
    [log] = tmp_path.rglob("events.out.tfevents.*")
    assert log.stat().st_size < 2 * 600_000
    logged = EventAccumulator(str(log)).Reload()
    tags = [tag for tag in logged.Tags()["images"] if "critical_paths" in tag]
    assert len(tags) == 2, "a picture for each of two classes"
    pictures = logged.Images(tags[0])
    assert len(pictures) == 2
    drawn = Image.open(io.BytesIO(pictures[-1].encoded_image_string))
    assert drawn.mode == "P"
    assert 20 < len(drawn.getcolors()) <= 64


def test_all_classes_have_a_graph_those_too_that_come_later(tmp_path: Path, records: list[Record]):
    class Later(RelevanceMonitor):
        def on_validation_epoch_start(self, trainer, pl_module):
            super().on_validation_epoch_start(trainer, pl_module)
            if self._observation is not None and trainer.current_epoch == 0:
                self._observation.sampling.most = 3  # of few samples, so of few classes

    monitor = Later(selection=POSITIVE, max_samples=40, graph_classes="all", max_share=None, log=["critical_paths"])
    train(tmp_path, monitor, epochs=2)
    first, second = ([graph.label for graph in record.graphs] for record in records)
    assert 0 < len(first) <= 3 < len(second)
    assert set(first) < set(second)
    assert second == sorted(second)
    took, without = records[0].notes
    assert took.startswith("Measured on 3 of 24 samples in ")
    assert without.startswith(f"{len(first)} of 10 classes have a graph.")

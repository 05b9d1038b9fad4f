"""What an observed epoch shows: heatmaps of the same samples in every epoch, mistakes, and the graphs of classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from lrp_lightning.callbacks.loggers import Findings
from lrp_lightning.callbacks.neurons import Neurons, look_into_neurons
from lrp_lightning.callbacks.observation import Explained, Observation
from lrp_lightning.callbacks.settings import Settings
from lrp_lightning.drawing import as_array, draw_graph, draw_heatmaps
from lrp_lightning.errors import LRPError
from lrp_lightning.graph import build_graph
from lrp_lightning.paths import k_best_paths
from lrp_lightning.tensorboard_plugin.summary import ClassGraph, Record, Samples

__all__ = ["draw_epoch"]


def draw_epoch(observation: Observation, epoch: int, tab: bool = False) -> Findings:
    """Pictures and the record of an epoch, as many as the observation's budget has seconds for.

    Args:
        observation: finished.
        epoch: counted from 0.
        tab: whether the record goes to a *Relevance* tab, so that what only the tab shows is wanted.
    """
    settings = observation.settings
    pictures: dict[str, np.ndarray] = {}
    samples = None
    shown: list[Explained] = []
    if "heatmaps" in settings.log and not observation.budget.spent and (shown := observation.of_remembered()):
        images, relevance = _of_one_size(shown)
        pictures["heatmaps"] = as_array(draw_heatmaps(images, relevance, _titles(shown, settings), shares=True))
        samples = _samples(shown, images, relevance)
    if observation.mistaken:
        titles = _titles(observation.mistaken, settings)
        pictures["mistakes"] = as_array(draw_heatmaps(*_of_one_size(observation.mistaken), titles, shares=True))
    graphs: list[ClassGraph] = []
    if "critical_paths" in settings.log:
        try:
            graphs = list(_graphs(observation))
            drawn = [as_array(_drawn(graph, settings, epoch)) for graph in graphs]
        except LRPError as error:  # edges need more of a model than relevance does
            observation.notes.append(f"RelevanceMonitor draws no graph of critical paths: {error}")
        else:
            if drawn:
                pictures["critical_paths"] = _stacked(drawn)
    neurons = Neurons()
    if tab and samples is not None and "neurons" in settings.log:
        neurons, graphs = look_into_neurons(observation, graphs, shown)
    record = Record(
        epoch=epoch,
        graphs=graphs,
        samples=samples,
        neuron_heatmaps=neurons.heatmaps,
        reconstructions=neurons.reconstructions,
        class_names=settings.class_names,
        settings=settings.told(),
    )
    return Findings(pictures=pictures, record=record)


def _titles(shown: Sequence[Explained], settings: Settings) -> list[str]:
    def title(e: Explained) -> str:
        wrong = e.label not in (-1, e.prediction)
        return settings.name_of(e.prediction) + (f" (is {settings.name_of(e.label)})" if wrong else "")

    return [title(e) for e in shown]


def _samples(shown: Sequence[Explained], images: Tensor, relevance: Tensor) -> Samples:
    return Samples(
        images.numpy(),
        relevance.numpy(),
        labels=np.array([e.label for e in shown]),
        predictions=np.array([e.prediction for e in shown]),
        probabilities=np.array([e.probability for e in shown]),
        errors=np.array([e.error for e in shown]),
    )


def _of_one_size(shown: Sequence[Explained]) -> tuple[Tensor, Tensor]:
    """Images and relevance, ``(N, C, H, W)``; smaller ones with a margin at the right and below."""
    height, width = max(e.image.shape[1] for e in shown), max(e.image.shape[2] for e in shown)

    def padded(x: Tensor, value: float) -> Tensor:
        return F.pad(x.float(), (0, width - x.shape[2], 0, height - x.shape[1]), value=value)

    images = [padded(e.image, e.image.min().item()) for e in shown]
    return torch.stack(images), torch.stack([padded(e.relevance, 0.0) for e in shown])


def _graphs(observation: Observation) -> Iterator[ClassGraph]:
    for label in observation.remembered.classes:
        trace = None if observation.budget.spent else observation.class_trace(label)
        if trace is None:
            continue
        graph = build_graph(trace)
        paths = k_best_paths(graph, k=observation.settings.n_paths) if observation.settings.n_paths else []
        yield ClassGraph(label, graph, paths, len(trace.explained))


def _drawn(of: ClassGraph, settings: Settings, epoch: int) -> Figure:
    title = f"Critical paths of class {settings.name_of(of.label)}, epoch {epoch}, {of.n_samples} samples"
    return draw_graph(of.graph, paths=of.paths, class_names=settings.class_names, title=title, static=True)


def _stacked(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """One above the other, on white. Sixteen levels of each colour, which is less than half the bytes of PNG in a log."""
    width = max(picture.shape[1] for picture in pictures)
    padded = [np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in pictures]
    return np.rint(np.concatenate(padded) / 17).astype(np.uint8) * 17

"""What an observed epoch shows: heatmaps of the same samples in every epoch, mistakes, and the graphs of classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from lrp_lightning.callbacks.insights import cards_of, strategies_of
from lrp_lightning.callbacks.kept import Kept
from lrp_lightning.callbacks.loggers import Findings
from lrp_lightning.callbacks.neurons import look_into_neurons
from lrp_lightning.callbacks.observation import OF_CLASSES, Explained, Observation
from lrp_lightning.callbacks.settings import MOST_GRAPHS, Settings
from lrp_lightning.drawing import (
    as_array,
    draw_contact_sheet,
    draw_graph,
    draw_heatmaps,
    draw_neuron_cards,
    draw_strategies,
)  # fmt: skip
from lrp_lightning.graphs.build import build_graph
from lrp_lightning.graphs.paths import k_best_paths
from lrp_lightning.insight.neuron_cards import NeuronCard
from lrp_lightning.insight.strategies import Strategies, Strategy
from lrp_lightning.report import Report
from lrp_lightning.tensorboard_plugin.summary import ClassGraph, Record, Samples

__all__ = ["DRAWN", "Look", "draw_epoch", "with_insights"]

_ROWS = 12
"""Strategies and cards in one picture."""
_GRAPHS = 2
"""Graphs in one picture, the first of them; the tab has all."""
DRAWN = ("heatmaps", "mistakes", *OF_CLASSES)
"""What takes time to draw, by its name in the log."""


@dataclass(frozen=True)
class Look:
    """What was drawn of an epoch, and what strategies and cards need of it."""

    findings: Findings
    graphs: Sequence[ClassGraph] = ()


def draw_epoch(observation: Observation, epoch: int, tab: bool = False) -> Look:
    """Pictures, the record and the report of an epoch, as many as the observation's budget has seconds for.

    What cannot be drawn is a note of the observation, and the rest is drawn.

    Args:
        observation: finished.
        epoch: counted from 0.
        tab: whether the record goes to a *Relevance* tab, so that what only the tab shows is wanted.
    """
    settings = observation.settings
    pictures: dict[str, np.ndarray] = {}
    record = Record(epoch=epoch, class_names=settings.class_names, settings=settings.told())
    report = Report(title=f"Relevance, epoch {epoch}", class_names=settings.class_names, settings=settings.told())
    shown: list[Explained] = []
    graphs: list[ClassGraph] = []

    with _noted(observation, "heatmaps"):
        if {"heatmaps", *OF_CLASSES[1:]} & set(settings.log) and not observation.budget.spent:
            shown = observation.of_remembered()
        if shown and "heatmaps" in settings.log:
            images, relevance, through_all = _of_one_size(shown)
            titles, held = _titles(shown, settings), [e.held for e in shown]
            pictures["heatmaps"] = as_array(_both(shown, settings))
            record = replace(record, samples=_samples(shown, images, relevance, through_all))
            report = replace(report, images=images, relevance=relevance, all_neurons=through_all, held=held, titles=titles)
    with _noted(observation, "mistakes"):
        if observation.mistaken:
            pictures["mistakes"] = as_array(_both(observation.mistaken, settings))
    with _noted(observation, "graph of critical paths"):
        graphs = list(_graphs(observation)) if set(OF_CLASSES) & set(settings.log) else []
        neurons, graphs = look_into_neurons(observation, graphs, shown, tab)
        if graphs and "critical_paths" in settings.log:
            pictures["critical_paths"] = _of_few_colours(
                _stacked([as_array(_drawn(graph, settings, epoch)) for graph in graphs[:_GRAPHS]])
            )
            record = replace(record, graphs=graphs)
            report = replace(report, graph=graphs[0].graph, paths=graphs[0].paths)
        if sheets := [sheet for graph in graphs[:_GRAPHS] if (sheet := _path_sheet(graph, shown, settings)) is not None]:
            pictures["path_heatmaps"] = _stacked([as_array(sheet) for sheet in sheets])
        if neurons.reconstructions:
            columns = [f"{layer} {neuron}" for layer, neuron in neurons.reconstructions]
            made = torch.from_numpy(np.stack(list(neurons.reconstructions.values())))
            sheet = draw_contact_sheet(_of_one_size(shown)[0], made, _titles(shown, settings), columns)
            pictures["reconstructions"] = as_array(sheet)
        if "heatmaps" in settings.log:
            record = replace(record, neuron_heatmaps=neurons.heatmaps, reconstructions=neurons.reconstructions)
    record = replace(record, notes=[*observation.notes, *_without_graph(observation, len(graphs))])
    return Look(Findings(pictures=pictures, record=record, report=report), graphs)


def with_insights(look: Look, observation: Observation, kept: Kept) -> tuple[Findings, Strategies]:
    """The findings of a look with strategies and cards, as far as the budget has seconds for them; and the strategies."""
    settings, findings = observation.settings, look.findings
    names, record, report = settings.class_names, findings.record, findings.report
    pictures, counts = dict(findings.pictures), dict(findings.counts)
    batches = kept.batches()
    strategies, shown = Strategies(), list[Strategy]()
    cards = list[NeuronCard]()
    with _noted(observation, "strategies"):
        if {"strategies", "shortcuts"} & set(settings.log) and batches and not observation.budget.spent:
            strategies = strategies_of(observation, batches)
            if strategies and "shortcuts" in settings.log:
                counts["shortcuts"] = len(strategies.shortcuts)
        if "strategies" in settings.log:
            shown = sorted((s for s in strategies if _is_image(s.images)), key=lambda s: not s.shortcut)
        if shown:
            pictures["strategies"] = as_array(draw_strategies(shown[:_ROWS], names))
    with _noted(observation, "neuron cards"):
        if "cards" in settings.log and batches and not observation.budget.spent:
            cards = [card for card in cards_of(observation, batches, look.graphs) if _is_image(card.driven.images)]
        if cards:
            pictures["cards"] = as_array(draw_neuron_cards(cards[-_ROWS:], names))  # of the last layers
    notes = dict.fromkeys([*(record.notes if record else ()), *observation.notes])
    record = record and replace(record, strategies=shown, cards=cards, notes=list(notes))
    report = report and replace(report, strategies=shown, cards=cards)
    return replace(findings, counts=counts, pictures=pictures, record=record, report=report), strategies


def _is_image(images: Tensor | None) -> bool:
    return images is not None and images.ndim == 4


@contextmanager
def _noted(observation: Observation, what: str) -> Iterator[None]:
    """Edges, for one, need more of a model than relevance does."""
    try:
        yield
    except Exception as error:
        observation.notes.append(f"RelevanceMonitor draws no {what}: {error}")


def _titles(shown: Sequence[Explained], settings: Settings) -> list[str]:
    def title(e: Explained) -> str:
        wrong = e.label not in (-1, e.prediction)
        return settings.name_of(e.prediction) + (f" (is {settings.name_of(e.label)})" if wrong else "")

    return [title(e) for e in shown]


def _both(shown: Sequence[Explained], settings: Settings) -> Figure:
    """Images above what runs through their critical neurons, and through all."""
    images, relevance, through_all = _of_one_size(shown)
    held = [e.held for e in shown]
    return draw_heatmaps(images, relevance, _titles(shown, settings), all_neurons=through_all, held=held)


def _samples(shown: Sequence[Explained], images: Tensor, relevance: Tensor, through_all: Tensor) -> Samples:
    return Samples(
        images.numpy(),
        relevance.numpy(),
        labels=np.array([e.label for e in shown]),
        predictions=np.array([e.prediction for e in shown]),
        probabilities=np.array([e.probability for e in shown]),
        errors=np.array([e.error for e in shown]),
        all_neurons=through_all.numpy(),
        held=np.array([e.held for e in shown]),
    )


def _of_one_size(shown: Sequence[Explained]) -> tuple[Tensor, Tensor, Tensor]:
    """Images, and relevance through critical neurons and through all, ``(N, C, H, W)`` each.

    Smaller ones get a margin at the right and below.
    """
    height, width = max(e.image.shape[1] for e in shown), max(e.image.shape[2] for e in shown)

    def padded(x: Tensor, value: float) -> Tensor:
        return F.pad(x.float(), (0, width - x.shape[2], 0, height - x.shape[1]), value=value)

    images = [padded(e.image, e.image.min().item()) for e in shown]
    relevance, through_all = ([padded(of, 0.0) for of in maps] for maps in zip(
        *((e.relevance, e.all_neurons) for e in shown), strict=True))  # fmt: skip
    return torch.stack(images), torch.stack(relevance), torch.stack(through_all)


def _graphs(observation: Observation) -> Iterator[ClassGraph]:
    settings = observation.settings
    for label in observation.remembered.classes:
        trace = None if observation.budget.spent else observation.class_trace(label)
        if trace is not None:
            graph = build_graph(trace, classes=settings.class_names)
            paths = k_best_paths(graph, k=settings.n_paths) if settings.n_paths else []
            yield ClassGraph(label, graph, paths, len(trace.explained))


def _without_graph(observation: Observation, graphs: int) -> list[str]:
    """That classes have none, and how they get one."""
    classes = observation.classes
    if not graphs or classes is None or graphs >= classes:
        return []
    every = f' graph_classes="all" draws one of each, {MOST_GRAPHS} at most;' if graphs < MOST_GRAPHS else ""
    return [f"{graphs} of {classes} classes have a graph.{every} graph_classes=[...] chooses them."]


def _path_sheet(of: ClassGraph, shown: Sequence[Explained], settings: Settings) -> Figure | None:
    """The images that have heatmaps of the class's paths, beside these."""
    if of.path_heatmaps is None:
        return None
    rows = np.flatnonzero(np.isfinite(of.path_heatmaps).all((0, 2, 3))).tolist()
    images = _of_one_size([shown[i] for i in rows])[0]
    heatmaps = torch.from_numpy(of.path_heatmaps)[:, rows, None]
    columns = [f"path {rank}, {path.carries}" for rank, path in enumerate(of.paths, 1)]
    titles = [f"{settings.name_of(of.label)} in {settings.name_of(shown[i].label)}" for i in rows]
    return draw_contact_sheet(images, heatmaps, titles, columns)


def _drawn(of: ClassGraph, settings: Settings, epoch: int) -> Figure:
    title = f"Critical paths of class {settings.name_of(of.label)}, epoch {epoch}, {of.n_samples} samples"
    return draw_graph(of.graph, paths=of.paths, class_names=settings.class_names, title=title, static=True)


def _of_few_colours(drawing: np.ndarray) -> np.ndarray:
    """Sixteen levels of each colour, to the eye the same in lines: less than half the bytes of PNG in a log."""
    return np.rint(drawing / 17).astype(np.uint8) * 17


def _stacked(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """One above the other, on white."""
    width = max(picture.shape[1] for picture in pictures)
    padded = [np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in pictures]
    return np.concatenate(padded)

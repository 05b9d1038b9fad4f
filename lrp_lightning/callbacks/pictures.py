"""The pictures of an observed epoch: heatmaps of the same samples in every epoch, mistakes, and graphs of classes."""

from __future__ import annotations

import gc
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from lrp_lightning.callbacks.insights import cards_of, strategies_of
from lrp_lightning.callbacks.kept import Kept
from lrp_lightning.callbacks.loggers import Findings
from lrp_lightning.callbacks.neurons import Neurons, look_into_neurons
from lrp_lightning.callbacks.observation import OF_CLASSES, Explained, Observation
from lrp_lightning.callbacks.settings import LOGGED, MOST_GRAPHS, Settings
from lrp_lightning.drawing import (
    as_array,
    draw_contact_sheet,
    draw_graph,
    draw_heatmaps,
    draw_neuron_cards,
    draw_strategies,
)  # fmt: skip
from lrp_lightning.graphs.build import build_graph
from lrp_lightning.graphs.class_graph import ClassGraph
from lrp_lightning.graphs.paths import k_best_paths
from lrp_lightning.insight.neuron_cards import NeuronCard
from lrp_lightning.insight.strategies import Strategies, Strategy
from lrp_lightning.report import Report
from lrp_lightning.tensorboard_plugin.summary import Record, Samples

__all__ = ["DRAWN", "Look", "add_insights", "draw", "look_at"]

_ACROSS, _TYPICAL, _PATCHES = 4, 3, 2
"""The most samples, prototypes and patches side by side: more are illegible on TensorBoard's cards of 400 pixels."""
_CARDS = 6
"""Number of neuron cards in one picture."""
_LETTERS = 40
"""The most letters of a class in a picture's name."""
_COLOURS = 64
"""Number of colours of a picture of a graph."""
_GRAPHS, _CLASSES = 2, 4
"""The numbers of graphs and of classes with strategies that are drawn, a picture each. The tab has all."""
DRAWN = ("heatmaps", "mistakes", *OF_CLASSES)
"""Names of what takes time to draw."""


@dataclass
class Look:
    """The data of an epoch that is drawn, without the model.

    Attributes:
        epoch: counted from 0.
        settings: of the monitor.
        notes: what is missing and why: the notes of the observation and of drawing.
        shown: the samples that are shown in every epoch.
        mistaken: this epoch's worst mistakes.
        graphs: the graphs of classes.
        classes: number of classes of the model; None if unknown.
        neurons: pictures of the graphs' neurons.
        strategies, cards: empty until :func:`add_insights` searches for them.
    """

    epoch: int
    settings: Settings
    notes: list[str]
    shown: list[Explained] = field(default_factory=list)
    mistaken: list[Explained] = field(default_factory=list)
    graphs: list[ClassGraph] = field(default_factory=list)
    classes: int | None = None
    neurons: Neurons = field(default_factory=Neurons)
    strategies: Strategies = field(default_factory=Strategies)
    cards: list[NeuronCard] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Numbers that exist only for looks with strategies."""
        return {"shortcuts": len(self.strategies.shortcuts)} if self.strategies and "shortcuts" in self.settings.log else {}


def look_at(observation: Observation, epoch: int, tab: bool = False) -> Look:
    """Make the passes for pictures, as far as the observation's budget has seconds.

    If a part fails, a note is added to the observation, and the others are made.

    Args:
        observation: finished.
        epoch: counted from 0.
        tab: whether the record goes to a *Relevance* tab, which shows more than pictures do.
    """
    log = set(observation.settings.log)
    look = Look(epoch, observation.settings, observation.notes, classes=observation.classes)
    with _noted(look.notes, "heatmaps"):
        if {"heatmaps", *OF_CLASSES[1:]} & log and not observation.budget.spent:
            look.shown = observation.of_remembered()
    with _noted(look.notes, "mistakes"):
        look.mistaken = observation.mistaken
    with _noted(look.notes, "graph of critical paths"):
        if set(OF_CLASSES) & log:
            look.graphs = list(_graphs(observation))
        look.neurons, look.graphs = look_into_neurons(observation, look.graphs, look.shown, tab)
    return look


def add_insights(look: Look, observation: Observation, kept: Kept) -> None:
    """Add strategies and cards, as far as the budget has seconds."""
    log, batches = set(look.settings.log), kept.batches()
    with _noted(look.notes, "strategies"):
        if {"strategies", "shortcuts"} & log and batches and not observation.budget.spent:
            look.strategies = strategies_of(observation, batches)
    with _noted(look.notes, "neuron cards"):
        floats = bool(batches) and batches[0][0].is_floating_point()  # tokens have no patches
        if "cards" in log and floats and not observation.budget.spent:
            look.cards = [card for card in cards_of(observation, batches, look.graphs) if _is_image(card.driven.images)]


def draw(look: Look, names: Collection[str] = LOGGED) -> Findings:
    """The pictures, the record and the report of a look. If a part cannot be drawn, a note is added, and the rest is drawn.

    Args:
        look: the data of an epoch.
        names: the pictures to draw.
    """
    with _uncollected():
        return _draw(look, names)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's garbage collector, which would visit all edges of all graphs repeatedly while a figure is made."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _draw(look: Look, names: Collection[str]) -> Findings:
    settings, shown, graphs = look.settings, look.shown, look.graphs
    wanted = set(settings.log) & set(names)
    pictures: dict[str, np.ndarray] = {}
    about: dict[str, Any] = {"class_names": settings.class_names, "settings": settings.described()}
    record, report = Record(epoch=look.epoch, **about), Report(title=f"Relevance, epoch {look.epoch}", **about)

    with _noted(look.notes, "heatmaps"):
        if shown and "heatmaps" in settings.log:
            images, relevance, through_all = _of_one_size(shown)
            titles, parts = _titles(shown, settings), [e.logit_shares for e in shown]
            record = replace(record, samples=_samples(shown, images, relevance, through_all))
            report = replace(
                report, images=images, relevance=relevance, all_neurons=through_all, logit_shares=parts, titles=titles
            )
        if shown and "heatmaps" in wanted:
            pictures["heatmaps"] = as_array(_both(shown, settings))
    with _noted(look.notes, "mistakes"):
        if look.mistaken and "mistakes" in wanted:
            pictures["mistakes"] = as_array(_both(look.mistaken, settings))
    with _noted(look.notes, "graph of critical paths"):
        if graphs and "critical_paths" in settings.log:
            record = replace(record, graphs=graphs)
            report = replace(report, graphs=graphs)
        for graph in graphs[:_GRAPHS] if "critical_paths" in wanted else ():
            drawing = _of_few_colours(as_array(_drawn(graph, settings, look.epoch)))
            pictures[f"critical_paths/{_tag(graph.label, look)}"] = drawing
    with _noted(look.notes, "heatmaps of paths and neurons"):
        for graph in graphs[:_GRAPHS] if "path_heatmaps" in wanted else ():
            if (sheet := _path_sheet(graph, shown, settings)) is not None:
                pictures[f"path_heatmaps/{_tag(graph.label, look)}"] = as_array(sheet)
        made = look.neurons.reconstructions
        if made and "reconstructions" in wanted:
            columns = [f"{layer} {neuron}" for layer, neuron in made]
            pixels = torch.from_numpy(np.stack(list(made.values())))
            pictures["reconstructions"] = as_array(
                draw_contact_sheet(_of_one_size(shown)[0], pixels, _titles(shown, settings), columns)
            )
        if "heatmaps" in settings.log:
            record = replace(record, neuron_heatmaps=look.neurons.heatmaps, reconstructions=made)
    strategies = list[Strategy]()
    # only the tab shows thumbnails
    cards = [card for card in look.cards if card.driven.reconstructions.any()]
    with _noted(look.notes, "strategies"):
        if "strategies" in settings.log:
            strategies = sorted((s for s in look.strategies if _is_image(s.images)), key=lambda s: not s.shortcut)
        labels = list(dict.fromkeys(s.label for s in strategies))[:_CLASSES]  # those with shortcuts first
        for label in labels if "strategies" in wanted else ():
            of_class = [s for s in strategies if s.label == label]
            pictures[f"strategies/{_tag(label, look)}"] = as_array(
                draw_strategies(of_class, settings.class_names, k=_TYPICAL)
            )
    with _noted(look.notes, "neuron cards"):
        if cards and "cards" in wanted:  # of the last layers
            pictures["cards"] = as_array(draw_neuron_cards(cards[-_CARDS:], settings.class_names, k=_PATCHES))
    notes = [*dict.fromkeys(look.notes), *_without_graph(look)]
    record = replace(record, strategies=strategies, cards=look.cards, notes=notes)
    report = replace(report, strategies=strategies, cards=cards)
    return Findings(counts=look.counts, pictures=pictures, record=record, report=report)


def _is_image(images: Tensor | None) -> bool:
    return images is not None and images.ndim == 4


@contextmanager
def _noted(notes: list[str], what: str) -> Iterator[None]:
    """Turn errors into notes: edges, for example, support fewer models than relevance does."""
    try:
        yield
    except Exception as error:
        notes.append(f"RelevanceMonitor could not draw the {what}: {error}")


def _titles(shown: Sequence[Explained], settings: Settings) -> list[str]:
    def title(e: Explained) -> str:
        wrong = e.label not in (-1, e.prediction)
        return settings.name_of(e.prediction) + (f" (labelled {settings.name_of(e.label)})" if wrong else "")

    return [title(e) for e in shown]


def _both(shown: Sequence[Explained], settings: Settings) -> Figure:
    """Images above the relevance through their critical neurons, and through all neurons."""
    images, relevance, through_all = _of_one_size(shown)
    parts = [e.logit_shares for e in shown]
    return draw_heatmaps(images, relevance, _titles(shown, settings), _ACROSS, all_neurons=through_all, logit_shares=parts)


def _samples(shown: Sequence[Explained], images: Tensor, relevance: Tensor, through_all: Tensor) -> Samples:
    return Samples(
        images.numpy(),
        relevance.numpy(),
        labels=np.array([e.label for e in shown]),
        predictions=np.array([e.prediction for e in shown]),
        probabilities=np.array([e.probability for e in shown]),
        errors=np.array([e.error for e in shown]),
        all_neurons=through_all.numpy(),
        held=np.array([e.logit_shares for e in shown]),
    )


def _of_one_size(shown: Sequence[Explained]) -> tuple[Tensor, Tensor, Tensor]:
    """Images, and their relevance through critical neurons and through all neurons, ``(N, C, H, W)`` each.

    Smaller images are padded at the right and the bottom.
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


def _without_graph(look: Look) -> list[str]:
    """A note that classes have no graph, and how to get one."""
    classes, graphs = look.classes, len(look.graphs)
    if not graphs or classes is None or graphs >= classes:
        return []
    more = ""
    if graphs < MOST_GRAPHS and look.settings.graph_classes == "all":
        more = " To draw more, measure more samples (max_samples, max_share)."
    elif graphs < MOST_GRAPHS:
        more = f' To draw all, up to {MOST_GRAPHS}, set graph_classes="all".'
    return [f"{graphs} of {classes} classes have a graph.{more} To choose the classes, set graph_classes=[...]."]


def _path_sheet(of: ClassGraph, shown: Sequence[Explained], settings: Settings) -> Figure | None:
    """The images with heatmaps of the class's paths, beside these heatmaps."""
    if of.path_heatmaps is None:
        return None
    rows = np.flatnonzero(np.isfinite(of.path_heatmaps).all((0, 2, 3))).tolist()
    images = _of_one_size([shown[i] for i in rows])[0]
    heatmaps = torch.from_numpy(of.path_heatmaps)[:, rows, None]
    columns = [f"path {rank}, {path.carries}" for rank, path in enumerate(of.paths, 1)]
    titles = [f"{settings.name_of(of.label)} in {settings.name_of(shown[i].label)}" for i in rows]
    return draw_contact_sheet(images, heatmaps, titles, columns)


def _drawn(of: ClassGraph, settings: Settings, epoch: int) -> Figure:
    samples = f"{of.n_samples} sample{'s' if of.n_samples != 1 else ''}"
    title = f"Critical paths of class {settings.name_of(of.label)}, epoch {epoch}, {samples}"
    neurons = 8 if len({layer for layer, _ in of.graph}) <= 8 else 5  # a picture of several rows, which fits on a screen
    return draw_graph(of.graph, neurons, of.paths, settings.class_names, title, static=True)


def _of_few_colours(drawing: np.ndarray) -> np.ndarray:
    """The picture with fewer colours: line drawings look the same and take a quarter of the bytes as PNG."""
    return np.asarray(Image.fromarray(drawing).quantize(_COLOURS, method=Image.Quantize.FASTOCTREE).convert("RGB"))


def _tag(label: int, look: Look) -> str:
    """A class in the name of a picture, valid for every logger and file system; names sort by class."""
    number = f"{label:0{len(str((look.classes or 1) - 1))}}"
    if look.settings.class_names is None:
        return f"class_{number}"
    name = re.sub(r"[^\w-]+", "_", look.settings.name_of(label))
    return f"{number}_{name[:_LETTERS]}"

"""A log as RelevanceSummary writes it, small and made up, for tests of what reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as FilePath

import networkx as nx
import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from lrp_lightning import NeuronCard, Strategies, Strategy, TopActivations
from lrp_lightning.graphs.class_graph import ClassGraph
from lrp_lightning.graphs.paths import k_best_paths
from lrp_lightning.insight.headline import headline
from lrp_lightning.insight.transplant import Transplant
from lrp_lightning.tensorboard_plugin.summary import Record, RelevanceSummary, Samples, shown_part

__all__ = ["card_of", "graph_of", "record_of", "strategy_of", "write_log"]

SAMPLES, SIDE = 4, 12


def graph_of(seed: int, sizes: Sequence[int] = (1, 16, 20, 3), names: Sequence[str] | None = None) -> nx.DiGraph:
    """Layers joined each to the next, with conserved relevance."""
    rng = np.random.default_rng(seed)
    names = names or ["input", *(f"block.{i}.conv" for i in range(1, len(sizes) - 1)), "head"]
    kinds = ["input", *["convolution"] * (len(sizes) - 2), "linear"]
    graph = nx.DiGraph()

    def add(order: int, neuron: int, relevance: float) -> None:
        graph.add_node(
            (names[order], neuron), layer=names[order], neuron=neuron, relevance=relevance, activation=float(rng.random()),
            kind=kinds[order], order=order, output=order == len(sizes) - 1,
        )  # fmt: skip

    relevance = np.array([6.0])
    add(len(sizes) - 1, 1, 6.0)
    neurons = [1]
    for order in range(len(sizes) - 2, -1, -1):
        shares = rng.dirichlet(np.full(sizes[order], 0.5), size=len(relevance)).T  # (lower, upper)
        handed = shares * relevance
        for i in range(sizes[order]):
            add(order, i, float(handed[i].sum()))
        graph.add_edges_from(
            ((names[order], i), (names[order + 1], o), {"relevance": float(handed[i, j]), "share": float(shares[i, j])})
            for i in range(sizes[order])
            for j, o in enumerate(neurons)
        )
        relevance, neurons = handed.sum(1), list(range(sizes[order]))
    return graph


def strategy_of(label: int, number: int, seed: int) -> Strategy:
    """One decided by its upper left corner, if it is its class's second; its second prototype is misclassified."""
    generator = torch.Generator().manual_seed(seed)
    heat = torch.rand(6, SIDE, SIDE, generator=generator)
    images = torch.rand(6, 1, SIDE, SIDE, generator=generator)
    flipped = 0.31 if number else 0.02
    test = Transplant((0, 0, 4, 4), False, flipped, 0.02, flipped - 0.1, 256)
    return Strategy(
        label, torch.arange(12), 0.4 if number else 0.6, (("block.1.conv", 3, 2.0),), images, heat, heat.mean(0), test,
        predictions=torch.where(torch.arange(12) == 1, 2, label),
    )  # fmt: skip


def card_of(layer: str, neuron: int, seed: int) -> NeuronCard:
    """Patches of 5 x 5 pixels, three of each kind, and no mistakes."""
    generator = torch.Generator().manual_seed(100 * seed + neuron)
    images = torch.rand(3, 1, SIDE, SIDE, generator=generator)
    fields = torch.tensor([[[1, 2], [6, 7]]] * 3)

    def patches(k: int) -> TopActivations:
        return TopActivations(
            layer, neuron, torch.rand(k, generator=generator), torch.arange(k), images[:k], images[:k] - 0.5, fields[:k],
            torch.tensor([0, 1, 1])[:k], torch.tensor([0, 1, 0])[:k],
        )  # fmt: skip

    return NeuronCard(
        layer, neuron, patches(3), patches(3), patches(0), ((1, 0.62), (0, 0.38)), ((neuron + 1, 0.8),), 0.1, 48
    )


def record_of(
    step: int, seed: int = 0, class_names: Sequence[str] | None = ("ankle boot", "bag", "coat"), **changes: object
) -> Record:
    """A record with two classes, four samples, and heatmaps of the first class's neurons."""
    rng = np.random.default_rng([seed, step])
    graphs = []
    for label in (0, 1):
        graph = graph_of(seed * 1000 + step * 10 + label)
        paths = k_best_paths(graph, k=3)
        graphs.append(ClassGraph(label, graph, paths, 32, rng.normal(size=(len(paths), SAMPLES, SIDE, SIDE))))
    images = np.random.default_rng(seed).random((SAMPLES, 1, SIDE, SIDE))
    probabilities = rng.uniform(0.4, 1, SAMPLES)
    samples = Samples(
        images, rng.normal(size=(SAMPLES, SIDE, SIDE)), np.array([0, 1, 2, 1]), np.array([0, 1, 1, 1]), probabilities,
        1 - probabilities, rng.normal(size=(SAMPLES, SIDE, SIDE)), np.array([[0.03, 0.97]] * SAMPLES),
    )  # fmt: skip
    shown = [node for node in shown_part(graphs[0].graph, graphs[0].paths) if node[0].startswith("block")]
    strategies = [strategy_of(c, n, seed * 10 + n) for c, n in ((0, 0), (0, 1), (1, 0))]
    cards = [card_of(layer, neuron, seed) for layer, neuron in shown[:12]]
    fields: dict = {
        "epoch": step // 10,
        "graphs": graphs,
        "samples": samples,
        "neuron_heatmaps": {node: rng.normal(size=(SAMPLES, SIDE, SIDE)) for node in shown},
        "reconstructions": {node: rng.normal(size=(SAMPLES, 1, SIDE, SIDE)) for node in shown[:2]},
        "measures": {
            "critical_neuron_accuracy": 1 - 1 / (step + 2), "random_accuracy": 0.1, "mse": 1 / (step + 1),
            "conservation_error": 1e-7,
        },
        "class_names": class_names,
        "strategies": strategies,
        "cards": cards,
        "settings": {"composite": "EpsilonPlus()", "selection": "TopK(0.1)"},
    }  # fmt: skip
    fields |= changes
    return Record(**{"headline": headline({}, 0, "", Strategies(fields["strategies"]), fields["class_names"]), **fields})


def write_log(folder: FilePath, steps: Sequence[int] = (10, 20, 30), seed: int = 0, **changes: object) -> None:
    """One run."""
    writer = SummaryWriter(str(folder))
    summary = RelevanceSummary(writer)
    for step in steps:
        summary.write(record_of(step, seed, **changes), step)
    writer.close()

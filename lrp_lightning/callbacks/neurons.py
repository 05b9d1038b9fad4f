"""Heatmaps of the best paths and their neurons, and reconstructions, for the samples that are shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lrp_lightning.callbacks.batches import Samples
from lrp_lightning.callbacks.observation import Explained, Observation
from lrp_lightning.deconvnet import reconstruct
from lrp_lightning.errors import LRPError
from lrp_lightning.graphs.class_graph import ClassGraph
from lrp_lightning.graphs.paths import Node, Path, by_layer
from lrp_lightning.insight.heatmaps import along_own_path, through_own_neuron
from lrp_lightning.tensorboard_plugin.summary import shown_part

__all__ = ["Neurons", "look_into_neurons", "most_relevant"]


_PASSES, _NEURONS, _SAMPLES = 2, 64, 3
"""The most heatmaps of neurons per measured sample, the most neurons with heatmaps, and the most heatmaps of each."""


@dataclass
class Neurons:
    """Pictures of neurons for the samples that are shown.

    Attributes:
        heatmaps: ``{(layer, neuron): (S, H, W)}``, for each sample's predicted class; NaN except for the samples in which
            the neuron has most relevance.
        reconstructions: ``{(layer, neuron): (S, C, H, W)}``, for the neurons on a class's best path.
    """

    heatmaps: dict[Node, np.ndarray] = field(default_factory=dict)
    reconstructions: dict[Node, np.ndarray] = field(default_factory=dict)


def look_into_neurons(
    observation: Observation, graphs: Sequence[ClassGraph], shown: Sequence[Explained], tab: bool
) -> tuple[Neurons, list[ClassGraph]]:
    """Pictures of the most relevant hidden neurons, first those on best paths, and graphs with their paths' heatmaps.

    It makes the requested ones of ``path_heatmaps`` (of the class's samples), ``neurons`` (only for the ``tab``) and
    ``reconstructions``, as far as the budget has seconds, and in proportion to the measured samples. Each pass fills a
    micro-batch. Models with several inputs, and images of several sizes, have no such pictures.
    """
    found, graphs = Neurons(), list(graphs)
    remembered, log = observation.remembered.shown, observation.settings.log
    if not {"path_heatmaps", "reconstructions", *(["neurons"] if tab else [])} & set(log):
        return found, graphs
    if not shown or len(shown) < len(remembered) or len({s.shape for s in remembered}) > 1 or len(remembered[0].inputs) > 1:
        return found, graphs
    model, composite, budget = observation.classifier, observation.settings.composite, observation.budget
    inputs = Samples.joined([s.cloned(next(model.parameters()).device) for s in remembered]).inputs[0]
    predicted = torch.tensor([e.prediction for e in shown], device=inputs.device)

    def in_passes(what: Sequence, samples: int, look: Callable[[Sequence], Tensor]) -> Tensor | None:
        """Results for some samples of each item, several at a time, while there is time; None for unsupported models."""
        at_once = max(1, budget.micro_batch // samples)
        done = []
        for first in range(0, len(what), at_once):
            if budget.spent:
                break
            try:
                done.append(look(what[first : first + at_once]).detach().float().cpu())  # numpy has no bfloat16
            except LRPError:
                return None
        return torch.cat(done) if done else None

    of_paths: list[tuple[int, Path, int]] = []  # graph, path, sample
    for i, graph in enumerate(graphs):
        if "path_heatmaps" in log and all(path.nodes[-1][1] == graph.label for path in graph.paths):
            of_class = [n for n, e in enumerate(shown) if e.label == graph.label] or list(range(min(2, len(shown))))
            of_paths += [(i, path, n) for path in graph.paths for n in of_class]

    def along(some: Sequence[tuple[int, Path, int]]) -> Tensor:
        _, paths, at = zip(*some, strict=True)
        return along_own_path(model, _some(inputs, at), paths, composite)

    heat = in_passes(of_paths, 1, along)
    if heat is not None:
        whose = torch.tensor([i for i, _, _ in of_paths])
        for i in dict.fromkeys(whose[: len(heat)].tolist()):
            if i not in whose[len(heat) :]:  # it was completed in time
                of_class = list(dict.fromkeys(n for j, _, n in of_paths if j == i))
                mine = heat[whose[: len(heat)] == i].sum(1).unflatten(0, (-1, len(of_class)))
                graphs[i] = replace(graphs[i], path_heatmaps=_among(mine, of_class, len(shown)))

    ranked = most_relevant(graphs)[:_NEURONS]
    if tab and "neurons" in log:
        pairs = [(node, n) for node in ranked for n in _where_most(shown, node)][: _PASSES * observation.sampling.most]

        def through(some: Sequence[tuple[Node, int]]) -> Tensor:
            nodes, at = zip(*some, strict=True)
            return through_own_neuron(model, _some(inputs, at), nodes, _some(predicted, at), composite)

        heat = in_passes(pairs, 1, through)
        if heat is not None:
            nodes, at = zip(*pairs[: len(heat)], strict=True)
            for node in dict.fromkeys(nodes):
                mine = [i for i, other in enumerate(nodes) if other == node]
                found.heatmaps[node] = _among(heat[mine].sum(1), [at[i] for i in mine], len(shown))
    if "reconstructions" in log:
        best = {node for graph in graphs for path in graph.paths[:1] for node in path.nodes}
        for layer, neurons in by_layer(sorted(best & set(ranked))).items():
            made = in_passes(neurons, len(inputs), partial(reconstruct, model, inputs, layer, at="strongest"))
            if made is not None and len(made) == len(neurons):
                found.reconstructions.update(zip([(layer, n) for n in neurons], made.numpy(), strict=True))
    return found, graphs


def _some(t: Tensor, which: Sequence[int]) -> Tensor:
    """Some of a tensor's samples, in this order."""
    return t.index_select(0, torch.tensor(which, device=t.device))


def _where_most(shown: Sequence[Explained], node: Node) -> list[int]:
    """The samples in which a neuron has most relevance, without those in which it has no relevance."""
    layer, neuron = node
    sizes = torch.stack([e.neurons[layer][neuron].abs() for e in shown])
    most = sizes.topk(min(_SAMPLES, len(shown)))
    return sorted(most.indices[most.values > 0].tolist())


def _among(heatmaps: Tensor, which: Sequence[int], samples: int) -> np.ndarray:
    """``(..., S, H, W)``: the values of some samples, and NaN for the others."""
    whole = heatmaps.new_full((*heatmaps.shape[:-3], samples, *heatmaps.shape[-2:]), torch.nan)
    whole[..., which, :, :] = heatmaps
    return whole.numpy()


def most_relevant(graphs: Sequence[ClassGraph]) -> list[Node]:
    """The hidden neurons of the tab: first those on best paths, then the first of each layer, the second, and so on."""
    rank: dict[Node, tuple[bool, int]] = {}
    for of in graphs:
        on_paths = {node for path in of.paths for node in path.nodes}
        part, of_layer = shown_part(of.graph, of.paths), Counter[str]()
        for node in sorted(part, key=lambda node: abs(part.nodes[node]["relevance"]), reverse=True):
            about = part.nodes[node]
            if about["kind"] in ("convolution", "linear", "junction") and not about["output"]:
                of_layer[about["layer"]] += 1
                known = (node not in on_paths, of_layer[about["layer"]])
                rank[node] = min(rank.get(node, known), known)
    return sorted(rank, key=lambda node: rank[node])

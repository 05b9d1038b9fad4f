"""What runs along best paths and through their neurons, and what drives these, in the samples that are shown."""

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
from lrp_lightning.graphs.paths import Node
from lrp_lightning.insight.heatmaps import neuron_heatmaps, path_heatmaps
from lrp_lightning.tensorboard_plugin.summary import ClassGraph, shown_part

__all__ = ["Neurons", "look_into_neurons", "most_relevant"]


_PASSES = 2
"""Passes of one sample for pictures of neurons, for each sample that is measured."""


@dataclass
class Neurons:
    """Pictures of neurons, for each of the samples that are shown.

    Attributes:
        heatmaps: ``{(layer, neuron): (S, H, W)}``, of each sample's predicted class.
        reconstructions: ``{(layer, neuron): (S, C, H, W)}``, of neurons on a class's best path.
    """

    heatmaps: dict[Node, np.ndarray] = field(default_factory=dict)
    reconstructions: dict[Node, np.ndarray] = field(default_factory=dict)


def look_into_neurons(
    observation: Observation, graphs: Sequence[ClassGraph], shown: Sequence[Explained], tab: bool
) -> tuple[Neurons, list[ClassGraph]]:
    """Pictures of the most relevant hidden neurons, those on best paths first, and graphs with their paths' heatmaps.

    Of what is asked for by ``path_heatmaps``, ``neurons`` (for the ``tab`` alone) and ``reconstructions``: as many as the
    budget has seconds for, and in proportion to the samples measured; as many in one pass as fit into a micro-batch. Models
    with several inputs, and images of several sizes, have none.
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

    best = {node for graph in graphs for path in graph.paths[:1] for node in path.nodes}
    layers: dict[str, list[int]] = {}
    for layer, neuron in sorted(most_relevant(graphs)[: _PASSES * observation.sampling.most // len(inputs)]):
        layers.setdefault(layer, []).append(neuron)

    def in_passes(neurons: Sequence, look: Callable[[Sequence], Tensor]) -> Tensor | None:
        """All of them, some at a time; None where time ran out or the model has something that ``look`` cannot do."""
        at_once = max(1, budget.micro_batch // len(inputs))
        done = []
        for first in range(0, len(neurons), at_once):
            if budget.spent:
                return None
            try:
                done.append(look(neurons[first : first + at_once]).detach().float().cpu())  # numpy has no bfloat16
            except LRPError:
                return None
        return torch.cat(done) if done else None

    for i, graph in enumerate(graphs):
        if "path_heatmaps" not in log or any(path.nodes[-1][1] != graph.label for path in graph.paths):
            continue  # a single logit's neuron is none of its two classes
        heat = in_passes(graph.paths, partial(path_heatmaps, model, inputs, composite=composite))
        if heat is not None:
            graphs[i] = replace(graph, path_heatmaps=heat.sum(2).numpy())
    for layer, neurons in layers.items():
        through = partial(neuron_heatmaps, model, inputs, layer, target=predicted, composite=composite)
        heat = in_passes(neurons, through) if tab and "neurons" in log else None
        if heat is not None:
            found.heatmaps.update(zip([(layer, n) for n in neurons], heat.sum(2).numpy(), strict=True))
        on_best = [n for n in neurons if (layer, n) in best]
        look = partial(reconstruct, model, inputs, layer, at="strongest")
        made = in_passes(on_best, look) if "reconstructions" in log else None
        if made is not None:
            found.reconstructions.update(zip([(layer, n) for n in on_best], made.numpy(), strict=True))
    return found, graphs


def most_relevant(graphs: Sequence[ClassGraph]) -> list[Node]:
    """Hidden neurons that the tab shows: those on best paths first, then the first of each layer, the second, and so on."""
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

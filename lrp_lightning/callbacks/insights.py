"""Strategies of a network's classes, with likely shortcuts, and cards of the graphs' neurons."""

from __future__ import annotations

from collections.abc import Sequence

from lrp_lightning.callbacks.neurons import most_relevant
from lrp_lightning.callbacks.observation import Observation, warned_once
from lrp_lightning.graphs.class_graph import ClassGraph
from lrp_lightning.graphs.paths import by_layer
from lrp_lightning.insight.neuron_cards import NeuronCard, neuron_cards
from lrp_lightning.insight.strategies import Strategies, find_strategies

__all__ = ["INSIGHTS", "cards_of", "strategies_of"]

INSIGHTS = ("strategies", "cards")
"""The parts of the log that need kept samples."""

_CARDS, _THUMBNAILS, _PATCHES = 48, 256, 4
"""The numbers of neurons with a full card, of others with a thumbnail, and of patches of each kind on a card."""


def strategies_of(observation: Observation, batches: Sequence[tuple]) -> Strategies:
    """The strategies of all classes with enough samples."""
    lrp = observation.lrp
    with warned_once():
        return find_strategies(
            observation.classifier, batches, composite=lrp.composite, progress=False,
            on_unsupported=lrp.on_unsupported,
        )  # fmt: skip


def cards_of(observation: Observation, batches: Sequence[tuple], graphs: Sequence[ClassGraph]) -> list[NeuronCard]:
    """Cards of the graphs' most relevant neurons, including residual sums, and thumbnails of further neurons."""
    lrp = observation.lrp
    order = {node: (data["order"], node[1]) for of in graphs for node, data in of.graph.nodes(data=True)}
    ranked = most_relevant(graphs)[: _CARDS + _THUMBNAILS]
    whole, others = (by_layer(sorted(of, key=lambda node: order[node])) for of in (ranked[:_CARDS], ranked[_CARDS:]))
    if not ranked:
        return []
    with warned_once():
        return neuron_cards(
            observation.classifier, batches, whole, _PATCHES, lrp.composite, progress=False,
            on_unsupported=lrp.on_unsupported, thumbnails=others,
        )  # fmt: skip

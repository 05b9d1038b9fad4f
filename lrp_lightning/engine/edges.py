"""Edges: the relevance that a layer propagates from each of its neurons to each neuron below."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator

import torch
from torch import Tensor

from lrp_lightning.axes import Axis
from lrp_lightning.engine.by_sample import per_neuron
from lrp_lightning.engine.layers import Layer, Layers
from lrp_lightning.engine.ledger import Accounts
from lrp_lightning.engine.neuron_numbers import numbers_of
from lrp_lightning.errors import UnsupportedOperatorError

__all__ = ["Edges", "Features", "features_of"]

Features = Tensor
"""``(features,)``, the number of the neuron that each index of a dimension came from; -1 if from no neuron."""


def features_of(neurons: Axis | Tensor | None, shape: torch.Size, dim: int) -> Features | None:
    """The neuron of each index of a dimension; None if neurons also vary along another dimension."""
    if isinstance(neurons, Axis):
        if not set(neurons.dims) <= {dim}:
            return None
        neurons = numbers_of(neurons)
    if neurons is None or neurons.ndim != len(shape) or neurons.numel() not in (neurons.shape[dim], 1):
        return None
    return (neurons.flatten() - 1).long().expand(shape[dim])


class Edges:
    """The relevance propagated from neuron to neuron, and absorbed by each; ``per_sample``, or summed over samples."""

    def __init__(self, layers: Layers, ledger: Accounts, per_sample: bool) -> None:
        self.layers, self.ledger, self.per_sample = layers, ledger, per_sample
        self.between: dict[tuple[Layer, Layer], Tensor] = {}
        self.stays: dict[Layer, Tensor] = {}

    def stay(self, layer: Layer, relevance: Tensor) -> None:
        """Count, by neuron, the part of a layer's relevance that reaches no neuron below: ``(N, C)``."""
        self._add(self.stays, layer, relevance if self.per_sample else relevance.sum(0))

    def connect(self, features: Features | None, upper: Layer, edges: Tensor) -> None:
        """Note the relevance ``edges``, ``(features, C_upper)``, propagated to the neurons of these features.

        With ``per_sample`` the samples come first.
        """
        if features is None or len(features) != edges.shape[-2]:
            raise not_followed(upper)
        for lower, here, neurons in self._owners(features):
            here = here if here is None else here.to(edges.device)
            rows = edges if here is None else edges.index_select(-2, here)
            if lower is None:
                self._add(self.stays, upper, rows.sum(-2))
            else:
                self._add_edges(lower, upper, _summed(rows, neurons, lower.neurons))

    def connect_values(self, neurons: Axis | Tensor | None, upper: Layer, relevance: Tensor) -> None:
        """Note the relevance that each value of a node without weights propagates to the neuron that it came from.

        Args:
            neurons: the neurons of the values.
            upper: the node.
            relevance: shaped like the node's tensor.
        """
        if neurons is None:
            raise not_followed(upper)
        features = features_of(neurons, relevance.shape, upper.dim)
        if features is None:
            self._connect_each(neurons, upper, relevance)
            return
        rows = upper.by_sample()
        arrived = rows.sum(per_neuron(relevance, upper.dim, rows.dim))
        arrived = arrived if self.per_sample else arrived.sum(0)
        for lower, here, found in self._owners(features):
            channels = torch.arange(upper.neurons) if here is None else here
            channels = channels.to(arrived.device)
            if lower is None:
                self._add(self.stays, upper, torch.zeros_like(arrived).index_copy(-1, channels, arrived[..., channels]))
            elif here is None and _is_range(found, lower.neurons):
                self._add_edges(lower, upper, arrived)
            else:
                edges = arrived.new_zeros(*arrived.shape[:-1], lower.neurons, upper.neurons)
                edges[..., found.to(arrived.device), channels] = arrived[..., channels]
                self._add_edges(lower, upper, edges)

    def _connect_each(self, neurons: Axis | Tensor, upper: Layer, relevance: Tensor) -> None:
        """The same if values of one channel came from several neurons: assigned value by value."""
        rows, channels = upper.by_sample(), upper.neurons
        numbers = (numbers_of(neurons) if isinstance(neurons, Axis) else neurons) - 1
        numbers = numbers.view((1,) * (relevance.ndim - numbers.ndim) + tuple(numbers.shape))
        samples = self.ledger.samples if self.per_sample else 1
        if not self.per_sample and numbers.shape[rows.dim] == 1:
            relevance = relevance.sum(rows.dim, keepdim=True)
            owner = torch.zeros(1, dtype=torch.long)
        else:
            owner = (
                rows.spread(torch.arange(self.ledger.samples))
                if self.per_sample
                else torch.zeros(relevance.shape[rows.dim], dtype=torch.long)
            )
        to_rows = (rows.dim, upper.dim), (0, -1)
        numbers = numbers.expand(relevance.shape).movedim(*to_rows).reshape(len(owner), -1, channels).long()
        relevance = relevance.movedim(*to_rows).reshape(len(owner), -1, channels)
        channel = torch.arange(channels).expand(numbers.shape).flatten()
        sample = owner[:, None, None].expand(numbers.shape).flatten()
        for lower, here, found in self._owners(numbers.flatten()):
            here = torch.arange(numbers.numel()) if here is None else here
            at = channel[here]
            one_to_one = lower is None or (lower.neurons == channels and torch.equal(found, at))
            shape = [channels] if lower is None or one_to_one else [lower.neurons, channels]
            to = (at if one_to_one else found * channels + at) + sample[here] * math.prod(shape)
            part = relevance.flatten()[here.to(relevance.device)]
            summed = relevance.new_zeros(samples * math.prod(shape)).index_add_(0, to.to(relevance.device), part)
            summed = summed.view(samples, *shape) if self.per_sample else summed.view(shape)
            if lower is None:
                self._add(self.stays, upper, summed)
            else:
                self._add_edges(lower, upper, summed)

    def _owners(self, numbers: Tensor) -> Iterator[tuple[Layer | None, Tensor | None, Tensor]]:
        """For each layer with neurons among the numbers ``(n,)``: the layer, their positions (None for all), its neurons."""
        by_number = self.layers.by_number
        first = int(numbers[0]) if len(numbers) else -1
        place = bisect_left(by_number, first, key=lambda layer: layer.first_id)
        whole = by_number[place] if place < len(by_number) and by_number[place].first_id == first else None
        if whole is not None and _is_range(numbers - first, whole.neurons):  # the most frequent case
            yield whole, None, numbers - first
            return
        starts = torch.tensor([layer.first_id for layer in by_number])
        places = torch.searchsorted(starts, numbers.contiguous(), right=True) - 1
        for i in places.unique().tolist():
            lower = by_number[i] if i >= 0 else None
            here = (places == i).nonzero().flatten()
            neurons = numbers[here] - lower.first_id if lower is not None else torch.zeros_like(here)
            yield lower, None if len(here) == len(numbers) else here, neurons

    def _add_edges(self, lower: Layer, upper: Layer, edges: Tensor) -> None:
        one_to_one = 1 + self.per_sample  # dimensions of edges from each channel to the same channel
        known = self.between.get((lower, upper))
        if known is not None and known.ndim != edges.ndim:
            self.between[lower, upper], edges = (e.diag_embed() if e.ndim == one_to_one else e for e in (known, edges))
        self._add(self.between, (lower, upper), edges)

    @staticmethod
    def _add(notes: dict, key: object, value: Tensor) -> None:
        notes[key] = notes[key] + value if key in notes else value


def not_followed(upper: Layer) -> UnsupportedOperatorError:
    return UnsupportedOperatorError(
        f"edges below {upper.name!r} cannot be computed: an operator before it mixes neurons in a way that is not followed, "
        "as "
        'attention with attention="attnlrp" and logsumexp do; trace without edges, or with attention="values"'
    )


def _is_range(neurons: Tensor, count: int) -> bool:
    return len(neurons) == count and torch.equal(neurons, torch.arange(count))


def _summed(rows: Tensor, neurons: Tensor, count: int) -> Tensor:
    """Rows ``(..., features, C)`` summed by neuron: ``(..., count, C)``."""
    if _is_range(neurons, count):
        return rows
    to = neurons.to(rows.device)
    return rows.new_zeros(*rows.shape[:-2], count, rows.shape[-1]).index_add_(rows.ndim - 2, to, rows)

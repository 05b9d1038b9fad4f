"""Relevance along given paths only: the neurons below each layer to which it may propagate, per sample."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from lrp_lightning.axes import Axis
from lrp_lightning.engine.by_sample import BySample
from lrp_lightning.engine.edges import not_followed
from lrp_lightning.engine.layers import Layer
from lrp_lightning.engine.neuron_numbers import numbers_of
from lrp_lightning.errors import GraphError
from lrp_lightning.layers import unknown_layer

__all__ = ["AlongPaths", "Paths"]

Paths = Sequence[Sequence[tuple[str, int]]]

_ANYWHERE = -2.0


class AlongPaths:
    """The lower neuron that may get relevance, per layer and sample: the path's next one; elsewhere and below its end any.

    Args:
        paths: paths of ``(layer, neuron)``; the first samples use the first path, and so on, with equal numbers of samples.
        samples: number of samples.
    """

    def __init__(self, paths: Paths, samples: int) -> None:
        self.paths, self.samples = paths, samples
        self._onward: dict[Layer, Tensor] = {}

    def settle(self, by_name: dict[str, Layer]) -> None:
        """Find the paths in the layers of the forward.

        Raises:
            LayerError: if a path contains a layer that does not exist.
            GraphError: if a path does not end at the output, or contains a neuron that its layer does not have.
        """
        each = self.samples // len(self.paths)
        for place, nodes in enumerate(self.paths):
            for name, neuron in nodes:
                if name not in by_name:
                    raise unknown_layer(name, list(by_name))
                if not 0 <= neuron < by_name[name].neurons:
                    raise GraphError(f"layer {name!r} has neurons 0 to {by_name[name].neurons - 1}, got {neuron}")
            if not by_name[nodes[-1][0]].is_output:
                raise GraphError(f"the path {nodes[0]!r} ... {nodes[-1]!r} does not end at the output")
            for (below, neuron), (above, _) in pairwise(nodes):
                onward = self._onward.setdefault(by_name[above], torch.full((self.samples,), _ANYWHERE, dtype=torch.double))
                onward[place * each : (place + 1) * each] = by_name[below].first_id + neuron

    def below(self, layer: Layer, neurons: Axis | Tensor | None, like: Tensor, rows: BySample) -> Tensor:
        """The values of ``like``, below a layer, to which relevance may propagate: boolean, broadcasts over ``like``."""
        if layer not in self._onward:
            return torch.ones((), dtype=torch.bool, device=like.device)
        if neurons is None:
            raise not_followed(layer)
        numbers = (numbers_of(neurons) if isinstance(neurons, Axis) else neurons) - 1
        numbers = numbers.view((1,) * (like.ndim - numbers.ndim) + tuple(numbers.shape))
        onward = rows.over(self._onward[layer], like)
        return ((onward == _ANYWHERE) | torch.eq(numbers, onward)).to(like.device)

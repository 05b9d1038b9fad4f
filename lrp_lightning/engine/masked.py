"""The visitor that switches neurons off in the outputs of layers; all other operators run unchanged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lrp_lightning.engine.by_sample import per_neuron
from lrp_lightning.engine.interpreter import Interpreter
from lrp_lightning.engine.layers import Layer, Layers
from lrp_lightning.engine.notes import Notes
from lrp_lightning.engine.visitor import Part, Unit, Visitor
from lrp_lightning.errors import SelectionError
from lrp_lightning.layers import numbered, unknown_layer

__all__ = ["Activations", "EdgeMasking", "Masking", "Means", "Reads", "SoftMasking"]


class _AtLayers(Visitor):
    """Acts at layers of given names; names that remain in ``masks`` at the end did not run."""

    differentiates = False

    def __init__(self, layers: Layers, masks: Mapping[str, Tensor]) -> None:
        super().__init__(layers)
        self.masks = masks
        self.calls: Counter[str] = Counter()
        self.used: set[str] = set()

    def name_of(self, layer: Layer) -> str | None:
        """The name of the running layer, if it has a mask."""
        base = layer.base_name
        self.calls[base] = sum(other.base_name == base for other in self.layers.all)
        of_call = f"{base}#{self.calls[base]}"
        return of_call if of_call in self.masks else base if base in self.masks else None

    def check_all_used(self) -> None:
        """Raise an error for masks of layers that did not run, or of a layer that ran several times.

        Raises:
            LayerError, SelectionError: naming the layer.
        """
        for name in self.masks:
            if name not in self.used:
                raise unknown_layer(name, numbered([layer.base_name for layer in self.layers.all if layer.kind != "input"]))
            if self.calls.get(name, 0) > 1:
                raise SelectionError(f"layer {name!r} ran {self.calls[name]} times; give masks for {name}#1, {name}#2, ...")


class Masking(_AtLayers):
    """Switches neurons off.

    Args:
        layers: the layers of the forward.
        masks: ``{layer: (N, C) or (C,) or shaped like its output, bool}``, True for neurons that stay on.
        means: the output of a neuron that is off, ``{layer: (...)}`` value by value; None for zero.
    """

    def __init__(self, layers: Layers, masks: Mapping[str, Tensor], means: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(layers, masks)
        self.means = means
        self.unmasked: Notes[Tensor] = Notes()

    def layer(self, run: Interpreter, unit: Unit) -> Tensor:
        return self._at(unit.layer, unit.y)

    def node(self, run: Interpreter, layer: Layer, y: Tensor, parts: Sequence[Part], stays: Any = None) -> Tensor:
        return self._at(layer, y)

    def whole(self, t: Tensor) -> Tensor:
        # neurons are switched off after the layer's normalisation
        whole = self.unmasked.get(t)
        return t if whole is None else whole

    def _at(self, layer: Layer, y: Tensor) -> Tensor:
        name = self.name_of(layer)
        if name is None:
            return y
        masked = self._masked(layer, y, name)
        self.unmasked[masked] = y
        return masked

    def _masked(self, layer: Layer, y: Tensor, name: str) -> Tensor:
        mask = self.masks[name]
        if layer.rows is None:
            raise SelectionError(f"layer {name!r} cannot be masked: {layer.lost}")
        rows, neurons = layer.rows, layer.neurons
        values = tuple(rows.first(y).shape) if rows.even else None
        if tuple(mask.shape) not in ((rows.n, neurons), (neurons,), values):
            raise SelectionError(
                f"the mask of layer {name!r} has shape {tuple(mask.shape)}; its output has {neurons} neurons in {rows.n} "
                f"samples, so it must be {(rows.n, neurons)} or {(neurons,)}"
                + (f", or {values} for single values" if values else "")
            )
        if mask.device != y.device:
            raise SelectionError(f"the mask of layer {name!r} is on {mask.device}, its output on {y.device}")
        self.used.add(name)
        each = mask if mask.ndim > 1 else mask.expand(rows.n, neurons)
        on = rows.as_first(each, y) if each.ndim > 2 else rows.over(each, y, layer.dim)
        return self._switched(layer, y, on, name)

    def _switched(self, layer: Layer, y: Tensor, on: Tensor, name: str) -> Tensor:
        """The output of a layer in which only neurons in ``on`` are on."""
        if self.means is None:
            return torch.where(on, y, 0)
        return torch.where(on, y, self._instead(layer, y, name, self.means))

    def _instead(self, layer: Layer, y: Tensor, name: str, means: Mapping[str, Tensor]) -> Tensor:
        """The output of neurons that are off, shaped like the output ``y``."""
        if name not in means:
            raise SelectionError(
                f"there is no replacement for the output of layer {name!r}; replacements were given for "
                f"{', '.join(means) or 'none'}"
            )
        rows, mean = layer.by_sample(), means[name]
        one = tuple(rows.first(y).shape[1:])
        if not isinstance(mean, Tensor) or tuple(mean.shape) != one:
            given = tuple(mean.shape) if isinstance(mean, Tensor) else type(mean).__name__
            raise SelectionError(
                f"the replacement of layer {name!r} must have the shape of one sample's output, {one}, got {given}"
            )
        return rows.as_first(mean.to(y).expand(rows.first(y).shape), y)


class Means(Masking):
    """Notes the output of each layer, averaged over samples, and switches nothing off."""

    means: dict[str, Tensor]

    def _masked(self, layer: Layer, y: Tensor, name: str) -> Tensor:
        if layer.rows is None:
            raise SelectionError(f"layer {name!r} has no mean over samples: {layer.lost}")
        self.means[name] = layer.by_sample().first(y).mean(0)
        self.used.add(name)
        return y.clone()


class Activations(Masking):
    """Notes the activation of each neuron, ``(N, C)``, rectified and summed over space, and switches nothing off."""

    means: dict[str, Tensor]

    def _masked(self, layer: Layer, y: Tensor, name: str) -> Tensor:
        if layer.rows is None:
            raise SelectionError(f"layer {name!r} has no known neurons: {layer.lost}")
        self.means[name] = layer.rows.sum(per_neuron(y.relu(), layer.dim, layer.rows.dim))
        self.used.add(name)
        return y.clone()


class SoftMasking(Masking):
    """Interpolates between each neuron's output and its output when off, so that masks have gradients.

    For zero, the weight is slightly larger than the mask's, because otherwise a ReLU behind it would pass no gradient.
    """

    def _switched(self, layer: Layer, y: Tensor, on: Tensor, name: str) -> Tensor:
        if self.means is None:
            return y * (on + torch.finfo(y.dtype).tiny ** 0.5)
        instead = self._instead(layer, y, name, self.means)
        return instead + on * (y - instead)


class EdgeMasking(_AtLayers):
    """Switches connections off: a neuron reads the neurons below that are in its mask, and the mean of all others.

    Args:
        layers: the layers of the forward.
        masks: ``{layer: shaped like the first two dimensions of its weight}``; floating-point masks can be differentiated.
        means: the mean input of each layer, ``{layer: (1, ...)}``; None for zero.
    """

    def __init__(self, layers: Layers, masks: Mapping[str, Tensor], means: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(layers, masks)
        self.means = means

    def layer(self, run: Interpreter, unit: Unit) -> Tensor:
        name = self.name_of(unit.layer)
        if name is None or name in self.used:  # a normalisation reads the output of a masked layer
            return unit.y
        self.used.add(name)
        return self._connected(unit, name)

    def _connected(self, unit: Unit, name: str) -> Tensor:
        mask, w = self.masks[name], unit.weight
        if mask.shape != w.shape[:2]:
            raise SelectionError(
                f"the mask of layer {name!r} has shape {tuple(mask.shape)}; its connections are {tuple(w.shape[:2])}"
            )
        off = w * (1 - mask.to(w)).reshape(*mask.shape, *[1] * (w.ndim - 2))
        read = unit.a if self.means is None else unit.a - self.means[name]
        return unit.y - unit.op.forward(read, off, None)


class Reads(EdgeMasking):
    """Notes the input of each layer, averaged over samples, and the shape of its connections; switches nothing off."""

    def __init__(self, layers: Layers, masks: Mapping[str, Tensor], notes: dict[str, tuple[Tensor, torch.Size]]) -> None:
        super().__init__(layers, masks)
        self.notes = notes

    def _connected(self, unit: Unit, name: str) -> Tensor:
        rows = unit.layer.by_sample()
        if rows.dim or rows.owner is not None:
            raise SelectionError(f"connections of layer {name!r} cannot be switched off: samples do not come first in it")
        self.notes[name] = unit.a.mean(0, keepdim=True), unit.w.shape[:2]
        return unit.y

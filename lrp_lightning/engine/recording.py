"""What one pass writes down while it runs: its layers in the forward, their relevance in the backward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lrp_lightning.composites import Composite
from lrp_lightning.engine.affine import away_from_zero
from lrp_lightning.errors import LayerError, SelectionError, UnsupportedOperatorError
from lrp_lightning.layers import LayerNames, numbered, over_space
from lrp_lightning.rules import Rule
from lrp_lightning.selection import Selection

__all__ = ["Layer", "Recording"]


@dataclass(eq=False)
class Layer:
    """One place where relevance is recorded: an input, one call of a unit layer, or a residual junction."""

    base_name: str
    kind: str
    neurons: int
    dim: int
    """Which dimension of its tensor holds the neurons."""
    first_id: int
    """Its neurons are numbered from here on, uniquely over the pass."""
    first: bool = False
    """Whether it reads the input through data movement and normalisation only."""
    name: str = ""
    rule: Rule | None = None
    is_output: bool = False
    folded_into: Layer | None = None

    @property
    def selectable(self) -> bool:
        return self.kind in ("convolution", "linear") and not self.is_output

    def ids(self, ndim: int) -> Tensor:
        """The neurons' numbers, shaped to broadcast over this layer's tensor."""
        shape = [1] * ndim
        shape[self.dim] = self.neurons
        return torch.arange(self.first_id, self.first_id + self.neurons).view(shape)


class Recording:
    """One pass's notes."""

    def __init__(
        self,
        names: LayerNames,
        composite: Composite,
        selection: Selection | None,
        edges: bool,
    ) -> None:
        self.names, self.composite, self.selection, self.want_edges = names, composite, selection, edges
        self.layers: list[Layer] = []
        self.neurons = 0
        self.explained: Tensor | None = None
        self.relevance: dict[Layer, Tensor] = {}
        self.activation: dict[Layer, Tensor] = {}
        self.masks: dict[Layer, Tensor] = {}
        self.edges: dict[tuple[Layer, Layer], Tensor] = {}
        self.absorbed: dict[str, Tensor] = {}

    # the forward pass

    def layer(self, base_name: str, kind: str, t: Tensor, dim: int, first: bool = False) -> Layer:
        """Note a layer whose tensor is ``t``."""
        layer = Layer(base_name, kind, t.shape[dim], dim, self.neurons, first)
        self.layers.append(layer)
        self.neurons += layer.neurons
        return layer

    def fold(self, layer: Layer, into: Layer) -> None:
        """Let ``into`` stand for ``layer``, whose output a normalisation took up."""
        layer.folded_into = into
        self.layers.remove(layer)

    def forward_done(self, outputs: Sequence[Layer]) -> None:
        """Settle what only the whole forward tells: names, rules, and which layers make the output.

        Raises:
            LayerError: if a name pattern of the composite fits no layer.
        """
        for layer in outputs:
            layer.is_output = True
        for layer, name in zip(self.layers, numbered([layer.base_name for layer in self.layers]), strict=True):
            layer.name = name
            if layer.kind in ("convolution", "linear", "normalisation"):
                layer.rule = self.composite.rule_for(name, layer.kind, layer.first)  # type: ignore[arg-type]
        used = {self.composite.pattern_for(layer.name) for layer in self.layers}
        for pattern in self.composite.layers:
            if pattern not in used:
                known = ", ".join(repr(layer.name) for layer in self.layers if layer.rule is not None)
                raise LayerError(f"the composite's pattern {pattern!r} fits none of the layers {known}")

    # the backward pass

    def relevance_of(self, a: Tensor, g: Tensor) -> Tensor:
        """``R`` from ``g``. Rules that give relevance to activations of zero divide by more than zero; so does this."""
        return a * g if self.composite.proportional else away_from_zero(a) * g

    def arrive(self, layer: Layer, y: Tensor, g: Tensor) -> Tensor:
        """Note the relevance that arrives at a layer, and let its selection decide what is carried on."""
        r = self.relevance_of(y, g)
        per_neuron = over_space(r, layer.dim)
        self._add(self.relevance, layer, per_neuron)
        if self.want_edges:
            mean = over_space(y, layer.dim) * (layer.neurons * len(y) / max(y.numel(), 1))
            self._add(self.activation, layer, mean)
        if self.selection is None or not layer.selectable:
            return r
        kept = self.selection.select(per_neuron, layer=layer.name, output=self.explained)  # type: ignore[arg-type]
        if kept.dtype != torch.bool or kept.shape != per_neuron.shape:
            raise SelectionError(
                f"{self.selection!r} gave {kept.dtype} {tuple(kept.shape)} for layer {layer.name!r}; "
                f"it must give torch.bool {tuple(per_neuron.shape)}"
            )
        self.masks[layer] = kept | self.masks[layer] if layer in self.masks else kept
        self.absorb(f"{layer.name}.unselected", (per_neuron * ~kept).sum(1))
        shape = [len(r)] + [1] * (r.ndim - 1)
        shape[layer.dim] = layer.neurons
        return r * kept.view(shape)

    def absorb(self, where: str, relevance: Tensor) -> None:
        """Count relevance that goes no further, ``(N,)``."""
        self._add(self.absorbed, where, relevance)

    def connect(self, ids: Tensor | None, upper: Layer, edges: Tensor) -> None:
        """Note the relevance ``edges``, ``(features, C_upper)``, handed to the neurons ``ids``, ``(features,)``."""
        if ids is None or len(ids) != len(edges):
            raise UnsupportedOperatorError(
                f"edges below layer {upper.name!r} cannot be told: an operator before it mixes channels in a way that is "
                "not followed; trace without edges"
            )
        for lower in self._owners(ids):
            here = (ids >= lower.first_id) & (ids < lower.first_id + lower.neurons)
            rows = edges if bool(here.all()) else edges[here.to(edges.device)]
            to = (ids[here] - lower.first_id).to(edges.device)
            summed = edges.new_zeros(lower.neurons, edges.shape[1]).index_add_(0, to, rows)
            self._add(self.edges, (lower, upper), summed)

    def connect_junction(self, ids: Tensor | None, junction: Layer, relevance: Tensor) -> None:
        """Note the relevance ``(C,)`` that a junction hands to each channel of one of the tensors it adds."""
        owners = self._owners(ids) if ids is not None else []
        if ids is None or len(owners) != 1 or len(ids) != owners[0].neurons or len(relevance) != len(ids):
            raise UnsupportedOperatorError(
                f"edges below junction {junction.name!r} cannot be told: its channels come from several layers; "
                "trace without edges"
            )
        self._add(self.edges, (owners[0], junction), relevance)

    def _owners(self, ids: Tensor) -> list[Layer]:
        starts = torch.tensor([layer.first_id for layer in self.layers])
        found = torch.searchsorted(starts, ids, right=True).unique() - 1
        return [self.layers[i] for i in found.tolist()]

    @staticmethod
    def _add(notes: dict, key: object, value: Tensor) -> None:
        notes[key] = notes[key] + value if key in notes else value

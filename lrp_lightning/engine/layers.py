"""The layers of a forward: inputs, calls of unit layers, residual sums; their names and rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import Tensor

from lrp_lightning.axes import Axis
from lrp_lightning.checks import meant
from lrp_lightning.composites import Composite
from lrp_lightning.engine.by_sample import BySample, by_sample
from lrp_lightning.errors import LayerError, UnsupportedOperatorError
from lrp_lightning.layers import LayerNames, numbered
from lrp_lightning.rules import Rule

__all__ = ["Layer", "Layers"]


@dataclass(eq=False)
class Layer:
    """One place where relevance is recorded: an input, one call of a unit layer, a residual sum or a normalisation."""

    base_name: str
    kind: str
    neurons: int
    dim: int
    """The dimension of its tensor that holds the neurons."""
    places: int
    """The number of values of a neuron per sample."""
    first_id: int
    """The number of its first neuron; numbers are unique in the pass."""
    rows: BySample | None
    """The rows of the samples in its tensor; None if unknown."""
    first: bool = False
    """Whether it reads the input through data movement and normalisation only."""
    lost: str = ""
    """Why ``rows`` is unknown."""
    name: str = ""
    rule: Rule | None = None
    is_output: bool = False
    folded_into: Layer | None = None
    asked_for: bool = field(default=False)
    """Whether a selection names it, which allows selecting in a sum or a normalisation."""

    @property
    def selectable(self) -> bool:
        return (self.kind in ("convolution", "linear") and not self.is_output) or (self.asked_for and self.kind != "input")

    @property
    def standing(self) -> Layer:
        """The layer that replaces it after a normalisation was folded in."""
        layer = self
        while layer.folded_into is not None:
            layer = layer.folded_into
        return layer

    def axis(self, shape: Sequence[int]) -> Axis:
        """The numbers of its neurons in its tensor."""
        return Axis.along(shape, self.dim, range(self.first_id, self.first_id + self.neurons))

    def by_place(self, t: Tensor) -> Tensor:
        """Its tensor by sample, neuron and place: ``(N, C, places)``.

        Raises:
            UnsupportedOperatorError: if these are unknown.
        """
        rows, dim = self.by_sample(), self.dim
        t = rows.first(t)  # (N, ...), rows of one sample in a dimension of their own
        if rows.dim != 0 and dim < rows.dim:
            dim += 1
        dim += rows.owner is not None or rows.each != 1
        t = t.movedim(dim, 1) if t.ndim > dim else t[..., None]
        return t.flatten(2) if t.ndim > 2 else t[..., None]

    def by_sample(self) -> BySample:
        """The rows of the samples in its tensor.

        Raises:
            UnsupportedOperatorError: if these are unknown.
        """
        if self.rows is None:
            raise UnsupportedOperatorError(self.lost)
        return self.rows


class Layers:
    """All layers of one forward, in order."""

    def __init__(self, names: LayerNames, samples: int) -> None:
        self.names, self.samples = names, samples
        self.all: list[Layer] = []
        self.by_number: list[Layer] = []
        self.neurons = 0

    def add(
        self, base_name: str, kind: str, t: Tensor, dim: int, samples: Axis | None, lost: str = "", first: bool = False
    ) -> Layer:
        """Add a layer with the tensor ``t``, whose neurons are in ``dim``."""
        rows = None if samples is None else by_sample(samples, self.samples, dim)
        if rows is None and not lost:
            lost = (
                f"in {base_name!r} samples lie along several dimensions, or along that of its neurons, so relevance cannot "
                "be assigned to samples; keep samples in a dimension of their own, the first"
            )
        places = t.numel() // (self.samples * t.shape[dim]) if t.numel() else 0
        layer = Layer(base_name, kind, t.shape[dim], dim, places, self.neurons, rows, first, lost)
        self.all.append(layer)
        self.by_number.append(layer)
        self.neurons += layer.neurons
        return layer

    def fold(self, layer: Layer, into: Layer) -> None:
        """Replace ``layer`` by ``into``, after a normalisation was folded into it."""
        layer.folded_into = into
        self.all.remove(layer)
        self.by_number.remove(into)
        self.by_number[self.by_number.index(layer)] = into
        into.first_id = layer.first_id  # the same neurons for both tensors

    def named(self) -> dict[str, Layer]:
        """All layers by name; those that run several times are numbered."""
        for layer, name in zip(self.all, numbered([layer.base_name for layer in self.all]), strict=True):
            layer.name = name
        return {layer.name: layer for layer in self.all}

    def settle(self, composite: Composite, outputs: Sequence[Layer], patterns: Sequence[str]) -> None:
        """Determine what is known only after the forward: names, rules, and the layers that produce the output.

        Raises:
            LayerError: if a name pattern of the composite or of the selection (``patterns``) matches no layer.
        """
        for layer in outputs:
            layer.is_output = True
        by_name = self.named()
        for name, layer in by_name.items():
            if layer.kind in ("convolution", "linear", "normalisation"):
                # layers that produce the output use contributions of both signs, not only positive ones
                kind = "linear" if layer.is_output and layer.kind == "convolution" else layer.kind
                own = self.names.rule_of(layer.base_name)
                layer.rule = own or composite.rule_for(name, kind, layer.first)  # type: ignore[arg-type]
        used = {composite.pattern_for(name) for name in by_name}
        for pattern in composite.layers:
            if pattern not in used:
                known = [name for name, layer in by_name.items() if layer.rule is not None]
                raise LayerError(f"the composite's pattern {pattern!r} matches no layer; {meant(pattern, known)}")
        hidden = [name for name, layer in by_name.items() if layer.selectable]
        for pattern in patterns:
            if pattern in by_name and by_name[pattern].kind != "input" and not by_name[pattern].is_output:
                by_name[pattern].asked_for = True
            elif not any(fnmatchcase(name, pattern) for name in hidden):
                raise LayerError(
                    f"the selection's layer {pattern!r} matches no hidden layer; {meant(pattern, hidden, 'hidden layers')}"
                )

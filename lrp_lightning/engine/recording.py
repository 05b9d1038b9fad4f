"""What one pass writes down while it runs: its layers in the forward, their relevance in the backward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from lrp_lightning.composites import Composite
from lrp_lightning.engine.affine import away_from_zero
from lrp_lightning.errors import LayerError, SelectionError, UnsupportedOperatorError
from lrp_lightning.layers import LayerNames, elementwise, numbered, per_neuron, per_sample, spread
from lrp_lightning.rules import Rule
from lrp_lightning.selection import Fixed, PerLayer, Selection

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
    samples: int = 0
    """Which dimension of its tensor holds the samples."""
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
        samples: int,
        on_unsupported: str = "raise",
    ) -> None:
        self.names, self.composite, self.want_edges = names, composite, edges
        self.selection = _with_names(selection, names)
        self.samples, self.on_unsupported = samples, on_unsupported
        self.layers: list[Layer] = []
        self.neurons = 0
        self.explained: Tensor | None = None
        self.relevance: dict[Layer, Tensor] = {}
        self.activation: dict[Layer, Tensor] = {}
        self.masks: dict[Layer, Tensor] = {}
        self.edges: dict[tuple[Layer, Layer], Tensor] = {}
        self.absorbed: dict[str, Tensor] = {}
        self.unsupported: list[str] = []
        self.whole: dict[Layer, Tensor | None] = {}

    # the forward pass

    def layer(self, base_name: str, kind: str, t: Tensor, dim: int, first: bool = False, samples: int | None = 0) -> Layer:
        """Note a layer whose tensor is ``t``."""
        if self.samples == 1 and t.ndim > 1:  # whatever there is, is of the one sample; sizes of 1 do not tell dimensions
            samples = 1 if dim == 0 else 0
        if samples is None:
            raise self._samples_lost()
        layer = Layer(base_name, kind, t.shape[dim], dim, self.neurons, first, samples)
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
            LayerError: if a name pattern of the composite or the selection fits no layer.
        """
        for layer in outputs:
            layer.is_output = True
        for layer, name in zip(self.layers, numbered([layer.base_name for layer in self.layers]), strict=True):
            layer.name = name
            if layer.kind in ("convolution", "linear", "normalisation"):
                own = self.names.rule_of(layer.base_name)
                layer.rule = own or self.composite.rule_for(name, layer.kind, layer.first)  # type: ignore[arg-type]
        used = {self.composite.pattern_for(layer.name) for layer in self.layers}
        for pattern in self.composite.layers:
            if pattern not in used:
                known = ", ".join(repr(layer.name) for layer in self.layers if layer.rule is not None)
                raise LayerError(f"the composite's pattern {pattern!r} fits none of the layers {known}")
        hidden = [layer.name for layer in self.layers if layer.selectable]
        for pattern in getattr(self.selection, "patterns", ()):
            if pattern not in hidden and not any(fnmatchcase(name, pattern) for name in hidden):
                known = ", ".join(map(repr, hidden))
                raise LayerError(f"the selection's layer {pattern!r} is none of the hidden layers {known}")

    def keep_whole(self, layer: Layer) -> None:
        """Keep the relevance of this layer value by value, not only by neuron."""
        self.whole[layer.folded_into or layer] = None

    # the backward pass

    def relevance_of(self, a: Tensor, g: Tensor, first: bool = False) -> Tensor:
        """``R`` from ``g``. Rules that give relevance to activations of zero divide by more than zero; so does this."""
        return a * g if self.composite.proportional_below(first) else away_from_zero(a) * g

    def arrive(self, layer: Layer, y: Tensor, g: Tensor) -> Tensor:
        """Note the relevance that arrives at a layer, and let its selection decide what is carried on."""
        r = self.relevance_of(y, g, layer.first)
        if layer in self.whole:
            self.whole[layer] = r.clone()  # what hands it down uses it up
        arrived = self._by_sample(per_neuron(r, layer.dim, layer.samples))
        self._add(self.relevance, layer, arrived)
        if self.want_edges:
            mean = self._by_sample(per_neuron(y, layer.dim, layer.samples)) * (
                layer.neurons * self.samples / max(y.numel(), 1)
            )
            self._add(self.activation, layer, mean)
        if self.selection is None or not layer.selectable:
            return r
        return self._selected(self.selection, layer, r, arrived)

    def _selected(self, selection: Selection, layer: Layer, r: Tensor, arrived: Tensor) -> Tensor:
        """What the selection lets carry on of the relevance ``r`` of a layer, ``arrived`` of it at each neuron."""
        decides = selection.in_layer(layer.name) if isinstance(selection, PerLayer) else selection
        if decides is None:
            return r
        elements = elementwise(r, self.samples, layer.samples)
        units = elements if getattr(decides, "unit", "channel") == "element" else arrived
        kept = decides.select(units, layer=layer.name, output=self.explained)  # type: ignore[arg-type]
        if kept is None:
            return r
        if not isinstance(kept, Tensor) or kept.dtype != torch.bool or kept.shape not in (units.shape, elements.shape):
            given = f"{kept.dtype} {tuple(kept.shape)}" if isinstance(kept, Tensor) else type(kept).__name__
            raise SelectionError(
                f"{decides!r} gave {given} for layer {layer.name!r}; it must give torch.bool {tuple(units.shape)}"
            )
        self.masks[layer] = kept | self.masks[layer] if layer in self.masks else kept
        carried = r * spread(kept, r, layer.dim, layer.samples)
        units = arrived if kept.shape == arrived.shape else elements
        part, rest = ((units * on).flatten(1).sum(1) for on in (kept, ~kept))
        if getattr(decides, "rescale", False):
            factor = torch.where(part == 0, 1, (part + rest) / torch.where(part == 0, 1, part))
            carried = carried * spread(factor[:, None], r, layer.dim, layer.samples)
            rest = rest + part * (1 - factor)
        self._add(self.absorbed, f"{layer.name}.unselected", rest)
        return carried

    def absorb(self, where: str, relevance: Tensor, samples: int | None = 0) -> None:
        """Count relevance that goes no further: a tensor of it, whose ``samples`` dimension holds the samples."""
        if samples is None:
            raise self._samples_lost()
        self._add(self.absorbed, where, self._by_sample(per_sample(relevance, samples)))

    def _samples_lost(self) -> UnsupportedOperatorError:
        return UnsupportedOperatorError(
            f"an operator before or in module {self.names.executing()!r} mixes samples with other dimensions, so relevance "
            "cannot be told by sample; keep samples in a dimension of their own, or before what is merged with them"
        )

    def _by_sample(self, t: Tensor) -> Tensor:
        """``(S, ...)`` to ``(N, ...)``: windows or patches of one sample, that lie together, are summed."""
        if len(t) == self.samples:
            return t
        if len(t) % self.samples:
            raise self._samples_lost()
        return t.unflatten(0, (self.samples, -1)).sum(1)

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


def _with_names(selection: Selection | None, names: LayerNames) -> Selection | None:
    """A selection whose layers are given by name, not as modules."""
    if not isinstance(selection, Fixed):
        return selection
    return Fixed({names.name_of(layer): neurons for layer, neurons in selection.layers.items()})

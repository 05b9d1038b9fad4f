"""What one pass writes down while it runs: its layers in the forward, their relevance in the backward."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from lrp_lightning.composites import Composite
from lrp_lightning.engine.affine import relevance_of
from lrp_lightning.engine.origins import feature_ids, of_ndim
from lrp_lightning.errors import GraphError, LayerError, SelectionError, UnsupportedOperatorError
from lrp_lightning.layers import LayerNames, elementwise, numbered, per_neuron, per_sample, spread, unknown_layer
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
        return torch.arange(self.first_id, self.first_id + self.neurons, dtype=torch.float32).view(shape)


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
        per_sample: bool = False,
        along: Sequence[Sequence[tuple[str, int]]] | None = None,
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
        self.outside: dict[Layer, Tensor] = {}
        """Whether what a layer reads of the model's input lies outside of its rule's box."""
        self.whole: dict[Layer, Tensor | None] = {}
        self.per_sample, self.along = per_sample, along
        self.stays: dict[Layer, Tensor] = {}
        self._onward: dict[Layer, Tensor] = {}
        self._by_id: list[Layer] = []
        own = map(names.rule_of, set(names.of_parameter.values()))
        self.proportional = composite.proportional and all(rule is None or rule.proportional for rule in own)
        """Whether no rule of a layer gives relevance to inputs of zero, the first layer's in the composite not asked."""

    @property
    def follows(self) -> bool:
        """Whether it is to be known which neurons values came from."""
        return self.want_edges or self.along is not None

    # the forward pass

    def layer(self, base_name: str, kind: str, t: Tensor, dim: int, first: bool = False, samples: int | None = 0) -> Layer:
        """Note a layer whose tensor is ``t``."""
        if self.samples == 1 and t.ndim > 1:  # whatever there is, is of the one sample; sizes of 1 do not tell dimensions
            samples = 1 if dim == 0 else 0
        if samples is None:
            raise self._samples_lost()
        layer = Layer(base_name, kind, t.shape[dim], dim, self.neurons, first, samples)
        self.layers.append(layer)
        self._by_id.append(layer)
        self.neurons += layer.neurons
        return layer

    def fold(self, layer: Layer, into: Layer) -> None:
        """Let ``into`` stand for ``layer``, whose output a normalisation took up."""
        layer.folded_into = into
        self.layers.remove(layer)
        self._by_id.remove(into)
        self._by_id[self._by_id.index(layer)] = into
        into.first_id = layer.first_id  # the same neurons, by whichever tensor they are known

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

        if self.along is not None:
            self._lay_paths(self.along)

    def _lay_paths(self, paths: Sequence[Sequence[tuple[str, int]]]) -> None:
        """Note for every layer on a path which neuron below it may get relevance, in each sample; no other gets any.

        Raises:
            LayerError: if a path runs through a layer that is not there.
            GraphError: if one does not run from the input to the output, or through a neuron that its layer does not have.
        """
        by_name = {layer.name: layer for layer in self.layers}
        each = self.samples // len(paths)
        for place, nodes in enumerate(paths):
            for name, neuron in nodes:
                if name not in by_name:
                    raise unknown_layer(name, list(by_name))
                if not 0 <= neuron < by_name[name].neurons:
                    raise GraphError(f"layer {name!r} has {by_name[name].neurons} neurons and no {neuron}")
            if by_name[nodes[0][0]].kind != "input" or not by_name[nodes[-1][0]].is_output:
                raise GraphError(f"the path {nodes[0]!r} ... {nodes[-1]!r} does not run from the input to the output")
            for (below, neuron), (above, _) in pairwise(nodes):
                onward = self._onward.setdefault(by_name[above], torch.full((self.samples,), -2.0))
                onward[place * each : (place + 1) * each] = by_name[below].first_id + neuron

    def keep_whole(self, layer: Layer) -> None:
        """Keep the relevance of this layer value by value, not only by neuron."""
        self.whole[layer.folded_into or layer] = None

    # the backward pass

    def proportional_below(self, first: bool) -> bool:
        """The same where relevance is handed down by a layer that reads the input itself, if ``first``."""
        return self.proportional and self.composite.proportional_below(first)

    def relevance_of(self, a: Tensor, g: Tensor, first: bool = False) -> Tensor:
        """``R`` from ``g``; ``first`` if a first layer may be what hands it down."""
        return relevance_of(a, g, self.proportional_below(first))

    def needs_scale(self, layer: Layer) -> bool:
        """Whether the rule of a layer, which may not be settled yet, may ask for the scale of its output."""
        if layer.kind == "junction":
            return False
        own, composite = self.names.rule_of(layer.base_name), self.composite
        if own is not None:
            return own.needs_scale
        rule = composite.rule_for("", layer.kind, layer.first)  # type: ignore[arg-type]
        return rule.needs_scale or any(rule.needs_scale for rule in composite.layers.values())

    def arrive(self, layer: Layer, y: Tensor, g: Tensor) -> None:
        """Note the relevance ``y g`` that arrives at a layer which has no selection."""
        self._keep(layer, y, g)
        self.arrived(layer, y, per_neuron(self.relevance_of(y, g, layer.first), layer.dim, layer.samples))

    def _keep(self, layer: Layer, y: Tensor, g: Tensor) -> None:
        if layer in self.whole:
            self.whole[layer] = self.relevance_of(y, g, layer.first)

    def arrived(self, layer: Layer, y: Tensor, relevance: Tensor) -> None:
        """Note the relevance that arrives at a layer, by neuron: ``(S, C)``."""
        self._add(self.relevance, layer, self._by_sample(relevance))
        if self.want_edges and layer not in self.activation:
            self.activate(layer, y)

    def activate(self, layer: Layer, y: Tensor) -> None:
        """Note the activation of a layer's neurons, the mean over space of its output ``y``."""
        values = max(y.numel(), 1) // (layer.neurons * self.samples)
        self.activation[layer] = self._by_sample(per_neuron(y, layer.dim, layer.samples)) / max(values, 1)

    def selecting(self, layer: Layer, y: Tensor, g: Tensor) -> Callable[[Tensor], Tensor | None] | None:
        """What decides how much of the relevance ``y g`` of a layer is carried on; None if all of it is."""
        if y.shape[layer.samples] % self.samples:
            raise self._samples_lost(layer.name)
        self._keep(layer, y, g)
        if self.selection is None or not layer.selectable:
            return None
        decides = self.selection.in_layer(layer.name) if isinstance(self.selection, PerLayer) else self.selection
        return None if decides is None else partial(self._select, decides, layer, y, g)

    def _select(self, decides: Selection, layer: Layer, y: Tensor, g: Tensor, arrived: Tensor) -> Tensor | None:
        """Let a selection decide, ``arrived`` being the relevance by neuron: what broadcasts over ``y``; None for all."""
        arrived = self._by_sample(arrived)

        def elements() -> Tensor:
            return elementwise(self.relevance_of(y, g, layer.first), self.samples, layer.samples)

        units = elements() if getattr(decides, "unit", "channel") == "element" else arrived
        kept = decides.select(units, layer=layer.name, output=self.explained)  # type: ignore[arg-type]
        if kept is None:
            return None
        shapes = (units.shape, elementwise(y, self.samples, layer.samples).shape)
        if not isinstance(kept, Tensor) or kept.dtype != torch.bool or kept.shape not in shapes:
            given = f"{kept.dtype} {tuple(kept.shape)}" if isinstance(kept, Tensor) else type(kept).__name__
            raise SelectionError(
                f"{decides!r} gave {given} for layer {layer.name!r}; it must give torch.bool {tuple(units.shape)}"
            )
        self.masks[layer] = kept | self.masks[layer] if layer in self.masks else kept
        if kept.shape != units.shape:
            units = elements()
        part, rest = ((units * on).flatten(1).sum(1) for on in (kept, ~kept))
        carried = kept
        if getattr(decides, "rescale", False):
            factor = torch.where(part == 0, 1, (part + rest) / torch.where(part == 0, 1, part))
            carried, rest = kept * factor.view(-1, *[1] * (kept.ndim - 1)), rest + part * (1 - factor)
        self._add(self.absorbed, f"{layer.name}.unselected", rest)
        spread_out = spread(carried, y, layer.dim, layer.samples)
        if self.want_edges and kept.shape == arrived.shape:
            self.stay(layer, arrived - arrived * carried)
        elif self.want_edges:
            r = self.relevance_of(y, g, layer.first) * spread_out
            self.stay(layer, arrived - self._by_sample(per_neuron(r, layer.dim, layer.samples)))
        return spread_out

    def absorb(self, where: str, relevance: Tensor, samples: int | None = 0) -> None:
        """Count relevance that goes no further: a tensor of it, whose ``samples`` dimension holds the samples."""
        if samples is None:
            raise self._samples_lost()
        self._add(self.absorbed, where, self._by_sample(per_sample(relevance, samples)))

    def _samples_lost(self, module: str | None = None) -> UnsupportedOperatorError:
        return UnsupportedOperatorError(
            f"an operator before or in module {module or self.names.executing()!r} mixes samples with other dimensions, so "
            "relevance cannot be told by sample; keep samples in a dimension of their own, or before what is merged with "
            "them"
        )

    def _by_sample(self, t: Tensor) -> Tensor:
        """``(S, ...)`` to ``(N, ...)``: windows or patches of one sample, that lie together, are summed."""
        if len(t) == self.samples:
            return t
        if len(t) % self.samples:
            raise self._samples_lost()
        return t.unflatten(0, (self.samples, -1)).sum(1)

    def stay(self, layer: Layer, relevance: Tensor) -> None:
        """Count, by neuron, what of a layer's relevance goes to no neuron below: ``(S, C)``."""
        relevance = self._by_sample(relevance)
        self._add(self.stays, layer, relevance if self.per_sample else relevance.sum(0))

    def connect(self, ids: Tensor | None, upper: Layer, edges: Tensor) -> None:
        """Note the relevance ``edges``, ``(features, C_upper)``, handed to the neurons ``ids``, ``(features,)``.

        With ``per_sample`` the samples come first.
        """
        if ids is None or len(ids) != edges.shape[-2]:
            raise self._not_followed(upper)
        for lower, here, neurons in self._owners(ids):
            here = here if here is None else here.to(edges.device)
            rows = edges if here is None else edges.index_select(-2, here)
            if lower is None:
                part = rows.sum(-2)
                self._add(self.stays, upper, part)
            else:
                self._add_edges(lower, upper, _summed(rows, neurons, lower.neurons))

    def connect_values(self, ids: Tensor | None, upper: Layer, relevance: Tensor) -> None:
        """Note the relevance that each value of a node without weights hands to the neuron ``ids`` that it came from.

        Args:
            ids: broadcast over ``relevance``.
            upper: the node.
            relevance: shaped like the node's tensor.
        """
        ids = of_ndim(ids, relevance.ndim)
        if ids is None:
            raise self._not_followed(upper)
        features = feature_ids(ids, relevance, upper.dim)
        if features is None:
            self._connect_each(ids, upper, relevance)
            return
        arrived = self._by_sample(per_neuron(relevance, upper.dim, upper.samples))
        arrived = arrived if self.per_sample else arrived.sum(0)
        for lower, here, neurons in self._owners(features):
            channels = torch.arange(upper.neurons) if here is None else here
            channels = channels.to(arrived.device)
            if lower is None:
                self._add(self.stays, upper, torch.zeros_like(arrived).index_copy(-1, channels, arrived[..., channels]))
            elif here is None and _is_range(neurons, lower.neurons):
                self._add_edges(lower, upper, arrived)
            else:
                edges = arrived.new_zeros(*arrived.shape[:-1], lower.neurons, upper.neurons)
                edges[..., neurons.to(arrived.device), channels] = arrived[..., channels]
                self._add_edges(lower, upper, edges)

    def _connect_each(self, ids: Tensor, upper: Layer, relevance: Tensor) -> None:
        """The same where values of one channel came from several neurons: sorted value by value."""
        samples, channels = self.samples, upper.neurons
        if not self.per_sample and ids.shape[upper.samples] == 1:
            relevance, samples = relevance.sum(upper.samples, keepdim=True), 1
        elif not self.per_sample:
            samples = 1
        to_rows = (upper.samples, upper.dim), (0, -1)
        ids = ids.expand(relevance.shape).movedim(*to_rows).reshape(samples, -1, channels)
        relevance = relevance.movedim(*to_rows).reshape(samples, -1, channels)
        channel = torch.arange(channels).expand(ids.shape)
        sample = torch.arange(samples)[:, None, None].expand(ids.shape)
        for lower, here, neurons in self._owners(ids.flatten()):
            here = torch.arange(ids.numel()) if here is None else here
            at = channel.flatten()[here]
            one_to_one = lower is None or (lower.neurons == channels and torch.equal(neurons, at))
            shape = [channels] if lower is None or one_to_one else [lower.neurons, channels]
            to = at if one_to_one else neurons * channels + at
            to = to + sample.flatten()[here] * math.prod(shape)
            part = relevance.flatten()[here.to(relevance.device)]
            summed = relevance.new_zeros(samples * math.prod(shape)).index_add_(0, to.to(relevance.device), part)
            summed = summed.view(samples, *shape) if self.per_sample else summed.view(shape)
            if lower is None:
                self._add(self.stays, upper, summed)
            else:
                self._add_edges(lower, upper, summed)

    def onward(self, layer: Layer, ids: Tensor | None, like: Tensor, samples: int) -> Tensor:
        """Where relevance may go on below a layer when it is to run along paths: boolean, broadcasts over ``like``."""
        if ids is None:
            raise self._not_followed(layer)
        nowhere = torch.full((self.samples,), -2.0)
        rows = self._onward.get(layer, nowhere).repeat_interleave(like.shape[samples] // self.samples)
        shape = [1] * like.ndim
        shape[samples] = len(rows)
        return torch.eq(ids.view((1,) * (like.ndim - ids.ndim) + tuple(ids.shape)), rows.view(shape)).to(like.device)

    def _not_followed(self, upper: Layer) -> UnsupportedOperatorError:
        return UnsupportedOperatorError(
            f"edges below {upper.name!r} cannot be told: an operator before it mixes neurons in a way that is not followed; "
            "trace without edges"
        )

    def _owners(self, ids: Tensor) -> list[tuple[Layer | None, Tensor | None, Tensor]]:
        """Of each layer that numbers ``(n,)`` are of: it, where they are (None for everywhere), and which of its neurons."""
        numbers = ids.long()
        whole = self._starting_at(int(numbers[0])) if len(numbers) else None
        if whole is not None and _is_range(numbers - whole.first_id, whole.neurons):  # as it is most often
            return [(whole, None, numbers - whole.first_id)]
        starts = torch.tensor([layer.first_id for layer in self._by_id])
        place = torch.searchsorted(starts, numbers, right=True) - 1
        found: list[tuple[Layer | None, Tensor | None, Tensor]] = []
        for i in place.unique().tolist():
            lower = self._by_id[i] if i >= 0 else None
            here = (place == i).nonzero().flatten()
            neurons = numbers[here] - lower.first_id if lower is not None else torch.zeros_like(here)
            found.append((lower, None if len(here) == len(numbers) else here, neurons))
        return found

    def _starting_at(self, first_id: int) -> Layer | None:
        place = bisect_left(self._by_id, first_id, key=lambda layer: layer.first_id)
        found = self._by_id[place] if place < len(self._by_id) else None
        return found if found is not None and found.first_id == first_id else None

    def _add_edges(self, lower: Layer, upper: Layer, edges: Tensor) -> None:
        one_to_one = 1 + self.per_sample  # dimensions of edges from each channel to the same channel
        known = self.edges.get((lower, upper))
        if known is not None and known.ndim != edges.ndim:
            self.edges[lower, upper], edges = (e.diag_embed() if e.ndim == one_to_one else e for e in (known, edges))
        self._add(self.edges, (lower, upper), edges)

    @staticmethod
    def _add(notes: dict, key: object, value: Tensor) -> None:
        notes[key] = notes[key] + value if key in notes else value


def _is_range(neurons: Tensor, count: int) -> bool:
    return len(neurons) == count and torch.equal(neurons, torch.arange(count))


def _summed(rows: Tensor, neurons: Tensor, count: int) -> Tensor:
    """Rows ``(..., features, C)`` summed by the neuron that each belongs to: ``(..., count, C)``."""
    if _is_range(neurons, count):
        return rows
    to = neurons.to(rows.device)
    return rows.new_zeros(*rows.shape[:-2], count, rows.shape[-1]).index_add_(rows.ndim - 2, to, rows)


def _with_names(selection: Selection | None, names: LayerNames) -> Selection | None:
    """A selection whose layers are given by name, not as modules."""
    if not isinstance(selection, Fixed):
        return selection
    return Fixed({names.name_of(layer): neurons for layer, neurons in selection.layers.items()})

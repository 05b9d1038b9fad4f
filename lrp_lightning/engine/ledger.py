"""The ledger: the relevance that arrived at every layer, by neuron, and where relevance was absorbed.

A pass for the relevance of the inputs alone uses a :class:`Ledger`, which keeps no accounts; all others use
:class:`Accounts`. Relevance is bit-identical in both.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lrp_lightning.axes import Axis
from lrp_lightning.engine.affine import HandedDown, counted, relevance_of, where_positive
from lrp_lightning.engine.by_sample import by_sample, per_neuron
from lrp_lightning.engine.layers import Layer
from lrp_lightning.errors import RuleError, UnsupportedOperatorError

__all__ = ["Accounts", "Ledger"]


class Ledger:
    """The records of every backward: requested values, and relevance that must not occur.

    Args:
        samples: number of samples.
        proportional: whether no rule gives relevance to an activation of zero.
        first_too: the same including layers that read the input itself.
        multiplied: whether the values kept for the caller are ``R = a g``, instead of ``g``.
    """

    accounts = False
    """Whether it records the relevance that arrives at each layer and is absorbed there."""

    def __init__(self, samples: int, proportional: bool, first_too: bool, multiplied: bool = True) -> None:
        self.samples, self.proportional, self.first_too, self.multiplied = samples, proportional, first_too, multiplied
        self.relevance: dict[Layer, Tensor] = {}
        self.activation: dict[Layer, Tensor] = {}
        self.absorbed: dict[str, Tensor] = {}
        self.whole: dict[Layer, Tensor | None] = {}
        """Relevance, value by value, of layers for which it is kept."""
        self.outside: dict[Layer, Tensor] = {}
        """Whether a layer reads values of the model's input outside its rule's box."""
        self.asked_by_place: dict[Layer, Tensor] = {}
        """The neurons whose values are kept at each place, by layer."""
        self.by_place: dict[Layer, tuple[Tensor, Tensor]] = {}
        """Their activation and relevance, ``(N, neurons, places)``."""
        self.stray: list[Tensor] = []
        """Magnitudes of relevance in rows that belong to no sample, which must be 0."""

    def proportional_below(self, first: bool) -> bool:
        """Whether an activation of zero gets no relevance; ``first`` if a first layer may propagate it."""
        return self.first_too if first else self.proportional

    def relevance_of(self, a: Tensor, g: Tensor, first: bool = False) -> Tensor:
        """``R`` from ``g``."""
        return relevance_of(a, g, self.proportional_below(first))

    def attribution(self, a: Tensor, g: Tensor, first: bool, rectified: bool = False) -> Tensor:
        """The result for the caller: the relevance of ``a``, or ``g`` if that was requested.

        Args:
            a: the activation.
            g: ``a g`` is the relevance.
            first: as in :meth:`proportional_below`.
            rectified: whether ``a`` is rectified, so that ``g`` is undefined where it is 0.

        Raises:
            RuleError: if ``g`` was requested but a rule gives relevance to an activation of zero.
        """
        if self.multiplied:
            return self.relevance_of(a, g, first)
        if not self.proportional_below(first):
            raise RuleError(
                "ZBox, WSquare, Flat and Pass give relevance to an input of zero, so relevance cannot be written as the "
                "input times a factor: leave multiply_by_inputs=True, or use a composite without these rules"
            )
        return where_positive(g, a) if rectified else g.conj().resolve_conj()

    def keep_whole(self, layer: Layer) -> None:
        """Request the relevance of this layer value by value, not only by neuron."""
        self.whole.setdefault(layer, None)

    def keep(self, layer: Layer, y: Tensor, g: Tensor, rectified: bool = False) -> None:
        """Keep the relevance ``y g`` of a layer value by value, if requested; ``rectified`` says whether ``y`` is."""
        if self.whole:
            for asked in self.whole:
                if asked.standing is layer:
                    may_be_read_first = layer.first and layer.kind not in ("convolution", "linear")
                    self.whole[asked] = self.attribution(y, g, may_be_read_first, rectified)
        neurons = self.asked_by_place.get(layer)
        if neurons is not None:
            values, relevance = (layer.by_place(t)[:, neurons] for t in (y, self.relevance_of(y, g, layer.first)))
            self.by_place[layer] = values.clone(), relevance

    def hand_down(self, layer: Layer, y: Tensor, down: HandedDown, has_bias: bool) -> None:
        """Note how a layer with a rule propagated the relevance that arrived at it.

        Raises:
            UnsupportedOperatorError: if the samples of the layer are unknown.
        """
        stray = None if down.arrived is None else layer.by_sample().stray(down.arrived)
        if stray is not None:
            self.stray.append(stray)

    def arrive(self, layer: Layer, y: Tensor, g: Tensor) -> None:
        """Note the relevance ``y g`` that arrives at a layer without a rule of its own.

        Raises:
            UnsupportedOperatorError: as :meth:`hand_down`.
        """
        self.keep(layer, y, g)
        layer.by_sample()

    def arrive_at_input(self, layer: Layer, x: Tensor, relevance: Tensor) -> None:
        """Note the relevance that arrives at an input ``x``.

        Raises:
            UnsupportedOperatorError: as :meth:`hand_down`.
        """
        layer.by_sample()

    def absorb(self, where: str, relevance: Callable[[], Tensor]) -> None:
        """Count relevance that is absorbed, ``(N,)``."""

    def ignores(self, samples: Axis | None) -> bool:
        """Whether absorbed relevance with these ``samples`` need not be counted."""
        return samples is not None and not samples.has_nobody

    def absorb_values(self, where: str, relevance: Tensor, samples: Axis | None, lost: str) -> None:
        """Count relevance that is absorbed, a tensor with these ``samples``.

        Raises:
            UnsupportedOperatorError: if the samples are unknown.
        """
        if not self.ignores(samples):
            by_sample = self.per_sample(relevance, samples, lost)  # this also notes rows of no sample
            self.absorb(where, lambda: by_sample)

    def per_sample(self, t: Tensor, samples: Axis | None, lost: str) -> Tensor:
        """A tensor summed by sample: ``(N,)``."""
        if samples is None:
            raise UnsupportedOperatorError(lost)
        if t.shape != samples.shape:
            t = t.expand(samples.shape)
        if not samples.shape:
            t, samples = t[None], samples.insert(0)
        rows = by_sample(samples, self.samples, None)
        if rows is None:  # along several dimensions
            dims = samples.dims
            order = [*dims, *(d for d in range(t.ndim) if d not in dims)]
            t, merged = t.permute(order).flatten(0, len(dims) - 1), samples.permute(order)
            listed = merged.reshape((t.shape[0], *merged.shape[len(dims) :]))
            rows = None if listed is None else by_sample(listed, self.samples, None)
            assert rows is not None
        others = [d for d in range(t.ndim) if d != rows.dim]
        by_row = t.sum(others) if others else t
        stray = rows.stray(by_row)
        if stray is not None:
            self.stray.append(stray)
        return rows.sum(by_row)


class Accounts(Ledger):
    """A ledger that also records the relevance that arrived at every layer, by neuron, and where it was absorbed.

    Args:
        samples, proportional, first_too, multiplied: as in :class:`Ledger`.
        activations: whether to record the layers' activations.
    """

    accounts = True

    def __init__(
        self, samples: int, proportional: bool, first_too: bool, multiplied: bool = True, activations: bool = False
    ) -> None:
        super().__init__(samples, proportional, first_too, multiplied)
        self.activations = activations

    def hand_down(self, layer: Layer, y: Tensor, down: HandedDown, has_bias: bool) -> None:
        super().hand_down(layer, y, down, has_bias)
        rows = layer.by_sample()
        self._arrived(layer, y, rows.sum(counted(down.arrived)))
        if has_bias:
            self._absorb(f"{layer.name}.bias", rows.sum(counted(down.bias).sum(1)))
        self._absorb(f"{layer.name}.stabiliser", rows.sum(counted(down.stabiliser).sum(1)))

    def arrive(self, layer: Layer, y: Tensor, g: Tensor) -> None:
        super().arrive(layer, y, g)
        self.arrive_at_input(layer, y, self.relevance_of(y, g, layer.first))

    def arrive_at_input(self, layer: Layer, x: Tensor, relevance: Tensor) -> None:
        rows = layer.by_sample()
        self._arrived(layer, x, rows.sum(per_neuron(relevance, layer.dim, rows.dim)))

    def _arrived(self, layer: Layer, y: Tensor, relevance: Tensor) -> None:
        """Note the relevance that arrives at a layer, by neuron: ``(N, C)``."""
        self.relevance[layer] = self.relevance[layer] + relevance if layer in self.relevance else relevance
        if self.activations and layer not in self.activation:
            self.activate(layer, y)

    def activate(self, layer: Layer, y: Tensor) -> None:
        """Note the activation of a layer's neurons, the mean over space of its output ``y``."""
        rows = layer.by_sample()
        values = max(y.numel(), 1) // (layer.neurons * self.samples)
        self.activation[layer] = rows.sum(per_neuron(y, layer.dim, rows.dim)) / max(values, 1)

    def absorb(self, where: str, relevance: Callable[[], Tensor]) -> None:
        self._absorb(where, relevance())

    def _absorb(self, where: str, relevance: Tensor) -> None:
        self.absorbed[where] = self.absorbed[where] + relevance if where in self.absorbed else relevance

    def ignores(self, samples: Axis | None) -> bool:
        return False

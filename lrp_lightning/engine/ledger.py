"""The ledger: how much relevance arrived at every layer, by neuron, and who absorbed what of it.

A pass that is asked for the relevance of its inputs alone has a :class:`Ledger`, which keeps no accounts; all others have
:class:`Accounts`. Relevance is the same, bit for bit.
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
    """What the backward of every pass writes down: values that are asked for by name, and what must not be.

    Args:
        samples: how many there are.
        proportional: whether no rule gives relevance to an activation of zero.
        first_too: the same where a layer that reads the input itself may be what hands it down.
        multiplied: whether what is kept value by value for the caller is ``R = a g``; else it is ``g``.
    """

    accounts = False
    """Whether it is written down what arrives where, and what stays there."""

    def __init__(self, samples: int, proportional: bool, first_too: bool, multiplied: bool = True) -> None:
        self.samples, self.proportional, self.first_too, self.multiplied = samples, proportional, first_too, multiplied
        self.relevance: dict[Layer, Tensor] = {}
        self.activation: dict[Layer, Tensor] = {}
        self.absorbed: dict[str, Tensor] = {}
        self.whole: dict[Layer, Tensor | None] = {}
        """Layers whose relevance is kept value by value, and that."""
        self.outside: dict[Layer, Tensor] = {}
        """Whether what a layer reads of the model's input lies outside of its rule's box."""
        self.asked_by_place: dict[Layer, Tensor] = {}
        """Layers of which some neurons are kept place by place, and which neurons."""
        self.by_place: dict[Layer, tuple[Tensor, Tensor]] = {}
        """The activation and the relevance of these, ``(N, neurons, places)``."""
        self.stray: list[Tensor] = []
        """Magnitudes of relevance in rows that belong to no sample; they must be 0."""

    def proportional_below(self, first: bool) -> bool:
        """Whether an activation of zero gets no relevance; ``first`` if a first layer may be what hands it down."""
        return self.first_too if first else self.proportional

    def relevance_of(self, a: Tensor, g: Tensor, first: bool = False) -> Tensor:
        """``R`` from ``g``."""
        return relevance_of(a, g, self.proportional_below(first))

    def attribution(self, a: Tensor, g: Tensor, first: bool, rectified: bool = False) -> Tensor:
        """What the caller is given for ``a``: its relevance, or ``g`` where that is asked for.

        Args:
            a: the activation.
            g: with it the relevance.
            first: as of :meth:`proportional_below`.
            rectified: whether ``a`` is given rectified, so that ``g`` means nothing where it is 0.

        Raises:
            RuleError: if ``g`` is asked for, but a rule gives relevance to an activation of zero.
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
        """Keep the relevance of this layer value by value, not only by neuron."""
        self.whole.setdefault(layer, None)

    def keep(self, layer: Layer, y: Tensor, g: Tensor, rectified: bool = False) -> None:
        """Keep the relevance ``y g`` of a layer value by value, if that is asked for; ``rectified`` if ``y`` is."""
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
        """Note what a layer with a rule did with the relevance that arrived at it.

        Raises:
            UnsupportedOperatorError: if the samples of the layer are not known.
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
        """Count relevance that goes no further, ``(N,)``."""

    def ignores(self, samples: Axis | None) -> bool:
        """Whether nothing is to be done about relevance that goes no further, whose samples lie as ``samples`` says."""
        return samples is not None and not samples.has_nobody

    def absorb_values(self, where: str, relevance: Tensor, samples: Axis | None, lost: str) -> None:
        """Count relevance that goes no further, a tensor of it, whose samples lie as ``samples`` says.

        Raises:
            UnsupportedOperatorError: if that is not known.
        """
        if not self.ignores(samples):
            by_sample = self.per_sample(relevance, samples, lost)  # which notes what is of none
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
    """The same, with what arrived at every layer, by neuron, and who absorbed what of it.

    Args:
        samples, proportional, first_too, multiplied: as of :class:`Ledger`.
        activations: whether layers' activations are wanted too.
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

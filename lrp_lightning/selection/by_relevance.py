"""Selections: which neurons of a layer, per sample, may carry relevance on.

A selection decides *inside* the backward pass, as the relevance arrives at a layer, so what it keeps below depends on
what it kept above. One's own is a frozen dataclass with the method of :class:`Selection`.

==============  ==============================================================================================
``TopK``        the share or number of neurons with the highest relevance
``Coverage``    the fewest neurons that carry a share of the layer's positive relevance
``Threshold``   those with more than a share of the output
``Fixed``       those that the caller names
``PerLayer``    another selection in each layer, by name pattern; layers left whole
``MinError``    sets optimised against the error of the output (``min_error.py``)
``Agreement``   sets where activation and relevance agree (``agreement.py``)
==============  ==============================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from numbers import Real
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from lrp_lightning.checks import is_whole
from lrp_lightning.errors import SelectionError

__all__ = ["Coverage", "Fixed", "PerLayer", "Search", "Selection", "Threshold", "TopK", "random_masks"]


@runtime_checkable
class Selection(Protocol):
    """What the engine asks of a selection.

    A selection may have two attributes beside the method. ``unit = "element"``: it chooses among the single values of the
    layer's output, not among its channels. ``rescale = True``: what is kept is multiplied so that it conserves the whole.

    Example:
        >>> from dataclasses import dataclass
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP
        >>> @dataclass(frozen=True)
        ... class AboveMean:
        ...     def select(self, relevance, *, layer, output):
        ...         return relevance > relevance.mean(1, keepdim=True)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> SelectiveLRP(model, selection=AboveMean()).trace(torch.randn(5, 4), target=1).masks["0"].shape
        torch.Size([5, 8])
    """

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor | None:
        """Choose the neurons that may carry relevance on.

        Args:
            relevance: ``(N, C)``, the relevance that arrived at each neuron, summed over space; with ``unit = "element"``
                ``(N, ...)``, shaped like the layer's output.
            layer: the layer's name.
            output: ``(N,)``, the output that is explained.

        Returns:
            Boolean, shaped like ``relevance``, True for what is critical; None to leave the layer whole. No host-device
            sync, no loop over samples.
        """
        ...


@runtime_checkable
class Search(Protocol):
    """A selection that looks at the network before the pass, not only at the relevance that arrives."""

    def search(
        self,
        model: nn.Module,
        inputs: Tensor | tuple[Tensor, ...],
        target: Any,
        additional_forward_args: Any,
        composite: Any,
        on_unsupported: Literal["raise", "gradient"],
    ) -> tuple[Selection, Tensor | None]:
        """Find the selection that the pass is to use, and what ``Trace.history`` is to say of how it was found.

        Args:
            model, inputs, target, additional_forward_args, composite, on_unsupported: those of the pass.
        """
        ...


@dataclass(frozen=True, repr=False, kw_only=True)
class _Chosen:
    """What selections by relevance have in common.

    Args:
        unit: what is chosen: ``"channel"``, or ``"element"``, single values of the layer's output.
        rescale: multiply what is kept, per sample and layer, so that its sum is that of the whole layer. Nothing is
            multiplied where what is kept sums to zero.
    """

    unit: Literal["channel", "element"] = "channel"
    rescale: bool = False

    def __post_init__(self) -> None:
        if self.unit not in ("channel", "element"):
            raise SelectionError(f"{type(self).__name__}: unit must be 'channel' or 'element', got {self.unit!r}")
        if not isinstance(self.rescale, bool):
            raise SelectionError(f"{type(self).__name__}: rescale must be True or False, got {self.rescale!r}")

    def __repr__(self) -> str:
        own = [f for f in fields(self) if not f.kw_only]
        changed = [f for f in fields(self) if f.kw_only and getattr(self, f.name) != f.default]
        return f"{type(self).__name__}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in own + changed)})"


@dataclass(frozen=True, repr=False)
class TopK(_Chosen):
    """The neurons with the highest relevance in each layer, per sample.

    Args:
        keep: an int is a number of neurons, a float in (0, 1] a share; ``TopK(1)`` is one neuron, ``TopK(1.0)`` all of
            them. At least one is kept, and no more than there are.
        by: ``"relevance"`` ranks by signed relevance, ``"magnitude"`` by its absolute value.
        unit: what is chosen: ``"channel"``, or ``"element"``, single values of the layer's output.
        rescale: multiply what is kept, per sample and layer, so that its sum is that of the whole layer.

    Raises:
        SelectionError: if an argument is none of these.

    Example:
        >>> import torch
        >>> from lrp_lightning import TopK
        >>> TopK(0.5).select(torch.tensor([[3.0, 1.0, -5.0, 2.0]]), layer="conv", output=torch.ones(1))
        tensor([[ True, False, False,  True]])
    """

    keep: int | float
    by: Literal["relevance", "magnitude"] = "relevance"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "keep", check_budget("TopK", self.keep))
        if self.by not in ("relevance", "magnitude"):
            raise SelectionError(f"TopK: by must be 'relevance' or 'magnitude', got {self.by!r}")

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor:
        """See :meth:`Selection.select`."""
        flat = relevance.flatten(1)
        score = flat.abs() if self.by == "magnitude" else flat
        kept = torch.zeros_like(flat, dtype=torch.bool)
        kept.scatter_(1, score.topk(number_of(self.keep, flat.shape[1]), dim=1).indices, True)
        return kept.view(relevance.shape)


@dataclass(frozen=True, repr=False)
class Coverage(_Chosen):
    """The fewest neurons that carry a share of the layer's positive relevance, per sample.

    With ``rescale=True`` this is pruned LRP, PLRP-lambda (Yanez Sarmiento et al. 2024, arXiv 2404.14271). Where no relevance
    is positive, no neuron is kept.

    Args:
        share: of the sum of the layer's positive relevance, in (0, 1].
        unit, rescale: as in :class:`TopK`.

    Raises:
        SelectionError: if an argument is none of these.

    Example:
        >>> import torch
        >>> from lrp_lightning import Coverage
        >>> Coverage(0.8).select(torch.tensor([[5.0, 1.0, -5.0, 4.0]]), layer="conv", output=torch.ones(1))
        tensor([[ True, False, False,  True]])
    """

    share: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (_is_number(self.share) and 0 < self.share <= 1):
            raise SelectionError(f"Coverage: share must be in (0, 1], got {self.share!r}")

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor:
        """See :meth:`Selection.select`."""
        positive, order = relevance.flatten(1).clamp(min=0).sort(dim=1, descending=True, stable=True)
        carried = positive.cumsum(1)
        before = carried.roll(1, 1).index_fill(1, carried.new_zeros(1, dtype=torch.long), 0)
        kept = before < self.share * carried[:, -1:]
        return torch.zeros_like(kept).scatter_(1, order, kept).view(relevance.shape)


@dataclass(frozen=True, repr=False)
class Threshold(_Chosen):
    """The neurons that carry more than a share of the output, per sample. There may be none.

    Where the output is negative, so is the relevance that counts.

    Args:
        share: of the output that is explained, in [0, 1).
        unit, rescale: as in :class:`TopK`.

    Raises:
        SelectionError: if an argument is none of these.

    Example:
        >>> import torch
        >>> from lrp_lightning import Threshold
        >>> Threshold(0.25).select(torch.tensor([[5.0, 1.0, -5.0, 4.0]]), layer="conv", output=torch.tensor([5.0]))
        tensor([[ True, False, False,  True]])
    """

    share: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (_is_number(self.share) and 0 <= self.share < 1):
            raise SelectionError(f"Threshold: share must be in [0, 1), got {self.share!r}")

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor:
        """See :meth:`Selection.select`."""
        output = output.view(-1, *[1] * (relevance.ndim - 1))
        return relevance * output.sign() > self.share * output.abs()


@dataclass(frozen=True, eq=False)
class Fixed:
    """The neurons that the caller names: conditional relevance, as in concept relevance propagation (Achtibat et al. 2023).

    Layers that are not named are left whole.

    Args:
        layers: ``{layer: neurons}``. A layer is a name, as in ``Trace.relevance``, or a module. Neurons are a number,
            several numbers, or a boolean mask: ``(C,)`` for all samples alike, ``(N, C)`` for each its own, or shaped like
            the layer's output, ``(N, ...)``, for its single values.

    Raises:
        SelectionError: if neurons are none of these, or (in the pass) do not fit their layer.
        LayerError: in the pass, if the model has no hidden layer of that name.

    Example:
        >>> import torch
        >>> from lrp_lightning import Fixed, SelectiveLRP
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> trace = SelectiveLRP(model, selection=Fixed({"0": [2, 5]})).trace(torch.randn(1, 4), target=1)
        >>> trace.masks["0"]
        tensor([[False, False,  True, False, False,  True, False, False]])
    """

    layers: Mapping[str, int | Sequence[int] | Tensor] | Mapping[str | nn.Module, int | Sequence[int] | Tensor]

    def __post_init__(self) -> None:
        if not isinstance(self.layers, Mapping):
            raise SelectionError(f"Fixed: expected {{layer: neurons}}, got {type(self.layers).__name__}")
        read = {layer: _neurons(layer, neurons) for layer, neurons in self.layers.items()}
        object.__setattr__(self, "layers", read)

    @property
    def patterns(self) -> Iterator[str | nn.Module]:
        """The layers that must be there."""
        return iter(self.layers)

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor | None:
        """See :meth:`Selection.select`."""
        neurons = self.layers.get(layer)
        if neurons is None:
            return None
        samples, width = relevance.shape[:2]
        if isinstance(neurons, Tensor):
            if neurons.ndim < 3 and neurons.shape not in ((width,), (samples, width)):
                raise SelectionError(
                    f"Fixed: the mask of layer {layer!r} has shape {tuple(neurons.shape)}; the layer has {width} neurons in "
                    f"{samples} samples, so it must be {(width,)} or {(samples, width)}"
                )
            return neurons.to(relevance.device).expand(neurons.shape if neurons.ndim > 1 else (samples, width))
        assert isinstance(neurons, tuple)
        if wrong := [n for n in neurons if not 0 <= n < width]:
            raise SelectionError(f"Fixed: layer {layer!r} has {width} neurons, 0 to {width - 1}, and no {wrong[0]}")
        kept = torch.zeros(width, dtype=torch.bool)
        kept[list(neurons)] = True
        return kept.to(relevance.device).expand(samples, width)


@dataclass(frozen=True)
class PerLayer:
    """Another selection in each layer, by name pattern.

    Args:
        default: for layers that no pattern fits; None leaves them whole.
        layers: ``{pattern: selection}``, shell patterns on layer names such as ``"features.*"``; the first match decides.
        exclude: patterns of layers left whole; they go before ``layers``.

    Raises:
        SelectionError: if something given as a selection is none.
        LayerError: in the pass, if a pattern fits no hidden layer.

    Example:
        >>> from lrp_lightning import PerLayer, TopK
        >>> budgets = PerLayer(TopK(0.1), layers={"classifier.*": TopK(0.3)}, exclude=("features.0",))
        >>> budgets.in_layer("classifier.3"), budgets.in_layer("features.7"), budgets.in_layer("features.0")
        (TopK(keep=0.3, by='relevance'), TopK(keep=0.1, by='relevance'), None)
    """

    default: Selection | None
    layers: Mapping[str, Selection] = field(default_factory=dict, hash=False)
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        exclude = (self.exclude,) if isinstance(self.exclude, str) else tuple(self.exclude)
        object.__setattr__(self, "exclude", exclude)
        if not isinstance(self.layers, Mapping):
            raise SelectionError(f"PerLayer: layers must be {{pattern: selection}}, got {type(self.layers).__name__}")
        for name, selection in {"default": self.default, **self.layers}.items():
            if isinstance(selection, type) or not (
                isinstance(selection, Selection) or (selection is None and name == "default")
            ):
                raise SelectionError(f"PerLayer: {name} must be a selection such as TopK(0.1), got {selection!r}")

    @property
    def patterns(self) -> Iterator[str]:
        """The layers that must be there."""
        yield from self.exclude
        yield from self.layers

    def in_layer(self, layer: str) -> Selection | None:
        """The selection of one layer, None where it is left whole.

        Args:
            layer: the layer's name.
        """
        if any(fnmatchcase(layer, pattern) for pattern in self.exclude):
            return None
        pattern = next((pattern for pattern in self.layers if fnmatchcase(layer, pattern)), None)
        return self.default if pattern is None else self.layers[pattern]

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor | None:
        """See :meth:`Selection.select`."""
        selection = self.in_layer(layer)
        return None if selection is None else selection.select(relevance, layer=layer, output=output)


def check_budget(who: str, keep: int | float) -> int | float:
    """Refuse what is neither a number of neurons nor a share of them; give it as Python's own number.

    Raises:
        SelectionError: naming ``who`` asked.
    """
    whole = is_whole(keep)
    if not (keep >= 1 if whole else _is_number(keep) and 0 < keep <= 1):
        raise SelectionError(
            f"{who}: keep must be a number of neurons (int >= 1) or a share (float in (0, 1]), got {keep!r}"
        )
    return int(keep) if whole else float(keep)


def number_of(keep: int | float, neurons: int) -> int:
    """How many of a layer's neurons a budget is: at least one, and no more than there are."""
    return min(int(keep), neurons) if is_whole(keep) else max(1, round(keep * neurons))


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _neurons(layer: str | nn.Module, given: int | Sequence[int] | Tensor) -> tuple[int, ...] | Tensor:
    """Numbers as a tuple, a mask as it is."""
    if isinstance(given, Tensor) and given.dtype == torch.bool and given.ndim:
        return given
    numbers = given.flatten().tolist() if isinstance(given, Tensor) else given
    numbers = [numbers] if is_whole(numbers) else numbers
    if (
        isinstance(numbers, str)
        or not isinstance(numbers, Sequence | range | set | frozenset)
        or not all(map(is_whole, numbers))
    ):
        raise SelectionError(
            f"Fixed: neurons of layer {layer!r} must be a number, several numbers, or a torch.bool mask (C,) or (N, C), "
            f"got {given!r:.100}"
        )
    return tuple(sorted(set(map(int, numbers))))


def random_masks(masks: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Random sets of the same size, per sample and layer: the control that gives a critical set's accuracy its meaning.

    Args:
        masks: ``{layer: (N, C) bool}``, as in ``Trace.masks``.
        generator: a CPU generator, so that a control is the same on every device and leaves the global RNG alone.

    Returns:
        ``{layer: (N, C) bool}``, shaped like ``masks`` and on their devices.
    """

    def shuffled(mask: Tensor) -> Tensor:
        flat = mask.flatten(1)
        order = torch.rand(flat.shape, generator=generator).argsort(dim=1).to(mask.device)
        return flat.gather(1, order).view(mask.shape)

    return {layer: shuffled(mask) for layer, mask in masks.items()}

"""A selection of given neurons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lrp_lightning.checks import is_whole
from lrp_lightning.errors import SelectionError

__all__ = ["Fixed"]


@dataclass(frozen=True, eq=False)
class Fixed:
    """Neurons that the caller names: conditional relevance, as in concept relevance propagation (Achtibat et al. 2023).

    In layers that are not named all neurons are kept.

    Args:
        layers: ``{layer: neurons}``. A layer is a name, as in ``Trace.relevance``, or a module. Neurons are a number,
            several numbers, or a boolean mask: ``(C,)`` for all samples, ``(N, C)`` for each sample, or shaped like the
            layer's output, ``(N, ...)``, for single values.

    Raises:
        SelectionError: if neurons are given in another way or (in the pass) do not fit their layer.
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
        """The layers that must exist."""
        return iter(self.layers)

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor | None:
        """See :meth:`Selection.select`."""
        neurons = self.layers.get(layer)
        if neurons is None:
            return None
        samples, width = relevance.shape
        if isinstance(neurons, Tensor):
            if neurons.ndim < 3 and neurons.shape not in ((width,), (samples, width)):
                raise SelectionError(
                    f"Fixed: the mask of layer {layer!r} has shape {tuple(neurons.shape)}; the layer has {width} neurons in "
                    f"{samples} samples, so it must be {(width,)} or {(samples, width)}"
                )
            return neurons.to(relevance.device).expand(neurons.shape if neurons.ndim > 1 else (samples, width))
        assert isinstance(neurons, tuple)
        if wrong := [n for n in neurons if not 0 <= n < width]:
            raise SelectionError(f"Fixed: layer {layer!r} has {width} neurons, 0 to {width - 1}, got {wrong[0]}")
        kept = torch.zeros(width, dtype=torch.bool)
        kept[list(neurons)] = True
        return kept.to(relevance.device).expand(samples, width)


def _neurons(layer: str | nn.Module, given: int | Sequence[int] | Tensor) -> tuple[int, ...] | Tensor:
    """Numbers as a tuple; a mask unchanged."""
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

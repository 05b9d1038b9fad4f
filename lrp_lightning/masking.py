"""A forward pass with neurons switched off: what the critical neurons alone, or all but them, make of the input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from lrp_lightning.errors import SelectionError
from lrp_lightning.layers import LayerNames, explained, neuron_dim, unknown_layer, unwrapped

__all__ = ["masked_forward"]

_KIND = {F.linear: "linear"} | {getattr(owner, f"conv{n}d"): "convolution" for n in (1, 2, 3) for owner in (torch, F)}


def masked_forward(
    model: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    masks: Mapping[str, Tensor],
    keep: bool = True,
    additional_forward_args: Any = None,
) -> Tensor:
    """The model's output with neurons switched off, sample by sample.

    A neuron that is off gives zero after its batch norm and before its activation. A layer without a mask is left whole.
    The model runs as in eval, without gradients, and is left as it was found.

    Args:
        model: the classifier.
        inputs: one tensor, or a tuple of them, ``(N, ...)``.
        masks: ``{layer: (N, C) or (C,), bool}``, as in ``Trace.masks``.
        keep: whether the neurons in ``masks`` are those that stay on (True) or those that go off (False).
        additional_forward_args: given to the model after ``inputs``.

    Returns:
        Logits, ``(N, classes)``.

    Raises:
        SelectionError: if a mask is not boolean or does not fit its layer.
        LayerError: if the forward reaches no layer of a name in ``masks``.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP, TopK, masked_forward
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> x = torch.randn(5, 4)
        >>> masks = SelectiveLRP(model, selection=TopK(4)).trace(x, target=0).masks
        >>> masked_forward(model, x, masks).shape
        torch.Size([5, 3])
        >>> everything = {"0": torch.ones(8, dtype=torch.bool)}
        >>> torch.equal(masked_forward(model, x, everything), model(x))
        True
    """
    model = unwrapped(model)
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    extra = additional_forward_args if isinstance(additional_forward_args, tuple) else (additional_forward_args,)
    extra = () if additional_forward_args is None else extra
    for name, mask in masks.items():
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            given = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise SelectionError(f"the mask of layer {name!r} must be a torch.bool tensor, got {given}")
    with explained(model, inputs[0].device), torch.no_grad():
        mode = _Masking(LayerNames(model), masks, keep)
        with mode:
            output = model(*(x.clone() if x.is_inference() else x for x in inputs), *extra)
        mode.check_all_used()
    return output


class _Masking(TorchFunctionMode):
    def __init__(self, names: LayerNames, masks: Mapping[str, Tensor], keep: bool) -> None:
        super().__init__()
        self.names, self.masks, self.keep = names, masks, keep
        self.calls: dict[str, int] = {}
        self.used: set[str] = set()
        self.whole = WeakIdKeyDictionary()  # masked output of a unit layer -> it before masking, and its layer and kind

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm and args[0] in self.whole:  # a neuron is off after the normalisation of its layer
            y, name, kind = self.whole[args[0]]
            return self._masked(func(y, *args[1:], **kwargs), name, kind)
        result = func(*args, **kwargs)
        kind = _KIND.get(func)
        if kind is None:
            return result
        base = self.names.of_weight(args[1] if len(args) > 1 else kwargs["weight"])
        if base is None:
            return result
        self.calls[base] = self.calls.get(base, 0) + 1
        numbered = f"{base}#{self.calls[base]}"
        name = numbered if numbered in self.masks else base
        if name not in self.masks:
            return result
        masked = self._masked(result, name, kind)
        self.whole[masked] = result, name, kind
        return masked

    def _masked(self, y: Tensor, name: str, kind: str) -> Tensor:
        mask = self.masks[name]
        dim = neuron_dim(y, kind)
        expected = (len(y), y.shape[dim])
        if mask.shape != expected and mask.shape != expected[1:]:
            raise SelectionError(
                f"the mask of layer {name!r} has shape {tuple(mask.shape)}; its output has {expected[1]} neurons in "
                f"{expected[0]} samples, so it must be {expected} or {expected[1:]}"
            )
        if mask.device != y.device:
            raise SelectionError(f"the mask of layer {name!r} is on {mask.device}, its output on {y.device}")
        self.used.add(name)
        shape = [1] * y.ndim
        shape[dim] = y.shape[dim]
        if mask.ndim == 2:
            shape[0] = len(y)
        on = mask if self.keep else ~mask
        return torch.where(on.view(shape), y, 0)

    def check_all_used(self) -> None:
        for name in self.masks:
            if name not in self.used:
                raise unknown_layer(name, list(self.calls))
            if self.calls.get(name, 0) > 1:
                raise SelectionError(f"layer {name!r} ran {self.calls[name]} times; give masks for {name}#1, {name}#2, ...")

"""A forward pass with neurons switched off: what the critical neurons alone, or all but them, make of the input.

What can be switched off are the neurons that relevance runs through, those of ``Trace.masks``: the outputs of convolutions
and linear layers, of attention its value and output projections. A gate (the branch of a squeeze-and-excitation block) and
attention's query and key projections are computed from what is left but get no relevance under ``EpsilonPlus``, so no
selection chooses among them and they stay on, unless a mask names them. A normalisation has no neurons of its own: a batch
norm right after a unit layer belongs to it; any other, and every layer norm, normalises what the masked layer gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from lrp_lightning.engine.dimensions import moved
from lrp_lightning.engine.mode import tensors_in
from lrp_lightning.engine.propagate import check_inputs, out_of_autocast
from lrp_lightning.engine.rows.arguments import is_in_place
from lrp_lightning.engine.rows.attention import multi_head
from lrp_lightning.errors import SelectionError, UnsupportedOperatorError
from lrp_lightning.layers import (
    LayerNames,
    elementwise,
    explained,
    neuron_dim,
    numbered,
    per_neuron,
    spread,
    unknown_layer,
    unwrapped,
)

__all__ = ["activations", "masked_forward", "soft_forward"]

_KINDS = {
    **dict.fromkeys((F.linear, torch._C._nn.linear), "linear"),
    **{
        getattr(owner, f"conv{form}{n}d"): "convolution"
        for n in (1, 2, 3)
        for form in ("", "_transpose")
        for owner in (torch, F)
    },
    **dict.fromkeys((torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm, torch.addmm), "product"),
}
_BATCH_NORMS = (F.batch_norm, torch.batch_norm)


def masked_forward(
    model: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    masks: Mapping[str | nn.Module, Tensor] | Mapping[str, Tensor],
    keep: bool = True,
    additional_forward_args: Any = None,
    replacement: Literal["zero", "mean"] = "zero",
) -> Tensor:
    """The model's output with neurons switched off, sample by sample.

    A neuron that is off gives zero, or its mean, after its batch norm and before its activation. A layer without a mask is
    left whole. The model runs as in eval, without gradients, and is left as it was found.

    Args:
        model: the classifier.
        inputs: one tensor, or a tuple of them, ``(N, ...)``.
        masks: ``{layer: (N, C) or (C,), bool}``, as in ``Trace.masks``; shaped like the layer's output, ``(N, ...)``, for
            single values. A layer is a name or a module.
        keep: whether the neurons in ``masks`` are those that stay on (True) or those that go off (False).
        additional_forward_args: given to the model after ``inputs``.
        replacement: what a neuron that is off gives: ``"zero"``, or, value by value, the ``"mean"`` over this batch of what
            it gives in the whole network, at the cost of one more forward.

    Returns:
        Logits, ``(N, classes)``.

    Raises:
        SelectionError: if a mask is not boolean or does not fit its layer, or ``keep`` or ``replacement`` is none of these.
        ModelError: if the model is no module.
        InputError: if the inputs are no tensors, not of the model's dtype or device, or not finite. The last is looked at on
            the CPU only, since a look at another device waits for it.
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
    if replacement not in ("zero", "mean"):
        raise SelectionError(f"replacement must be 'zero' or 'mean', got {replacement!r}")
    if not isinstance(keep, bool):
        raise SelectionError(
            f"keep says whether the masks' neurons stay on, True or False, got {keep!r}; how many neurons the masks keep is "
            "said by the selection that made them, such as TopK(0.1)"
        )
    if not isinstance(masks, Mapping):
        raise SelectionError(f"masks must be a mapping of layers to boolean tensors, got {type(masks).__name__}")
    for name, mask in masks.items():
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            given = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise SelectionError(f"the mask of layer {name!r} must be a torch.bool tensor, got {given}")
    model = unwrapped(model)
    xs = tuple(out_of_autocast(model, x) for x in (inputs if isinstance(inputs, tuple) else (inputs,)))
    on_host = all(isinstance(x, Tensor) and x.device.type == "cpu" for x in xs)
    check_inputs(model, xs, may_be_integer=True, values=on_host)
    masks = masks if keep else {name: ~mask for name, mask in masks.items()}
    means: dict[str, Tensor] | None = {} if replacement == "mean" else None
    with torch.no_grad():
        if means is not None:
            _run(model, xs, masks, additional_forward_args, _Means, means)
        return _run(model, xs, masks, additional_forward_args, _Masking, means)


def soft_forward(
    model: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    masks: Mapping[str, Tensor],
    additional_forward_args: Any = None,
) -> Tensor:
    """:func:`masked_forward` that can be differentiated: each neuron is multiplied by its mask, a floating tensor."""
    return _run(model, inputs, masks, additional_forward_args, _SoftMasking, None)


def activations(
    model: nn.Module, inputs: Tensor | tuple[Tensor, ...], layers: Sequence[str], additional_forward_args: Any = None
) -> dict[str, Tensor]:
    """``{layer: (N, C)}``, the activation of each neuron, rectified and summed over space, in the whole network."""
    notes: dict[str, Tensor] = {}
    nobody = {layer: torch.ones((), dtype=torch.bool) for layer in layers}
    with torch.no_grad():
        _run(model, inputs, nobody, additional_forward_args, _Activations, notes)
    return notes


def _run(
    model: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    masks: Mapping[Any, Tensor],
    additional_forward_args: Any,
    masking: type[_Masking],
    means: dict[str, Tensor] | None,
) -> Tensor:
    model = unwrapped(model)
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    extra = additional_forward_args if isinstance(additional_forward_args, tuple) else (additional_forward_args,)
    extra = () if additional_forward_args is None else extra
    with_gradients = torch.is_grad_enabled()
    with explained(model, inputs[0].device), torch.set_grad_enabled(with_gradients):
        xs = tuple(x.clone() for x in inputs)  # a model that changes its input in place must not change the caller's
        names = LayerNames(model)
        mode = masking(names, {names.name_of(layer): mask for layer, mask in masks.items()}, xs, means)
        with mode:
            output = model(*xs, *extra)
        mode.check_all_used()
    return output


class _Masking(TorchFunctionMode):
    """Switches neurons off in the outputs of the unit layers that the input reaches; every operator else runs as it is."""

    def __init__(
        self, names: LayerNames, masks: Mapping[str, Tensor], inputs: Sequence[Tensor], means: dict[str, Tensor] | None
    ) -> None:
        super().__init__()
        self.names, self.masks, self.samples, self.means = names, masks, len(inputs[0]), means
        self.calls: dict[str, int] = {}
        self.used: set[str] = set()
        self.signals = WeakIdKeyDictionary()  # tensor that depends on the input -> which of its dimensions holds the samples
        for x in inputs:
            self.signals[x] = 0
        self.whole = WeakIdKeyDictionary()  # masked output of a unit layer -> it unmasked, its name, its kind, its version

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        try:
            return self._run(func, args, kwargs or {})
        except RuntimeError as error:
            self.names.note(error)
            raise

    def _run(self, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        given = list(tensors_in((args, kwargs.values())))
        if not any(t in self.signals for t in given):
            return func(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            return multi_head(self, func, args, kwargs)
        if func in _BATCH_NORMS:
            y, name, kind, version = self.whole.get(args[0], (None, "", "", 0))
            if y is not None and args[0]._version == version:  # a neuron is off after the normalisation of its layer
                return self._masked(func(y, *args[1:], **kwargs), name, kind, self.signals[args[0]])
        unit = self._unit_layer(func, args, kwargs)
        result = func(*args, **kwargs)
        first = next(t for t in given if t in self.signals)
        was = self.signals[first]
        for t in tensors_in((result, args[0] if is_in_place(func) else None)):
            self.signals[t] = None if was is None else moved(func, args, kwargs, first, was, t, self.samples)
        return result if unit is None else self.layer(result, *unit, self.signals[result])

    def _unit_layer(self, func: Callable, args: tuple, kwargs: dict[str, Any]) -> tuple[str, str] | None:
        """Name and kind of the unit layer that an operator is, if it is one."""
        kind = _KINDS.get(func)
        if kind is None:
            return None
        if kind == "product":  # with a matrix that does not depend on the input it is a linear layer written another way
            a, w = (args[1], args[2]) if func is torch.addmm else args[:2]
            if a not in self.signals or w in self.signals or w.ndim != 2 or a.ndim < 2:
                return None
            return self.names.of_weight(w, "linear" if func is torch.addmm else "matmul"), "linear"
        return self.names.of_weight(args[1] if len(args) > 1 else kwargs["weight"], kind), kind

    def layer(self, y: Tensor, base: str, kind: str, where: int | None) -> Tensor:
        """The output of a unit layer, whose dimension ``where`` holds the samples, masked if it has a mask."""
        self.calls[base] = self.calls.get(base, 0) + 1
        numbered = f"{base}#{self.calls[base]}"
        name = numbered if numbered in self.masks else base
        if name not in self.masks:
            return y
        masked = self._masked(y, name, kind, where)
        self.whole[masked] = y, name, kind, masked._version
        return masked

    def dispatch(self, func: Callable, *args: Any, **kwargs: Any) -> Any:
        return self.__torch_function__(func, (), args, kwargs)

    def projection(self, a: Tensor, w: Tensor, b: Tensor | None, y: Tensor, name: str) -> Tensor:
        if a not in self.signals:
            return y
        self.signals[y] = self.signals[a]
        return self.layer(y, name, "linear", self.signals[a])

    def values(self) -> AbstractContextManager:
        return nullcontext()

    def unsupported(self, func: Callable, why: str) -> UnsupportedOperatorError:
        return UnsupportedOperatorError(f"{func.__name__} in module {self.names.executing()!r}: {why}")

    def _masked(self, y: Tensor, name: str, kind: str, where: int | None) -> Tensor:
        """The output of a layer, which may have been masked before its normalisation and is now again."""
        mask, dim = self.masks[name], neuron_dim(y, kind)
        neurons, samples = y.shape[dim], self.samples
        if samples == 1:  # sizes of 1 do not tell dimensions, and whatever there is, is of the one sample
            where = 1 if dim == 0 else 0
        if where is None:
            raise SelectionError(f"layer {name!r} cannot be masked: before it, samples are mixed with other dimensions")
        values = elementwise(y, samples, where)
        if mask.shape not in ((samples, neurons), (neurons,), values.shape):
            raise SelectionError(
                f"the mask of layer {name!r} has shape {tuple(mask.shape)}; its output has {neurons} neurons in {samples} "
                f"samples, so it must be {(samples, neurons)} or {(neurons,)}, or {tuple(values.shape)} for single values"
            )
        if mask.device != y.device:
            raise SelectionError(f"the mask of layer {name!r} is on {mask.device}, its output on {y.device}")
        self.used.add(name)
        each = mask if mask.ndim > 1 else mask.expand(samples, neurons)
        masked = self._switched(name, y, spread(each, y, dim, where), dim, where)
        self.signals[masked] = where
        return masked

    def _switched(self, name: str, y: Tensor, on: Tensor, dim: int, where: int) -> Tensor:
        """The output of a layer with the neurons off that are not ``on``."""
        if self.means is None:
            return torch.where(on, y, 0)
        mean = self.means[name].expand(elementwise(y, self.samples, where).shape)
        return torch.where(on, y, spread(mean, y, dim, where))

    def check_all_used(self) -> None:
        for name in self.masks:
            if name not in self.used:
                raise unknown_layer(name, numbered([base for base, calls in self.calls.items() for _ in range(calls)]))
            if self.calls.get(name, 0) > 1:
                raise SelectionError(f"layer {name!r} ran {self.calls[name]} times; give masks for {name}#1, {name}#2, ...")


class _Means(_Masking):
    """Notes what each layer gives, on average over the samples, and switches nothing off."""

    def _switched(self, name: str, y: Tensor, on: Tensor, dim: int, where: int) -> Tensor:
        assert self.means is not None
        self.means[name] = elementwise(y, self.samples, where).mean(0)
        return y.clone()


class _Activations(_Masking):
    """Notes the activation of each neuron, and switches nothing off."""

    def _masked(self, y: Tensor, name: str, kind: str, where: int | None) -> Tensor:
        assert self.means is not None
        if where is None:
            raise SelectionError(
                f"layer {name!r} has no neurons to tell: before it, samples are mixed with other dimensions"
            )
        arrived = per_neuron(y.relu(), neuron_dim(y, kind), where)
        self.means[name] = arrived if len(arrived) == self.samples else arrived.unflatten(0, (self.samples, -1)).sum(1)
        self.used.add(name)
        result = y.clone()
        self.signals[result] = where
        return result


class _SoftMasking(_Masking):
    """Multiplies, so that masks have gradients: by a little more than zero, else a ReLU behind would let none through."""

    def _switched(self, name: str, y: Tensor, on: Tensor, dim: int, where: int) -> Tensor:
        return y * (on + torch.finfo(y.dtype).tiny ** 0.5)

"""A forward pass with neurons switched off, to test the critical neurons alone, or all other neurons.

The neurons that can be switched off are those that propagate relevance, as in ``Trace.masks``: the outputs of convolutions
and linear layers, in attention those of the value and output projections. Gates (the branch of a squeeze-and-excitation
block) and attention's query and key projections are computed from the remaining neurons. They get no relevance under
``EpsilonPlus``, so no selection chooses among them and they stay on, unless a mask names them. A normalisation has no
neurons of its own: a batch norm directly after a layer belongs to that layer; any other, and every layer norm, normalises
the output of the masked layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lrp_lightning.engine.interpreter import Interpreter
from lrp_lightning.engine.layers import Layers
from lrp_lightning.engine.masked import Activations, EdgeMasking, Masking, Means, Reads, SoftMasking
from lrp_lightning.engine.operators.table import TABLE
from lrp_lightning.engine.propagate import check_inputs, out_of_autocast
from lrp_lightning.engine.targets import tensor_of
from lrp_lightning.errors import SelectionError
from lrp_lightning.layers import LayerNames, explained, unwrapped

__all__ = [
    "activations", "check_of", "check_replacement", "masked_forward", "means_of", "reads_of", "soft_forward",
]  # fmt: skip


def masked_forward(
    model: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    masks: Mapping[str | nn.Module, Tensor] | Mapping[str, Tensor],
    keep: bool = True,
    additional_forward_args: Any = None,
    replacement: Literal["zero", "mean"] | Mapping[str, Tensor] = "zero",
    of: Literal["neurons", "edges"] = "neurons",
) -> Tensor:
    """The model's output with neurons, or connections between neurons, switched off for each sample.

    A neuron that is switched off outputs zero, or its mean, after its batch norm and before its activation; through an edge
    that is switched off a layer reads zero, or the mean. All neurons of a layer without a mask stay on. The model runs in
    eval mode, without gradients, and is not changed.

    Args:
        model: the classifier.
        inputs: one tensor, or a tuple of them, ``(N, ...)``.
        masks: ``{layer: (N, C) or (C,), bool}``, as in ``Trace.masks``; shaped like the layer's output, ``(N, ...)``, for
            single values. For edges ``{layer: (upper, lower), bool}``, shaped like the first two dimensions of the layer's
            weight. A layer is a name or a module.
        keep: whether the neurons in ``masks`` stay on (True) or are switched off (False).
        additional_forward_args: passed to the model after ``inputs``.
        replacement: the output of a neuron that is off: ``"zero"``; the ``"mean"`` of its output in the whole network over
            this batch, value by value, which takes one more forward; or your own values for each layer, ``{layer: (...)}``
            shaped like one sample of its output (for edges ``(1, ...)``, of its input), such as the ``means`` of
            :class:`lrp_lightning.Circuits`.
        of: what the masks switch off, ``"neurons"`` or ``"edges"``.

    Returns:
        Logits, ``(N, classes)``.

    Raises:
        SelectionError: if a mask is not boolean or does not fit its layer, ``keep`` or ``replacement`` has another value, or
            the replacement of a layer with a mask is missing or does not fit.
        ModelError: if the model is not a module.
        InputError: if the inputs are not tensors of the model's dtype and device, or not finite. Finiteness is checked on
            the CPU only, since on another device the check would wait for it.
        LayerError: if the forward does not run a layer named in ``masks``.

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
    own = replacement if isinstance(replacement, Mapping) else None
    if own is None:
        check_replacement(replacement)
    check_of(of)
    if not isinstance(keep, bool):
        raise SelectionError(
            f"keep must be True, to keep only the masks' neurons on, or False, to switch them off, got {keep!r}; the number "
            "of neurons in the masks is chosen by the selection that made them, such as TopK(0.1)"
        )
    if not isinstance(masks, Mapping):
        instead = "; give its masks, as trace.masks" if hasattr(masks, "masks") else ""
        raise SelectionError(
            f"masks must map layers to boolean tensors, as Trace.masks does, got {type(masks).__name__}{instead}"
        )
    for name, mask in masks.items():
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            given = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise SelectionError(f"the mask of layer {name!r} must be a torch.bool tensor, got {given}")
    model = unwrapped(model)
    xs = tuple(out_of_autocast(model, x) for x in (inputs if isinstance(inputs, tuple) else (inputs,)))
    on_host = all(isinstance(x, Tensor) and x.device.type == "cpu" for x in xs)
    check_inputs(model, xs, values=on_host)
    masks = masks if keep else {name: ~mask for name, mask in masks.items()}
    with torch.no_grad():
        if replacement == "mean" and of == "edges":
            own = {name: mean for name, (mean, _) in reads_of(model, xs, masks, additional_forward_args).items()}
        elif replacement == "mean":
            own = means_of(model, xs, masks, additional_forward_args)
        return _run(model, xs, masks, additional_forward_args, Masking if of == "neurons" else EdgeMasking, own)


def soft_forward(
    model: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    masks: Mapping[str, Tensor],
    additional_forward_args: Any = None,
    means: Mapping[str, Tensor] | None = None,
    of: Literal["neurons", "edges"] = "neurons",
) -> Tensor:
    """:func:`masked_forward` that can be differentiated: a floating mask weighs each neuron against zero or its mean."""
    return _run(model, inputs, masks, additional_forward_args, SoftMasking if of == "neurons" else EdgeMasking, means)


def reads_of(
    model: nn.Module, inputs: Tensor | tuple[Tensor, ...], layers: Iterable[Any], additional_forward_args: Any = None
) -> dict[str, tuple[Tensor, torch.Size]]:
    """``{layer: (mean, connections)}``: the mean input of each layer, ``(1, ...)``, and the shape of its connections."""
    return _noted(Reads, model, inputs, layers, additional_forward_args)


def means_of(
    model: nn.Module, inputs: Tensor | tuple[Tensor, ...], layers: Iterable[Any], additional_forward_args: Any = None
) -> dict[str, Tensor]:
    """``{layer: (...)}``, the output of each layer in the whole network, averaged over the samples value by value."""
    return _noted(Means, model, inputs, layers, additional_forward_args)


def check_replacement(replacement: object) -> None:
    """Raise an error unless ``replacement`` is one of the two names.

    Raises:
        SelectionError: naming them.
    """
    if replacement not in ("zero", "mean"):
        raise SelectionError(f"replacement must be 'zero' or 'mean', got {replacement!r}")


def activations(
    model: nn.Module, inputs: Tensor | tuple[Tensor, ...], layers: Sequence[str], additional_forward_args: Any = None
) -> dict[str, Tensor]:
    """``{layer: (N, C)}``, the activation of each neuron, rectified and summed over space, in the whole network."""
    return _noted(Activations, model, inputs, layers, additional_forward_args)


def check_of(of: object) -> None:
    """Raise an error unless ``of`` is something that masks can switch off.

    Raises:
        SelectionError: naming what they can.
    """
    if of not in ("neurons", "edges"):
        raise SelectionError(f"of must be 'neurons' or 'edges', got {of!r}")


def _noted(
    what: type[Reads] | type[Means] | type[Activations],
    model: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    layers: Iterable[Any],
    additional_forward_args: Any,
) -> dict[str, Any]:
    """Values of each of these layers in a forward pass of the whole network."""
    notes: dict[str, Any] = {}
    with torch.no_grad():
        _run(model, inputs, dict.fromkeys(layers, torch.ones((), dtype=torch.bool)), additional_forward_args, what, notes)
    return notes


def _run(
    model: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    masks: Mapping[Any, Tensor],
    additional_forward_args: Any,
    masking: Callable[[Layers, Mapping[str, Tensor], Any], Masking | EdgeMasking],
    means: Mapping[str, Any] | None,
) -> Tensor:
    model = unwrapped(model)
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    extra = additional_forward_args if isinstance(additional_forward_args, tuple) else (additional_forward_args,)
    extra = () if additional_forward_args is None else extra
    with_gradients = torch.is_grad_enabled()
    with explained(model, inputs[0].device), torch.set_grad_enabled(with_gradients):
        xs = tuple(x.clone() for x in inputs)  # a model that changes its input in place must not change the caller's
        names, samples = LayerNames(model), len(xs[0])
        layers = Layers(names, samples)
        visitor = masking(layers, {names.name_of(layer): mask for layer, mask in masks.items()}, means)
        run = Interpreter(names, TABLE, visitor, samples)
        for x in xs:
            run.begin(x, model)
        with run:
            output = run.latest(tensor_of(model(*xs, *extra)))
        visitor.check_all_used()
    return output

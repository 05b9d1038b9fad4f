"""The explained part of a model's output: Captum's targets, a difference of two outputs, or a function of the output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lrp_lightning.captum_names import select_targets
from lrp_lightning.checks import got, is_whole
from lrp_lightning.errors import ModelError, TargetError

__all__ = ["chosen_outputs", "on_host", "tensor_of"]


def tensor_of(output: Any) -> Tensor:
    """The tensor of outputs in a model's result: the result itself, or its ``logits`` or (in a segmentation) ``out``.

    Raises:
        ModelError: if there is no such tensor, or it is a single number.
    """
    found = output
    for name in ("logits", "out"):
        if not isinstance(found, Tensor):
            found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
    if not isinstance(found, Tensor):
        names = f" of {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
        raise ModelError(
            f"the model must give one tensor of outputs, got {type(output).__name__}{names} without a tensor named logits "
            "or out; wrap it in a module whose forward returns the tensor to explain"
        )
    if not found.ndim:
        raise ModelError(
            "the model gives a single number for the whole batch, such as a loss; it must give outputs of each sample, "
            "(N, classes)"
        )
    return found


def on_host(target: Any) -> Any:
    """A target that can be checked without waiting for the device during the pass, with Python's integers."""
    if type(target) in (list, tuple):
        return type(target)(map(on_host, target))
    if is_whole(target):
        return int(target)
    if not isinstance(target, Tensor):
        return target
    small = not (target.is_floating_point() or target.dtype == torch.bool)  # torch does not index by uint8 and int16
    return target.detach().cpu().long() if small else target.detach().cpu()


def chosen_outputs(output: Tensor, target: Any, below: Tensor, watched: Callable[[Callable, Tensor], Any]) -> Tensor:
    """The outputs to explain, ``(N,)``.

    They are taken from the output, or from the logits ``below`` a monotone map, which have the same shape.

    Args:
        output: ``(N, ...)``.
        target: with Captum's meaning; or a pair ``(a, b)`` of classes of ``(N, classes)``, for the difference of the two; or
            a function of the output that returns one class per sample, or the values to explain, ``(N,)``.
        below: the explained values.
        watched: runs a function on a tensor as part of the model.

    Raises:
        TargetError: if it is missing or does not fit.
    """
    shape, samples = tuple(output.shape), len(output)
    if target is None:
        if output.numel() != samples:
            raise TargetError(
                f"target is missing: the output has shape {shape}, more than one value per sample; name the class to "
                "explain, "
                "or give lambda y: y.argmax(1) for the predicted one"
            )
        return below.flatten()
    if callable(target):
        given = target(output.detach())
        if isinstance(given, Tensor) and given.numel() == samples and given.is_floating_point():
            return watched(target, below).reshape(samples)
        if not isinstance(given, Tensor) or given.numel() != samples or output.ndim < 2:
            what = f"{given.dtype} {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
            raise TargetError(
                f"the target function must return one class per sample, integers ({samples},), such as logits.argmax(1), or "
                f"one value per sample, such as logits[:, 3].mean((1, 2)); it returned {what}"
            )
        if output.ndim == 2:  # on the device, without waiting for it
            return below.gather(1, given.long().view(-1, 1)).flatten()
        target = given
    if not isinstance(target, int | tuple | list | Tensor):
        raise TargetError(
            f"target does not fit an output of shape {shape}: it must be a class number, a tuple of indices, a list or "
            "tensor "
            f"of these, or a function of the output, got {got(target)}"
        )
    if isinstance(target, Tensor) and target.shape == output.shape and output.ndim == 2 and output.shape[1] > 1:
        raise TargetError(
            f"target has the shape of the output, {shape}, as one-hot rows have; give one class number per sample, such as "
            "target.argmax(1)"
        )
    if isinstance(target, Tensor) and target.is_floating_point():
        raise TargetError(f"target does not fit an output of shape {shape}: it is {target.dtype}; convert it with .long()")
    many = target.numel() if isinstance(target, Tensor) else len(target) if isinstance(target, list) else 1
    if many not in (1, samples):
        raise TargetError(
            f"target does not fit an output of shape {shape}: {many} targets for {samples} samples; give one for each, or "
            "one for all"
        )
    indices = target.flatten().tolist() if isinstance(target, Tensor) else target
    indices = indices if isinstance(indices, list) else [indices]
    if len(shape) == 2 and indices and all(isinstance(index, tuple) and len(index) == 2 for index in indices):
        return _differences(below, indices)
    for index in indices:
        _check_index(index, shape)
    if len(shape) > 2 and isinstance(target, list | Tensor):  # Captum does so only for tuples
        tuples = [index if isinstance(index, tuple) else (index,) for index in indices]
        target = tuples[0] if len(tuples) == 1 else tuples
    try:
        chosen = select_targets(below, target.to(output.device) if isinstance(target, Tensor) else target)
    except (AssertionError, IndexError, TypeError) as error:
        raise TargetError(f"target {target!r} does not fit an output of shape {shape}: {error}") from error
    if chosen.numel() != samples:
        raise TargetError(
            f"target {target!r} leaves {tuple(chosen.shape)} of an output {shape}: more than one value per sample. Name one "
            "by a tuple of indices, or explain their mean with a function, such as lambda y: y[:, 1].mean((1, 2))"
        )
    return chosen.flatten()


def _differences(below: Tensor, pairs: list[tuple[int, int]]) -> Tensor:
    for pair in pairs:
        for index in pair:
            _check_index(index, tuple(below.shape))
        if pair[0] == pair[1]:
            raise TargetError(
                f"target {pair!r} of an output of shape {tuple(below.shape)} is the difference of a class and itself; name "
                "two classes"
            )
    one, other = (torch.tensor(side, device=below.device) % below.shape[1] for side in zip(*pairs, strict=True))
    rows = torch.arange(len(below), device=below.device)
    return below[rows, one.expand(len(below))] - below[rows, other.expand(len(below))]


def _check_index(index: Any, shape: tuple[int, ...]) -> None:
    along = index if isinstance(index, tuple) else (index,)
    sizes = shape[1 : 1 + len(along)] if len(shape) > 1 else shape
    fits = len(along) == len(sizes) and all(
        isinstance(i, int) and not isinstance(i, bool) and -n <= i < n for i, n in zip(along, sizes, strict=True)
    )
    if not fits:
        raise TargetError(
            f"target {index!r} does not fit an output of shape {shape}; classes are 0 to {sizes[0] - 1}, or, from the "
            "end, negative, as in Captum"
        )

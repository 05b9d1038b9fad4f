"""LRP's backwards as autograd Functions. They propagate ``g``, with ``R = a g`` for every activation ``a``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from lrp_lightning.compat import BackwardHookFunction, function_of
from lrp_lightning.engine.affine import away_from_zero
from lrp_lightning.engine.layers import Layer

__all__ = ["Activation", "Affine", "Kept", "Rectified", "Valued", "Watched", "Watcher", "is_foreign", "unit_layers_below"]


@dataclass(eq=False)
class Kept:
    """The output of a unit layer or a sum, kept for its backward.

    The invariant: ``value`` equals the output wherever relevance can arrive. If a rectifier is the only reader of the
    output, no relevance arrives at values that are not positive. So the rectifier's result, which the next layer keeps
    anyway, replaces the output, whose memory is freed. A second reader restores it.
    """

    value: Tensor
    layer: Layer
    rectified: bool = False
    size: Tensor | None = None
    """The output's :func:`~lrp_lightning.engine.affine.magnitude`, if the kept value is rectified and it is needed."""
    readers: int = 0
    has_weights: bool = True
    """Whether it is a unit layer; a node without weights passes relevance on unchanged."""

    def rectify(self, rectified: Tensor, size: Tensor | None) -> None:
        self.value, self.rectified, self.size = rectified, True, size

    def read(self, t: Tensor) -> None:
        """Note that an operator reads the output ``t``."""
        self.readers += 1
        if self.readers > 1 and self.rectified:
            self.value, self.rectified, self.size = t.detach(), False, None


class Affine(torch.autograd.Function):
    """A unit layer: returns the given ``y``; its backward calls ``hand_down``."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, w: Tensor, b: Tensor | None, kept: Kept, hand_down: Callable[..., Tensor]) -> Tensor:
        ctx.save_for_backward(a, w, b)
        ctx.kept, ctx.layer, ctx.hand_down = kept, kept.layer, hand_down
        return kept.value.view_as(kept.value)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        kept, ctx.kept = ctx.kept, None  # freed here, like the tensors that autograd saved
        return ctx.hand_down(kept, *ctx.saved_tensors, grad[0]), None, None, None, None


class Rectified(torch.autograd.Function):
    """A rectifier: returns the given ``y``.

    If its layer keeps ``y``, everything passes: relevance, the product of ``y`` and ``g``, is 0 where ``y`` is 0.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, kept: Kept) -> Tensor:
        ctx.save_for_backward(y)
        ctx.kept = kept
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.kept.rectified and ctx.kept.has_weights:
            return grad[0], None, None
        return torch.ops.aten.threshold_backward(grad[0], ctx.saved_tensors[0], 0), None, None


class Activation(torch.autograd.Function):
    """An element-wise non-linearity: relevance passes unchanged, ``g_x = g_y y / x``; it is absorbed where ``x`` is 0."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, proportional: bool, keeps_zero: bool, absorb: Callable[[Tensor], None] | None
    ) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.proportional, ctx.keeps_zero, ctx.absorb = proportional, keeps_zero, absorb
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        if not ctx.proportional:
            return grad[0] * away_from_zero(y) / away_from_zero(x), None, None, None, None
        if x.is_complex():
            return torch.where(x == 0, 0, grad[0] * (y / x).conj()), None, None, None, None
        if ctx.keeps_zero:
            # 0 where x is 0; faster than a choice by comparison
            return (y / x).nan_to_num_(0, 0, 0).mul_(grad[0]), None, None, None, None
        at_zero = x.abs() < torch.finfo(x.dtype).tiny ** 0.5
        r = grad[0] * y
        if ctx.absorb is not None:
            ctx.absorb(torch.where(at_zero, r, 0))
        return torch.where(at_zero, 0, r / torch.where(at_zero, 1, x)), None, None, None, None


class Valued(torch.autograd.Function):
    """The value of one tensor with the gradient of another."""

    @staticmethod
    def forward(ctx: Any, gradient_of: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad[0], None


class Watcher(Protocol):
    """A function that receives the gradient of a tensor and returns the gradient to propagate."""

    def back(self, g: Tensor) -> Tensor: ...


class Watched(torch.autograd.Function):
    """The identity, whose backward calls a watcher."""

    @staticmethod
    def forward(ctx: Any, t: Tensor, watcher: Watcher) -> Tensor:
        ctx.watcher = watcher
        return t.view_as(t)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.watcher.back(grad[0]), None


def is_foreign(node: Any) -> bool:
    """Whether a node of autograd's graph belongs to a Function of the model, regardless of the operators in its forward."""
    known = (Affine, Rectified, Activation, Valued, Watched, BackwardHookFunction)
    function = function_of(node)
    return function is not None and not issubclass(function, known) and not function.__module__.startswith("lrp_lightning.")


def unit_layers_below(output: Tensor) -> list[Layer]:
    """The unit layers whose output reaches ``output`` without another unit layer in between."""
    found: list[Layer] = []
    todo: list[Any] = [output.grad_fn]
    seen = set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        layer = getattr(node, "layer", None)  # set by Affine.forward on autograd's node
        if isinstance(layer, Layer):
            found.append(layer.standing)
        else:
            todo.extend(below for below, _ in node.next_functions)
    return found

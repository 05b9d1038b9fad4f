"""LRP written out: every affine map a dense matrix, every rule its formula over explicit contributions, float64.

Nothing here knows the library. A map is applied to the identity basis, so ``w[i, j]`` is what output ``i`` takes of input
``j``; ``c[i, j] = w[i, j] a[j]`` is a contribution, ``z`` a denominator, and the bias stands beside the inputs as one more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

FormulaResult = list[tuple[float, Tensor, Tensor, Tensor]]
"""Of each part of a rule: its share, contributions ``(out, in)``, bias ``(out,)``, which outputs it serves ``(out,)``."""
Formula = Callable[[Tensor, Tensor, Tensor], FormulaResult]


class HandedDown(NamedTuple):
    inputs: Tensor
    bias: Tensor
    """(N,), the relevance that stays in the bias."""


def dense(affine: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The matrix ``(out, in)`` and bias ``(out,)`` of an affine map of inputs of this shape, without the samples."""
    size = int(torch.tensor(shape).prod())
    with torch.no_grad():
        bias = affine(torch.zeros(1, *shape, dtype=torch.float64))
        columns = affine(torch.eye(size, dtype=torch.float64).view(size, *shape)) - bias
    return columns.flatten(1).T, bias.flatten()


def input_times_gradient(model: nn.Module, x: Tensor, target: int = 1) -> Tensor:
    """What the epsilon rule is, of a network that is linear near ``x`` and has no biases, when epsilon goes to zero."""
    x = x.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x)[:, target].sum(), x)
    return (x * gradient).detach()


def stabilised(z: Tensor, eps: float) -> Tensor:
    """``z`` moved away from zero by ``eps`` of a sample's mean ``|z|``."""
    return z + z.sign() * eps * z.abs().mean()


def epsilon() -> Formula:
    return lambda w, b, a: [(1.0, w * a, b, torch.ones_like(b))]


def alpha_beta(alpha: float, beta: float) -> Formula:
    def formula(w: Tensor, b: Tensor, a: Tensor) -> FormulaResult:
        c, every = w * a, torch.ones_like(b)
        return [(alpha, c.clamp(min=0), b.clamp(min=0), every), (-beta, c.clamp(max=0), b.clamp(max=0), every)]

    return formula


def zplus() -> Formula:
    return alpha_beta(1.0, 0.0)


def gamma(factor: float) -> Formula:
    """Contributions that agree in sign with the output count ``1 + factor`` times (Andeol et al. 2021)."""

    def formula(w: Tensor, b: Tensor, a: Tensor) -> FormulaResult:
        c, y = w * a, w @ a + b
        up = (c + factor * c.clamp(min=0), b + factor * b.clamp(min=0), (y > 0).to(y))
        down = (c + factor * c.clamp(max=0), b + factor * b.clamp(max=0), (y < 0).to(y))
        return [(1.0, *up), (1.0, *down)]

    return formula


def zbox(low: Tensor, high: Tensor) -> Formula:
    """``low`` and ``high`` broadcast over the inputs, flattened."""

    def formula(w: Tensor, b: Tensor, a: Tensor) -> FormulaResult:
        c = w * a - w.clamp(min=0) * low - w.clamp(max=0) * high
        return [(1.0, c, torch.zeros_like(b), torch.ones_like(b))]

    return formula


def wsquare() -> Formula:
    return lambda w, b, a: [(1.0, w**2, torch.zeros_like(b), torch.ones_like(b))]


def flat() -> Formula:
    return lambda w, b, a: [(1.0, (w != 0).to(w), torch.zeros_like(b), torch.ones_like(b))]


def hand_down(
    affine: Callable[[Tensor], Tensor], a: Tensor, r: Tensor, formula: Formula | None, eps: float = 1e-6
) -> HandedDown:
    """The relevance of ``a``, given ``r`` of ``affine(a)``, sample by sample; ``None`` passes it through unchanged."""
    if formula is None:
        return HandedDown(r.view(a.shape), torch.zeros(len(a), dtype=a.dtype))
    w, b = dense(affine, tuple(a.shape[1:]))
    inputs, biases = torch.zeros_like(a), torch.zeros(len(a), dtype=a.dtype)
    for n in range(len(a)):
        for share, c, bias, served in formula(w, b, a[n].flatten()):
            z = c.sum(1) + bias
            s = torch.where(z == 0, 0, share * served * r[n].flatten() / stabilised(z, eps))
            inputs[n] += (c.T @ s).view(a[n].shape)
            biases[n] += bias @ s
    return HandedDown(inputs, biases)


def hand_down_net(stages: list[tuple[nn.Module, Formula | None]], x: Tensor, v: Tensor, eps: float = 1e-6) -> list[Tensor]:
    """The relevance of every stage's input, first to last, when that of the last output is the output times ``v``.

    A stage with a formula is affine; through any other, values stay in place and relevance with them.
    """
    activations = [x]
    with torch.no_grad():
        for stage, _ in stages:
            activations.append(stage(activations[-1]))
    r, relevances = activations.pop() * v, []
    for (stage, formula), a in zip(reversed(stages), reversed(activations), strict=True):
        r = hand_down(stage, a, r, formula, eps).inputs
        relevances.insert(0, r)
    return relevances

"""The rules without this library: gradient x input, in float64, of a copy whose modules have other gradients.

Each module still returns its value; its gradient is given in one line (the trick of Montavon et al. 2019, section 10.3.2).
Batch norms do not change, because those of :mod:`models` only scale, by positive numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from models import Subject
from torch import Tensor, nn
from torchvision.ops.misc import SqueezeExcitation


@lru_cache(maxsize=4)
def relevance(subject: Subject, rule: str) -> Tensor:
    """The relevance of the input by ``rule``: epsilon everywhere, or everywhere except in convolutions."""
    model = copy.deepcopy(subject.model).double()
    leaves = [subject.x.double().requires_grad_(), torch.ones_like(subject.x, dtype=torch.float64).requires_grad_()]
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    for module in model.modules():
        if isinstance(module, nn.ReLU | nn.SiLU):
            module.inplace = False
        for kind, forward in _FORWARDS.items():
            if isinstance(module, kind):
                module.forward = partial(forward, module, module.forward)
    if rule != "epsilon":
        for module in convolutions:
            module.forward = partial(_by_rule, module, rule)  # type: ignore[method-assign]
    if rule == "EpsilonGammaBox":
        convolutions[0].forward = partial(_box, convolutions[0], leaves[1])  # type: ignore[method-assign]
    explained = model(leaves[0]).gather(1, subject.target[:, None]).sum()
    found = torch.autograd.grad(explained, leaves, allow_unused=True)
    return sum(leaf.detach() * g for leaf, g in zip(leaves, found, strict=True) if g is not None)  # type: ignore[return-value]


def _with_gradient_of(t: Tensor, y: Tensor) -> Tensor:
    """``y``, whose relevance is distributed in proportion to the contributions to ``t``."""
    t = t * torch.where(t == 0, 0, y / t).detach()
    return t + (y - t).detach()


def _activation(module: nn.Module, value: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return _with_gradient_of(x, value(x.detach()))


def _gate(module: SqueezeExcitation, value: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return module._scale(x.detach()).detach() * x


def _layer_norm(module: nn.LayerNorm, value: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    dim = 1 if x.ndim == 4 and type(module) is not nn.LayerNorm else -1  # torchvision's LayerNorm2d norms channels
    x = x - x.mean(dim, keepdim=True)
    x = x / (x.square().mean(dim, keepdim=True) + module.eps).sqrt().detach()
    return x * (module.weight[:, None, None] if dim == 1 else module.weight)  # the bias is zero


def _attention(module: nn.MultiheadAttention, value: object, x: Tensor, *_: Tensor, **__: object) -> tuple[Tensor, None]:
    q, k, v = (
        t.unflatten(-1, (module.num_heads, -1)).transpose(1, 2) for t in F.linear(x, module.in_proj_weight).chunk(3, -1)
    )
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1).detach()
    return F.linear((weights @ v).transpose(1, 2).flatten(2), module.out_proj.weight), None


def _by_rule(module: nn.Conv2d, rule: str, a: Tensor) -> Tensor:
    def of(a: Tensor, w: Tensor) -> Tensor:
        return module._conv_forward(a, w, None)

    w = module.weight
    y = of(a.detach(), w).detach()
    positive = of(a.clamp(min=0), w.clamp(min=0)) + of(a.clamp(max=0), w.clamp(max=0))
    negative = of(a.clamp(min=0), w.clamp(max=0)) + of(a.clamp(max=0), w.clamp(min=0))
    if rule == "EpsilonPlus":
        return _with_gradient_of(positive, y)
    if rule == "EpsilonAlpha2Beta1":
        return 2 * _with_gradient_of(positive, y) - _with_gradient_of(negative, y)
    return _with_gradient_of(of(a, w) + 0.25 * torch.where(y > 0, positive, negative), y)


def _box(module: nn.Conv2d, high: Tensor, x: Tensor) -> Tensor:
    """The zB rule for inputs between 0, which gets no relevance, and 1."""
    z = module._conv_forward(x, module.weight, None)
    return _with_gradient_of(z - module._conv_forward(high, module.weight.clamp(max=0), None), z)


_FORWARDS: dict[type[nn.Module], Callable[..., object]] = {
    nn.SiLU: _activation,
    nn.GELU: _activation,
    SqueezeExcitation: _gate,
    nn.LayerNorm: _layer_norm,
    nn.MultiheadAttention: _attention,
}

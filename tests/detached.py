"""Gradient times input with gates and scales detached, at torch's functions: what the epsilon rule is when epsilon is zero.

Nothing here knows the library: no rows, axes or rules. An activation is its input times a constant, a normalisation divides
by a constant, weights of attention and gates are constants, a product of two signals hands half to each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers.activations import ACT2FN

ACTIVATIONS = {"relu", "relu_", "gelu", "silu", "tanh", "softplus", "hardswish", "leaky_relu", "elu"}
GATES = {"sigmoid", "softmax", "exp", "rsqrt", "reciprocal"}
PRODUCTS = {"mul", "mul_", "__mul__", "__rmul__", "matmul", "__matmul__", "bmm", "einsum"}
OF_TRANSFORMERS = {type(ACT2FN[name]) for name in ("gelu", "gelu_new", "gelu_pytorch_tanh", "silu")}
MODULES = (nn.GELU, nn.SiLU, nn.ReLU, nn.Tanh, *OF_TRANSFORMERS)


def as_scaled(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.no_grad():
        scale = torch.where(x == 0, 0, f(x.clone()) / x)  # f may be in place
    return x * scale


class Detached(TorchFunctionMode):
    """The forward whose gradient is LRP's.

    Args:
        tokens: token ids among the inputs, whose embeddings are what is explained.
    """

    def __init__(self, tokens: list[Tensor]) -> None:
        super().__init__()
        self.tokens, self.rows = tokens, [torch.empty(0)] * len(tokens)

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs, name, first = kwargs or {}, getattr(func, "__name__", ""), args[0] if args else None
        if name == "embedding":
            y = func(*args, **kwargs).detach()
            for i, ids in enumerate(self.tokens):
                if torch.equal(first, ids):
                    self.rows[i] = y.requires_grad_()
                elif torch.equal(first, ids.T):  # tokens first
                    self.rows[i] = y.transpose(0, 1).requires_grad_()
                    return self.rows[i].transpose(0, 1)
            return y
        if name in ACTIVATIONS:
            return as_scaled(lambda x: func(x, *args[1:], **kwargs), first)
        if name in ("layer_norm", "group_norm"):
            return self.normalised(func, name, *args, **kwargs)
        if name == "rms_norm":
            shape, weight, eps = args[1], args[2], args[3] or torch.finfo(first.dtype).eps
            return first * (first.pow(2).mean(tuple(range(-len(shape), 0)), keepdim=True) + eps).rsqrt().detach() * weight
        if name == "scaled_dot_product_attention":
            return self.attention(*args, **kwargs)
        if name in GATES or (name in ("pow", "__pow__") and isinstance(first, Tensor)):
            return func(*args, **kwargs).detach()
        if name in ("div", "__truediv__", "true_divide") and isinstance(args[1], Tensor):
            return func(first, args[1].detach())
        signals = [t for t in args if isinstance(t, Tensor) and t.requires_grad]
        if name in PRODUCTS and len(signals) == 2:
            alone = [[t.detach() if isinstance(t, Tensor) and t is not s else t for t in args] for s in signals]
            return sum(func(*given) for given in alone) / 2
        return func(*args, **kwargs)

    def normalised(
        self, func: Callable, name: str, x: Tensor, shape: Any, weight: Any, bias: Any, eps: float, *_: Any
    ) -> Tensor:
        if name == "group_norm":
            groups = x.unflatten(1, (shape, -1))
            over: tuple[int, ...] = tuple(range(2, groups.ndim))
        else:
            groups, over = x, tuple(range(-len(shape), 0))
        centred = groups - groups.mean(over, keepdim=True)
        y = (centred / (centred.pow(2).mean(over, keepdim=True) + eps).sqrt().detach()).reshape(x.shape)
        if weight is None:
            return y
        along = (1, -1, *[1] * (x.ndim - 2)) if name == "group_norm" else weight.shape
        return y * weight.view(along) + bias.view(along)

    def attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attn_mask: Any = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: Any = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if enable_gqa:
            k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
        scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), float("-inf"))
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, float("-inf")) if attn_mask.dtype == torch.bool else scores + attn_mask
        return scores.softmax(-1).detach() @ v


def gradient_times_input(model: nn.Module, inputs: tuple[Tensor, ...], explained: Callable[[Any], Tensor]) -> list[Tensor]:
    """Of each input; of token ids, one value a token."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, MODULES):
            module.forward = lambda x, f=module.forward: as_scaled(f, x)  # type: ignore[method-assign]
    given = [x.detach().clone().requires_grad_() if x.is_floating_point() else x for x in inputs]
    tokens = [x for x in given if not x.is_floating_point()]
    mode = Detached(tokens)
    try:
        with mode:
            y = explained(model(*given))
    finally:
        for module in model.modules():
            if isinstance(module, MODULES):
                del module.forward
    rows = iter(mode.rows)
    leaves = [x if x.is_floating_point() else next(rows) for x in given]
    gradients = torch.autograd.grad(y.sum(), leaves)
    found = [leaf.detach() * g for leaf, g in zip(leaves, gradients, strict=True)]
    return [r if x.is_floating_point() else r.sum(-1) for r, x in zip(found, inputs, strict=True)]

"""The table of operators: function -> what its backward is.

Only three kinds of operator need a backward of their own (affine maps, activations, products of two signals); for all
others autograd's own backward is the LRP rule, and their row says what becomes of what is known about their input.
A row is a function ``(mode, func, args, kwargs) -> result``, called when an argument carries relevance.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lrp_lightning.engine.affine import ChannelScale, Convolution, Linear
from lrp_lightning.engine.mode import Activation, Facts, RelevanceMode, tensors_in

__all__ = ["TABLE"]

Row = Callable[[RelevanceMode, Callable, tuple, dict[str, Any]], Any]
TABLE: dict[Callable, Row] = {}


def _row(row: Row, *names: str) -> None:
    """Enter a row under every form in which an operator of these names is called."""
    for name in names:
        for owner in (torch, Tensor, F, torch._C._nn):
            func = getattr(owner, name, None)
            if func is not None:
                TABLE.setdefault(func, row)


# Affine maps


def _linear(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    a, w, b = _arguments(lambda input, weight, bias=None: (input, weight, bias), args, kwargs)
    _only_input(mode, func, a, w, b)
    with torch.no_grad():
        y = F.linear(a, w, b)
    return mode.unit_layer(Linear(), a, w, b, y, _name(mode, w, "linear"))


def _convolution(spatial: int, mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    def parse(
        input: Tensor,
        weight: Tensor,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> tuple:
        return input, weight, bias, stride, padding, dilation, groups

    a, w, b, stride, padding, dilation, groups = _arguments(parse, args, kwargs)
    _only_input(mode, func, a, w, b)
    stride, dilation = _each(stride, spatial), _each(dilation, spatial)
    if padding == "valid":
        padding = 0
    elif padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, w.shape[2:], strict=True)]
        padding = [t // 2 for t in total]
        if any(t % 2 for t in total):  # one more on the right, which a convolution cannot say for itself
            a = mode.__torch_function__(F.pad, (), (a, [n for t in reversed(total) for n in (0, t % 2)]))
    op = Convolution(stride, _each(padding, spatial), dilation, groups)
    with torch.no_grad():
        y = op.forward(a, w, b)
    return mode.unit_layer(op, a, w, b, y, _name(mode, w, "convolution"))


def _batch_norm(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    def parse(
        input: Tensor, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None, training: bool = False,
        momentum: float = 0.1, eps: float = 1e-5,
    ) -> tuple:  # fmt: skip
        return input, running_mean, running_var, weight, bias, eps

    a, mean, var, gamma, beta, eps = _arguments(parse, args, kwargs)
    _only_input(mode, func, a, gamma, beta)
    with torch.no_grad():
        if mean is None or var is None:  # no running statistics: those of the batch are constants
            var, mean = torch.var_mean(a, [d for d in range(a.ndim) if d != 1], correction=0)
        y = F.batch_norm(a, mean, var, gamma, beta, False, 0.0, eps)
        scale = (var + eps).rsqrt() if gamma is None else gamma * (var + eps).rsqrt()
        shift = -mean * scale if beta is None else beta - mean * scale
        made_by = mode.of(a).made_by
        if made_by is None or made_by.op.kind == "normalisation" or (made_by.op.kind == "linear" and a.ndim != 2):
            name = mode.recording.names.of_parameter.get(id(gamma)) or mode.recording.names.executing()
            return mode.unit_layer(ChannelScale(), a, scale, shift, y, name or "batch_norm")
        op, layer = made_by.op, made_by.layer
        b = shift if made_by.b is None else made_by.b * scale + shift
        w = op.scaled(made_by.w, scale)
    return mode.unit_layer(op, made_by.a, w, b, y, layer.base_name, into=layer)


def _name(mode: RelevanceMode, w: Tensor, kind: str) -> str:
    names = mode.recording.names
    return names.of_weight(w) or names.executing() or kind


def _only_input(mode: RelevanceMode, func: Callable, a: Tensor, *parameters: Any) -> None:
    if not mode.known(a) or any(mode.known(p) for p in parameters):
        raise mode.unsupported(func, "its weight depends on the input, so it is a product of two signals without a rule")


def _each(value: Any, spatial: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return values * spatial if len(values) == 1 else values


# Activations: relevance passes unchanged


def _relu(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    x, in_place = _inplace(func, args, kwargs)
    if mode.recording.composite.proportional:
        y = torch.relu(x)  # autograd's backward is the rule: y / x is its derivative
    else:
        with torch.no_grad():
            y = torch.relu(x)
        y = Activation.apply(x, y, False)
    mode.learn(y, replace(mode.of(x), nonnegative=True, near_input=False, made_by=None))
    return mode.now(x, y) if in_place else y


def _activation(nonnegative: bool, mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    x, in_place = _inplace(func, args, kwargs)
    _only_input(mode, func, x, *args[1:], *kwargs.values())
    with torch.no_grad():
        y = _out_of_place(func)(x, *args[1:], **{k: v for k, v in kwargs.items() if k not in ("inplace", "input")})
        y = y.clone() if y is x else y
    y = Activation.apply(x, y, mode.recording.composite.proportional)
    kept = nonnegative or mode.of(x).nonnegative
    mode.learn(y, replace(mode.of(x), nonnegative=kept, near_input=False, made_by=None))
    return mode.now(x, y) if in_place else y


def _dropout(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    return args[0] if args else kwargs["input"]  # a model is explained as in eval


# Data movement, pooling, means: autograd's backward is the rule


def _movement(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Values move and are not mixed; the numbers of their neurons move with them."""
    result = func(*args, **kwargs)
    sources = [mode.of(t) if mode.known(t) else Facts(nonnegative=False) for t in tensors_in((args, kwargs.values()))]
    facts = Facts(all(s.nonnegative for s in sources), all(s.near_input for s in sources))
    ids = None
    if mode.recording.want_edges:

        def as_ids(value: Any) -> Any:
            if isinstance(value, list | tuple):
                return type(value)(map(as_ids, value)) if any(True for _ in tensors_in(value)) else value
            return mode.of(value).ids.expand(value.shape) if mode.known(value) else value  # type: ignore[union-attr]

        try:
            ids = func(*as_ids(args), **{k: as_ids(v) for k, v in kwargs.items()})
        except Exception:  # not followed: an error only if an edge asks for it
            ids = None
    for t, i in zip(tensors_in((result,)), tensors_in((ids,)) if ids is not None else iter(lambda: None, 0), strict=False):
        mode.learn(t, replace(facts, ids=_compact(i) if i is not None else None))
    return result


def _compact(ids: Tensor) -> Tensor:
    """Dimensions over which the numbers do not change, the samples' first of all, brought to size 1."""
    for dim in range(ids.ndim):
        first = ids.narrow(dim, 0, 1)
        if ids.stride(dim) == 0 or (dim != 1 and torch.equal(first.expand_as(ids), ids)):
            ids = first
    return ids


def _channelwise(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Pooling: values of one channel are mixed or chosen from, channels are not."""
    result = func(*args, **kwargs)
    x = next(t for t in tensors_in((args, kwargs.values())) if mode.known(t))
    facts = mode.of(x)
    one_per_channel = facts.ids is not None and facts.ids.ndim > 1 and facts.ids.numel() == facts.ids.shape[1]
    for t in tensors_in((result,)):
        if t.requires_grad:
            mode.learn(t, Facts(facts.nonnegative, dim=facts.dim, ids=facts.ids if one_per_channel else None))
    return result


def _reduction(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    """Sum or mean over dimensions; a neuron's values must not meet another's for its edges to be known."""
    result = func(*args, **kwargs)

    def parse(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> tuple:
        return input, dim, keepdim

    x, dim, keepdim = _arguments(parse, args, kwargs)
    facts, ids = mode.of(x), None
    if facts.ids is not None and dim is not None:
        least, most = facts.ids.amin(dim, keepdim=keepdim), facts.ids.amax(dim, keepdim=keepdim)
        ids = most if torch.equal(least, most) else None
    return mode.learn(result, Facts(facts.nonnegative, ids=ids))


# Sums and products


def _sum_of_two(sign: float, mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    def parse(input: Any, other: Any, *, alpha: float = 1) -> tuple:
        return input, other, alpha

    in_place = _is_in_place(func)
    first, second, alpha = _arguments(parse, args, kwargs)
    factor = sign * alpha
    y = torch.add(first, second, alpha=factor) if isinstance(first, Tensor) else first + factor * second
    if mode.known(first) and mode.known(second):
        nonnegative = factor > 0 and mode.of(first).nonnegative and mode.of(second).nonnegative
        mode.junction(y, [(first, 1.0), (second, factor)], nonnegative)
    elif mode.known(first):
        mode.constant_added(y, first, second, factor)
    else:
        mode.constant_added(y, second, first, 1.0)
    return mode.now(first, y) if in_place else y


def _reversed_sub(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    x, other = args
    return _sum_of_two(-1.0, mode, torch.sub, (other, x), kwargs)


def _scaling(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    """Multiplication or division by a constant: linear without a bias, so autograd's backward is the rule."""
    x, other = (args + tuple(v for k, v in kwargs.items() if k == "other"))[:2]
    divides = getattr(func, "__name__", "").strip("_") in ("div", "divide", "true_divide", "truediv")
    if (mode.known(x) and mode.known(other)) or (divides and mode.known(other)):
        raise mode.unsupported(func, "a product of two signals has no rule yet")
    in_place = _is_in_place(func)
    y = _out_of_place(func)(x, other, **{k: v for k, v in kwargs.items() if k != "other"})
    signal, constant = (x, other) if mode.known(x) else (other, x)
    facts = mode.of(signal)
    positive = isinstance(constant, int | float) and constant >= 0
    ids = facts.ids if y.shape == signal.shape else None
    mode.learn(y, Facts(facts.nonnegative and positive, facts.near_input, facts.dim, ids))
    return mode.now(x, y) if in_place else y


def _negation(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    y = torch.neg(args[0])
    return mode.learn(y, replace(mode.of(args[0]), nonnegative=False, made_by=None))


# Reading arguments as the operator itself would


def _arguments(parse: Callable[..., tuple], args: tuple, kwargs: dict[str, Any]) -> tuple:
    return parse(*args, **kwargs)


def _is_in_place(func: Callable) -> bool:
    name = getattr(func, "__name__", "")
    if name.startswith("__"):
        return name.startswith("__i") and name != "__invert__"
    return name.endswith("_")


def _out_of_place(func: Callable) -> Callable:
    """The same operator without the in-place."""
    if not _is_in_place(func):
        return func
    name = func.__name__.removeprefix("__i").strip("_")
    for owner in (torch, Tensor, F):
        if hasattr(owner, name):
            return getattr(owner, name)
    raise AssertionError(f"no out-of-place form of {func}")


def _inplace(func: Callable, args: tuple, kwargs: dict[str, Any]) -> tuple[Tensor, bool]:
    """The input of an activation, and whether it is to be changed in place."""
    x = args[0] if args else kwargs["input"]
    asked = kwargs.get("inplace", False)
    if not asked and not _is_in_place(func) and len(args) > 1 and func in _TAKES_INPLACE:
        position = list(inspect.signature(func).parameters).index("inplace")
        asked = len(args) > position and args[position]
    return x, bool(asked) or _is_in_place(func)


_TAKES_INPLACE = {f for f in vars(F).values() if inspect.isfunction(f) and "inplace" in inspect.signature(f).parameters}

_row(_linear, "linear")
for _spatial in (1, 2, 3):
    _row(partial(_convolution, _spatial), f"conv{_spatial}d")
_row(_batch_norm, "batch_norm")
_row(_relu, "relu", "relu_")
_row(partial(_activation, True), "relu6", "relu6_", "hardsigmoid")
_row(partial(_activation, False), "leaky_relu", "leaky_relu_", "elu", "elu_", "hardtanh", "hardtanh_", "tanh", "tanh_")
_row(_dropout, "dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout",
     "feature_alpha_dropout")  # fmt: skip
_row(_movement, "flatten", "view", "view_as", "reshape", "reshape_as", "permute", "transpose", "squeeze", "unsqueeze", "cat",
     "concat", "concatenate", "stack", "split", "chunk", "unbind", "narrow", "select", "__getitem__", "contiguous", "expand",
     "expand_as", "movedim", "swapaxes", "unflatten", "clone", "flip", "roll", "pad", "t", "channel_shuffle",
     "pixel_shuffle", "pixel_unshuffle", "alias")  # fmt: skip
_row(_channelwise, *(f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max") for n in (1, 2, 3)),
     *(f"{kind}_pool{n}d_with_indices" for kind in ("max", "adaptive_max") for n in (1, 2, 3)))  # fmt: skip
_row(_reduction, "mean", "sum")
_row(partial(_sum_of_two, 1.0), "add", "add_", "__add__", "__radd__", "__iadd__")
_row(partial(_sum_of_two, -1.0), "sub", "sub_", "subtract", "subtract_", "__sub__", "__isub__")
_row(_reversed_sub, "__rsub__")
_row(_scaling, "mul", "mul_", "multiply", "multiply_", "div", "div_", "divide", "divide_", "true_divide", "true_divide_",
     "__mul__", "__rmul__", "__imul__", "__truediv__", "__itruediv__")  # fmt: skip
_row(_negation, "neg", "negative", "__neg__")

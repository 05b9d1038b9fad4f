"""Data movement, choices, pooling, and linear operators without parameters: autograd's backward is the rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lrp_lightning.engine.affine import away_from_zero
from lrp_lightning.engine.mode import Facts, RelevanceMode, tensors_in
from lrp_lightning.engine.rows.arguments import Row, is_in_place, named, out_of_place

__all__ = ["ROWS", "linear_without_bias", "movement"]


def movement(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Values move and are not mixed; the numbers of their neurons move with them."""
    name = getattr(func, "__name__", "")
    if name in _ONLY_SHAPE_OF_SECOND and not mode.known(args[0]):
        with torch.no_grad():
            return func(*args, **kwargs)
    result = func(*args, **kwargs)
    if name in _SAME_VALUES and result.shape == args[0].shape:
        return result if result is args[0] else mode.learn(result, mode.of(args[0]))
    given = list(tensors_in((args, kwargs.values())))
    known = [mode.of(t) for t in given if mode.known(t)]
    constants = any(t.is_floating_point() and not mode.known(t) for t in given)
    facts = Facts(
        nonnegative=all(f.nonnegative for f in known) and not constants,
        near_input=all(f.near_input for f in known),
        gate=all(f.gate for f in known),
    )
    ids = _moved_ids(mode, func, args, kwargs) if mode.recording.want_edges and not constants else None
    for t, i in zip(tensors_in((result,)), tensors_in((ids,)) if ids is not None else iter(lambda: None, 0), strict=False):
        if t.is_floating_point() and all(t is not x for x in given):
            mode.learn(t, Facts(facts.nonnegative, facts.near_input, facts.gate, ids=_compact(i) if i is not None else None))
            if constants:
                _count_constants(mode, func, t, args, kwargs)
    return result


def _moved_ids(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """The numbers of the neurons, moved by the same operator; None where that cannot be followed."""

    def as_ids(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(map(as_ids, value)) if any(True for _ in tensors_in(value)) else value
        return mode.of(value).ids.expand(value.shape) if mode.known(value) else value  # type: ignore[union-attr]

    try:
        return func(*as_ids(args), **{k: as_ids(v) for k, v in kwargs.items()})
    except Exception:  # an error only if an edge asks for it
        return None


def _compact(ids: Tensor) -> Tensor:
    """Dimensions over which the numbers do not change, the samples' first of all, brought to size 1."""
    for dim in range(ids.ndim):
        first = ids.narrow(dim, 0, 1)
        if ids.stride(dim) == 0 or (dim != 1 and torch.equal(first.expand_as(ids), ids)):
            ids = first
    return ids


def _count_constants(mode: RelevanceMode, func: Callable, y: Tensor, args: tuple, kwargs: dict[str, Any]) -> None:
    """Count the relevance of constants that were joined to what carries relevance: a class token, a value filled in."""

    def signals_as_zero(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(map(signals_as_zero, value)) if any(True for _ in tensors_in(value)) else value
        return torch.zeros_like(value) if mode.known(value) else value

    with torch.no_grad():
        constant = func(*signals_as_zero(args), **{k: signals_as_zero(v) for k, v in kwargs.items()})
    if isinstance(constant, Tensor) and constant.shape == y.shape and constant.dtype == y.dtype:
        parameters = (mode.names.of_parameter.get(id(t)) for t in mode.sources((args, kwargs.values())))
        where = next(filter(None, parameters), None) or mode.names.here("constant")
        mode.count(y, constant, where)


def _fill(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Some values replaced by a constant, or by another tensor's: what the constant carries is counted."""
    in_place = is_in_place(func)
    plain = out_of_place(func)
    y = movement(mode, plain, args, kwargs)
    mode.learn(y, Facts(False, mode.of(y).near_input, mode.of(y).gate, ids=mode.of(y).ids))
    if not any(t.is_floating_point() and not mode.known(t) for t in tensors_in((args, kwargs.values()))):
        _count_constants(mode, plain, y, args, kwargs)  # a number, not a tensor, was filled in
    return mode.now(args[0], y) if in_place else y


def _pad(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    def parse(input: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> float:
        return value or 0.0

    if parse(*args, **kwargs) != 0.0:
        return _fill(mode, func, args, kwargs)
    y = movement(mode, func, args, kwargs)
    x, *rest = args if args else (kwargs["input"],)
    if not mode.recording.composite.proportional_below(first=mode.of(x).near_input):
        with torch.no_grad():  # a rule that gives relevance to inputs of zero gives it to padding too, where it stays
            beside = func(torch.ones_like(x), *rest, **{k: v for k, v in kwargs.items() if k != "input"}) == 0
            mode.count(y, torch.where(beside, away_from_zero(torch.zeros_like(y)), 0), mode.names.here("padding"))
    return y


def _set_item(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> None:
    """``x[index] = value``, run out of place."""
    x, index, value = args

    def assigned(x: Tensor, value: Any) -> Tensor:
        y = x.clone()
        y[index] = value
        return y

    y = movement(mode, assigned, (x, value), {})
    mode.learn(y, Facts(ids=mode.of(y).ids))
    if not isinstance(value, Tensor) and value != 0:
        _count_constants(mode, assigned, y, (x, value), {})
    mode.now(x, y)


def _copy(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    x, source = args[:2]
    y = source.expand(x.shape).to(x.dtype)
    if mode.known(source):
        mode.learn(y, Facts(nonnegative=mode.of(source).nonnegative))
    return mode.now(x, y)


def _zero(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    return mode.now(args[0], torch.zeros_like(args[0]))


def _choice(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """The greater or smaller of values: where from is not known before, so neurons are not followed."""
    known = [t for t in tensors_in((args, kwargs.values())) if mode.known(t)]
    nonnegative = all(mode.of(t).nonnegative for t in known)
    result = mode.with_account(func, args, kwargs, "constant")
    for t in tensors_in((result,)):
        if t.is_floating_point():
            mode.learn(t, Facts(nonnegative))
    return result


def _channelwise(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Pooling: values of one channel are mixed or chosen from, channels are not."""
    result = func(*args, **kwargs)
    x = next(t for t in tensors_in((args, kwargs.values())) if mode.known(t))
    facts = mode.of(x)
    one_per_channel = facts.ids is not None and facts.ids.ndim > 1 and facts.ids.numel() == facts.ids.shape[1]
    for t in tensors_in((result,)):
        if t.is_floating_point():
            ids = facts.ids if one_per_channel else None
            mode.learn(t, Facts(facts.nonnegative, gate=facts.gate, dim=facts.dim, ids=ids))
    return result


def _sampled(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    """Values read between others at places; the places, where they depend on the input, are constants."""

    def parse(input: Tensor, grid: Tensor, *how: Any, **named: Any) -> tuple:
        return input, grid.detach(), *how

    named = {k: v for k, v in kwargs.items() if k not in ("input", "grid")}
    return _channelwise(mode, func, parse(*args, **kwargs), named)


def _reduction(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Sum, mean or greatest over dimensions; a neuron's values must not meet another's for its edges to be known."""
    result = func(*args, **kwargs)

    def parse(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, axis: Any = None) -> tuple:
        return input, dim if axis is None else axis, keepdim

    x, dim, keepdim = parse(*args, **kwargs)
    facts, ids = mode.of(x), None
    if facts.ids is not None and dim is not None:
        least, most = facts.ids.amin(dim, keepdim=keepdim), facts.ids.amax(dim, keepdim=keepdim)
        ids = most if torch.equal(least, most) else None
    for t in tensors_in((result,)):
        if t.is_floating_point():
            mode.learn(t, Facts(facts.nonnegative, gate=facts.gate, ids=ids))
    return result


def linear_without_bias(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Linear in its inputs, so autograd's backward is the rule; how it mixes channels is not followed."""
    result = func(*args, **kwargs)
    for t in tensors_in((result,)):
        if t.is_floating_point():
            mode.learn(t, Facts())
    return result


def _statistic(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """A scale of the signal (a norm, a deviation): a gate, since what it divides or multiplies is not made by it."""
    result = func(*args, **kwargs)
    for t in tensors_in((result,)):
        if t.is_floating_point():
            mode.learn(t, Facts(nonnegative=True, gate=True))
    return result


_SAME_VALUES = ("view_as", "clone", "contiguous", "alias", "to", "type_as", "type", "float", "double", "half", "bfloat16",
                "cpu", "cuda", "requires_grad_")  # fmt: skip
_ONLY_SHAPE_OF_SECOND = ("expand_as", "view_as", "reshape_as", "type_as", "to")
_KINDS = ("max_pool{}d", "max_pool{}d_with_indices", "adaptive_max_pool{}d", "adaptive_max_pool{}d_with_indices",
          "avg_pool{}d", "adaptive_avg_pool{}d", "max_unpool{}d")  # fmt: skip
_POOLINGS = " ".join(kind.format(n) for kind in _KINDS for n in (1, 2, 3))

ROWS: dict[str, Row] = {
    **named(
        movement,
        """flatten ravel view view_as reshape reshape_as permute transpose squeeze unsqueeze cat concat concatenate stack
        hstack vstack dstack column_stack split tensor_split split_with_sizes chunk unbind narrow select __getitem__
        contiguous expand expand_as broadcast_to broadcast_tensors movedim moveaxis swapaxes swapdims unflatten clone
        flip fliplr flipud rot90 roll t adjoint T.__get__ mT.__get__ channel_shuffle native_channel_shuffle
        pixel_shuffle pixel_unshuffle alias unfold im2col repeat repeat_interleave tile index_select gather take
        take_along_dim masked_select diagonal diag_embed to type_as type float double half bfloat16 cpu cuda
        requires_grad_ select_scatter slice_scatter diagonal_scatter index_put scatter meshgrid atleast_1d atleast_2d
        atleast_3d tril triu""",
    ),
    **named(_choice, "maximum minimum fmax fmin max min amax amin topk sort cummax cummin median kthvalue"),
    **named(
        _fill,
        """where masked_fill masked_fill_ index_fill index_fill_ fill_ masked_scatter masked_scatter_ index_copy index_copy_
        scatter_ index_put_""",
    ),
    "pad": _pad,
    "__setitem__": _set_item,
    "copy_": _copy,
    "zero_": _zero,
    "grid_sample": _sampled,
    **named(_channelwise, f"{_POOLINGS} interpolate upsample upsample_nearest upsample_bilinear"),
    **named(_reduction, "mean sum"),
    **named(linear_without_bias, "cumsum fold col2im nansum nanmean trace diff"),
    **named(_statistic, "norm std var linalg_norm vector_norm linalg_vector_norm cosine_similarity var_mean std_mean"),
}

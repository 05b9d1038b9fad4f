"""Data movement, choices, pooling, and linear operators without parameters: autograd's backward is the rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lrp_lightning.engine.affine import away_from_zero
from lrp_lightning.engine.mode import Facts, RelevanceMode, tensors_in
from lrp_lightning.engine.origins import NOBODY, averaged, compact, mixed, of_ndim
from lrp_lightning.engine.rows.arguments import Row, is_in_place, named, out_of_place

__all__ = ["ROWS", "followed_by_mean", "linear_without_bias", "movement"]


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
    ids = _moved_ids(mode, func, args, kwargs) if mode.recording.follows else None
    for t, i in zip(tensors_in((result,)), tensors_in((ids,)) if ids is not None else iter(lambda: None, 0), strict=False):
        if t.is_floating_point() and all(t is not x for x in given):
            mode.learn(t, Facts(facts.nonnegative, facts.near_input, facts.gate, ids=compact(i) if i is not None else None))
            if constants:
                _count_constants(mode, func, t, args, kwargs)
    return result


def _moved_ids(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any], filled: bool = False) -> Any:
    """The numbers of the neurons, moved by the same operator; None where that cannot be followed.

    Constants are nobody's; so are numbers among the arguments that are values to be ``filled`` in.
    """
    whole_too = filled and "index" not in func.__name__ and "scatter" not in func.__name__  # there they are dimensions

    def as_ids(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(map(as_ids, value)) if any(True for _ in tensors_in(value)) else value
        if mode.known(value):
            return mode.of(value).ids.expand(value.shape)  # type: ignore[union-attr]
        if isinstance(value, Tensor):
            return torch.full(value.shape, NOBODY) if value.is_floating_point() else value.cpu()
        return NOBODY if isinstance(value, float) or (whole_too and type(value) is int) else value

    if any(mode.of(t).ids is None for t in mode.sources((args, kwargs.values()))):
        return None
    views: dict[str, Callable] = {"view": torch.Tensor.reshape, "view_as": torch.Tensor.reshape_as}
    try:
        return views.get(func.__name__, func)(*as_ids(args), **{k: as_ids(v) for k, v in kwargs.items()})
    except Exception:  # an error only if an edge asks for it
        return None


def followed_by_mean(
    mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any], signal: Tensor
) -> Tensor | None:
    """The numbers of the neurons after an operator that is linear in ``signal``; None where several met in one value."""
    ids = mode.of(signal).ids
    if ids is None:
        return None
    whole = ids.expand(signal.shape).double()

    def values(of_signal: Callable[[Tensor], Tensor]) -> tuple[tuple, dict[str, Any]]:
        def value(v: Any) -> Any:
            if isinstance(v, list | tuple):
                return type(v)(map(value, v)) if any(True for _ in tensors_in(v)) else v
            if v is signal:
                return of_signal(whole)
            return torch.ones(v.shape, dtype=whole.dtype) if isinstance(v, Tensor) and v.is_floating_point() else v

        return value(args), {k: value(v) for k, v in kwargs.items()}

    try:
        return averaged(func, values, ids)
    except Exception:  # an error only if an edge asks for it
        return None


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
    ids = _moved_ids(mode, plain, args, kwargs, filled=True) if mode.recording.follows else None
    mode.learn(y, Facts(False, mode.of(y).near_input, mode.of(y).gate, ids=None if ids is None else compact(ids)))
    if not any(t.is_floating_point() and not mode.known(t) for t in tensors_in((args, kwargs.values()))):
        _count_constants(mode, plain, y, args, kwargs)  # a number, not a tensor, was filled in
    return mode.now(args[0], y) if in_place else y


def _pad(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    def parse(input: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> tuple:
        return input, list(pad), mode, value or 0.0

    x, pad, how, value = parse(*args, **kwargs)
    y = (movement if value == 0.0 else _fill)(mode, func, args, kwargs)
    silent = value == 0.0 and mode.recording.proportional_below(first=mode.of(x).near_input)
    if how == "constant" and mode.of(x).ids is not None:
        mode.learn(y, replace(mode.of(y), ids=_padded_ids(mode.of(x).ids, x, pad, silent)))  # type: ignore[arg-type]
    if value == 0.0 and not silent:
        rest = args[1:]
        with torch.no_grad():  # a rule that gives relevance to inputs of zero gives it to padding too, where it stays
            beside = func(torch.ones_like(x), *rest, **{k: v for k, v in kwargs.items() if k != "input"}) == 0
            mode.count(y, torch.where(beside, away_from_zero(torch.zeros_like(y)), 0), mode.names.here("padding"))
    return y


def _padded_ids(ids: Tensor, x: Tensor, pad: list[int], silent: bool) -> Tensor:
    """What is filled in is nobody's; what carries nothing is left to the neuron whose values are around it."""
    for place, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        dim = x.ndim - 1 - place
        if ids.shape[dim] > 1 or not silent:
            whole = ids.expand([*ids.shape[:dim], x.shape[dim], *ids.shape[dim + 1 :]])
            ids = torch.nn.functional.pad(whole, [*[0] * (2 * place), before, after], value=NOBODY)
    return ids


def _set_item(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> None:
    """``x[index] = value``, run out of place."""
    x, index, value = args

    def assigned(x: Tensor, value: Any) -> Tensor:
        y = x.clone()
        y[index] = value
        return y

    y = movement(mode, assigned, (x, value), {})
    ids = _moved_ids(mode, assigned, (x, value), {}, filled=True) if mode.recording.follows else None
    mode.learn(y, Facts(ids=None if ids is None else compact(ids)))
    if not isinstance(value, Tensor) and value != 0:
        _count_constants(mode, assigned, y, (x, value), {})
    mode.now(x, y)


def _copy(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    x, source = args[:2]
    y = source.expand(x.shape).to(x.dtype)
    if mode.known(source):
        mode.learn(y, Facts(nonnegative=mode.of(source).nonnegative, ids=of_ndim(mode.of(source).ids, y.ndim)))
    return mode.now(x, y)


def _zero(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    return mode.now(args[0], torch.zeros_like(args[0]))


def _choice(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """The greater or smaller of values; neurons are followed where the values chosen from along a dimension are one's."""
    known = [t for t in tensors_in((args, kwargs.values())) if mode.known(t)]
    nonnegative = all(mode.of(t).nonnegative for t in known)
    result = mode.with_account(func, args, kwargs, "constant")
    ids = _chosen_ids(mode, func, args, kwargs) if mode.recording.follows and len(known) == 1 else None
    for t in tensors_in((result,)):
        if t.is_floating_point():
            mode.learn(t, Facts(nonnegative, ids=ids if ids is None or ids.ndim == t.ndim else None))
    return result


def _chosen_ids(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor | None:
    name = getattr(func, "__name__", "")
    if name in ("max", "min", "amax", "amin", "median"):
        x, dim, keepdim = _reduced(*args, **kwargs)
        return mixed(mode.of(x).ids, dim, keepdim)
    if name in ("topk", "sort", "kthvalue", "cummax", "cummin"):
        first = 2 if name in ("topk", "kthvalue") else 1
        dim = kwargs.get("dim", args[first] if len(args) > first else -1)
        return mixed(mode.of(args[0]).ids, dim) if isinstance(dim, int) and isinstance(args[0], Tensor) else None
    return None


def _channelwise(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Pooling: values of one channel are mixed or chosen from, channels are not."""
    x = next(t for t in tensors_in((args, kwargs.values())) if mode.known(t))
    relayed = mode.relay(x, 1) if mode.of(x).samples == 0 else x
    if relayed is not x:
        args, kwargs = _with(args, x, relayed), {k: relayed if v is x else v for k, v in kwargs.items()}
    result = func(*args, **kwargs)
    facts = mode.of(relayed)
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


def _with(args: tuple, old: Tensor, new: Tensor) -> tuple:
    return tuple(new if value is old else value for value in args)


def _reduced(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, axis: Any = None) -> tuple:
    """The arguments of a reduction; without a dimension it is over all."""
    return input, dim if axis is None else axis, keepdim


def _reduction(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Sum or mean over dimensions; a neuron's values must not meet another's for its edges to be known."""
    x, dim, keepdim = _reduced(*args, **kwargs)
    facts = mode.of(x)
    ids = mixed(facts.ids, dim, keepdim)
    gone = [d % x.ndim for d in ((dim,) if isinstance(dim, int) else dim or range(x.ndim))]
    if facts.ids is not None and ids is None and facts.dim is not None and facts.dim not in gone:
        relayed = mode.relay(x, facts.dim)
        args, kwargs = _with(args, x, relayed), {k: relayed if v is x else v for k, v in kwargs.items()}
        ids = mixed(mode.of(relayed).ids, dim, keepdim)
    result = func(*args, **kwargs)
    for t in tensors_in((result,)):
        if t.is_floating_point():
            mode.learn(t, Facts(facts.nonnegative, gate=facts.gate, ids=ids))
    return result


def linear_without_bias(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Linear in its inputs, so autograd's backward is the rule; neurons are followed where they do not meet."""
    result = func(*args, **kwargs)
    signals = mode.sources((args, kwargs.values()))
    follow = mode.recording.follows and len(signals) == 1 and isinstance(result, Tensor)
    ids = followed_by_mean(mode, func, args, kwargs, signals[0]) if follow else None
    for t in tensors_in((result,)):
        if t.is_floating_point():
            mode.learn(t, Facts(ids=ids))
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

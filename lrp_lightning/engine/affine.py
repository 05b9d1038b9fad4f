"""Affine maps, and the one backward that redistributes relevance through any of them by any rule.

The tensor in the backward pass is ``g``, with ``R = a * g`` for every activation ``a``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lrp_lightning.compat import is_recording
from lrp_lightning.composites import Kind
from lrp_lightning.engine.by_sample import BySample, per_neuron
from lrp_lightning.errors import RuleError
from lrp_lightning.rules import Group, Part, Rule

__all__ = [
    "AffineMap",
    "ChannelScale",
    "Convolution",
    "Linear",
    "UnitMap",
    "away_from_zero",
    "blocks",
    "by_samples",
    "counted",
    "hand_down",
    "magnitude",
    "relevance_of",
    "sums",
    "where_positive",
]

_BLOCK = 2**21
"""The number of output values in a block on a CPU, so that the allocator reuses memory instead of requesting more."""

_TINY = {dtype: torch.finfo(dtype).tiny for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)}

_NARROW = 16
"""Up to this number, input channels of a convolution on a CPU take the time of one, because vectors are zero-filled."""

_IN_CACHE = 2**19
"""The number of products of a linear layer in memory at a time."""


_Part = tuple[Tensor, Tensor, Tensor | None]
"""Input, weight and bias of a term."""


class AffineMap(Protocol):
    """``y = w a + b`` with its geometry, for any ``a``, ``w`` and ``b`` of the right shape."""

    @property
    def kind(self) -> Kind: ...

    def neurons(self, ndim: int) -> int:
        """The dimension of input and output that holds the neurons."""
        ...

    def mixed(self, a: Tensor, w: Tensor, y: Tensor) -> dict[int, int]:
        """The dimensions of the input over which values are summed, including that of neurons, with their output size."""
        ...

    def forward(self, a: Tensor, w: Tensor, b: Tensor | None) -> Tensor: ...

    def pull_back(self, s: Tensor, a: Tensor, w: Tensor, want_weight: bool) -> tuple[Tensor, Tensor | None]:
        """``w^T s``, and, on request, the gradient of ``sum(s * (w a))`` with respect to ``w``."""
        ...

    def edges(self, s: Tensor, a: Tensor, w: Tensor, dw: Tensor | None, run: int) -> Tensor:
        """``w * dw`` summed over the kernel, ``dw`` being the gradient of ``sum(s * (w a))`` with respect to ``w``.

        Every ``run`` successive features are also summed: ``(..., lower channels or features / run, upper channels)``.
        ``dw`` is computed if it is not given.
        """
        ...

    def weight_gradients(self, s: Tensor, a: Tensor, w: Tensor, n: int, samples: int) -> Tensor:
        """The gradient of ``sum(s * (w a))`` with respect to ``w`` for each of ``n`` samples, ``(n, *w.shape)``."""
        ...

    def scaled(self, w: Tensor, scale: Tensor) -> Tensor:
        """The weight with output channel ``o`` multiplied by ``scale[o]``."""
        ...


@dataclass(frozen=True)
class Linear:
    """``F.linear``; neurons are the last dimension."""

    kind: Kind = "linear"

    def neurons(self, ndim: int) -> int:
        return ndim - 1

    def mixed(self, a: Tensor, w: Tensor, y: Tensor) -> dict[int, int]:
        return {a.ndim - 1: y.shape[-1]}

    def forward(self, a: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return F.linear(a, w, b)

    def pull_back(self, s: Tensor, a: Tensor, w: Tensor, want_weight: bool) -> tuple[Tensor, Tensor | None]:
        return s @ w, None

    def edges(self, s: Tensor, a: Tensor, w: Tensor, dw: Tensor | None, run: int) -> Tensor:
        if dw is not None:
            return (w * dw).unflatten(-1, (-1, run)).sum(-1).transpose(-1, -2)
        s, a = s.flatten(0, -2), a.flatten(0, -2)
        found = w.new_empty(len(w), w.shape[1] // run)
        for rows in torch.arange(len(w)).split(max(1, _IN_CACHE // w.shape[1])):  # a full weight gradient may be large
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            products = (s[:, part].T @ a).mul_(w[part])
            found[part] = products if run == 1 else products.unflatten(1, (-1, run)).sum(2)
        return found.T

    def weight_gradients(self, s: Tensor, a: Tensor, w: Tensor, n: int, samples: int) -> Tensor:
        s, a = (t.movedim(samples, 0).reshape(n, -1, t.shape[-1]) for t in (s, a))
        return s.transpose(1, 2) @ a

    def scaled(self, w: Tensor, scale: Tensor) -> Tensor:
        return w * scale[:, None]


@dataclass(frozen=True)
class Convolution:
    """Convolution of any dimension; neurons are dimension 1."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool = False
    output_padding: tuple[int, ...] = ()
    more_right: tuple[int, ...] = ()
    """Additional zeros on the right, one number per spatial dimension; empty if there are none."""
    kind: Kind = "convolution"

    def neurons(self, ndim: int) -> int:
        return 1

    def mixed(self, a: Tensor, w: Tensor, y: Tensor) -> dict[int, int]:
        kernel, before, after = w.shape, a.shape, y.shape
        return {d: size for d, size in enumerate(after) if d == 1 or (d > 1 and (kernel[d] > 1 or before[d] != size))}

    @cached_property
    def _geometry(self) -> tuple:
        output_padding = self.output_padding or (0,) * len(self.stride)
        return self.stride, self.padding, self.dilation, self.transposed, output_padding, self.groups

    def forward(self, a: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return torch.convolution(self._padded(a), w, b, *self._geometry)

    def _padded(self, a: Tensor) -> Tensor:
        return F.pad(a, [n for right in reversed(self.more_right) for n in (0, right)]) if self.more_right else a

    def pull_back(self, s: Tensor, a: Tensor, w: Tensor, want_weight: bool) -> tuple[Tensor, Tensor | None]:
        wanted = [True, want_weight, False]
        ga, dw, _ = torch.ops.aten.convolution_backward(s, self._padded(a), w, None, *self._geometry, wanted)
        for dim in range(2, 2 + len(self.more_right)):
            ga = ga.narrow(dim, 0, a.shape[dim])
        return ga, dw

    def edges(self, s: Tensor, a: Tensor, w: Tensor, dw: Tensor | None, run: int) -> Tensor:
        assert dw is not None
        kernel = [-1 - d for d in range(len(self.stride))]
        by_channel = (w * dw).sum(kernel)  # (upper, lower / groups), transposed the reverse
        if not self.transposed:
            by_channel = by_channel.unflatten(-2, (self.groups, -1)).transpose(-1, -2).flatten(-3, -2)
        if self.groups == 1:
            return by_channel
        *several, lower, upper = by_channel.shape
        edges = by_channel.new_zeros(*several, self.groups, lower // self.groups, self.groups, upper)
        within = edges.diagonal(dim1=-4, dim2=-2)  # (lower / groups, upper / groups, groups)
        within.copy_(by_channel.unflatten(-2, (self.groups, -1)).movedim(-3, -1))
        return edges.flatten(-2).flatten(-3, -2)

    def weight_gradients(self, s: Tensor, a: Tensor, w: Tensor, n: int, samples: int) -> Tensor:
        a, rows = self._padded(a), len(a)  # samples side by side as groups of one convolution
        s, a = (t.reshape(1, rows * t.shape[1], *t.shape[2:]) for t in (s, a))
        apart = replace(self, groups=rows * self.groups)
        weights = w.repeat(rows, *[1] * (w.ndim - 1))
        _, dw, _ = torch.ops.aten.convolution_backward(s, a, weights, None, *apart._geometry, [False, True, False])
        return dw.unflatten(0, (n, rows // n, -1)).sum(1)

    def scaled(self, w: Tensor, scale: Tensor) -> Tensor:
        if not self.transposed:
            return w * scale.view(-1, *[1] * (w.ndim - 1))
        by_group = scale.view(self.groups, 1, -1, *[1] * (w.ndim - 2))
        return (w.unflatten(0, (self.groups, -1)) * by_group).flatten(0, 1)


@dataclass(frozen=True)
class ChannelScale:
    """A diagonal map with one weight and bias per channel (dimension 1), for a normalisation that is not folded."""

    kind: Kind = "normalisation"

    def neurons(self, ndim: int) -> int:
        return 1

    def mixed(self, a: Tensor, w: Tensor, y: Tensor) -> dict[int, int]:
        return {1: y.shape[1]}

    def _wide(self, v: Tensor, a: Tensor) -> Tensor:
        return v.view(1, -1, *[1] * (a.ndim - 2))

    def forward(self, a: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        z = a * self._wide(w, a)
        return z if b is None else z + self._wide(b, a)

    def pull_back(self, s: Tensor, a: Tensor, w: Tensor, want_weight: bool) -> tuple[Tensor, Tensor | None]:
        dw = (s * a).sum([d for d in range(a.ndim) if d != 1]) if want_weight else None
        return s * self._wide(w, a), dw

    def edges(self, s: Tensor, a: Tensor, w: Tensor, dw: Tensor | None, run: int) -> Tensor:
        assert dw is not None
        return (w * dw).diag_embed()

    def weight_gradients(self, s: Tensor, a: Tensor, w: Tensor, n: int, samples: int) -> Tensor:
        return per_neuron(s * a, 1, 0).unflatten(0, (n, -1)).sum(1)

    def scaled(self, w: Tensor, scale: Tensor) -> Tensor:
        return w * scale


def relevance_of(a: Tensor, g: Tensor, proportional: bool) -> Tensor:
    """``R`` from ``g``; activations of zero are replaced if a rule gives them relevance, as in the division."""
    if g.is_complex():
        return (a * g.conj()).real
    return a * g if proportional else away_from_zero(a) * g


def blocks(t: Tensor, rows: BySample) -> list[tuple[int, int]]:
    """The starts and lengths of blocks of whole samples, in the dimension that holds them.

    Intermediate values then need memory only for a block, which fits into caches and is reused by the allocator.
    """
    many = t.shape[rows.dim]
    if rows.owner is not None or t.device.type != "cpu" or not t.numel() or is_recording():
        return [(0, many)]
    at_once = min(max(1, _BLOCK * rows.n // t.numel()), rows.n)
    return [(start, min(at_once * rows.each, many - start)) for start in range(0, many, at_once * rows.each)]


def away_from_zero(a: Tensor) -> Tensor:
    """``a`` with replacements for values too small to divide by, so that ``R -> R / a -> R`` is exact."""
    tiny = _TINY[a.dtype] ** 0.5
    return torch.where(a.abs() < tiny, tiny, a)


def sums(t: Tensor, rows: BySample) -> Tensor:
    """The sum of each row of a tensor, to broadcast over it."""
    wide = torch.float32 if t.dtype == torch.float16 else t.dtype  # sums would soon exceed its largest number
    return t.sum([d for d in range(t.ndim) if d != rows.dim], keepdim=True, dtype=wide)


def magnitude(t: Tensor, rows: BySample, positive: bool = False) -> Tensor:
    """The sum of ``|t|`` in each sample, to broadcast over ``t``; see :func:`by_samples`.

    Args:
        positive: whether no value is negative.
    """
    # a norm reads t once, but on a CPU takes several times as long as |t| and its sum
    if positive or t.device.type == "cpu":
        return by_samples(sums(t if positive else t.abs(), rows), t, rows)
    others = [d for d in range(t.ndim) if d != rows.dim]
    wide = torch.float32 if t.dtype == torch.float16 else t.dtype
    return by_samples(torch.linalg.vector_norm(t, 1, others, keepdim=True, dtype=wide), t, rows)


def by_samples(of_rows: Tensor, t: Tensor, rows: BySample) -> Tensor:
    """Sums of the rows of ``t``, summed by sample, to broadcast over ``t``.

    The sums of samples with more or fewer values are scaled to the same number of values.
    """
    if rows.owner is not None:
        by_row = of_rows.flatten()
        each = t.numel() / max(len(by_row), 1)
        values = rows.sum(torch.full_like(by_row, each)).clamp(min=1)
        return rows.over(rows.sum(by_row) / values * (t.numel() / max(rows.n, 1)), t)
    return of_rows if rows.each == 1 else rows.over(rows.sum(of_rows.flatten()), t)


def where_positive(t: Tensor, of: Tensor) -> Tensor:
    """``t`` where ``of`` is positive, otherwise 0, in one vectorised operator instead of a comparison and a choice."""
    return torch.ops.aten.threshold_backward(t, of, 0)


def where_negative(t: Tensor, of: Tensor) -> Tensor:
    """``t`` where ``of`` is negative, otherwise 0."""
    return torch.ops.aten.hardtanh_backward(t, of, -math.inf, 0)


def _divided(
    r: Tensor, z: Tensor, rule: Rule, rows: BySample, size: Tensor | None, positive: bool, own: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """``s = r / z`` with a stabilised denominator, in ``r``'s memory; the denominator; and the scale of the stabiliser.

    Args:
        r: the relevance to divide, 0 where ``z`` is 0.
        z: the denominator.
        rule: says how the stabiliser is scaled.
        size: the :func:`magnitude` of ``z``, if known.
        rows: the positions of samples in both.
        positive: whether ``z`` is known to have no negative values.
        own: whether ``z`` may be overwritten.
    """
    if rule.relative:
        size = magnitude(z, rows, positive) if size is None else size
        scale = (size * (rule.eps * rows.n / max(z.numel(), 1))).to(z.dtype)
    else:
        scale = z.new_full((1,) * z.ndim, rule.eps)
    scale.clamp_(min=_TINY[z.dtype])
    if positive:
        kept = z.add_(scale) if own else z + scale
    else:  # away from zero
        moved = torch.copysign(scale, z)
        kept = z.add_(moved) if own else moved.add_(z)
    return r.div_(kept), kept, scale


class _Stays:
    """The relevance that the bias and the stabiliser of an affine map absorb; this base class does not count it."""

    def without_contribution(self, share: Tensor, z: Tensor, positive: bool) -> Tensor:
        """The relevance ``share``, set to 0 where ``z`` is 0; ``positive`` if ``z`` has no negative values."""
        return where_positive(share, z) if positive else share.masked_fill_(z == 0, 0)

    def divided(self, s: Tensor, z: Tensor, scale: Tensor, positive: bool, biases: Sequence[Tensor]) -> None:
        """Count a division by ``z``, which contains these biases and was moved by ``scale`` away from zero."""

    def totals(self) -> tuple[Tensor | None, Tensor | None]:
        """The relevance that bias and stabiliser absorbed, ``(rows, C)`` each; None if not counted."""
        return None, None


class _Counted(_Stays):
    """Counts it by neuron.

    Args:
        like: ``(rows, C)``, the relevance that arrived.
        neurons, samples: the dimensions of the output that hold the neurons and the samples.
    """

    def __init__(self, like: Tensor, neurons: int, samples: int) -> None:
        self.like, self.dims = like, (neurons, samples)
        self.bias: list[Tensor] = []
        self.stabiliser: list[Tensor] = []

    def without_contribution(self, share: Tensor, z: Tensor, positive: bool) -> Tensor:
        before = per_neuron(share, *self.dims)
        share = super().without_contribution(share, z, positive)
        self.stabiliser.append(before.sub_(per_neuron(share, *self.dims)))
        return share

    def divided(self, s: Tensor, z: Tensor, scale: Tensor, positive: bool, biases: Sequence[Tensor]) -> None:
        by_neuron = per_neuron(s, *self.dims)
        self.bias += [by_neuron * b for b in biases]
        taken = by_neuron * scale.reshape(-1, 1) if positive else per_neuron(torch.copysign(scale, z).mul_(s), *self.dims)
        self.stabiliser.append(taken)

    def totals(self) -> tuple[Tensor | None, Tensor | None]:
        bias, stabiliser = (reduce(torch.add, t) if t else torch.zeros_like(self.like) for t in (self.bias, self.stabiliser))
        return bias, stabiliser


class UnitMap(NamedTuple):
    """An affine map with its parameters, and how it propagates relevance."""

    op: AffineMap
    rule: Rule
    w: Tensor
    b: Tensor | None
    rows: BySample
    """The positions of samples in input and output."""
    nonnegative: bool
    """Whether its input is known to have no negative values."""
    rectified: bool
    """Whether its output is given rectified, because no relevance arrives at negative values."""
    proportional: bool
    """Whether an activation of zero never gets relevance, so that it is ``a g`` everywhere."""
    want_edges: bool = False
    """Whether to compute the relevance between all pairs of channels; with ``per_sample`` not summed over samples."""
    per_sample: bool = False
    accounts: bool = True
    """Whether to count the relevance that arrives, and that absorbed by bias and stabiliser."""
    run: int = 1
    """The number of successive input features that belong to one neuron and share its edges."""
    scale: Tensor | None = None
    """The factor of each neuron's weights by a normalisation, if it is not included in ``w``."""
    own: bool = False
    """Whether ``w`` may be overwritten."""

    def folded(self, scale: Tensor | None, y: Tensor) -> UnitMap:
        """The map with a normalisation's ``scale`` applied to the weights, or noted if the output is smaller than these."""
        if scale is None:
            return self
        plain = not self.want_edges and all(group.plain for group in self.rule.groups)
        if plain and y.numel() < self.w.numel():
            return self._replace(scale=scale)
        return self._replace(w=self.op.scaled(self.w, scale), own=True)


class HandedDown(NamedTuple):
    """The result of propagating relevance through an affine map."""

    g: Tensor
    """The ``g`` of the input, shaped like it."""
    arrived: Tensor | None
    """``(rows, C)``, the relevance that arrived at each neuron of the output, if requested."""
    bias: Tensor | None
    """``(rows, C)``, the part that the bias absorbed, if counted."""
    stabiliser: Tensor | None
    """``(rows, C)``, the part that the stabiliser absorbed, if counted."""
    edges: Tensor | None
    """``(lower channels or features, upper channels)``, summed over space and batch; or per sample, samples first."""


def counted(part: Tensor | None) -> Tensor:
    """A part of :class:`HandedDown` that was requested."""
    assert part is not None
    return part


def hand_down(
    unit: UnitMap,
    a: Tensor,
    y: Tensor,
    g: Tensor,
    select: Callable[[Tensor], Tensor | None] | None = None,
    size: Tensor | None = None,
) -> HandedDown:
    """Propagate the relevance ``y g`` of ``y = w a + b`` to ``a`` by a rule, a block of samples at a time.

    Args:
        unit: the affine map and its rule.
        a: its input, ``(N, ...)``.
        y: its output.
        g: ``y g`` is the relevance of the output.
        select: maps relevance by neuron, ``(rows, C)``, to the part to propagate, which broadcasts over ``y``.
        size: the output's :func:`magnitude`, if known.

    Raises:
        RuleError: if the rule passes relevance through but ``a`` and ``y`` differ in shape.
    """
    samples, neurons = unit.rows.dim, unit.op.neurons(y.ndim)
    places = blocks(y, unit.rows)
    summed = unit.accounts or select is not None or unit.rows.owner is not None  # some rows may belong to no sample

    def arriving(y: Tensor, g: Tensor) -> tuple[Tensor, Tensor | None]:
        r = relevance_of(y, g, unit.proportional)
        return r, per_neuron(r, neurons, samples) if summed else None

    if len(places) == 1:
        r, arrived = arriving(y, g)
        carried = None if select is None else select(counted(arrived))
        return _hand_down(unit, a, y, r if carried is None else r.mul_(carried), arrived, size)

    def within(start: int, many: int) -> tuple[Tensor, Tensor | None]:
        return arriving(y.narrow(samples, start, many), g.narrow(samples, start, many))

    carried = None
    if select is not None:
        carried = select(torch.cat([counted(within(*place)[1]) for place in places]))
    found: list[HandedDown] = []
    for start, many in places:
        r, arrived = within(start, many)
        if carried is not None:
            r.mul_(carried.narrow(samples, start, many))
        a_here, y_here = a.narrow(samples, start, many), y.narrow(samples, start, many)
        size_here = None if size is None else size.narrow(samples, start, many)
        part = unit._replace(rows=BySample(many // unit.rows.each, samples, unit.rows.each))
        here = _hand_down(part, a_here, y_here, r, arrived, size_here)
        whole = found[0].g if found else torch.empty_like(a)
        whole.narrow(samples, start, many).copy_(here.g)
        found.append(here._replace(g=whole))
        del r, here  # before the next block allocates memory
    arrived, bias, stabiliser = (
        None if parts[0] is None else torch.cat(parts) for parts in zip(*(here[1:4] for here in found), strict=True)
    )
    edges = [here.edges for here in found if here.edges is not None]
    joined = None if not edges else torch.cat(edges) if unit.per_sample else torch.stack(edges).sum(0)
    return HandedDown(found[0].g, arrived, bias, stabiliser, joined)


def _hand_down(unit: UnitMap, a: Tensor, y: Tensor, r: Tensor, arrived: Tensor | None, size: Tensor | None) -> HandedDown:
    """The same for one block: ``r`` is the relevance to propagate, which is overwritten, out of what ``arrived``."""
    op, rule, w, b, rows = unit.op, unit.rule, unit.w, unit.b, unit.rows
    samples, neurons = rows.dim, op.neurons(y.ndim)
    stays = _Counted(arrived, neurons, samples) if unit.accounts and arrived is not None else _Stays()
    if rule.passes:
        if a.shape != y.shape:
            raise RuleError(f"Pass() needs an input shaped like the output, got {tuple(a.shape)} and {tuple(y.shape)}")
        edges = None
        if unit.want_edges:
            by_neuron = per_neuron(r, neurons, samples)
            handed = rows.sum(by_neuron) if unit.per_sample else by_neuron.sum(0)
            edges = handed.diag_embed().unflatten(-2, (-1, unit.run)).sum(-2)
        return HandedDown(r / away_from_zero(a), arrived, *stays.totals(), edges)

    g_direct: Tensor | None = None  # from terms whose share of R is a * g
    r_other: Tensor | None = None  # from terms that give relevance even to an input of zero
    edges = None
    groups = [group for group in rule.groups if not unit.rectified or group.outputs.kind != "negative"]
    for group in groups:
        terms = [t for t in group.terms if not (unit.nonnegative and t.input.kind == "negative")]
        overwrite = unit.own and len(groups) == len(terms) == 1  # nothing reads all of w after this
        parts = [
            (
                a if unit.nonnegative and t.input.kind == "positive" else t.input(a),
                w.clamp_(min=0) if overwrite and t.weight.kind == "positive" else t.weight(w),
                None if b is None else t.bias(b),
            )
            for t in terms
        ]
        share = _share(group, y, r, last=group is groups[-1])
        joined = _joined(op, parts)
        z = y if group.plain else reduce(torch.Tensor.add_, (op.forward(*part) for part in joined))
        if not (group.plain or (unit.rectified and group.excitation)):  # there r is 0 where z is 0; here it may not be
            share = stays.without_contribution(share, z, group.excitation)
        positive = group.excitation or (group.plain and unit.rectified)
        s, z, scale = _divided(share, z, rule, rows, size if group.plain else None, positive, own=not group.plain)
        of_terms = (b for t, (*_, b) in zip(terms, parts, strict=True) if t.bias.kind != "constant")
        stays.divided(s, z, scale, positive, [b for b in of_terms if isinstance(b, Tensor)])
        del z  # before more memory is allocated
        if unit.scale is not None:
            s = s.mul_(unit.scale.view([-1 if d == neurons else 1 for d in range(s.ndim)]))
        pulled = _pulled_back(op, s, joined, len(terms), unit.want_edges and not unit.per_sample)
        for term, (a_part, w_part, _), (ga, dw) in zip(terms, parts, pulled, strict=True):
            if unit.want_edges and unit.per_sample:
                each = rows.n if rows.owner is None else y.shape[samples]
                dw = op.weight_gradients(s, a_part, w_part, each, samples)
                dw = dw if rows.owner is None else rows.sum(dw)
            if not term.input.proportional:
                r_other = a_part * ga if r_other is None else r_other + a_part * ga
            else:
                if a_part is not a and not unit.nonnegative:
                    ga = _where_part(ga, a, a_part, term.input)
                g_direct = ga if g_direct is None else g_direct.add_(ga)
            if unit.want_edges:
                part = op.edges(s, a_part, w_part, dw, unit.run)
                edges = part if edges is None else edges + part
    g = g_direct if g_direct is not None else torch.zeros_like(a)
    if r_other is not None:
        g = g + r_other / away_from_zero(a)
    return HandedDown(g, arrived, *stays.totals(), edges)


def _joined(op: AffineMap, parts: Sequence[_Part]) -> Sequence[_Part]:
    """The terms concatenated along channels into one term, if a convolution of few channels is then faster."""
    if len(parts) == 1 or not isinstance(op, Convolution) or op.groups > 1 or op.transposed:
        return parts
    inputs, weights, biases = zip(*parts, strict=True)
    if len(parts) * inputs[0].shape[1] > _NARROW:
        return parts
    return [(torch.cat(inputs, 1), torch.cat(weights, 1), None if biases[0] is None else reduce(torch.add, biases))]


def _pulled_back(
    op: AffineMap, s: Tensor, joined: Sequence[_Part], terms: int, want_weight: bool
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The result of :meth:`AffineMap.pull_back` for each term, joined or not, in order."""
    if len(joined) == terms:
        for a, w, _ in joined:
            yield op.pull_back(s, a, w, want_weight)
        return
    [(a, w, _)] = joined
    ga, dw = op.pull_back(s, a, w, want_weight)
    yield from zip(ga.chunk(terms, 1), [None] * terms if dw is None else dw.chunk(terms, 1), strict=True)


def _where_part(t: Tensor, a: Tensor, a_part: Tensor, part: Part) -> Tensor:
    """``t`` where ``a`` is in a part, otherwise 0; ``a`` of 0 counts as positive."""
    if part.kind == "positive":  # also where it is 0: for an input of 0, the limit from above per unit of input
        return t - where_negative(t, a)
    return where_negative(t, a) if part.kind == "negative" else t.masked_fill_(a_part == 0, 0)


def _share(group: Group, y: Tensor, r: Tensor, last: bool) -> Tensor:
    """A group's share of the relevance ``r``, in new memory, or in ``r``'s if ``r`` is not read again."""
    if group.outputs.kind != "identity":
        r = where_positive(r, y) if group.outputs.kind == "positive" else where_negative(r, y)
    elif not last:
        return r * group.share
    return r if group.share == 1 else r.mul_(group.share)

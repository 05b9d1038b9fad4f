"""The transplant test: does a small region of some samples, copied into samples of other classes, change their class?

Windows are boxes of images ``(N, C, H, W)``, intervals of sequences ``(N, C, L)``, or sets of features of ``(N, F)``; each
is a mask over the places of a sample, ``(H, W)``, ``(L,)`` or ``(F,)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Region", "Transplant", "densest", "transplant", "window_sizes"]

Region = tuple[int, ...]
"""``(top, left, height, width)`` in images, ``(start, length)`` in sequences, or the numbers of features."""

_SHARES = (0.1, 0.15, 0.2, 0.25)
"""Sides of windows, as shares of the side of an image or a sequence."""
_FEATURES = (1, 2, 4)
_GLANCED, _SCREENED, _CONFIRMED = 32, 64, 256
"""Numbers of pairs: to see whether a large window has an effect, to choose a window, and to judge it."""
_HALF, _NEARLY = 0.5, 0.75
"""Windows below the first share of the best effect are dropped; the smallest that reaches the second is chosen."""
_Z = 3.09
"""Normal quantile for one false alarm in a thousand tests of regions without effect."""


@dataclass(frozen=True)
class Transplant:
    """The result of copying a region from samples of a class into samples of other classes.

    Attributes:
        region: its place; if it moves from sample to sample, its place in the most typical sample.
        moves: whether each sample's own densest window is copied, instead of the same window for all samples.
        flipped: share of the other classes' samples that the copy turns into the class.
        control: the greater share of two controls: the densest window elsewhere, and the same window of the class's samples
            outside the strategy.
        bound: lower bound of ``flipped - control``, at a confidence of .999 (Newcombe 1998, method 10).
        pairs: number of pairs of samples.
    """

    region: Region
    moves: bool
    flipped: float
    control: float
    bound: float
    pairs: int


def window_sizes(places: Sequence[int], features: bool) -> list[tuple[int, ...]]:
    """The sizes of windows to try, smallest first.

    Args:
        places: ``(H, W)``, ``(L,)`` or ``(F,)``.
        features: whether places are features, any set of which is a window.
    """
    if features:
        return [(n,) for n in _FEATURES if n <= max(places[0] // 4, 1)]
    return list(dict.fromkeys(tuple(max(round(share * side), 1) for side in places) for share in _SHARES))


def densest(heat: Tensor, size: tuple[int, ...], features: bool = False, besides: Tensor | None = None) -> Tensor:
    """The window with the largest sum of each heatmap.

    Args:
        heat: ``(N, *places)``, not negative.
        size: of the window.
        features: whether any set of places is a window.
        besides: ``(N, *places)`` bool, windows to avoid; if overlap is inevitable, it is minimal.

    Returns:
        ``(N, *places)`` bool.
    """
    if features:
        free = heat if besides is None else heat.masked_fill(besides, -1.0)
        return torch.zeros_like(heat, dtype=torch.bool).scatter_(1, free.topk(size[0], dim=1).indices, True)
    flat = len(size) == 1
    maps, size = (heat[:, None], (1, *size)) if flat else (heat, size)
    held = F.avg_pool2d(maps[:, None], size, stride=1)[:, 0]
    if besides is not None:
        taken = (besides[:, None] if flat else besides).to(heat.dtype)
        overlap = F.avg_pool2d(taken[:, None], size, stride=1)[:, 0]
        held = held - overlap * (1 + held.amax((1, 2), keepdim=True)) * math.prod(size)
    at = held.flatten(1).argmax(1)
    rows, columns = (
        (first[:, None] <= torch.arange(side)) & (torch.arange(side) < first[:, None] + length)
        for first, side, length in zip((at // held.shape[2], at % held.shape[2]), maps.shape[1:], size, strict=True)
    )
    return (rows[:, :, None] & columns[:, None]).view(heat.shape)


def region_of(mask: Tensor, features: bool) -> Region:
    """The numbers that describe a window's place."""
    at = mask.nonzero()
    if features:
        return tuple(at.flatten().tolist())
    starts, ends = at.amin(0).tolist(), at.amax(0).tolist()
    return (*starts, *(end - start + 1 for start, end in zip(starts, ends, strict=True)))


def transplant(
    flips: Callable[[Tensor], Tensor],
    members: tuple[Tensor, Tensor],
    rest: tuple[Tensor, Tensor],
    hosts: Tensor,
    threshold: float,
) -> Transplant | None:
    """Choose the smallest region of a strategy with nearly the largest effect, and judge it on other pairs.

    Args:
        flips: a function that says whether samples are classified as the strategy's class, ``(N,) bool``.
        members: samples of the strategy, most typical first, and their heatmaps, ``(N, *places)``, not negative.
        rest: the same for the class's other strategies; may be empty.
        hosts: samples of other classes that are not classified as the strategy's class.
        threshold: if no window reaches this effect in the first pairs, or in those that choose, no further pairs are tested.

    Returns:
        The result; None without samples to copy from or into.
    """
    images, heat = members
    features = images.ndim == 2
    if not len(images) or not len(hosts):
        return None
    heat, rest = _shares(heat), (rest[0], _shares(rest[1]))
    sizes = window_sizes(heat.shape[1:], features)
    pairs = _Pairs(flips, (images, heat), rest, hosts)
    largest = [_Windows(sizes[-1], moves, features, heat) for moves in ((False,) if features else (False, True))]
    glanced = [pairs.flipped(windows, 0, _GLANCED) for windows in largest]
    if max(glanced) < threshold:
        return pairs.tested(largest[glanced.index(max(glanced))], 0, _GLANCED)
    kinds = [windows.moves for windows, flipped in zip(largest, glanced, strict=True) if flipped >= threshold]
    tried = [_Windows(size, moves, features, heat) for size in sizes for moves in kinds]
    flipped = [pairs.flipped(windows, 0, _SCREENED) for windows in tried]
    tried = [windows for windows, share in zip(tried, flipped, strict=True) if share >= _HALF * max(flipped)]
    screened = [pairs.tested(windows, 0, _SCREENED) for windows in tried]
    gains = [test.flipped - test.control for test in screened]
    if max(gains) < threshold:
        return screened[gains.index(max(gains))]
    chosen = next(i for i, gain in enumerate(gains) if gain >= _NEARLY * max(gains))
    return pairs.tested(tried[chosen], _SCREENED, _CONFIRMED)


class _Windows:
    """Windows of one size: the same one for all samples, or each sample's own densest."""

    def __init__(self, size: tuple[int, ...], moves: bool, features: bool, heat: Tensor) -> None:
        self.size, self.moves, self.features = size, moves, features
        self.common = densest(heat.mean(0, keepdim=True), size, features)

    def of(self, heat: Tensor) -> Tensor:
        """``(N, *places)`` bool."""
        return densest(heat, self.size, self.features) if self.moves else self.common.expand_as(heat)


@dataclass(frozen=True)
class _Pairs:
    """Samples to copy from and into, paired by number; see :func:`transplant`. Counts are cached."""

    flips: Callable[[Tensor], Tensor]
    members: tuple[Tensor, Tensor]
    rest: tuple[Tensor, Tensor]
    hosts: Tensor
    counted: dict[tuple[tuple[int, ...], bool, int, int], float] = field(default_factory=dict)

    def flipped(self, windows: _Windows, first: int, pairs: int) -> float:
        """The share of hosts that the members' windows turn into the class, over a range of pairs."""
        key, (images, heat) = (windows.size, windows.moves, first, pairs), self.members
        if key not in self.counted:
            self.counted[key] = self._share(images, windows.of(heat), first, pairs)
        return self.counted[key]

    def tested(self, windows: _Windows, first: int, pairs: int) -> Transplant:
        """The same, and that of the controls."""
        images, heat = self.members
        mine = windows.of(heat)
        elsewhere = densest(heat, windows.size, windows.features, besides=mine)
        flipped, controls = self.flipped(windows, first, pairs), [self._share(images, elsewhere, first, pairs)]
        if len(self.rest[0]):
            controls.append(self._share(self.rest[0], windows.of(self.rest[1]), first, pairs))
        control = max(controls)
        region = region_of(mine[0], windows.features)
        return Transplant(region, windows.moves, flipped, control, _lower_bound(flipped, control, pairs), pairs)

    def _share(self, of: Tensor, masks: Tensor, first: int, pairs: int) -> float:
        numbers, members, hosts = torch.arange(first, first + pairs), len(self.members[0]), len(self.hosts)
        host = numbers % hosts
        if math.gcd(members, hosts) > 1:  # otherwise the same samples would be paired again
            host = (host + numbers // math.lcm(members, hosts)) % hosts
        donor = numbers % len(of)
        given = masks[donor][:, None] if of.ndim > 2 else masks[donor]
        return self.flips(torch.where(given, of[donor], self.hosts[host])).double().mean().item()


def _shares(heat: Tensor) -> Tensor:
    """Each heatmap's positive part, normalised to sum 1."""
    heat = heat.clamp(min=0)
    return heat / heat.flatten(1).sum(1).clamp(min=torch.finfo(heat.dtype).tiny).view(-1, *[1] * (heat.ndim - 1))


def _lower_bound(one: float, other: float, n: int) -> float:
    """Lower bound of the difference of two shares of ``n``, from their Wilson intervals."""
    low, high = _wilson(one, n)[0], _wilson(other, n)[1]
    return one - other - math.sqrt((one - low) ** 2 + (high - other) ** 2)


def _wilson(share: float, n: int) -> tuple[float, float]:
    centre, width = share + _Z**2 / (2 * n), _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return (centre - width) / (1 + _Z**2 / n), (centre + width) / (1 + _Z**2 / n)

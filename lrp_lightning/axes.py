"""The algebra of axes: which sample, and which neuron, every value of a tensor belongs to.

An :class:`Axis` gives each value of a tensor a number, the sum of one term per dimension. A term is written as einops
composes a dimension, ``(outer labels inner)``: after ``torch.cat([x, x], 0)`` the samples are ``(2 n)``, after
``x.repeat_interleave(2, 0)`` they are ``(n 2)``. Both have 2N rows, in different orders.

Moves are algebra on axes. Each returns the axis of the result, or None if the numbers are no longer a sum over dimensions;
then the axis is unknown, and never assumed unchanged. Apart from shapes, this module does not use torch.

====================  ================================================================================
dimensions            ``permute`` ``insert`` ``drop`` ``resize`` ``reshape`` ``expand``
places along one      ``take`` (slices, flips, rolls, indices) ``select`` ``windows`` ``diagonal``
repetitions           ``repeat`` ``repeat_interleave``
several tensors       ``cat`` ``stack`` ``join`` (as broadcasting brings them together) ``write``
====================  ================================================================================
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

__all__ = ["NOBODY", "Axis", "Term", "broadcast_shapes", "cat", "join", "stack", "write"]

Labels = range | tuple[int, ...]
Shape = tuple[int, ...]
Factor = tuple[int, Labels | None]
"""Part of a dimension: its size, and the labels that it adds."""

NOBODY = -(2**62)
"""The label of values that belong to no sample or neuron, such as constants; sums that contain it are such labels too."""


class Term(NamedTuple):
    """What one dimension adds to a value's number: each label is repeated ``inner`` times, the whole ``outer`` times."""

    labels: Labels
    outer: int = 1
    inner: int = 1

    @property
    def plain(self) -> bool:
        """Whether each index of the dimension has a label of its own in ``labels``."""
        return self.outer == self.inner == 1

    def listed(self) -> Labels:
        """One label for each index of the dimension."""
        if self.plain:
            return self.labels
        return tuple(label for label in self.labels for _ in range(self.inner)) * self.outer


class Axis(NamedTuple):
    """The number of every value of a tensor of this ``shape``: ``base`` and what each of its dimensions adds.

    The term of a dimension along which the number does not change is None. Terms are kept in one form, their least label 0,
    so that equal numbers are equal axes.

    Example:
        >>> from lrp_lightning.axes import Axis, cat
        >>> x = Axis.along((3, 5), 0)
        >>> x, cat([x, x], 0), x.repeat_interleave(2, 0)
        (Axis((3*) 5), Axis((2 3*) 5), Axis((3* 2) 5))
        >>> x.permute((1, 0)).reshape((15,)), x.take(0, (2, 0, 1))
        (Axis((5 3*)), Axis((3*[2, 0, 1]) 5))
    """

    shape: Shape
    terms: tuple[Term | None, ...]
    base: int = 0

    @staticmethod
    def along(shape: Sequence[int], dim: int, labels: Labels | None = None) -> Axis:
        """Numbers that vary along one dimension: ``labels``, or 0, 1, 2, ..."""
        many = shape[dim]
        if many > 1 and (labels is None or (isinstance(labels, range) and labels.step == 1)):  # as it is most often
            terms: list[Term | None] = [None] * len(shape)
            terms[dim] = Term(range(many))
            return Axis(tuple(shape), tuple(terms), 0 if labels is None else labels[0])
        return Axis.constant(shape)._with(dim, range(many) if labels is None else labels)

    @staticmethod
    def constant(shape: Sequence[int], number: int = 0) -> Axis:
        """The same number everywhere."""
        return Axis(tuple(shape), (None,) * len(shape), number)

    @property
    def dims(self) -> list[int]:
        """The dimensions along which the number changes."""
        return [d for d, term in enumerate(self.terms) if term is not None]

    def listed(self, dim: int) -> Labels:
        """The number at each index of a dimension, where the other dimensions add nothing."""
        term = self.terms[dim]
        if term is None:
            return (self.base,) * self.shape[dim]
        return term.listed() if self.base == 0 else tuple(_plus(label, self.base) for label in term.listed())

    def is_along(self, dim: int) -> bool:
        """Whether the numbers are 0, 1, 2, ... along that dimension, and do not change along any other."""
        return self == Axis.along(self.shape, dim)

    # dimensions

    def permute(self, order: Sequence[int]) -> Axis:
        return Axis(tuple(self.shape[d] for d in order), tuple(self.terms[d] for d in order), self.base)

    def insert(self, dim: int, size: int = 1) -> Axis:
        """Insert a dimension at ``dim``, along which the number does not change."""
        return Axis((*self.shape[:dim], size, *self.shape[dim:]), (*self.terms[:dim], None, *self.terms[dim:]), self.base)

    def drop(self, dims: Iterable[int], keep: bool = False) -> Axis | None:
        """Without dimensions that were reduced; None if the reduced values have different numbers."""
        gone = set(dims)
        if self.alike_along(gone) is None:
            return None
        if keep:
            return Axis(tuple(1 if d in gone else size for d, size in enumerate(self.shape)), self.terms, self.base)
        return self.permute([d for d in range(len(self.shape)) if d not in gone])

    def alike_along(self, dims: Iterable[int]) -> Axis | None:
        """The axis itself, if its numbers do not vary along dimensions in which an operator mixes values; otherwise None."""
        for d in dims:
            if self.terms[d] is not None:
                return None
        return self

    def resize(self, sizes: dict[int, int]) -> Axis | None:
        """With other sizes of dimensions along which values were mixed; None if the mixed values have different numbers."""
        if self.alike_along(sizes) is None:
            return None
        shape = tuple([sizes.get(d, size) for d, size in enumerate(self.shape)])
        return self if shape == self.shape else Axis(shape, self.terms, self.base)

    def expand(self, shape: Sequence[int]) -> Axis:
        """As broadcasting expands a tensor: new dimensions in front, and dimensions of size 1 enlarged."""
        return Axis(tuple(shape), (*(None,) * (len(shape) - len(self.shape)), *self.terms), self.base)

    def reshape(self, shape: Sequence[int]) -> Axis | None:
        shape = tuple(shape)
        if shape == self.shape:
            return self
        if not any(self.terms) or 0 in shape:
            return Axis.constant(shape, self.base)
        found = _reshaped(self.shape, self.terms, shape)
        return None if found is None else Axis(shape, found[0], _plus(self.base, found[1]))

    # places along one dimension

    def take(self, dim: int, places: Sequence[int]) -> Axis:
        """The values at some places of a dimension, in any order; a place may occur several times."""
        term = self.terms[dim]
        if term is None:
            return Axis((*self.shape[:dim], len(places), *self.shape[dim + 1 :]), self.terms, self.base)
        listed = term.listed()
        if isinstance(places, range) and places.step > 0 and len(places):
            return self._with(dim, listed[places.start : places.stop : places.step])
        return self._with(dim, tuple(listed[place] for place in places))

    def select(self, dim: int, place: int) -> Axis:
        """The values at one place of a dimension, which is removed."""
        return self.take(dim, (place,)).permute([d for d in range(len(self.shape)) if d != dim])

    def windows(self, dim: int, size: int, step: int) -> Axis | None:
        """As ``Tensor.unfold``: windows along a dimension; the places inside a window are a new last dimension."""
        many = (self.shape[dim] - size) // step + 1
        wide = self.take(dim, (0,) * many).insert(len(self.shape), size)
        if self.terms[dim] is None:
            return wide
        listed = self.terms[dim].listed()  # type: ignore[union-attr]
        split = _split(tuple(listed[w * step + place] for w in range(many) for place in range(size)), [many, size])
        bare = Axis(wide.shape, (*wide.terms[:dim], None, *wide.terms[dim + 1 :]), self.base)
        return None if split is None else bare._with(dim, split[0])._with(len(self.shape), split[1])

    def diagonal(self, offset: int, one: int, other: int) -> Axis:
        """As ``Tensor.diagonal``: two dimensions are removed, and their diagonal becomes the last dimension."""
        bare = Axis(self.shape, self.terms)
        a, b = bare.listed(one), bare.listed(other)
        both = [_plus(a[i], b[i + offset]) for i in range(len(a)) if 0 <= i + offset < len(b)]
        left = [d for d in range(len(self.shape)) if d not in (one, other)]
        return self.permute(left).insert(len(left), len(both))._with(len(left), tuple(both))

    # repetitions

    def repeat(self, times: Sequence[int]) -> Axis:
        """As ``Tensor.repeat``: a dimension is repeated as a whole."""
        wide = self.expand((*(1,) * (len(times) - len(self.shape)), *self.shape))
        shape = tuple(size * t for size, t in zip(wide.shape, times, strict=True))
        if 0 in shape:
            return Axis.constant(shape, self.base)
        terms = (t and Term(t.labels, t.outer * many, t.inner) for t, many in zip(wide.terms, times, strict=True))
        return Axis(shape, tuple(terms), self.base)

    def repeat_interleave(self, times: int, dim: int) -> Axis:
        """As ``torch.repeat_interleave``: each index of a dimension is repeated."""
        return self.take(dim, tuple(place for place in range(self.shape[dim]) for _ in range(times)))

    # how it is made and shown

    def _with(self, dim: int, labels: Labels) -> Axis:
        """With these labels along a dimension instead of its own."""
        term, more = _canonical(Term(labels))
        shape = (*self.shape[:dim], len(labels), *self.shape[dim + 1 :])
        return Axis(shape, (*self.terms[:dim], term, *self.terms[dim + 1 :]), _plus(self.base, more))

    def _bare(self, dim: int) -> Axis:
        """The axis without the term of a dimension."""
        shape = (*self.shape[:dim], 1, *self.shape[dim + 1 :])
        return Axis(shape, (*self.terms[:dim], None, *self.terms[dim + 1 :]))

    @property
    def has_nobody(self) -> bool:
        """Whether some values belong to no sample or neuron."""
        terms = (term.labels for term in self.terms if term is not None and not isinstance(term.labels, range))
        return self.base == NOBODY or any(NOBODY in labels for labels in terms)

    def __repr__(self) -> str:
        shown = []
        for size, term in zip(self.shape, self.terms, strict=True):
            if term is None:
                shown.append(str(size))
                continue
            labels = "" if term.labels == range(len(term.labels)) else str([x if x != NOBODY else None for x in term.labels])
            parts = (
                [str(term.outer)] * (term.outer > 1)
                + [f"{len(term.labels)}*{labels}"]
                + [str(term.inner)] * (term.inner > 1)
            )
            shown.append(f"({' '.join(parts)})")
        return f"Axis({' '.join(shown)})" + (f" + {self.base}" if self.base else "")


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The shape that results from broadcasting shapes."""
    ndim = max(map(len, shapes), default=0)
    wide = [(1,) * (ndim - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(next((size for size in sizes if size != 1), 1) for sizes in zip(*wide, strict=True))


def join(parts: Sequence[Axis], shape: Shape) -> Axis | None:
    """The axis of an element-wise result of tensors that are broadcast to ``shape``; None if their numbers differ.

    Where a value of one tensor belongs to nobody, the numbers of the others apply.
    """
    whole, *others = (part if part.shape == shape else part.expand(shape) for part in parts)
    for part in others:
        both = whole if part == whole else _filled_in(whole, part)
        if both is None:
            return None
        whole = both
    return whole


def _filled_in(one: Axis, other: Axis) -> Axis | None:
    """Combine two axes that differ only where one has ``NOBODY``; None if they differ elsewhere or along two dimensions."""
    dims = {*one.dims, *other.dims}
    if len(dims) > 1 or not one.shape or not (one.has_nobody or other.has_nobody):
        return None
    dim = dims.pop() if dims else 0
    listed = []
    for a, b in zip(one.listed(dim), other.listed(dim), strict=True):
        if NOBODY not in (a, b) and a != b:
            return None
        listed.append(b if a == NOBODY else a)
    return Axis.constant(one.shape)._with(dim, tuple(listed))


def cat(parts: Sequence[Axis | None], dim: int, sizes: Sequence[int] = (), filled: bool = False) -> Axis | None:
    """The axis of tensors concatenated along a dimension.

    Args:
        parts: their axes, None for a constant.
        dim: the dimension.
        sizes: the size of each tensor in it; needed if one is a constant.
        filled: whether a constant takes the number of its neighbours if that does not change along ``dim``, as for
            samples; otherwise it belongs to nobody, as for neurons.
    """
    known = [part for part in parts if part is not None]
    sizes = sizes or [part.shape[dim] for part in known]
    bare = known[0]._bare(dim)
    if any(part._bare(dim) != bare for part in known):
        return None
    alike = len({part.base for part in known}) == 1 and all(part.terms[dim] is None for part in known)
    if alike and (filled or len(known) == len(parts)):
        return known[0].resize({dim: sum(sizes)})
    listed: list[int] = []
    for part, size in zip(parts, sizes, strict=True):
        listed += (NOBODY,) * size if part is None else part.listed(dim)
    return bare._with(dim, tuple(listed))


def stack(parts: Sequence[Axis | None], dim: int, filled: bool = False) -> Axis | None:
    """The axis of tensors of one shape, stacked in a new dimension; arguments as in :func:`cat`."""
    return cat([part and part.insert(dim) for part in parts], dim, [1] * len(parts), filled)


def write(
    old: Axis | None, new: Axis | None, dim: int, places: Sequence[int], size: int, filled: bool = False
) -> Axis | None:
    """The axis of a tensor in which some places along a dimension were overwritten.

    Args:
        old: the axis of the tensor; None for a constant.
        new: that of the written values, with one index of ``dim`` for each place; None for a constant.
        dim: the dimension.
        places: the places that were overwritten.
        size: the tensor's size in ``dim``.
        filled: as in :func:`cat`.
    """
    whole = cat([old, new], dim, [size, len(places)], filled)
    if whole is None:
        return None
    after = list(range(size))
    for place, at in zip(places, range(size, size + len(places)), strict=True):
        after[place] = at
    return whole.take(dim, after)


def _plus(a: int, b: int) -> int:
    return NOBODY if NOBODY in (a, b) else a + b


@lru_cache(maxsize=4096)  # networks do the same again and again
def _reshaped(
    old_shape: Shape, old_terms: tuple[Term | None, ...], shape: Shape
) -> tuple[tuple[Term | None, ...], int] | None:
    """The terms of an axis after a reshape, and the number to add to its base."""
    terms: list[Term | None] = []
    base = 0
    for old, new in _runs(old_shape, shape):
        if not any(old_terms[d] for d in old):
            terms += [None] * len(new)
            continue
        factors, sizes = [factor for d in old for factor in _factors(old_shape[d], old_terms[d])], [shape[d] for d in new]
        split = _distributed(factors, sizes)
        if split is None:  # they end in other places; then labels may be sums all the same
            listed = _split(_listed(factors), sizes)
            if listed is None:
                return None
            split = [Term(labels) for labels in listed]
        for term in split:
            kept, more = _canonical(term)
            terms.append(kept)
            base = _plus(base, more)
    return tuple(terms), base


def _factors(size: int, term: Term | None) -> list[Factor]:
    """A dimension as its factors, outermost first."""
    return [(size, None)] if term is None else [(term.outer, None), (len(term.labels), term.labels), (term.inner, None)]


def _runs(old: Shape, new: Shape) -> Iterator[tuple[list[int], list[int]]]:
    """Pairs of the shortest runs of dimensions of two shapes that hold the same number of values."""
    i = j = 0
    while i < len(old) or j < len(new):
        here, there = [*range(i, min(i + 1, len(old)))], [*range(j, min(j + 1, len(new)))]
        i, j = i + len(here), j + len(there)
        a, b = math.prod(old[d] for d in here), math.prod(new[d] for d in there)
        while a != b:
            if a < b:
                here, a, i = [*here, i], a * old[i], i + 1
            else:
                there, b, j = [*there, j], b * new[j], j + 1
        yield here, there


def _distributed(factors: Iterable[Factor], sizes: list[int]) -> list[Term | None] | None:
    """Factors distributed over dimensions of these sizes, splitting large ones; None if their boundaries do not match."""
    flow = [*factors][::-1]
    found: list[Term | None] = []
    for size in sizes:
        taken: list[Factor] = []
        while size > 1:
            many, labels = flow.pop()
            if many > size:
                halves: Sequence[Labels | None] | None = (None, None) if labels is None else None
                if many % size == 0 and labels is not None:
                    halves = _split(labels, [size, many // size])
                if halves is None or many % size:
                    return None
                flow.append((many // size, halves[1]))
                many, labels = size, halves[0]
            elif size % many:
                return None
            taken.append((many, labels))
            size //= many
        found.append(_merged(taken))
    return found


def _merged(factors: list[Factor]) -> Term | None:
    """Factors merged into one dimension."""
    labelled = [i for i, (_, labels) in enumerate(factors) if labels is not None]
    if not labelled:
        return None
    first, last = labelled[0], labelled[-1]
    labels = factors[first][1] if first == last else _listed(factors[first : last + 1])
    return Term(labels or (), math.prod(n for n, _ in factors[:first]), math.prod(n for n, _ in factors[last + 1 :]))


def _listed(factors: Iterable[Factor]) -> Labels:
    """One label for each index of a dimension that is the product of factors."""
    found = [0]
    for many, labels in factors:
        adds = [0] * many if labels is None else labels
        found = [_plus(a, b) for a in found for b in adds]
    return tuple(found)


def _split(listed: Labels, sizes: list[int]) -> list[Labels] | None:
    """Labels along one dimension as sums over several; None if they are not such sums."""
    if len(sizes) < 2:
        return [listed for _ in sizes]
    inner = len(listed) // sizes[0]
    if isinstance(listed, range) and len(sizes) == 2 and listed.step > 0:
        return [listed[::inner], range(0, inner * listed.step, listed.step)]
    blocks = [listed[start : start + inner] for start in range(0, len(listed), inner)]
    least = [min((label for label in block if label != NOBODY), default=NOBODY) for block in blocks]
    pattern: Labels | None = None
    for block, low in zip(blocks, least, strict=True):
        if low == NOBODY:
            continue
        above = tuple(NOBODY if label == NOBODY else label - low for label in block)
        if pattern is not None and above != pattern:
            return None
        pattern = above
    rest = _split((NOBODY,) * inner if pattern is None else pattern, sizes[1:])
    return None if rest is None else [tuple(least), *rest]


def _canonical(term: Term | None) -> tuple[Term | None, int]:
    """A term in its normal form, and the part that is constant along the dimension, which goes to the base."""
    if term is None:
        return None, 0
    labels = term.labels
    if isinstance(labels, range) and len(labels) > 1:
        low = min(labels[0], labels[-1])
        first = labels[0] - low
        return Term(range(first, first + labels.step * len(labels), labels.step), term.outer, term.inner), low
    low = min((label for label in labels if label != NOBODY), default=NOBODY)
    if all(label == low for label in labels):
        return None, low if len(labels) else 0
    above = [NOBODY if label == NOBODY else label - low for label in labels]
    inner = _interleaved(above)
    above = above[::inner]
    period = _period(above)
    once = above[:period]
    step = once[1] - once[0]
    is_range = NOBODY not in once and all(b - a == step for a, b in itertools.pairwise(once))
    labels = range(once[0], once[0] + step * period, step) if is_range else tuple(once)
    return Term(labels, term.outer * (len(above) // period), inner * term.inner), low


def _interleaved(labels: list[int]) -> int:
    """How many times each label is repeated in direct succession, everywhere."""
    run = next(i for i, label in enumerate(labels) if label != labels[0])
    for n in range(run, 1, -1):
        fits = run % n == 0 and len(labels) % n == 0
        if fits and all(labels[i : i + n].count(labels[i]) == n for i in range(0, len(labels), n)):
            return n
    return 1


def _period(labels: list[int]) -> int:
    """The number of labels after which they repeat, everywhere."""
    many = len(labels)
    for n in range(1, many // 2 + 1):
        if many % n == 0 and labels[n] == labels[0] and labels[:n] * (many // n) == labels:
            return n
    return many

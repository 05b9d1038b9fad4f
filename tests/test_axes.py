"""The algebra of axes against brute force: what a move does to a tensor of numbers, it does to their axis."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lrp_lightning.axes import NOBODY, Axis, Term, broadcast_shapes, cat, join, stack, write


def numbers(axis: Axis) -> Tensor:
    """The tensor of numbers that an axis stands for."""
    total = torch.full(axis.shape, axis.base)
    bare = Axis(axis.shape, axis.terms)
    for d in range(len(axis.shape)):
        adds = torch.tensor(bare.listed(d), dtype=torch.long)
        total = total + adds.view([-1 if e == d else 1 for e in range(len(axis.shape))])
    return torch.where(total < 0, NOBODY, total)


def axis_of(t: Tensor) -> Axis | None:
    """The axis of a tensor of numbers without nobody, where there is one: the one form that every axis has."""
    found = Axis.constant(t.shape)
    if not t.numel():
        return found
    first = t.flatten()[0]
    total = first.expand(t.shape)
    for d in range(t.ndim):
        adds = t[tuple(slice(None) if e == d else 0 for e in range(t.ndim))]
        total = total + (adds - first).view([-1 if e == d else 1 for e in range(t.ndim)])
        found = found._with(d, tuple((adds - adds.min()).tolist()))
    if not torch.equal(total, t):
        return None
    return Axis(found.shape, found.terms, int(t.min()))


Move = Callable[[random.Random, Tensor, Axis], "tuple[Tensor, Axis | None] | None"]


def permute(rng: random.Random, t: Tensor, axis: Axis) -> tuple[Tensor, Axis | None]:
    order = rng.sample(range(t.ndim), t.ndim)
    return t.permute(order), axis.permute(order)


def reshape(rng: random.Random, t: Tensor, axis: Axis) -> tuple[Tensor, Axis | None]:
    sizes, left = [], t.numel()
    while left > 1 and len(sizes) < 3:
        sizes.append(rng.choice([n for n in range(1, left + 1) if left % n == 0]))
        left //= sizes[-1]
    return t.reshape(*sizes, left), axis.reshape((*sizes, left))


def flatten(rng: random.Random, t: Tensor, axis: Axis) -> tuple[Tensor, Axis | None] | None:
    if t.ndim < 2:
        return None
    d = rng.randrange(t.ndim - 1)
    y = t.flatten(d, d + 1)
    return y, axis.reshape(y.shape)


def insert(rng: random.Random, t: Tensor, axis: Axis) -> tuple[Tensor, Axis | None]:
    d = rng.randrange(t.ndim + 1)
    return t.unsqueeze(d), axis.insert(d)


def take(rng: random.Random, t: Tensor, axis: Axis) -> tuple[Tensor, Axis | None]:
    d = rng.randrange(t.ndim)
    places = [rng.randrange(t.shape[d]) for _ in range(rng.choice((1, 2, t.shape[d])))]
    return t.index_select(d, torch.tensor(places)), axis.take(d, places)


def slices(rng: random.Random, t: Tensor, axis: Axis) -> tuple[Tensor, Axis | None]:
    d = rng.randrange(t.ndim)
    start = rng.randrange(t.shape[d])
    stop, step = rng.randrange(start, t.shape[d]) + 1, rng.choice((1, 1, 2))
    there = torch.arange(t.shape[d])[start:stop:step]
    return t.index_select(d, there), axis.take(d, range(t.shape[d])[start:stop:step])


def flip(rng: random.Random, t: Tensor, axis: Axis) -> tuple[Tensor, Axis | None]:
    d = rng.randrange(t.ndim)
    return t.flip(d), axis.take(d, range(t.shape[d])[::-1])


def roll(rng: random.Random, t: Tensor, axis: Axis) -> tuple[Tensor, Axis | None]:
    d, by = rng.randrange(t.ndim), rng.randrange(1, 4)
    return t.roll(by, d), axis.take(d, [(i - by) % t.shape[d] for i in range(t.shape[d])])


def select(rng: random.Random, t: Tensor, axis: Axis) -> tuple[Tensor, Axis | None] | None:
    if t.ndim < 2:
        return None
    d = rng.randrange(t.ndim)
    place = rng.randrange(t.shape[d])
    return t.select(d, place), axis.select(d, place)


def windows(rng: random.Random, t: Tensor, axis: Axis) -> tuple[Tensor, Axis | None]:
    d, step = rng.randrange(t.ndim), rng.choice((1, 2))
    size = rng.randrange(1, t.shape[d] + 1)
    return t.unfold(d, size, step), axis.windows(d, size, step)


def diagonal(rng: random.Random, t: Tensor, axis: Axis) -> tuple[Tensor, Axis | None] | None:
    if t.ndim < 2:
        return None
    one, other = rng.sample(range(t.ndim), 2)
    offset = rng.choice((0, 0, 1, -1))
    y = t.diagonal(offset, one, other)
    return (y, axis.diagonal(offset, one, other)) if y.numel() else None


def repeat(rng: random.Random, t: Tensor, axis: Axis) -> tuple[Tensor, Axis | None]:
    times = [rng.choice((1, 1, 2)) for _ in range(t.ndim + rng.choice((0, 1)))]
    return t.repeat(times), axis.repeat(times)


def repeat_interleave(rng: random.Random, t: Tensor, axis: Axis) -> tuple[Tensor, Axis | None]:
    d = rng.randrange(t.ndim)
    return t.repeat_interleave(2, d), axis.repeat_interleave(2, d)


def catted(rng: random.Random, t: Tensor, axis: Axis) -> tuple[Tensor, Axis | None]:
    d = rng.randrange(t.ndim)
    return torch.cat([t, t.flip(d)], d), cat([axis, axis.take(d, range(t.shape[d])[::-1])], d)


def stacked(rng: random.Random, t: Tensor, axis: Axis) -> tuple[Tensor, Axis | None]:
    d = rng.randrange(t.ndim + 1)
    return torch.stack([t, t], d), stack([axis, axis], d)


def written(rng: random.Random, t: Tensor, axis: Axis) -> tuple[Tensor, Axis | None]:
    d = rng.randrange(t.ndim)
    places = rng.sample(range(t.shape[d]), rng.randrange(1, t.shape[d] + 1))
    there = torch.tensor(places)
    y = t.index_copy(d, there, t.flip(d).index_select(d, there))
    new = axis.take(d, range(t.shape[d])[::-1]).take(d, places)
    return y, write(axis, new, d, places, t.shape[d])


MOVES: list[Move] = [
    permute, reshape, flatten, insert, take, slices, flip, roll, select, windows, diagonal, repeat, repeat_interleave,
    catted, stacked, written,
]  # fmt: skip


@pytest.mark.parametrize("kind", ["samples", "neurons", "repeated labels", "two dimensions"])
def test_random_programs_of_moves(kind: str) -> None:
    rng = random.Random(0)
    known = 0
    for _ in range(800):
        d = 0 if kind == "samples" else 1 if kind == "neurons" else rng.randrange(3)
        labels = tuple(rng.choice((0, 0, 1, 2)) for _ in range((3, 4, 6)[d])) if kind == "repeated labels" else None
        axis: Axis | None = Axis.along((3, 4, 6), d, labels)
        if kind == "two dimensions":
            axis = Axis.along((12,), 0).reshape((3, 4)).insert(d, 6)
        t = numbers(axis)
        names = []
        for _ in range(rng.choice((2, 3, 4, 5))):
            move = rng.choice(MOVES)
            made = move(rng, t, axis)
            if made is None:
                continue
            (t, axis), names = made, [*names, move.__name__]
            assert (axis_of(t) is None) == (axis is None), (names, t, axis)
            if axis is None or t.numel() > 2000 or t.ndim > 5:
                break
            assert axis.shape == t.shape, names
            assert torch.equal(numbers(axis), t), (names, axis)
            assert axis == axis_of(t), (names, axis, axis_of(t))
        known += axis is not None
    assert known > 500


def test_random_programs_of_moves_of_what_is_partly_nobodys() -> None:
    rng = random.Random(0)
    known = 0
    for _ in range(400):
        d = rng.randrange(3)
        axis: Axis | None = Axis.along((3, 4, 6), d, tuple(rng.choice([NOBODY, 0, 1, 2]) for _ in range((3, 4, 6)[d])))
        t = numbers(axis)
        names = []
        for _ in range(rng.choice((1, 2, 3))):
            move = rng.choice(MOVES)
            made = move(rng, t, axis)
            if made is None:
                continue
            (t, axis), names = made, [*names, move.__name__]
            if axis is None or t.numel() > 2000 or t.ndim > 5:
                break
            assert axis.shape == t.shape, names
            assert torch.equal(numbers(axis), t), (names, axis)
            assert axis.has_nobody == bool((t == NOBODY).any()), names
        known += axis is not None
    assert known > 300


def test_windows_that_hold_only_what_is_nobodys() -> None:
    axis = Axis.along((3,), 0, (NOBODY, 5, NOBODY)).windows(0, 1, 2)
    assert axis == Axis.constant((2, 1), NOBODY)


def test_sizes_of_dimensions_that_add_nothing_do_not_matter() -> None:
    large, x = 10**9, Axis.along((4, 10**18, 6), 0)  # no list is that long
    assert x.reshape((4, large, large, 2, 3)) == Axis.along((4, large, large, 2, 3), 0)
    assert x.reshape((4, 2, large // 2, large, 6)) == Axis.along((4, 2, large // 2, large, 6), 0)
    assert x.reshape((4, 6, 10**18)) == Axis.along((4, 6, 10**18), 0)
    x = Axis.along((6, 10**18), 0)
    assert x.reshape((6 * large, large)) == Axis((6 * large, large), (Term(range(6), 1, large), None))
    split = x.reshape((2, 3 * 10**18))
    assert split == Axis((2, 3 * 10**18), (Term(range(0, 6, 3)), Term(range(3), 1, 10**18)))
    assert split.reshape((6, 10**18)) == x
    assert x.reshape((6 * large, large)).reshape((6, 10**18)) == x


def test_an_empty_dimension_adds_nothing() -> None:
    axis = Axis.along((0, 3), 0)
    assert axis.dims == []
    assert axis.listed(0) == ()


def test_equal_numbers_are_equal_axes() -> None:
    for labels in itertools.product(range(3), repeat=4):
        x = Axis.along((4, 2), 0, labels)
        assert x.reshape((8,)) == Axis.along((8,), 0, tuple(n for n in labels for _ in range(2)))
        assert x.permute((1, 0)).reshape((8,)) == Axis.along((8,), 0, labels * 2)


def test_nobody_by_value_and_in_sums() -> None:
    labels = tuple(torch.tensor([0, NOBODY, 1, NOBODY]).tolist())  # equal to NOBODY, other objects
    assert numbers(Axis.along((4,), 0, labels).reshape((2, 2))).tolist() == [[0, NOBODY], [1, NOBODY]]
    assert torch.iinfo(torch.long).min <= 2 * NOBODY < NOBODY + 2**61 < 0  # in sums too, which fit a tensor


def test_axes_as_text() -> None:
    x = Axis.along((3,), 0)
    assert repr(x.repeat((2,)).repeat_interleave(2, 0)) == "Axis((2 3* 2))"
    assert repr(x.take(0, (2, 0, 1)).repeat_interleave(2, 0)) == "Axis((3*[2, 0, 1] 2))"
    assert repr(Axis.along((2, 4), 0, (7, NOBODY))) == "Axis((2*[0, None]) 4) + 7"
    assert repr(Axis.constant((2, 4))) == "Axis(2 4)"


def test_constants_are_nobodys_or_of_the_sample_beside_them() -> None:
    x = Axis.along((3, 4), 0)
    assert cat([None, x], 1, [1, 4], filled=True) == Axis.along((3, 5), 0)
    rows = cat([x, None], 0, [3, 2], filled=True)
    assert numbers(rows).tolist() == [[0] * 4, [1] * 4, [2] * 4, [NOBODY] * 4, [NOBODY] * 4]
    assert rows.take(0, range(3)) == x
    neurons = Axis.along((3, 4), 1, range(10, 14))
    padded = cat([neurons, None], 1, [4, 1])
    assert numbers(padded)[0].tolist() == [10, 11, 12, 13, NOBODY]
    tokens = cat([None, neurons], 0, [1, 3])
    assert numbers(tokens)[:, 0].tolist() == [NOBODY, 10, 10, 10]


def test_a_buffer_filled_row_by_row_is_of_the_samples_in_the_end() -> None:
    x = Axis.along((3, 4), 0)
    buffer = None
    for row in (2, 0, 1):
        buffer = write(buffer, x.take(0, (row,)), 0, (row,), 3, filled=True)
    assert buffer == x


def test_parts_one_after_the_other() -> None:
    x, five, six = Axis.along((3, 4), 0), Axis.constant((2,), 5), Axis.constant((1,), 6)
    assert cat([five, six], 0) == Axis.along((3,), 0, (5, 5, 6))
    assert cat([five, five], 0) == Axis.constant((4,), 5)
    assert cat([five, None], 0, [2, 1]) == Axis.along((3,), 0, (5, 5, NOBODY))
    assert cat([five, None], 0, [2, 1], filled=True) == Axis.constant((3,), 5)
    assert cat([five, None, six], 0, [2, 1, 1], filled=True) == Axis.along((4,), 0, (5, 5, NOBODY, 6))
    assert cat([x, x.take(0, (1, 0, 2))], 1) is None
    assert stack([six, None], 1) == Axis.along((1, 2), 1, (6, NOBODY))
    assert stack([six, None], 1, filled=True) == Axis.constant((1, 2), 6)
    assert write(x, x.take(0, (1, 0, 2)).take(1, (0,)), 1, (2,), 4) is None
    assert write(five, None, 0, (1,), 2) == Axis.along((2,), 0, (5, NOBODY))


def test_labels_along_a_dimension() -> None:
    assert numbers(Axis.along((3, 2), 0, range(5, 11, 2))).tolist() == [[5, 5], [7, 7], [9, 9]]
    assert numbers(Axis.along((3, 2), 0, range(5, 8))).tolist() == [[5, 5], [6, 6], [7, 7]]
    assert numbers(Axis.along((3, 2), 0, range(9, 6, -1))).tolist() == [[9, 9], [8, 8], [7, 7]]
    assert Axis.along((1, 2), 0, range(5, 6)) == Axis.constant((1, 2), 5)
    x = Axis.along((3, 4), 0)
    assert [x.is_along(0), x.is_along(1), Axis.along((3, 4), 0, range(1, 4)).is_along(0)] == [True, False, False]
    assert [x.dims, Axis.along((3, 4), 1).dims, Axis.constant((3, 4)).dims] == [[0], [1], []]


def test_dimensions_whose_values_were_mixed() -> None:
    x = Axis.along((3, 4, 5), 0)
    assert x.drop([1]) == Axis.along((3, 5), 0)
    assert x.drop([2, 1]) == Axis.along((3,), 0)
    assert x.drop([1], keep=True) == Axis.along((3, 1, 5), 0)
    assert x.drop([1, 0], keep=True) is None
    assert x.resize({1: 7, 2: 5}) == Axis.along((3, 7, 5), 0)
    assert x.resize({1: 4}) == x
    assert x.alike_along([1, 2]) == x
    assert x.alike_along([2, 0]) is None
    assert x.repeat((0, 1, 2)) == Axis.constant((0, 4, 10))


def test_what_is_brought_together_must_be_of_the_same_samples() -> None:
    x = Axis.along((3, 4), 0)
    assert join([x, Axis.along((3, 1), 0)], (3, 4)) == x
    assert join([x, x.take(0, (1, 0, 2))], (3, 4)) is None
    assert x.drop([0]) is None
    assert x.drop([1]) == Axis.along((3,), 0)
    assert x.resize({0: 2}) is None
    assert Axis.along((1, 4), 0).drop([0]) == Axis.constant((4,))  # of one sample is all


def test_shapes() -> None:
    for one, other in itertools.product([(), (1,), (3,), (2, 1), (2, 3), (4, 1, 1)], repeat=2):
        assert broadcast_shapes(one, other) == torch.broadcast_shapes(one, other)
    assert broadcast_shapes((0, 1), (1, 3)) == (0, 3)
    assert broadcast_shapes() == ()
    assert Axis.along((3, 0), 0).reshape((0, 5)) == Axis.constant((0, 5))
    assert Axis.along((3, 4), 0).expand((2, 3, 4)) == Axis.along((2, 3, 4), 1)


def test_places_of_nobody_are_of_whom_the_other_has_there() -> None:
    rng = random.Random(0)
    for _ in range(200):
        labels = [[rng.choice([NOBODY, 0, 1, 2]) for _ in range(4)] for _ in range(2)]
        one, other = (Axis.along((4, 2), 0, tuple(row)) for row in labels)
        both = join([one, other], (4, 2))
        differ = any(a != b and NOBODY not in (a, b) for a, b in zip(*labels, strict=True))
        assert (both is None) == differ
        if both is not None:
            assert torch.equal(numbers(both), torch.maximum(numbers(one), numbers(other)))
    assert join([Axis.along((3, 3), 0), Axis.along((3, 3), 1)], (3, 3)) is None
    assert join([Axis.along((3, 3), 0, (0, 1, NOBODY)), Axis.along((3, 3), 1)], (3, 3)) is None
    assert join([Axis.constant((4,), NOBODY), Axis.constant((4,), 2)], (4,)) == Axis.constant((4,), 2)
    assert join([Axis.constant((), NOBODY), Axis.constant((), 2)], ()) is None  # not known: there is no dimension

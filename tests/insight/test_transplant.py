"""Windows against all windows one by one; the test on models that are known to hang on a region, and on others."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from lrp_lightning.insight.transplant import _lower_bound, densest, region_of, transplant, window_sizes


@pytest.mark.parametrize("seed", range(5))
def test_the_densest_box_and_the_densest_elsewhere(seed: int) -> None:
    heat = torch.rand(3, 9, 7, generator=torch.Generator().manual_seed(seed))
    size = (2 + seed % 3, 3)
    mine = densest(heat, size)
    elsewhere = densest(heat, size, besides=mine)
    for h, one, other in zip(heat, mine, elsewhere, strict=True):
        boxes = []
        for top, left in itertools.product(range(9 - size[0] + 1), range(7 - size[1] + 1)):
            box = torch.zeros(9, 7, dtype=torch.bool)
            box[top : top + size[0], left : left + size[1]] = True
            boxes.append(box)
        assert torch.equal(one, max(boxes, key=lambda box: float(h[box].sum())))
        free = [box for box in boxes if not bool((box & one).any())]
        assert torch.equal(other, max(free, key=lambda box: float(h[box].sum())))
        assert region_of(one, features=False)[2:] == size


def test_where_every_window_overlaps_the_one_elsewhere_does_so_least() -> None:
    heat = torch.ones(1, 5)
    mine = densest(heat, (3,))
    assert region_of(mine[0], features=False) == (0, 3)
    assert region_of(densest(heat, (3,), besides=mine)[0], features=False) == (2, 3)


def test_intervals_and_features() -> None:
    heat = torch.tensor([[0.1, 1.0, 3.0, 0.0, 2.5, 0.0]])
    assert region_of(densest(heat, (2,))[0], features=False) == (1, 2)
    mine = densest(heat, (2,), features=True)
    assert region_of(mine[0], features=True) == (2, 4)
    assert region_of(densest(heat, (2,), features=True, besides=mine)[0], features=True) == (0, 1)
    assert window_sizes((32, 64), features=False) == [(3, 6), (5, 10), (6, 13), (8, 16)]
    assert window_sizes((6,), features=True) == [(1,)]
    assert window_sizes((4, 4), features=False) == [(1, 1)]


def samples(n: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 1, 20, 20, generator=generator), torch.rand(n, 20, 20, generator=generator)


@pytest.mark.parametrize("moves", [False, True])
def test_a_region_that_alone_decides_is_found_where_it_is(moves: bool) -> None:
    """Members have four pixels of value 9 that the model looks for, anywhere; and so say their heatmaps."""
    (members, heat), (hosts, _), rest = samples(50, 0), samples(101, 1), samples(20, 2)
    places = torch.randint(0, 17, (50, 2), generator=torch.Generator().manual_seed(3)) if moves else [(4, 9)] * 50
    for x, h, (top, left) in zip(members, heat, places, strict=True):
        x[0, top : top + 2, left : left + 2] = 9
        h[top : top + 2, left : left + 2] = 20

    def flips(x: Tensor) -> Tensor:
        return (x == 9).flatten(1).sum(1) == 4

    test = transplant(flips, (members, heat), rest, hosts, threshold=0.05)
    assert test is not None
    assert (test.flipped, test.control, test.moves, test.region[2:]) == (1.0, 0.0, moves, (2, 2))
    assert test.bound > 0.8
    assert test.pairs == 256
    if not moves:
        assert test.region == (4, 9, 2, 2)


def test_what_the_whole_class_does_is_no_matter_of_the_strategy() -> None:
    (members, heat), (hosts, _), (rest, of_rest) = samples(50, 0), samples(101, 1), samples(20, 2)
    members[..., 4:6, 9:11] = rest[..., 4:6, 9:11] = 9
    heat[..., 4:6, 9:11] = of_rest[..., 4:6, 9:11] = 20

    def flips(x: Tensor) -> Tensor:
        return (x == 9).flatten(1).sum(1) == 4

    test = transplant(flips, (members, heat), (rest, of_rest), hosts, threshold=0.05)
    assert test is not None
    assert (test.flipped, test.control) == (1.0, 1.0)
    assert test.bound < 0


def test_by_chance_bounds_are_seldom_above_zero() -> None:
    """At most one in a thousand of all that are judged, and these are chosen for what they promise."""
    above = 0
    for seed in range(60):
        (members, heat), (hosts, _), rest = samples(30, seed), samples(70, 100 + seed), samples(30, 200 + seed)
        generator = torch.Generator().manual_seed(seed)
        test = transplant(lambda x, g=generator: torch.rand(len(x), generator=g) < 0.1, (members, heat), rest, hosts, 0.0)
        assert test is not None
        above += test.bound > 0
    assert above <= 1


def test_bounds_are_newcombes() -> None:
    """Newcombe (1998), method 10: of two equal shares the widths of two Wilson intervals, squared and added up."""
    low = _lower_bound(0.5, 0.5, 100)
    assert low == pytest.approx(-_lower_bound_by_hand(0.5, 100))
    assert _lower_bound(1.0, 0.0, 256) > 0.9
    assert _lower_bound(0.1, 0.05, 64) < 0


def _lower_bound_by_hand(share: float, n: int, z: float = 3.09) -> float:
    width = z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5 / (1 + z**2 / n)
    return 2**0.5 * width


def test_nobody_to_copy_from_or_into() -> None:
    images, heat = samples(5, 0)
    empty = images[:0], heat[:0]
    assert transplant(lambda x: x[:, 0, 0, 0] > 0, empty, empty, images, 0.05) is None
    assert transplant(lambda x: x[:, 0, 0, 0] > 0, (images, heat), empty, torch.empty(0), 0.05) is None

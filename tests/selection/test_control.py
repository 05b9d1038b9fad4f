"""Random sets of the same size, the control of critical neurons."""

from __future__ import annotations

import torch
from torch import Tensor

from lrp_lightning.selection import random_masks


def some_masks() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"a": torch.rand(50, 16, generator=generator) < 0.3, "b": torch.rand(50, 40, generator=generator) < 0.5}


def test_random_masks_have_the_same_sizes_and_are_other_sets() -> None:
    masks = some_masks()
    control = random_masks(masks, torch.Generator().manual_seed(0))
    assert control.keys() == masks.keys()
    for layer, mask in masks.items():
        assert control[layer].dtype == torch.bool
        assert torch.equal(control[layer].sum(1), mask.sum(1))
        assert not torch.equal(control[layer], mask)
    # each sample draws its own: one mask given to all becomes many
    spread = random_masks({"a": masks["a"][:1].expand(50, 16)}, torch.Generator().manual_seed(0))["a"]
    assert len(spread.unique(dim=0)) > 25


def test_every_neuron_is_drawn_equally_often() -> None:
    mask = torch.zeros(4000, 8, dtype=torch.bool)
    mask[:, :2] = True
    share = random_masks({"a": mask}, torch.Generator().manual_seed(0))["a"].double().mean(0)
    torch.testing.assert_close(share, torch.full((8,), 0.25, dtype=torch.double), atol=0.03, rtol=0)  # over 4 sigma


def test_random_masks_are_the_generators_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (random_masks(some_masks(), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[layer], again[layer]) for layer in first)
    assert not all(torch.equal(first[layer], other[layer]) for layer in first)

"""Random sets that belong to a sample, whatever stands beside it."""

from __future__ import annotations

import torch

from lrp_lightning.callbacks.measures import random_sets


def masks(samples: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(samples, n, generator=generator) > 0.7 for name, n in (("a", 20), ("b", 50), ("c", 20))}


def test_random_sets_have_the_same_sizes_and_depend_on_the_sample_alone():
    whole = masks(30)
    drawn = random_sets(whole, torch.arange(30))
    for layer, mask in whole.items():
        assert torch.equal(drawn[layer].sum(1), mask.sum(1))
        some = random_sets({name: m[[7, 21]] for name, m in whole.items()}, torch.tensor([7, 21]))
        assert torch.equal(some[layer], drawn[layer][[7, 21]])


def test_random_sets_are_even_and_differ_between_samples_and_layers():
    size, n = 10, 4000
    mask = torch.zeros(n, 40, dtype=torch.bool)
    mask[:, :size] = True
    drawn = random_sets({"a": mask, "b": mask}, torch.arange(n))
    share = drawn["a"].double().mean(0)
    spread = (0.25 * 0.75 / n) ** 0.5
    assert (share - 0.25).abs().max() < 4.5 * spread
    assert (share - 0.25).std() < 1.5 * spread
    for first, second in ((drawn["a"][:-1], drawn["a"][1:]), (drawn["a"], drawn["b"])):
        common = (first & second).double().sum(1).mean()
        assert abs(common - size * 0.25) < 0.15  # as many as chance
    together = (drawn["a"].double().T @ drawn["a"].double()) / n  # of two neurons, no oftener than chance
    pairs = together[~torch.eye(40, dtype=torch.bool)]
    assert (pairs - 0.25 * 9 / 39).abs().max() < 0.03


def test_random_sets_leave_the_generators_alone():
    before = torch.get_rng_state()
    random_sets(masks(4), torch.arange(4))
    assert torch.equal(before, torch.get_rng_state())

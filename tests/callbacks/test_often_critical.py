"""One set of neurons a class: which neurons are in it, and what is told from it."""

from __future__ import annotations

import torch

from lrp_lightning.callbacks.often_critical import CalibratedAgreement, often_critical


def test_as_many_as_a_sample_has_those_that_are_so_most_often():
    degrees = torch.tensor([[1.0, 0.5, 0.5, 0.0, 0.9, 0.1], [0.0, 1.0, 0.0, 1.0, 0.4, 0.6], [torch.nan] * 6])
    found = often_critical(degrees, {"a": 4, "b": 2})
    assert found["a"].tolist() == [[True, True, False, False], [False, True, False, True], [False] * 4]
    assert found["b"].tolist() == [[True, False], [False, True], [False, False]]


def test_agreement_is_that_of_calibrated_logits_whatever_the_batches():
    torch.manual_seed(0)
    whole, numbers = torch.randn(40, 5), torch.randperm(40)
    scale, offset = torch.tensor([3.0, 0.1, 7.0, 1.0, 2.0]), torch.tensor([0.0, 9.0, -4.0, 1.0, 100.0])
    own = scale * whole + offset  # agrees when calibrated, and does not before
    own[:, 3] = torch.nan
    metric = CalibratedAgreement()
    assert metric.compute().isnan()
    for size in (40, 7):
        metric.reset()
        for at in torch.arange(40).split(size):
            metric.update(own[at], whole[at], numbers[at])
        assert metric.compute() == 1
    metric.reset()
    metric.update(torch.randn(4000, 5), torch.randn(4000, 5), torch.arange(4000))
    assert abs(metric.compute() - 0.2) < 4.5 * (0.2 * 0.8 / 2000) ** 0.5, "by chance"
    metric.reset()
    metric.update(own[:3], whole[:3], numbers[:3])
    assert metric.compute().isnan(), "too few to calibrate and judge"

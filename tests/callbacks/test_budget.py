"""Seconds and micro-batches."""

from __future__ import annotations

import time

import pytest
import torch

from lrp_lightning.callbacks.batches import Samples
from lrp_lightning.callbacks.budget import Budget

TEN = Samples((torch.arange(10.0).view(10, 1),), None, torch.arange(10))


def test_work_comes_in_micro_batches_in_order():
    seen = []
    assert Budget(None, 4).in_micro_batches(TEN, lambda part: seen.append(part.places.tolist())) == 10
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("no room"), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_without_memory_micro_batches_are_halved_and_stay_so(error: RuntimeError):
    seen, budget = [], Budget(None, 8)

    def work(part: Samples) -> None:
        if len(part) > 3:
            raise error
        seen.append(len(part))

    assert budget.in_micro_batches(TEN, work) == 10
    assert seen == [2] * 5
    assert budget.micro_batch == 2


def test_where_one_sample_is_too_much_the_error_stands():
    def work(part: Samples) -> None:
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(torch.OutOfMemoryError):
        Budget(None).in_micro_batches(TEN, work)


def test_another_error_stands():
    def work(part: Samples) -> None:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        Budget(None).in_micro_batches(TEN, work)


def test_seconds_are_counted_and_end_the_work_after_one_micro_batch_at_least():
    budget = Budget(0.02, 2)
    with budget.spending():
        assert not budget.spent
        assert budget.in_micro_batches(TEN, lambda part: time.sleep(0.015)) == 4
        assert budget.spent
    assert budget.seconds >= 0.03
    assert budget.in_micro_batches(TEN, lambda part: None) == 0
    budget.start_epoch()
    assert budget.seconds == 0
    assert not budget.spent

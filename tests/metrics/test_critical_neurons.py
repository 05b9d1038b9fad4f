"""CriticalNeuronAccuracy against counting, and as a metric that syncs, resets, moves and is saved like any other."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest
import torch
from small_networks import mlp
from torch import Tensor
from torchmetrics import MetricCollection

from lrp_lightning import SelectiveLRP, TopK, masked_forward
from lrp_lightning.errors import InputError
from lrp_lightning.metrics import CriticalNeuronAccuracy, prediction_survives

LOGITS = torch.tensor([[1.0, 2.0, 0.0], [3.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 5.0, 1.0]])
MASKED = torch.tensor([[0.0, 0.1, 0.0], [1.0, 3.0, 0.0], [-3.0, -2.0, -1.0], [0.0, 0.2, 0.1]])  # all but the second survive

pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")


def updated(*batches: tuple[Tensor, Tensor], **kwargs: object) -> CriticalNeuronAccuracy:
    metric = CriticalNeuronAccuracy(**kwargs)
    for masked, logits in batches:
        metric.update(masked, logits)
    return metric


def test_by_hand() -> None:
    survives = prediction_survives(MASKED, LOGITS)
    assert survives.dtype == torch.bool
    assert survives.tolist() == [True, False, True, True]
    assert updated((MASKED, LOGITS)).compute() == 0.75


@pytest.mark.parametrize("sizes", [[64], [1] * 64, [40, 20, 4]])
def test_batches_count_by_their_samples(sizes: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    masked, logits = torch.randn(64, 3, generator=generator), torch.randn(64, 3, generator=generator)
    metric = updated(*zip(masked.split(sizes), logits.split(sizes), strict=True))
    expected = sum(m.argmax() == f.argmax() for m, f in zip(masked, logits, strict=True)) / 64
    torch.testing.assert_close(metric.compute(), expected)


def test_of_a_network() -> None:
    torch.manual_seed(0)
    model, x = mlp(6, 40, 4), torch.randn(50, 6)
    trace = SelectiveLRP(model, selection=TopK(3)).trace(x, target=lambda logits: logits.argmax(1))
    masked = masked_forward(model, x, trace.masks)
    with torch.no_grad():
        by_hand = model[2](model[0](x).relu() * trace.masks["0"])
    share = (by_hand.argmax(1) == trace.output.argmax(1)).float().mean()
    torch.testing.assert_close(updated((masked, trace.output)).compute(), share)
    assert share < 1


def test_nan_before_the_first_sample() -> None:
    metric = CriticalNeuronAccuracy()
    assert metric.compute().isnan()
    assert updated((MASKED[:0], LOGITS[:0])).compute().isnan()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("which", ["masked", "whole", "both"])
def test_what_is_not_finite_does_not_survive(bad: float, which: str) -> None:
    masked, logits = MASKED.clone(), LOGITS.clone()
    if which != "whole":
        masked[0, 2] = bad
    if which != "masked":
        logits[0, 2] = bad
    assert prediction_survives(masked, logits).tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("masked", "logits"),
    [((4, 3), (4, 2)), ((3, 3), (4, 3)), ((4,), (4,)), ((4, 1), (4, 1)), ((4, 3, 1), (4, 3, 1))],
)
def test_shapes_that_are_no_logits(masked: tuple[int, ...], logits: tuple[int, ...]) -> None:
    metric = CriticalNeuronAccuracy()
    with pytest.raises(InputError, match="at least two classes"):
        metric.update(torch.zeros(masked), torch.zeros(logits))
    assert metric.total == 0


# As a torchmetric


def test_reset() -> None:
    metric = updated((MASKED, LOGITS))
    metric.reset()
    assert (metric.summed, metric.total) == (0, 0)
    metric.update(MASKED[:1], LOGITS[:1])
    assert metric.compute() == 1


def test_forward_gives_the_batch_and_keeps_the_whole() -> None:
    metric = CriticalNeuronAccuracy()
    assert metric(MASKED[:2], LOGITS[:2]) == 0.5
    assert metric(MASKED[2:], LOGITS[2:]) == 1
    assert metric.compute() == 0.75


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: m.clone()])
def test_copies_carry_their_state_and_go_their_own_way(duplicate: object) -> None:
    metric = updated((MASKED, LOGITS))
    other = duplicate(metric)  # type: ignore[operator]
    assert other.compute() == 0.75
    other.update(MASKED[1:2], LOGITS[1:2])
    assert other.compute() == pytest.approx(3 / 5)
    assert metric.compute() == 0.75


def test_state_dict_resumes_the_count() -> None:
    metric = updated((MASKED[:2], LOGITS[:2]))
    metric.persistent(True)
    assert set(metric.state_dict()) == {"summed", "total"}
    resumed = CriticalNeuronAccuracy()
    resumed.persistent(True)
    resumed.load_state_dict(metric.state_dict())
    resumed.update(MASKED[2:], LOGITS[2:])
    assert resumed.compute() == 0.75


def test_moves_to_a_device() -> None:
    metric = updated((MASKED, LOGITS)).to("meta")
    assert {metric.summed.device.type, metric.total.device.type} == {"meta"}


def test_half_precision_does_not_reach_the_counts() -> None:
    metric = CriticalNeuronAccuracy().half()
    for _ in range(1000):  # half precision would stop counting at 2048
        metric.update(MASKED, LOGITS)
    assert metric.total == 4000
    assert metric.compute() == 0.75


def test_processes_sum_their_counts() -> None:
    here, there = updated((MASKED, LOGITS)), updated((MASKED[1:2], LOGITS[1:2]))

    def gathered(states: Iterator[Tensor]) -> object:
        return lambda mine, group=None: [mine, next(states)]  # what two processes give one another, state by state

    synced = updated(
        (MASKED, LOGITS),
        dist_sync_fn=gathered(iter([there.summed, there.total])),
        distributed_available_fn=lambda: True,
    )
    assert synced.compute() == pytest.approx(3 / 5)  # not the mean of 3/4 and 0
    assert (synced.summed, synced.total) == (here.summed, here.total)  # and each keeps its own count


def test_critical_and_control_stand_in_one_collection() -> None:
    names = {"critical": CriticalNeuronAccuracy(), "random": CriticalNeuronAccuracy()}
    collection = MetricCollection(names, compute_groups=False)  # type: ignore[arg-type]
    collection["critical"].update(MASKED, LOGITS)
    collection["random"].update(MASKED[:2], LOGITS[:2])
    assert collection.compute() == {"critical": 0.75, "random": 0.5}


def test_says_what_is_better() -> None:
    assert CriticalNeuronAccuracy.higher_is_better is True
    assert CriticalNeuronAccuracy.is_differentiable is False

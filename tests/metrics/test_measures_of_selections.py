"""Metrics of a selection against counting by hand; merged over batches and processes; edge cases; plots."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import matplotlib.axes
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import mlp
from torch import Tensor
from torchmetrics import Metric

from lrp_lightning import SelectiveLRP, TopK, errors, masked_forward
from lrp_lightning.errors import InputError
from lrp_lightning.metrics import (
    AblatedAccuracy,
    Comprehensiveness,
    ConservationError,
    CriticalNeuronAccuracy,
    LogitCorrelation,
    RandomControl,
    RetainedAccuracy,
    RetentionCurve,
    SelectionError,
    SelectionStability,
    Sufficiency,
    area,
    faithfulness,
    jaccard,
    label_predicted,
    mse,
    probability_lost,
    smape,
)

pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")

F = torch.tensor([[1.0, 2.0, 0.0], [3.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 5.0, 1.0]])
F_S = torch.tensor([[0.0, 0.1, 0.0], [1.0, 3.0, 0.0], [-3.0, -2.0, -1.0], [0.0, 0.2, 0.1]])
LABELS = torch.tensor([1, 0, 2, 0])
MASKS = {"a": torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0], [1, 1, 0, 0]]).bool(), "b": torch.eye(4, 2).bool()}
CURVE = {0.1: F_S, 0.5: F}

METRICS: dict[str, tuple[Callable[..., Metric], Callable[[slice], tuple[Any, ...]]]] = {
    "critical": (CriticalNeuronAccuracy, lambda s: (F_S[s], F[s])),
    "random": (RandomControl, lambda s: (F_S[s], F[s])),
    "retained": (RetainedAccuracy, lambda s: (F_S[s], LABELS[s])),
    "ablated": (AblatedAccuracy, lambda s: (F_S[s], LABELS[s])),
    "smape": (SelectionError, lambda s: (F_S[s], F[s])),
    "mse": (lambda **k: SelectionError("mse", **k), lambda s: (F_S[s], F[s])),
    "curve": (
        lambda **k: RetentionCurve([0.1, 0.5], **k),
        lambda s: ({b: o[s] for b, o in CURVE.items()}, F[s], torch.zeros_like(F)[s]),
    ),
    "stability": (
        lambda **k: SelectionStability(3, {"a": 4, "b": 2}, **k),
        lambda s: ({layer: mask[s] for layer, mask in MASKS.items()}, LABELS[s]),
    ),
    "conservation": (ConservationError, lambda s: (F.sum(1)[s],)),
}


def made(name: str, *slices: slice, **kwargs: Any) -> Metric:
    metric = METRICS[name][0](**kwargs)
    for part in slices:
        metric.update(*METRICS[name][1](part))
    return metric


WHOLE = slice(None)


# Formulas


def test_errors_by_hand() -> None:
    torch.testing.assert_close(mse(F_S, F)[0], torch.tensor((1 + 1.9**2) / 3))
    torch.testing.assert_close(smape(F_S, F)[0], torch.tensor((2 + 2 * 1.9 / 2.1) / 3))  # 0/0 is 0
    torch.testing.assert_close(made("smape", WHOLE).compute(), smape(F_S, F).mean())
    torch.testing.assert_close(made("mse", WHOLE).compute(), mse(F_S, F).mean())


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6, width=32), st.floats(-1e6, 1e6, width=32)), min_size=1, max_size=6))
def test_smape_is_bounded_symmetric_and_zero_on_the_diagonal(pairs: list[tuple[float, float]]) -> None:
    one, other = torch.tensor(pairs).T[:, None].unbind()
    assert 0 <= smape(one, other) <= 2.000001
    assert torch.equal(smape(one, other), smape(other, one))
    assert smape(one, one) == 0
    assert smape(one, -one) == 2 * (one != 0).double().mean()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_as_wrong_as_can_be(bad: float) -> None:
    broken = torch.tensor([[bad, 1.0, 0.0]])
    assert smape(broken, F[:1]) == (2 + 2 / 3) / 3
    assert mse(broken, F[:1]).isinf()
    assert not label_predicted(broken, LABELS[:1])


def test_accuracies_by_hand() -> None:
    assert label_predicted(F_S, LABELS).tolist() == [True, False, True, False]
    assert made("retained", WHOLE).compute() == made("ablated", WHOLE).compute() == 0.5
    assert RetainedAccuracy.higher_is_better
    assert not AblatedAccuracy.higher_is_better


def test_random_control_is_reproducible_and_its_own() -> None:
    control, state = RandomControl(seed=3), torch.get_rng_state()
    first, second = control.random_sets(MASKS), control.random_sets(MASKS)
    assert torch.equal(torch.get_rng_state(), state)
    assert not all(torch.equal(first[layer], second[layer]) for layer in MASKS)
    control.reset()
    again = control.random_sets(MASKS)
    assert all(torch.equal(first[layer], again[layer]) for layer in MASKS)
    assert all(torch.equal(first[layer].sum(1), MASKS[layer].sum(1)) for layer in MASKS)


def test_retention_curve_by_hand() -> None:
    curve = made("curve", WHOLE).compute()
    assert curve["budgets"].tolist() == pytest.approx([0, 0.1, 0.5, 1])
    # with all off the logits are all zero, so class 0 is predicted, which the whole network does for the second
    assert curve["retained"].tolist() == [0.25, 0.75, 1, 1]
    assert curve["area"] == pytest.approx(0.1 * 0.5 + 0.4 * 0.875 + 0.5)
    logit = (0.1 + 1 - 1 + 0.2) / (2 + 3 + 1 + 5)
    assert curve["faithfulness"].tolist() == pytest.approx([0, logit, 1, 1])
    assert curve["cpr"] == pytest.approx(0.1 * logit / 2 + 0.4 * (1 + logit) / 2 + 0.5)
    assert curve["cmd"] == pytest.approx(1 - curve["cpr"].item())  # it lies below 1 all along
    errors_at = [smape(torch.zeros_like(F), F).mean().item(), smape(F_S, F).mean().item(), 0, 0]
    assert curve["smape"].tolist() == pytest.approx(errors_at)


def test_faithfulness_beyond_one_counts_as_distance() -> None:
    budgets, faithful = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0.0, 3.0, 1.0])
    assert area(faithful, budgets) == 1.75
    assert area((1 - faithful).abs(), budgets) == 1.25
    assert faithfulness(torch.tensor([1.0, 2.0]), torch.tensor(2.0), torch.tensor(2.0)).isnan().all()


def test_stability_by_hand() -> None:
    metric = SelectionStability(3, {"a": 4, "b": 2})
    metric.update(MASKS, LABELS)
    assert metric.compute().isnan().all()  # nothing to compare with
    metric.advance()
    metric.update(MASKS, LABELS)
    assert metric.compute().tolist() == [1, 1, 1]
    metric.advance()
    metric.update({"a": MASKS["a"][:2].flip(1), "b": MASKS["b"][:2]}, LABELS[:2])
    of_class_0 = jaccard(torch.tensor([0.0, 0, 0, 1]), torch.tensor([1.0, 0.5, 0, 0])), 0.5  # b: [0, 1] and [0, 0.5]
    now = metric.compute()
    assert now[0] == pytest.approx((of_class_0[0].item() + of_class_0[1]) / 2)
    assert now[1] == pytest.approx((0 + 1) / 2)
    assert now[2].isnan()  # no sample of it


def test_jaccard_of_sets() -> None:
    one, other = torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 0]]), torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 0]])
    assert jaccard(one, other).tolist() == pytest.approx([1 / 3, 1])


def test_of_a_network() -> None:
    torch.manual_seed(0)
    model = mlp(6, 40, 4)
    x, labels = torch.randn(50, 6), torch.randint(0, 4, (50,))
    trace = SelectiveLRP(model, selection=TopK(3)).trace(x, target=lambda logits: logits.argmax(1))
    with torch.no_grad():
        hidden = model[0](x).relu()
        without = model[2](hidden * ~trace.masks["0"])
    metric = AblatedAccuracy()
    metric.update(masked_forward(model, x, trace.masks, keep=False), labels)
    assert metric.compute() == (without.argmax(1) == labels).float().mean()
    conserved = ConservationError()
    conserved.update(trace.conservation_error)
    assert conserved.compute() == pytest.approx(trace.conservation_error.mean().item())


# As torchmetrics


def values(metric: Metric) -> Tensor:
    found = metric.compute()
    return torch.cat([v.flatten() for v in found.values()]) if isinstance(found, dict) else found


@pytest.mark.parametrize("name", METRICS)
def test_batches_processes_copies_and_resets(name: str) -> None:
    whole = values(made(name, WHOLE))
    torch.testing.assert_close(values(made(name, slice(0, 1), slice(1, 1), slice(1, 4))), whole, equal_nan=True)

    here, there = made(name, slice(0, 1)), made(name, slice(1, 4))
    states = iter([getattr(there, state) for state in there._defaults])
    synced = made(
        name, slice(0, 1), dist_sync_fn=lambda mine, group=None: [mine, next(states)], distributed_available_fn=lambda: True
    )
    torch.testing.assert_close(values(synced), whole, equal_nan=True)
    torch.testing.assert_close(values(copy.deepcopy(here)), values(here), equal_nan=True)
    torch.testing.assert_close(values(pickle.loads(pickle.dumps(here))), values(here), equal_nan=True)
    here.reset()
    assert values(here).isnan().any()
    here.update(*METRICS[name][1](WHOLE))
    torch.testing.assert_close(values(here), whole, equal_nan=True)


@pytest.mark.parametrize("name", METRICS)
def test_nan_before_the_first_sample(name: str) -> None:
    assert values(made(name)).isnan().any()
    assert values(made(name, slice(0, 0))).isnan().any()


def test_stability_advances_together() -> None:
    """The reference is that of all processes, on each of them."""
    here, there = made("stability", slice(0, 2)), made("stability", slice(2, 4))
    states = iter([getattr(there, state) for state in there._defaults])
    synced = made(
        "stability", slice(0, 2),
        dist_sync_fn=lambda mine, group=None: [mine, next(states)], distributed_available_fn=lambda: True,
    )  # fmt: skip
    synced.advance()  # type: ignore[operator]
    assert not torch.equal(synced.reference, here.reference)
    alone = made("stability", WHOLE)
    alone.advance()  # type: ignore[operator]
    torch.testing.assert_close(synced.reference, alone.reference, equal_nan=True)
    assert synced.counts.sum() == 0


@pytest.mark.parametrize("name", METRICS)
def test_plots(name: str) -> None:
    import matplotlib.pyplot as plt

    metric = made(name, WHOLE)
    if name == "stability":
        metric.advance()  # type: ignore[operator]
        metric.update(*METRICS[name][1](WHOLE))
    figure, axes = metric.plot()
    assert isinstance(axes, matplotlib.axes.Axes)
    assert axes.lines
    plt.close(figure)


# Bad input


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: SelectionError("mae"), errors.SelectionError, r"one of \['mse', 'smape'\], got 'mae'"),
        (lambda: smape(F, F[:2]), errors.InputError, r"\(4, 3\) and \(2, 3\)"),
        (lambda: mse(F[0], F[0]), errors.InputError, r"\(N, classes\)"),
        (lambda: label_predicted(F, LABELS[:2]), errors.InputError, "one for each of 4 samples"),
        (lambda: label_predicted(F, LABELS.float()), errors.InputError, "integers"),
        (lambda: label_predicted(F[:, :1], LABELS), errors.InputError, "at least two classes"),
        (lambda: RetentionCurve([]), errors.SelectionError, "ascending"),
        (lambda: RetentionCurve([0.5, 0.1]), errors.SelectionError, "ascending"),
        (lambda: RetentionCurve([0.5, 1.0]), errors.SelectionError, r"in \(0, 1\)"),
        (
            lambda: RetentionCurve([0.1, 0.5]).update({0.1: F_S}, F, F),
            errors.InputError,
            r"budgets \(0.1, 0.5\), got \(0.1,\)",
        ),
        (lambda: SelectionStability(0, {"a": 1}), errors.InputError, "needs classes and layers"),
        (lambda: SelectionStability(3, {}), errors.InputError, "needs classes and layers"),
        (lambda: SelectionStability(3, {"a": 4}).update(MASKS, LABELS), errors.InputError, "layers and neurons {'a': 4}"),
        (lambda: SelectionStability(2, {"a": 4, "b": 2}).update(MASKS, LABELS), errors.InputError, "in 0 to 1, got 0 to 2"),
        (lambda: ConservationError().update(torch.tensor(1.0)), errors.InputError, "one number per sample"),
    ],
)
def test_bad_input(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    "make", [SelectionError, lambda: SelectionStability(3, {"conv": 4}), lambda: RetentionCurve([0.1, 0.5])]
)
def test_a_device_without_double_precision_holds_sums_in_single(make: Callable[[], Metric]) -> None:
    metric = make()

    def moved(t: torch.Tensor) -> torch.Tensor:  # as torch does on Apple's MPS
        if t.dtype == torch.double:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return t.clone()

    metric._apply(moved)
    states = [getattr(metric, name) for name in metric._defaults]
    assert all(t.dtype in (torch.float, torch.long) for t in states)
    metric.reset()
    assert all(getattr(metric, name).dtype != torch.double for name in metric._defaults)


def test_probability_lost() -> None:
    logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    masked = torch.randn(20, 5, generator=torch.Generator().manual_seed(1))
    predicted = logits.argmax(1)
    for n in range(20):
        lost = logits[n].softmax(0)[predicted[n]] - masked[n].softmax(0)[predicted[n]]
        torch.testing.assert_close(probability_lost(masked, logits)[n], lost)
    assert bool((probability_lost(logits, logits) == 0).all())
    masked[3, 2] = torch.inf
    torch.testing.assert_close(probability_lost(masked, logits)[3], logits[3].softmax(0).max())
    for metric in (Sufficiency(), Comprehensiveness()):
        for at in torch.arange(20).split(7):
            metric.update(masked[at], logits[at])
        torch.testing.assert_close(metric.compute(), probability_lost(masked, logits).mean())
    with pytest.raises(InputError, match="masked_logits and logits must both be"):
        probability_lost(masked[:3], logits)


def test_logit_correlation_over_batches() -> None:
    logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    masked = torch.randn(20, 5, generator=torch.Generator().manual_seed(1))
    metric, rows = LogitCorrelation(), torch.arange(20)
    for at in rows.split(7):
        metric.update(masked[at], logits[at])
    both = torch.stack([of[rows, logits.argmax(1)] for of in (masked, logits)])
    torch.testing.assert_close(metric.compute(), torch.corrcoef(both)[0, 1])
    with pytest.raises(InputError, match="masked_logits and logits must both be"):
        metric.update(masked[:3], logits)

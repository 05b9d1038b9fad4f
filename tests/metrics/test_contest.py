"""The contest of classes given their own critical neurons: against doing it by hand, and against sets that say nothing."""

from __future__ import annotations

import pytest
import torch
from small_networks import mlp
from torch import Tensor, nn

from lrp_lightning import Contest, Epsilon, Fixed, SelectiveLRP, TopK, contest, masked_forward
from lrp_lightning.errors import InputError, SelectionError
from lrp_lightning.metrics import (
    ContestAccuracy,
    RunnerUpAccuracy,
    contest_won,
    runner_up,
    runner_up_wins,
)

NAN, INF = torch.nan, torch.inf
WIDTHS = (6, 64, 64, 4)


def inputs(many: int = 200) -> Tensor:
    return torch.randn(many, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("rivals", [1, 3])
def test_is_what_it_is_by_hand(rivals: int) -> None:
    model, x, selection = mlp(*WIDTHS), inputs(20), TopK(0.3, by="magnitude")
    held = contest(SelectiveLRP(model, Epsilon(), selection), x, rivals)
    with torch.no_grad():
        logits = model(x)
    torch.testing.assert_close(held.logits, logits)
    order = logits.argsort(1, descending=True)
    for n in range(len(x)):
        taking_part = order[n, : rivals + 1].tolist()
        for c in range(4):
            if c not in taking_part:
                assert held.own_logits[n, c].isnan()
                assert held.control[n, c].isnan()
                continue
            masks = SelectiveLRP(model, Epsilon(), selection).trace(x[n : n + 1], c).masks
            alone = masked_forward(model, x[n : n + 1], masks)[0]
            torch.testing.assert_close(held.own_logits[n, c], alone[c])
            if c == taking_part[0]:
                torch.testing.assert_close(held.with_predicted[n], alone)
            if c == taking_part[1]:
                torch.testing.assert_close(held.with_runner_up[n], alone)
        mine, others = held.own_logits[n, taking_part[0]], held.own_logits[n, taking_part[1:]]
        assert bool(contest_won(held.own_logits, logits)[n]) == bool((mine > others).all())
    assert held.accuracy == contest_won(held.own_logits, logits).float().mean()
    assert f"won {held.accuracy:.3f}" in repr(held)


def test_of_the_whole_network_every_contest_is_won_and_no_runner_up_wins() -> None:
    held = contest(SelectiveLRP(mlp(*WIDTHS), Epsilon(), TopK(1.0)), inputs(), rivals=3)
    assert held.accuracy == held.control_accuracy == 1
    assert held.runner_up_accuracy == 0
    assert held.correlation == pytest.approx(1)


def test_random_sets_win_half_and_sets_that_force_a_class_are_told_by_the_runner_up() -> None:
    torch.manual_seed(0)  # without biases and with odd functions, so that no class is ahead whatever is read
    model = nn.Sequential(
        nn.Linear(6, 256, False), nn.Tanh(), nn.Linear(256, 256, False), nn.Tanh(), nn.Linear(256, 4, False)
    )
    x = inputs(600)
    forcing = contest(SelectiveLRP(model, Epsilon(), TopK(0.1, by="relevance")), x)
    telling = contest(SelectiveLRP(model, Epsilon(), TopK(0.1)), x)
    by_chance = torch.cat([contest(SelectiveLRP(model, Epsilon(), TopK(0.1)), x, seed=s).control for s in range(3)])
    share = contest_won(by_chance, forcing.logits.repeat(3, 1)).float().mean()
    assert abs(share - 0.5) < 3 * (0.25 / 1800) ** 0.5  # three standard deviations
    assert forcing.runner_up_accuracy > 0.9
    assert forcing.accuracy < 0.7
    assert telling.runner_up_accuracy < forcing.runner_up_accuracy


def test_the_same_random_sets_for_a_seed() -> None:
    lrp, x = SelectiveLRP(mlp(*WIDTHS), Epsilon(), TopK(0.2)), inputs(10)
    one, again, other = contest(lrp, x, seed=1), contest(lrp, x, seed=1), contest(lrp, x, seed=2)
    torch.testing.assert_close(one.control, again.control, equal_nan=True)
    assert not torch.equal(one.control.nan_to_num(), other.control.nan_to_num())


def test_functions() -> None:
    logits = torch.tensor([[0.0, 5.0, 3.0], [9.0, 1.0, 3.0], [0.0, 5.0, 3.0], [0.0, 5.0, 3.0], [2.0, 2.0, 1.0]])
    assert runner_up(logits)[:4].tolist() == [2, 2, 2, 2]
    own = torch.tensor([[NAN, 4, 3], [2, NAN, 2], [NAN, INF, 1], [NAN, NAN, 1], [1, 0, NAN]])
    assert contest_won(own, logits).tolist() == [True, False, False, False, True]
    masked = torch.tensor([[0.0, 1, 2], [0, 1, 2], [NAN, 0, 1], [9, 0, 1], [0, 9, 0]])
    assert runner_up_wins(masked, logits)[:4].tolist() == [True, True, False, False]


def test_metrics_count_over_batches() -> None:
    held = contest(SelectiveLRP(mlp(*WIDTHS), Epsilon(), TopK(0.2)), inputs(50))
    won, forced = ContestAccuracy(), RunnerUpAccuracy()
    for rows in torch.arange(50).split(17):
        won.update(held.own_logits[rows], held.logits[rows])
        forced.update(held.with_runner_up[rows], held.logits[rows])
    assert won.compute() == pytest.approx(held.accuracy)
    assert forced.compute() == pytest.approx(held.runner_up_accuracy)
    assert ContestAccuracy.higher_is_better
    assert not RunnerUpAccuracy.higher_is_better


def test_bad_input() -> None:
    model, x = mlp(*WIDTHS), inputs(5)
    with pytest.raises(SelectionError, match=r"needs critical neurons.*TopK"):
        contest(SelectiveLRP(model), x)
    lrp = SelectiveLRP(model, selection=TopK(3))
    for rivals in (0, 4, True, 1.0):
        with pytest.raises(SelectionError, match=r"rivals must be 1 to 3"):
            contest(lrp, x, rivals)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least two classes"):
        contest(SelectiveLRP(mlp(6, 8, 1), selection=TopK(3)), x)
    logits = torch.zeros(2, 3)
    for call in (
        lambda: runner_up(logits[:, :1]),
        lambda: contest_won(logits[:1], logits),
        lambda: contest_won(torch.full((2, 3), NAN), logits),
        lambda: runner_up_wins(logits[:1], logits),
        lambda: contest_won([1], logits),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError):
            call()


def test_nothing_is_changed() -> None:
    model, x = mlp(*WIDTHS), inputs(5)
    before, rng = [p.clone() for p in model.parameters()], torch.get_rng_state()
    assert isinstance(contest(SelectiveLRP(model, selection=Fixed({"0": [1, 2]})), x), Contest)
    assert all(map(torch.equal, before, model.parameters()))
    assert torch.equal(rng, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_runner_up_of_a_tie_is_another_class_than_the_predicted(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(3, (2000, 12), generator=generator).to(dtype)  # of bfloat16, ties are common
    second = runner_up(logits)
    assert (second != logits.argmax(1)).all()
    rest = logits.scatter(1, logits.argmax(1, keepdim=True), -torch.inf)
    assert torch.equal(logits.gather(1, second[:, None])[:, 0], rest.amax(1))

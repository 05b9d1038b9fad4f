"""Sets optimised against the output error: never worse, no prediction lost, near the best of all sets."""

from __future__ import annotations

from itertools import combinations, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import cnn, mlp
from torch import Tensor, nn

from lrp_lightning import (
    Agreement,
    Epsilon,
    LayerSelectiveLRP,
    MinError,
    PerLayer,
    SelectiveLRP,
    TopK,
    errors,
    masked_forward,
)
from lrp_lightning.metrics import mse, smape
from lrp_lightning.selection import Search, Selection
from lrp_lightning.selection.min_error import _Forward

MEASURES = {"smape": smape, "mse": mse}


def predicted(logits: Tensor) -> Tensor:
    return logits.argmax(1)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    seed=st.integers(0, 10_000), measure=st.sampled_from(list(MEASURES)), keep=st.sampled_from([1, 3, 0.2, 0.5, 1.0]),
    convolutional=st.booleans(),
)  # fmt: skip
def test_never_worse_than_its_start_for_any_sample(seed: int, measure: str, keep: float, convolutional: bool) -> None:
    model = cnn(seed=seed) if convolutional else mlp(6, 12, 9, 4, seed=seed)
    x = torch.randn(7, 1, 8, 8) if convolutional else torch.randn(7, 6)
    start = SelectiveLRP(model, selection=TopK(keep)).trace(x, predicted)
    trace = SelectiveLRP(model, selection=MinError(measure, keep, max_passes=8)).trace(x, predicted)  # type: ignore[arg-type]
    before, after = (masked_forward(model, x, t.masks) for t in (start, trace))
    error_before, error_after = (MEASURES[measure](o, trace.output) for o in (before, after))
    assert bool((error_after <= error_before).all())
    assert trace.history is not None
    torch.testing.assert_close(trace.history[0], error_before, rtol=0, atol=0)
    torch.testing.assert_close(trace.history[-1], error_after, rtol=0, atol=0)
    assert bool((trace.history[1:-1] <= trace.history[:-2] + 1e-6).all())
    kept_before, kept_after = (o.argmax(1) == trace.output.argmax(1) for o in (before, after))
    assert not bool((kept_before & ~kept_after).any())
    for layer, mask in start.masks.items():
        assert torch.equal(mask.sum(1), trace.masks[layer].sum(1))
    assert trace.conservation_error.max() < 1e-3


def best_of_all(model: nn.Module, x: Tensor, masks: dict[str, Tensor], whole: Tensor, measure: str) -> Tensor:
    """The least error over all sets of these sizes, by trying each."""
    sets = []
    for mask in masks.values():
        width, size = mask.shape[1], int(mask[0].sum())
        sets.append([torch.tensor([n in chosen for n in range(width)]) for chosen in combinations(range(width), size)])
    together = list(product(*sets))
    columns = {layer: torch.stack([c[i] for c in together]) for i, layer in enumerate(masks)}
    least = []
    for i in range(len(x)):
        output = masked_forward(model, x[i : i + 1].expand(len(together), *x.shape[1:]), columns)
        least.append(MEASURES[measure](output, whole[i : i + 1].expand_as(output)).min())
    return torch.stack(least)


# measured, mean error over that of the best of all sets: SMAPE 1.09, MSE 1.08 (TopK 2.7 and 4.9)
@pytest.mark.parametrize("measure", MEASURES)
def test_how_near_to_the_best_of_all_sets(measure: str) -> None:
    """Eight random networks, every set of two of eight neurons in two layers, or of three of ten in one, tried."""
    found, best, start = [], [], []
    for seed in range(8):
        model = mlp(5, 10, 4, seed=seed) if seed % 2 else mlp(5, 8, 8, 4, seed=seed)
        x = torch.randn(16, 5)
        trace = SelectiveLRP(model, Epsilon(), MinError(measure, 0.3)).trace(x, predicted)  # type: ignore[arg-type]
        assert trace.history is not None
        best.append(best_of_all(model, x, trace.masks, trace.output, measure))
        found.append(trace.history[-1])
        start.append(trace.history[0])
    optimum, ours, topk = (torch.stack(e).mean().item() for e in (best, found, start))
    assert optimum <= ours + 1e-7
    assert ours <= 1.1 * optimum
    assert ours < 0.6 * topk


def test_smallest_stays_below_its_bound_with_fewer_the_looser() -> None:
    model, x = mlp(6, 24, 24, 4), torch.randn(12, 6)
    sizes = []
    for bound in (0.05, 0.3):
        trace = SelectiveLRP(model, selection=MinError("smape").smallest(error=bound)).trace(x, predicted)
        assert bool((smape(masked_forward(model, x, trace.masks), trace.output) <= bound).all())
        assert trace.history is not None
        torch.testing.assert_close(trace.history[-1], smape(masked_forward(model, x, trace.masks), trace.output))
        sizes.append(trace.masks["2"].sum(1).double().mean().item())
    assert sizes[1] < sizes[0] < 24
    exact = SelectiveLRP(model, selection=MinError("smape").smallest(error=0)).trace(x, predicted)
    assert bool((smape(masked_forward(model, x, exact.masks), exact.output) == 0).all())


def test_budgets_by_layer_and_layers_left_whole() -> None:
    model, x = mlp(6, 20, 16, 12, 4), torch.randn(5, 6)
    start = PerLayer(TopK(3), layers={"2": TopK(0.5)}, exclude=("4",))
    trace = SelectiveLRP(model, selection=MinError(keep=start)).trace(x, predicted)
    assert {layer: mask.sum(1).tolist() for layer, mask in trace.masks.items()} == {"0": [3] * 5, "2": [8] * 5}


def test_wherever_a_selection_goes() -> None:
    """Attribution, layers, edges, inference mode; nothing is changed; the global generator is left alone."""
    model, x = cnn(), torch.rand(4, 1, 8, 8)
    lrp = SelectiveLRP(model, selection=MinError(max_passes=4))
    state, rng = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    trace = lrp.trace(x, target=1, edges=True)
    assert trace.edges
    assert torch.equal(lrp.attribute(x, target=1), trace.inputs)  # the same again: no chance in it
    assert LayerSelectiveLRP(model, "4", selection=MinError(max_passes=4)).attribute(x, target=1).shape == (4, 16, 2, 2)
    with torch.inference_mode():
        assert torch.equal(lrp.attribute(x.clone(), target=1), trace.inputs)
    model.train()
    assert torch.equal(lrp.attribute(x, target=1), trace.inputs)
    assert model.training
    model.eval()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(p.grad is None for p in model.parameters())
    assert isinstance(MinError(), Selection)
    assert isinstance(MinError(), Search)
    assert hash(MinError()) == hash(MinError())
    assert SelectiveLRP(model, selection=TopK(2)).trace(x, target=1).history is None


def test_progress_is_shown_when_asked(capsys: pytest.CaptureFixture) -> None:
    SelectiveLRP(cnn(), selection=MinError(max_passes=2)).trace(torch.rand(2, 1, 8, 8), target=1)
    assert capsys.readouterr().err == ""
    SelectiveLRP(cnn(), selection=MinError(max_passes=2, verbose=True)).trace(torch.rand(2, 1, 8, 8), target=1)
    assert "MinError" in capsys.readouterr().err


# Agreement


@pytest.mark.parametrize("measure", MEASURES)
def test_agreement_has_the_least_error_of_all_sets(measure: str) -> None:
    """One hidden layer and one rule: every set of three tried."""
    model, x = mlp(5, 8, 3), torch.randn(6, 5)
    trace = SelectiveLRP(model, Epsilon(), Agreement(measure, 3, rules=(Epsilon(),))).trace(x, target=1)  # type: ignore[arg-type]
    with torch.no_grad():
        a, r = model[0](x).relu(), SelectiveLRP(model, Epsilon()).trace(x, target=1).relevance["0"]
    a, r = (v / v.abs().sum(1, keepdim=True) for v in (a, r))

    def error(chosen: Tensor) -> Tensor:
        back = r * chosen
        if measure == "mse":
            return (a - back).square().sum(1)
        size = a.abs() + back.abs()
        return torch.where(size == 0, 0, 2 * (a - back).abs() / torch.where(size == 0, 1, size)).sum(1)

    sets = [torch.tensor([n in c for n in range(8)]) for c in combinations(range(8), 3)]
    best = torch.stack([error(s) for s in sets]).min(0).values
    torch.testing.assert_close(error(trace.masks["0"]), best)
    assert trace.history is not None
    torch.testing.assert_close(trace.history[0], best)


def test_agreement_takes_the_better_rule_in_each_layer() -> None:
    model, x = cnn(), torch.rand(4, 1, 8, 8)
    both = SelectiveLRP(model, selection=Agreement("mse", 0.25)).trace(x, target=1)
    assert both.masks["4"].sum(1).tolist() == [4] * 4
    assert both.history is not None
    assert both.history.shape == (3, 4)


# Bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MinError("mae"), r"MinError: measure must be one of \['mse', 'smape'\], got 'mae'"),
        (lambda: MinError(keep=1.5), "MinError: keep must be a number of neurons"),
        (lambda: MinError(keep=TopK), "MinError: keep must be"),
        (lambda: MinError(max_passes=0), "max_passes must be an int >= 1, got 0"),
        (lambda: MinError().smallest(-0.1), "error must be a number >= 0, got -0.1"),
        (lambda: Agreement("mae"), "Agreement: measure must be one of"),
        (lambda: Agreement("mse", 0), "Agreement: keep must be"),
        (lambda: Agreement(rules=()), "at least one rule"),
        (
            lambda: SelectiveLRP(cnn(), selection=MinError(keep=TopK(3, unit="element"))).trace(torch.rand(2, 1, 8, 8), 1),
            "MinError can search only channels",
        ),
    ],
)
def test_bad_input(make: object, message: str) -> None:
    with pytest.raises(errors.SelectionError, match=message):
        make()  # type: ignore[operator]


def test_an_output_that_is_no_logits() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3))
    with pytest.raises(errors.InputError, match=r"logits \(N, classes\), got \(2, 3, 4, 4\)"):
        SelectiveLRP(model, selection=MinError()).attribute(torch.rand(2, 1, 8, 8), target=(1, 2, 2))


def test_the_last_layer_is_solved_where_outputs_are_linear_in_it() -> None:
    """What is found for it costs no more than it did, and is near the best of all its sets; elsewhere nothing is solved."""
    model, x = mlp(6, 20, 10, 4), torch.randn(12, 6)
    start = SelectiveLRP(model, Epsilon(), TopK(3)).trace(x, predicted)
    forward = _Forward(model, x, None, start.output, "smape")
    assert forward.linear_end(start.masks) == "2"
    price = torch.zeros(len(x))
    output, _, masks = forward.gradient(start.masks, price, "2")
    torch.testing.assert_close(output, masked_forward(model, x, masks))
    assert torch.equal(masks["0"], start.masks["0"])
    assert masks["2"].sum(1).tolist() == [3] * len(x)
    was, found = (smape(masked_forward(model, x, of), start.output) for of in (start.masks, masks))
    assert bool((found <= was + 1e-6).all())
    every = []
    for kept in combinations(range(10), 3):
        mask = torch.zeros(10, dtype=torch.bool).index_fill(0, torch.tensor(kept), True)
        every.append(smape(masked_forward(model, x, {"0": start.masks["0"], "2": mask}), start.output))
    best = torch.stack(every).amin(0)
    assert float((found - best).mean()) < 0.1 * float((was - best).mean())
    bent = nn.Sequential(*model, nn.Softplus())
    assert _Forward(bent, x, None, bent(x).detach(), "smape").linear_end(start.masks) is None


@pytest.mark.parametrize("measure", ["mse", "smape"])
def test_without_hidden_layers_there_is_nothing_to_search(measure: str) -> None:
    x, model = torch.randn(5, 4), nn.Linear(4, 3)
    trace = SelectiveLRP(model, selection=MinError(measure, keep=0.5)).trace(x, target=1)
    assert trace.masks == {}
    assert trace.history is not None
    assert trace.history.tolist() == [[0.0] * 5]

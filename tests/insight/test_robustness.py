"""Critical neurons under small changes of the input: against doing it by hand."""

from __future__ import annotations

import pytest
import torch
from small_networks import convolutions
from torch import nn

from lrp_lightning import Epsilon, SelectiveLRP, TopK, contest, masked_forward, robustness
from lrp_lightning.errors import InputError, SelectionError
from lrp_lightning.insight.robustness import brightened, noisy, shifted


def network() -> nn.Module:
    return convolutions(1, 10, 8, side=7, classes=4)


def test_is_what_it_is_by_hand() -> None:
    model, x = network(), torch.rand(12, 1, 7, 7)
    lrp = SelectiveLRP(model, Epsilon(), TopK(0.3))
    found = robustness(lrp, x)
    assert list(found) == ["noise", "shift", "brightness"]
    first, second = model(x).topk(2, 1).indices.T
    old, rivals = lrp.trace(x, first).masks, lrp.trace(x, second).masks
    rows = torch.arange(len(x))
    for name, change in (("noise", noisy), ("shift", shifted), ("brightness", brightened)):
        changed = change(x)
        new = lrp.trace(changed, first).masks
        overlap = [
            float((old[layer][n] & new[layer][n]).sum() / (old[layer][n] | new[layer][n]).sum())
            for layer in old
            for n in range(len(x))
        ]
        assert found[name].jaccard == pytest.approx(sum(overlap) / len(overlap))
        mine, theirs = (masked_forward(model, changed, masks) for masks in (old, rivals))
        assert found[name].contest == pytest.approx((mine[rows, first] > theirs[rows, second]).float().mean())
        assert found[name].prediction == pytest.approx((model(changed).argmax(1) == first).float().mean())


def test_nothing_changed_is_the_contest_itself() -> None:
    model, x = network(), torch.rand(12, 1, 7, 7)
    lrp = SelectiveLRP(model, Epsilon(), TopK(0.3))
    [found] = robustness(lrp, x, {"nothing": lambda x: x}).values()
    assert (found.jaccard, found.prediction) == (1, 1)
    assert found.contest == pytest.approx(contest(lrp, x).accuracy)


def test_changes_leave_the_inputs_and_the_generator_alone() -> None:
    x, state = torch.rand(3, 1, 7, 7), torch.get_rng_state()
    before = x.clone()
    for change in (noisy, shifted, brightened):
        assert torch.equal(change(x), change(x))
        assert not torch.equal(change(x), x)
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_bad_arguments() -> None:
    model, x = network(), torch.rand(3, 1, 7, 7)
    with pytest.raises(SelectionError, match=r"selection=TopK\(0.2\)"):
        robustness(SelectiveLRP(model), x)
    with pytest.raises(InputError, match=r"'half' must give inputs of the shape \(3, 1, 7, 7\), got \(1, 1, 7, 7\)"):
        robustness(SelectiveLRP(model, selection=TopK(2)), x, {"half": lambda x: x[:1]})

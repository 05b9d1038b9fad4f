"""Two models, or two arguments, are told apart; the same ones are the same in every run."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lrp_lightning import Fixed, PerLayer, TopK
from lrp_lightning.store.identity import described, fingerprint


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))


def test_the_same_model_has_the_same_fingerprint() -> None:
    model = small()
    assert fingerprint(model) == fingerprint(small()) == fingerprint(copy.deepcopy(model).eval())


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model[0].weight.data[0, 0, 0, 0].add_(1e-6),
        lambda model: model[1].running_mean.add_(1),
        lambda model: model.double(),
        lambda model: model.append(nn.Linear(2, 2)),
    ],
    ids=["weight", "buffer", "precision", "layer"],
)
def test_another_model_has_another(change) -> None:
    model = small()
    change(model)
    assert fingerprint(model) != fingerprint(small())


def test_parameters_of_any_kind_have_one() -> None:
    model = small().to(torch.bfloat16)
    model.register_buffer("scalar", torch.tensor(3))
    model.register_buffer("empty", torch.zeros(0, 4))
    model.register_buffer("turned", torch.rand(3, 2).T)
    assert fingerprint(model) == fingerprint(copy.deepcopy(model))


def test_large_masks_are_told_apart_where_their_text_is_not() -> None:
    one, other = torch.zeros(5000, dtype=torch.bool), torch.zeros(5000, dtype=torch.bool)
    other[2500] = True
    assert repr(Fixed({"0": one})) == repr(Fixed({"0": other}))
    assert described(Fixed({"0": one})) != described(Fixed({"0": other}))
    assert described(Fixed({"0": one})) == described(Fixed({"0": one.clone()}))


def test_what_has_no_text_of_its_own_is_the_same_in_every_run() -> None:
    class Own:
        pass

    assert described(Own()) == described(Own())
    assert described(PerLayer(TopK(2))) == repr(PerLayer(TopK(2)))

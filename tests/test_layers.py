"""The modules of a model, as torch lists them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torchvision
from torch import nn

from lrp_lightning import ByKeyword
from lrp_lightning.layers import modules_of


def shared() -> nn.Module:
    one = nn.Linear(3, 3)
    net = nn.Sequential(one, nn.Sequential(nn.ReLU(), one), nn.ModuleDict({"last": nn.Linear(3, 2), "first": one}))
    net.add_module("gone", None)
    return net


MODELS: dict[str, Callable[[], nn.Module]] = {
    "shared": shared,
    "resnet": lambda: torchvision.models.resnet18(),
    "view": lambda: ByKeyword(shared(), "input"),
    "view inside": lambda: nn.Sequential(nn.ReLU(), ByKeyword(shared(), "input"), nn.Linear(2, 2)),
    "attention": lambda: nn.TransformerEncoderLayer(4, 2),
}


@pytest.mark.parametrize("model", MODELS)
def test_modules_are_those_that_torch_names(model: str) -> None:
    made = MODELS[model]()
    for (name, module), (expected, same) in zip(modules_of(made), made.named_modules(), strict=True):
        assert name == expected
        assert module is same

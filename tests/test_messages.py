"""Likely mistakes: each message names what was wrong, where, what is allowed, and what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lrp_lightning import (
    Composite,
    Epsilon,
    EpsilonPlus,
    Fixed,
    MinError,
    PerLayer,
    SelectiveLRP,
    TopK,
    ZPlus,
    build_graph,
    class_circuits,
    class_graph,
    contest,
    contrast,
    find_strategies,
    masked_forward,
    neuron_cards,
    reconstruct,
    robustness,
)
from lrp_lightning.checks import got, meant
from lrp_lightning.errors import (
    GraphError,
    InputError,
    LayerError,
    LRPError,
    ModelError,
    RuleError,
    SelectionError,
    TargetError,
    UnsupportedOperatorError,
)

torch.manual_seed(0)
NET = nn.Sequential(
    nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
).eval()
X, Y = torch.rand(3, 3, 8, 8), torch.tensor([0, 1, 2])
LRP = SelectiveLRP(NET, selection=TopK(2))
TRACE = LRP.trace(X, target=1)
LOADER = DataLoader(TensorDataset(X, Y), 2)
ONE_HOT = nn.functional.one_hot(Y, 5)


class Net(nn.Module):
    pass


def resnet18() -> nn.Module:
    return NET


def attribute(inputs: Any = X, target: Any = 1, **options: Any) -> Any:
    return SelectiveLRP(NET, **options).attribute(inputs, target)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        # a class or a function in place of what it makes
        (lambda: SelectiveLRP(Net), ModelError, r"model must be.*the class Net; make an instance of it: Net\("),
        (lambda: SelectiveLRP(resnet18), ModelError, r"model must be.*a function; call it: resnet18\("),
        (lambda: attribute(selection=TopK), SelectionError, r"selection must be.*the class TopK; make.*TopK\("),
        (lambda: attribute(composite=EpsilonPlus), RuleError, r"composite must be.*call it: EpsilonPlus\("),
        # one thing in the place of another
        (lambda: SelectiveLRP(NET, TopK(0.1)), RuleError, "composite must be.*that is a selection, give it as selection="),
        (lambda: attribute(selection=Epsilon()), SelectionError, "that is a composite, give it as composite="),
        (lambda: SelectiveLRP(NET, "epsilonplus"), RuleError, "names 'epsilon', .*'epsilon_plus'; got 'epsilonplus'"),
        (lambda: attribute(selection="topk(0.1)"), SelectionError, r"such as TopK\(0.1\), got 'topk\(0.1\)'"),
        (lambda: masked_forward(NET, X, TRACE), SelectionError, "masks must map layers.*give its masks, as trace.masks"),
        (lambda: masked_forward(X, NET, TRACE.masks), ModelError, "got Tensor; the model is the first argument"),
        (lambda: attribute(Y, X), InputError, "is it a target. The inputs come first"),
        (lambda: build_graph(NET), GraphError, r"build_graph needs a Trace.*edges=True\), got Sequential"),
        (lambda: contest(NET, X), SelectionError, "contest: lrp must be a SelectiveLRP with a selection.*got Sequential"),
        (lambda: contest(SelectiveLRP(NET), X), SelectionError, "contest needs critical neurons.*TopK"),
        (lambda: robustness(NET, X), SelectionError, "robustness: lrp must be a SelectiveLRP.*got Sequential"),
        # targets
        (lambda: attribute(target=ONE_HOT), TargetError, r"one-hot.*target.argmax\(1\)"),
        (lambda: attribute(target=ONE_HOT.float()), TargetError, r"one-hot.*target.argmax\(1\)"),
        (lambda: attribute(target=Y.float()), TargetError, r"torch.float32; convert it with .long\(\)"),
        (lambda: attribute(target=Y[:2]), TargetError, "2 targets for 3 samples; give one for each, or one for all"),
        (lambda: attribute(target=Y + 3), TargetError, "target 5 .*classes are 0 to 4"),
        (lambda: attribute(target=None), TargetError, r"target is missing.*\(3, 5\).*argmax"),
        (lambda: attribute(target=np.array([0, 1, 2])), TargetError, "got ndarray; convert it with torch.from_numpy"),
        (lambda: attribute(target="cat"), TargetError, r"shape \(3, 5\).*a class number.*got str"),
        (lambda: class_circuits(NET, [X], classes=["cat"], progress=False), TargetError, "class numbers, got .'cat'"),
        # inputs
        (lambda: attribute(X[0]), UnsupportedOperatorError, r"3 dimensions.*give a single sample as x\[None\]"),
        (lambda: attribute(torch.rand(4)), InputError, r"a batch.*got \(4,\); give a single sample as x\[None\]"),
        (lambda: attribute(X[:0]), InputError, r"at least one sample, got \(0, 3, 8, 8\)"),
        (lambda: attribute((255 * X).byte()), InputError, r"torch.uint8.*convert it with .float\(\)"),
        (lambda: attribute(X.double()), InputError, r"torch.float64 on cpu, the model torch.float32.*\.to\(\)"),
        (lambda: attribute(X.numpy()), InputError, "got ndarray; convert it with torch.from_numpy"),
        (lambda: attribute(Image.new("RGB", (8, 8))), InputError, r"got Image; convert it with.*to_tensor"),
        (lambda: attribute(list(X)), InputError, "got list; join its tensors with torch.stack"),
        # loaders
        (lambda: attribute(LOADER), InputError, r"got DataLoader; give one of its batches, such as next\("),
        (lambda: contrast(NET, LOADER), InputError, "got DataLoader; give one of its batches"),
        (lambda: find_strategies(NET, X, progress=False), InputError, r"pass a single batch as \[batch\]"),
        (lambda: class_graph(NET, (X, Y), 1, progress=False), InputError, r"a single batch \(inputs, labels\); pass"),
        (lambda: class_circuits(NET, [X, Y], progress=False), InputError, r"a single batch \(inputs, labels\)"),
        # names of layers
        (lambda: masked_forward(NET, X, {"conv": TRACE.masks["0"]}), LayerError, "no layer .*layers are .0., .2., .6."),
        (lambda: attribute(selection=Fixed({"00": 1})), LayerError, "'00'.*did you mean '0'. hidden layers are '0', '2'"),
        (lambda: attribute(selection=PerLayer(None, {"f*": TopK(1)})), LayerError, r"'f\*'.*hidden layers are '0', '2'"),
        (
            lambda: attribute(composite=Composite(Epsilon(), layers={"f*": ZPlus()})), LayerError,
            r"pattern 'f\*' matches no layer; layers are '0', '2', '6'",
        ),
        (lambda: neuron_cards(NET, LOADER, {"conv": [1]}, progress=False), LayerError, "no layer 'conv'.*layers are"),
        (lambda: neuron_cards(NET, LOADER, {"0": [9]}, progress=False), LayerError, "layer .0. has 4 neurons.*got 9"),
        (lambda: reconstruct(NET, X, "conv", [0]), LayerError, "no layer 'conv'.*layers are"),
        # budgets
        *[
            (lambda keep=keep: TopK(keep), SelectionError, rf"int >= 1.*\(0, 1\], 0.1 for 10 %\), got {keep}$")
            for keep in (10.0, 0, 0.0, 1.5)
        ],
        (lambda: MinError("smape", keep=1.5), SelectionError, r"MinError: keep must be.*\(0, 1\].*got 1.5"),
    ],
)  # fmt: skip
def test_a_likely_mistake_is_named_with_its_remedy(call: Callable[[], Any], error: type[LRPError], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.skipif(not hasattr(Exception, "add_note"), reason="notes came with Python 3.11")
def test_channels_in_the_last_dimension_are_pointed_at() -> None:
    with pytest.raises(RuntimeError) as caught:
        attribute(X.permute(0, 2, 3, 1))
    assert caught.value.__notes__ == [
        "in module '0' of the model; does the input fit it? It reads 3 channels, in dimension 1"
    ]


def test_of_many_layers_the_first_are_listed() -> None:
    names = [f"block.{n}" for n in range(20)]
    assert meant("zzz", names).endswith("'block.7', ... (20 in all)")
    assert meant("zzz", names[:8]).endswith("'block.7'")


def test_batches_are_no_pair_of_inputs_and_labels() -> None:
    """Two batches of inputs, one of which is as long as the other, are a loader."""
    assert len(class_circuits(NET, [X, X], steps=2, progress=False)) == 5


def test_what_needs_no_remedy_is_its_type() -> None:
    assert (got("cat"), got(3), got(lambda: 1)) == ("str", "int", "a function")

"""Why A and not B: against passes of each by themselves, and what must hold of a difference."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from small_networks import convolutions
from torch import Tensor, nn

from lrp_lightning import Epsilon, SelectiveLRP, TopK, contrast, masked_forward
from lrp_lightning.drawing import draw_contrast, save_contrast
from lrp_lightning.errors import InputError, TargetError


@pytest.fixture
def model() -> nn.Module:
    return convolutions(1, 12, 16, side=8, classes=4).double()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.double)


def test_the_difference_is_that_of_both_where_the_rule_is_linear_in_the_output(model: nn.Module, images: Tensor) -> None:
    why = contrast(model, images, 2, 0, Epsilon(1e-12))
    torch.testing.assert_close(why.all_neurons[2], why.all_neurons[0] - why.all_neurons[1], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(why.margin, model(images)[:, 2] - model(images)[:, 0])
    for heat, critical, of in zip(why.all_neurons, why.heatmaps, (2, 0, [(2, 0)] * 6), strict=True):
        torch.testing.assert_close(heat, SelectiveLRP(model, Epsilon(1e-12)).attribute(images, target=of))
        expected = SelectiveLRP(model, Epsilon(1e-12), TopK(0.2)).attribute(images, target=of)
        torch.testing.assert_close(critical, expected)


def test_by_default_the_predicted_against_the_runner_up(model: nn.Module, images: Tensor) -> None:
    why, ranked = contrast(model, images), model(images).topk(2).indices
    assert torch.equal(torch.stack([why.a, why.b], 1), ranked)
    assert (why.margin > 0).all()
    highest = contrast(model, images, b=int(ranked[0, 0]), a=(ranked[:, 0] + 1) % 4)
    assert (highest.b == ranked[0, 0]).all()
    torch.testing.assert_close(contrast(model, images, a=ranked[:, 1]).margin, -why.margin)


def test_neurons_are_those_of_the_difference_and_own_logits_of_each_ones_own(model: nn.Module, images: Tensor) -> None:
    why = contrast(model, images, 1, 3, selection=TopK(3))
    trace = SelectiveLRP(model).trace(images, [(1, 3)] * len(images))
    shares = {layer: trace.relevance[layer] / trace.relevance[layer].abs().sum(1, keepdim=True) for layer in ("0", "2")}
    every = sorted(
        ((layer, n, float(s)) for layer, of in shares.items() for n, s in enumerate(of.mean(0))), key=lambda f: f[2]
    )
    assert [n[:2] for n in why.neurons_for] == [n[:2] for n in every[::-1] if n[2] > 0][:10]
    assert [n[:2] for n in why.neurons_against] == [n[:2] for n in every if n[2] < 0][:10]
    assert [n[2] for n in why.neurons_for] == pytest.approx([n[2] for n in every[::-1] if n[2] > 0][:10])
    for column, of in enumerate((1, 3)):
        masks = SelectiveLRP(model, selection=TopK(3)).trace(images, of).masks
        torch.testing.assert_close(why.own_logits[:, column], masked_forward(model, images, masks)[:, of])
    ahead = why.own_logits[:, 0] > why.own_logits[:, 1]
    assert torch.equal(why.same_class_ahead, ahead == (model(images)[:, 1] > model(images)[:, 3]))
    assert repr(why).startswith("Contrast(6 samples, mean margin ")


def test_the_model_is_left_as_it_was(model: nn.Module, images: Tensor) -> None:
    before = copy.deepcopy(model.train().state_dict())
    contrast(model, images)
    assert model.training
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"a": 4}, TargetError, "a must be classes 0 to 3, got"),
        ({"b": torch.zeros(2).long()}, TargetError, "b must be a class, or one for each of 6 samples"),
        ({"a": "cat"}, TargetError, "a must be a class, or one for each of 6 samples, got 'cat'"),
        ({"a": 1, "b": 1}, TargetError, "a and b must be different classes, both are class 1 for sample 0"),
        ({"inputs": [1]}, InputError, "inputs must be one tensor, samples first, got list"),
    ],
)
def test_bad_input(model: nn.Module, images: Tensor, given: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        contrast(model, **{"inputs": images, **given})


def test_one_class_cannot_be_set_against_another(images: Tensor) -> None:
    with pytest.raises(InputError):
        contrast(nn.Sequential(nn.Flatten(), nn.Linear(64, 1)).double(), images)


def test_the_part_held_is_relevance_over_the_logit_and_the_difference(model: nn.Module, images: Tensor) -> None:
    why = contrast(model, images, 2, 0, Epsilon(1e-12))
    logits = model(images).detach()
    torch.testing.assert_close(why.explained, torch.stack([logits[:, 2], logits[:, 0], logits[:, 2] - logits[:, 0]]))
    for heat in (why.heatmaps, why.all_neurons):
        torch.testing.assert_close(why.logit_shares(heat), heat.sum((2, 3, 4)) / why.explained)


def test_a_contrast_is_one_folder_of_picture_figures_and_report(model: nn.Module, images: Tensor, tmp_path: Path) -> None:
    why = contrast(model, images[:2], 2, 0)
    names, titles = ["cat", "dog", "<b>fox</b>", "owl"], ["one.png", "two.png"]
    folder = save_contrast(why, tmp_path / "new" / "why", names, titles, settings={"model": "small"})
    assert sorted(file.name for file in folder.iterdir()) == ["contrast.json", "contrast.png", "report.html"]
    figures = json.loads((folder / "contrast.json").read_text())
    first = figures["samples"][0]
    assert (first["title"], first["class"], first["name"], first["against name"]) == ("one.png", 2, "<b>fox</b>", "cat")
    assert first["margin"] == pytest.approx(float(why.margin[0]))
    assert first["part of class, other and margin held"]["all neurons"] == why.logit_shares(why.all_neurons)[:, 0].tolist()
    assert figures["neurons for"][0][2] > 0 > figures["neurons against"][0][2]
    page = (folder / "report.html").read_text()
    assert "<b>fox" not in page
    assert 'id="contrast"' in page
    assert "<td>lowers</td>" in page
    figure = draw_contrast(why, names)
    said = [axis.get_title() for axis in figure.axes]
    assert said[0] == "critical neurons"
    assert said[1].startswith("for <b>fox</b>\nlogit ")
    assert "all neurons" in said
    with pytest.raises(InputError, match="images"):
        draw_contrast(contrast(nn.Linear(4, 3), torch.rand(2, 4)))

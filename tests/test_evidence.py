"""The benchmarks of evidence measure what their pages say: by hand, and on maps that are known to be right or wrong."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module(name)


@pytest.fixture
def mosaics(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script("mosaics", monkeypatch)


@pytest.fixture
def perturbation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script("perturbation", monkeypatch)


# peers


@pytest.fixture
def attributions(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("zennit")
    pytest.importorskip("autolrp")
    return script("attributions", monkeypatch)


def small_network(bias: bool = True) -> nn.Module:
    """Convolutions, with biases also a batch norm, and a linear layer."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=bias), nn.BatchNorm2d(6) if bias else nn.Identity(), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, bias=bias), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 3, bias=bias),
    )  # fmt: skip
    for _ in range(20):
        model(torch.randn(8, 1, 8, 8))
    return model.eval()


SAME = {
    "epsilon": "epsilon",
    "EpsilonPlus": "epsilon_plus",
    "EpsilonGammaBox": "box",
    "EpsilonAlpha2Beta1": "epsilon_alpha2_beta1",
}


@pytest.mark.parametrize("rule", SAME)
def test_zennits_composites_are_ours_of_the_same_name(attributions: ModuleType, rule: str) -> None:
    model, x, c = small_network(), 2 * torch.rand(4, 1, 8, 8) - 1, torch.tensor([0, 1, 2, 1])
    theirs = attributions.lrp_of_peers()[f"zennit {rule}"](model, x, c)
    ours = attributions.ours(attributions.COMPOSITES[SAME[rule]])(model, x, c)
    torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-4 * float(ours.abs().max()))


@pytest.mark.parametrize("rule", ["epsilon", "EpsilonPlus", "EpsilonAlpha2Beta1"])
def test_autolrps_are_ours_in_a_network_without_biases(attributions: ModuleType, rule: str) -> None:
    """Whatever the signs of the logits in a batch; to biases it gives shares by magnitude, unlike ours."""
    model, x, c = small_network(bias=False), 2 * torch.rand(6, 1, 8, 8) - 1, torch.tensor([0, 1, 2, 2, 0, 1])
    logits = model(x).gather(1, c[:, None])[:, 0]
    assert len(logits.sign().unique()) == 2
    theirs = attributions.lrp_of_peers()[f"autolrp {rule}"](model, x, c)
    ours = attributions.ours(attributions.COMPOSITES[SAME[rule]])(model, x, c)
    torch.testing.assert_close(theirs, ours, rtol=1e-2, atol=1e-2 * float(ours.abs().max()))


def test_zennit_is_ours_in_an_efficientnet_lite_and_leaves_it(attributions: ModuleType) -> None:
    """By the canonizers that are written for it. A merged batch norm keeps its epsilon, hence the tolerance."""
    torch.manual_seed(0)
    model = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0").eval()
    x, c = 2 * torch.rand(1, 3, 64, 64) - 1, torch.tensor([0])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    theirs = attributions.lrp_of_peers()["zennit EpsilonPlus"](model, x, c)
    ours = attributions.ours("epsilon_plus")(model, x, c)
    assert torch.corrcoef(torch.stack([theirs.flatten(), ours.flatten()]))[0, 1] > 0.999
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any("forward" in vars(module) for module in model.modules())


def test_peers_leave_the_network_as_it_was(attributions: ModuleType) -> None:
    model, x, c = small_network(), torch.rand(2, 1, 8, 8), torch.tensor([0, 1])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    for name, explain in attributions.lrp_of_peers().items():
        assert attributions.attempt(name, explain, model, x, c).shape == x.shape
        assert model.state_dict().keys() == before.keys(), name
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()), name
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()), name
        assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters()), name
        assert torch.equal(torch.get_rng_state(), state), name


def test_the_error_of_a_peer_is_its_result_and_ours_is_raised(attributions: ModuleType) -> None:
    def fails(model: nn.Module, x: Tensor, c: Tensor) -> Tensor:
        raise KeyError("no rule")

    model, x, c = small_network(), torch.rand(1, 1, 8, 8), torch.tensor([0])
    for name in ("Captum LRP", "zennit epsilon", "autolrp epsilon"):
        assert attributions.attempt(name, fails, model, x, c) == "KeyError"
    with pytest.raises(KeyError):
        attributions.attempt("epsilon", fails, model, x, c)
    assert attributions.attempt("zennit epsilon", lambda model, x, c: x / 0, model, x, c) == "not finite"


def test_one_failure_is_shown_and_nothing_averaged(attributions: ModuleType) -> None:
    assert attributions.cell([[0.25, 7.0], [0.75, 7.0]], 0) == "0.50 ± 0.25"
    assert attributions.cell([[0.25, 7.0], "KeyError"], 0) == "KeyError"


# mosaics


def test_a_mosaic_is_read_from_the_upper_left(mosaics: ModuleType) -> None:
    made = mosaics.mosaic(torch.arange(4.0)[:, None, None, None].expand(4, 1, 2, 2))
    assert made[0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


def test_relevance_in_its_own_quadrant_has_a_share_of_one_and_elsewhere_none(mosaics: ModuleType) -> None:
    own = torch.zeros(4, 2, 4, 4)
    for n in range(4):
        own[n, :, n // 2 * 2 : n // 2 * 2 + 2, n % 2 * 2 : n % 2 * 2 + 2] = 1.0
    assert mosaics.localised(own) == [(1.0, 1.0)] * 4
    assert mosaics.localised(own.flip(0)) == [(0.0, 0.0)] * 4
    assert [share for share, _ in mosaics.localised(torch.ones(4, 1, 4, 4))] == [0.25] * 4
    assert mosaics.localised(torch.zeros(4, 1, 4, 4)) == [(0.25, 0.0)] * 4, "nothing said is chance"


def test_negative_relevance_does_not_count_and_channels_are_added_up(mosaics: ModuleType) -> None:
    relevance = torch.zeros(4, 2, 4, 4)
    relevance[:, :, 0, 0] = torch.tensor([3.0, -2.0])  # 1 in the first quadrant
    relevance[:, 0, 3, 3] = 3.0  # in the last
    relevance[:, 1, 0, 3] = -5.0
    assert [share for share, _ in mosaics.localised(relevance)] == [0.25, 0.0, 0.0, 0.75]
    assert [pointing for _, pointing in mosaics.localised(relevance)] == [0.0, 0.0, 0.0, 1.0]


# perturbation curves


class Sum(nn.Module):
    """Two logits, of which the first is a weighted sum of the pixels."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        first = (x * self.weight).flatten(1).sum(1)
        return torch.stack([first, torch.zeros_like(first)], 1)


def test_pixels_are_replaced_in_order_until_none_is_left(perturbation: ModuleType) -> None:
    image, instead = torch.ones(3, 2, 5), torch.zeros(3, 2, 5)
    series = perturbation.replaced(image, instead, torch.arange(10).flip(0), steps=5)
    assert torch.equal(series[0], image)
    assert torch.equal(series[-1], instead)
    assert series[:, 0].flatten(1).sum(1).tolist() == [10, 8, 6, 4, 2, 0]
    assert series[1, 0].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], "the last two pixels first"


def test_contributions_of_a_linear_model_have_the_greatest_area_and_their_opposite_the_least(
    perturbation: ModuleType,
) -> None:
    generator = torch.Generator().manual_seed(0)
    image, instead, weight = torch.rand(1, 10, 10, generator=generator), torch.zeros(1, 10, 10), torch.randn(1, 10, 10)
    model = Sum(weight)
    exact = image * weight
    best = perturbation.areas(model, image, instead, exact, 0)
    worst = perturbation.areas(model, image, instead, -exact, 0)
    others = [
        perturbation.areas(model, image, instead, torch.randn(1, 10, 10, generator=generator), 0)[0] for _ in range(20)
    ]
    assert worst == pytest.approx([-area for area in best], abs=1e-6)
    assert worst[0] < min(others) < max(others) < best[0] <= 1


def test_an_area_by_hand(perturbation: ModuleType) -> None:
    """Of ten pixels one counts: gone in the first step, or in the last."""
    weight = torch.zeros(1, 1, 10)
    weight[0, 0, 3] = 1e3
    image, instead = torch.ones(1, 1, 10), -torch.ones(1, 1, 10)
    found = perturbation.areas(Sum(weight), image, instead, weight, 0)
    assert found == pytest.approx((0.9, 0.9))  # 1 from 0 to .9, falling till 1: .95; 1 at 0, falling till .1: .05


def test_what_says_nothing_has_hardly_an_area(perturbation: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    model, image = Sum(torch.ones(1, 20, 20)), torch.rand(1, 20, 20, generator=generator)
    found = perturbation.areas(model, image, torch.zeros(1, 20, 20), torch.zeros(1, 20, 20), 0)
    assert abs(found[0]) < 0.05


# Quantus


def test_quantus_is_given_the_relevance_of_its_images_and_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("quantus")
    module = script("quantus_metrics", monkeypatch)
    model, x, c = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), torch.rand(2, 3, 2, 2), torch.tensor([4, 1])
    found = module.explained(lambda model, x, c: x * model[1].weight[c].view_as(x))(model, x.numpy(), c.numpy())
    assert found.shape == (2, 1, 2, 2)
    exact = (x * model[1].weight[c].view_as(x)).sum(1, keepdim=True)
    assert found == pytest.approx((exact / exact.abs().amax((1, 2, 3), keepdim=True)).detach().numpy(), abs=1e-6)


# the pages


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small photographs, and a few images to train on."""
    for name, constant, value in [("ground_truth", "TRAIN", 512), ("mosaics", "QUADRANT", 64), ("perturbation", "SIDE", 64)]:
        monkeypatch.setattr(script(name, monkeypatch), constant, value)
    module = script("small_images", monkeypatch)
    for name, load in list(module.DATA.items()):
        monkeypatch.setitem(module.DATA, name, partial(first, load, module.Images))


def first(load: Callable[..., tuple], images: Callable[..., tuple], centred: bool = True) -> tuple:
    """Of what is loaded, the first 512 to train on and all that is held out."""
    to_train_on, held_out = load(centred)
    return images(*(part[:512] for part in to_train_on)), held_out


@pytest.mark.slow
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["mosaics", "perturbation", "default_composite", "quantus_metrics"])
def test_a_page_is_written(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "quantus_metrics":
        pytest.importorskip("quantus")
    module = script(name, monkeypatch)
    out = tmp_path / "page.md"
    monkeypatch.setattr(sys, "argv", ["", "--quick", "--seeds", "0", "1", "--cache", str(tmp_path), "--out", str(out)])
    module.main()
    rows = module.CANDIDATES if name == "default_composite" else ["epsilon", "epsilon_plus, TopK(0.1)", "random"]
    if name in ("mosaics", "perturbation"):
        rows = [*rows, "zennit EpsilonPlus", "autolrp EpsilonPlus"]
    assert all(f"| {row} |" in out.read_text() for row in rows)

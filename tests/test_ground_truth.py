"""The generated images are what the page says of them, and the measures what they are called."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def truth(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("ground_truth")


@pytest.fixture
def sanity(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("sanity")


EACH = [(s, b) for s in ("LIN", "MULT", "RIGID", "XOR") for b in ("white", "correlated")]

# the data


@pytest.mark.parametrize(("scenario", "background"), EACH)
def test_classes_are_balanced_and_a_seed_gives_the_same_images(truth: ModuleType, scenario: str, background: str) -> None:
    data, again = (truth.generate(scenario, background, 40, seed=3) for _ in range(2))
    assert data.labels.bincount().tolist() == [20, 20]
    for one, other in zip(data, again, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(data.images, truth.generate(scenario, background, 40, seed=4).images)
    assert data.images.shape == (40, 1, 8, 8)
    assert data.images.abs().max() == 1
    assert data.truth.flatten(1).sum(1).unique().tolist() == [4 if scenario == "RIGID" else 8]


@pytest.mark.parametrize(("scenario", "background"), EACH)
def test_outside_of_the_truth_classes_are_alike(
    truth: ModuleType, monkeypatch: pytest.MonkeyPatch, scenario: str, background: str
) -> None:
    """Each pixel's mean of x (of its magnitude, or of the product with another's) tells classes apart in the truth only."""
    if scenario == "RIGID":
        pytest.skip("the pattern is anywhere")
    monkeypatch.setitem(truth.SIGNAL[scenario], background, 0.4)
    data = truth.generate(scenario, background, 10_000, seed=0)
    x, where = data.images[:, 0].double(), data.truth[0]
    told = {"LIN": x, "MULT": x.abs(), "XOR": x * x[:, 1, 2, None, None]}[scenario]  # by itself XOR's pixels say nothing
    of_class = [told[data.labels == c] for c in (0, 1)]
    difference = (of_class[0].mean(0) - of_class[1].mean(0)).abs()
    error = (of_class[0].var(0) / len(of_class[0]) + of_class[1].var(0) / len(of_class[1])).sqrt()
    apart = difference / error
    assert (apart[~where] < 5).all()
    in_question = where.clone()
    if scenario == "XOR":  # T with T agrees in both classes, T with L does not
        in_question[:4] = False
    assert (apart[in_question] > 5).all()


def test_patterns_are_t_and_l(truth: ModuleType) -> None:
    rows = [
        ["".join(".#"[int(v)] for v in line) for line in truth.pattern(*of)] for of in ((truth.T, 1, 1), (truth.L, 4, 5))
    ]
    assert rows[0][1:3] == [".###....", "..#....."]
    assert rows[1][4:7] == [".....#..", ".....#..", ".....##."]


def test_rigid_patterns_are_moved_and_turned_and_lie_where_the_signal_is(
    truth: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(truth.SIGNAL["RIGID"], "white", 1.0)  # no noise
    data = truth.generate("RIGID", "white", 400, seed=0)
    assert torch.equal(data.images[:, 0] > 0, data.truth)
    shapes: dict[int, set] = {0: set(), 1: set()}
    for mask, label in zip(data.truth.numpy(), data.labels.tolist(), strict=True):
        rows, columns = np.nonzero(mask)
        shapes[label].add(frozenset(zip((rows - rows.min()).tolist(), (columns - columns.min()).tolist(), strict=True)))
    assert [len(of) for of in shapes.values()] == [4, 4]
    assert not shapes[0] & shapes[1]
    assert data.truth.any(0).all(), "anywhere in the image"


def test_signs_agree_in_one_class_of_xor(truth: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(truth.SIGNAL["XOR"], "white", 1.0)
    data = truth.generate("XOR", "white", 100, seed=0)
    (t, t_column), (bottom, column) = truth.PLACES
    product = data.images[:, 0, t, t_column].sign() * data.images[:, 0, bottom, column].sign()
    assert torch.equal(product == 1, data.labels == 0)


def test_multiplied_noise_is_weaker_in_the_pattern_of_the_class(truth: ModuleType) -> None:
    data = truth.generate("MULT", "white", 4000, seed=0)
    spread = [data.images[data.labels == c, 0].std(0) for c in (0, 1)]
    place = truth.PLACES[0]
    assert spread[0][place] / spread[1][place] == pytest.approx(1 - truth.SIGNAL["MULT"]["white"], rel=0.1)


# the measures


def test_a_perfect_map_has_one_and_the_opposite_none(truth: ModuleType) -> None:
    mask = truth.generate("LIN", "white", 2, seed=0).truth[0].numpy()
    for signed in (mask.astype(float), -mask.astype(float)):
        assert truth.precision(signed, mask) == 1
        assert truth.emd(signed, mask) == pytest.approx(1)
    assert truth.precision((~mask).astype(float), mask) == 0


def test_precision_counts_the_greatest_magnitudes(truth: ModuleType) -> None:
    mask = np.array([[True, True], [False, False]])
    assert truth.precision(np.array([[-3.0, 1.0], [2.0, 0.5]]), mask) == 0.5


def test_earth_movers_distance_by_hand(truth: ModuleType) -> None:
    mask = np.zeros((4, 4), bool)
    mask[0, 0] = True
    away = np.zeros((4, 4))
    away[3, 3] = 7.0
    assert truth.emd(away, mask) == pytest.approx(0), "across the whole diagonal"
    away[3, 3], away[0, 3] = 0.0, -2.0
    assert truth.emd(away, mask) == pytest.approx(1 - 1 / 2**0.5), "a side"
    mask[0, 3] = True  # half of the mass stays, half is moved along the side
    assert truth.emd(away, mask) == pytest.approx(1 - 0.5 / 2**0.5)
    even = np.full((4, 4), 1 / 16)
    assert truth.emd(np.zeros((4, 4)), mask) == pytest.approx(truth.emd(even, mask))


def test_similarity_of_maps(sanity: ModuleType) -> None:
    maps = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert sanity.similarity(maps, -2 * maps) == pytest.approx((1, 1), abs=1e-4)
    reversed_ranks, ssim = sanity.similarity(maps, 1 / maps)
    assert reversed_ranks == pytest.approx(-1)
    assert ssim < 0.5


def test_layers_are_randomised_from_the_top(sanity: ModuleType) -> None:
    model = importlib.import_module("small_images").network(16)
    weights = [name for name, module in model.named_children() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert sanity.randomised(model) == weights[::-1]


# the pages


@pytest.mark.slow
def test_one_data_set_is_measured_by_all_methods(truth: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truth, "TRAIN", 512)
    monkeypatch.setattr(truth, "LEAST_ACCURACY", 0.0)
    monkeypatch.setattr(truth, "SIGNAL", {"LIN": {"white": 0.5}})
    monkeypatch.setattr(truth, "BACKGROUNDS", {"white": 0.0})
    out = tmp_path / "page.md"
    monkeypatch.setattr(sys, "argv", ["", "--quick", "--seeds", "0", "1", "--cache", str(tmp_path), "--out", str(out)])
    truth.main()
    page = out.read_text()
    assert all(page.count(f"| {name} |") == 4 for name in truth.methods()), "three models' precision, and the EMD"
    assert "nan" not in page


@pytest.mark.slow
def test_the_page_of_sanity_checks(sanity: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "page.md"
    monkeypatch.setattr(sys, "argv", ["", "--quick", "--seeds", "0", "1", "--cache", str(tmp_path), "--out", str(out)])
    sanity.main()
    page = out.read_text()
    assert all(page.count(f"| {name} |") == 2 for name in sanity.methods())
    assert "nan" not in page

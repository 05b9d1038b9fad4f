"""Strategies of networks trained with and without a planted mark: who is in them, where the region is, and what is none."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from small_networks import mlp, waves
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lrp_lightning import RelevanceStore, SelectiveLRP, Strategy, TopK, find_strategies
from lrp_lightning.callbacks import Explainer, RelevanceWriter
from lrp_lightning.errors import InputError, SelectionError, StoreError, TargetError
from lrp_lightning.insight.clusters import Clusters
from lrp_lightning.insight.transplant import Transplant

SIDE, TOP, LEFT = 16, 1, 12


def images(n: int, seed: int, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """A faint wave for each of three classes in much noise; of class 0 some have a mark in a corner; which, comes last."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    waves = torch.stack([torch.sin(torch.arange(SIDE) * (c + 1.0) / 2)[None].expand(SIDE, SIDE) for c in range(3)])
    x = 0.2 * waves[labels][:, None] + torch.randn(n, 1, SIDE, SIDE, generator=generator)
    marked = (labels == 0) & (torch.rand(n, generator=generator) < share)
    x[marked, :, TOP : TOP + 3, LEFT : LEFT + 3] = 4.0
    return x, labels, marked


def trained(share: float, seed: int = 0) -> nn.Module:
    x, labels, _ = images(900, seed, share)
    model = waves(seed)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(90):
        at = torch.arange(step * 60, step * 60 + 60) % 900
        optimizer.zero_grad()
        F.cross_entropy(model(x[at]), labels[at]).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def shortcut() -> nn.Module:
    return trained(0.4)


def batches(x: Tensor, labels: Tensor, size: int = 50) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.split(size), labels.split(size), strict=True))


def test_a_planted_mark_is_a_shortcut_its_samples_are_a_strategy_and_its_region_is_there(shortcut: nn.Module) -> None:
    x, labels, marked = images(300, 1, 0.4)
    found = find_strategies(shortcut, batches(x, labels), progress=False)
    [of_mark] = [strategy for strategy in found if strategy.shortcut]
    assert of_mark.label == 0
    assert marked[of_mark.samples].double().mean() > 0.9
    assert marked[of_mark.samples].sum() > 0.9 * marked.sum()
    top, left, height, width = of_mark.region  # type: ignore[misc]
    assert top < TOP + 3 and left < LEFT + 3 and top + height > TOP and left + width > LEFT  # noqa: PT018
    assert of_mark.transplant > of_mark.control + 0.2
    assert "a shortcut: region (" in repr(of_mark)
    assert of_mark.heatmap is not None
    assert of_mark.heatmap.flatten().argmax() in [SIDE * (TOP + i) + LEFT + j for i in range(3) for j in range(3)]
    assert all(layer in ("0", "3") and z > 0 for layer, _, z in of_mark.neurons)
    assert len(of_mark.prototypes) == 8
    assert torch.equal(of_mark.prototypes, of_mark.samples[:8])


def test_strategies_share_the_samples_of_their_class(shortcut: nn.Module) -> None:
    x, labels, _ = images(300, 1, 0.4)
    found = find_strategies(shortcut, batches(x, labels), progress=False)
    for c in range(3):
        of_class = [strategy for strategy in found if strategy.label == c]
        taken = torch.cat([strategy.samples for strategy in of_class])
        assert len(taken.unique()) == len(taken)
        assert (labels[taken] == c).all()
        assert sum(strategy.share for strategy in of_class) == pytest.approx(len(taken) / 100)
        assert [len(s.samples) for s in of_class] == sorted((len(s.samples) for s in of_class), reverse=True)


def test_a_strategy_says_what_the_model_predicts_for_its_samples(shortcut: nn.Module) -> None:
    x, labels, _ = images(300, 1, 0.4)
    predicted = shortcut(x).argmax(1)
    assert (predicted != labels).any(), "the network makes mistakes"
    for strategy in find_strategies(shortcut, batches(x, labels), progress=False):
        assert torch.equal(strategy.predictions, predicted[strategy.samples])  # type: ignore[arg-type]
        assert strategy.right == pytest.approx((predicted == labels)[strategy.samples].double().mean())
    [unknown, *_] = find_strategies(shortcut, list(x.split(50)), progress=False)
    assert unknown.predictions is None
    assert unknown.right != unknown.right


def test_without_a_mark_there_is_no_shortcut() -> None:
    x, labels, _ = images(300, 1, 0.0)
    assert not any(s.shortcut for s in find_strategies(trained(0.0), batches(x, labels), progress=False))


def test_the_same_seed_finds_the_same_and_leaves_all_else_alone(shortcut: nn.Module) -> None:
    x, labels, _ = images(240, 1, 0.4)
    model = copy.deepcopy(shortcut).train()
    before, random = {name: t.clone() for name, t in model.state_dict().items()}, torch.get_rng_state()
    one = find_strategies(model, batches(x, labels), samples_per_class=40, progress=False)
    other = find_strategies(model, batches(x, labels, 30), samples_per_class=40, progress=False)
    assert [repr(s) for s in one] == [repr(s) for s in other]
    assert all(torch.equal(a.samples, b.samples) for a, b in zip(one, other, strict=True))
    assert all(len(s.samples) <= 40 for s in one)
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_chosen_classes_and_batches_without_labels(shortcut: nn.Module) -> None:
    x, labels, _ = images(150, 1, 0.4)
    assert {s.label for s in find_strategies(shortcut, batches(x, labels), classes=[2], progress=False)} == {2}
    predicted = shortcut(x).argmax(1)
    for given in (list(x.split(50)), [(part,) for part in x.split(50)]):
        for strategy in find_strategies(shortcut, given, progress=False):
            assert (predicted[strategy.samples] == strategy.label).all()


def test_features_have_features_as_region_and_tokens_have_none() -> None:
    torch.manual_seed(0)
    x, labels = torch.randn(400, 12), torch.arange(400) % 2
    x[:, 3] += 6 * (labels == 1) * (torch.rand(400) < 0.5)  # decides alone where it is there
    x[:, 7] += 0.7 * labels
    model = mlp(12, 16, 2)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()
    found = find_strategies(model, batches(x, labels), progress=False)
    assert {s.region for s in found if s.shortcut} == {(3,)}
    tokens = nn.Sequential(nn.Embedding(20, 6), nn.Linear(6, 8), nn.ReLU(), nn.Flatten(), nn.Linear(40, 2))
    for strategy in find_strategies(tokens, torch.randint(20, (4, 40, 5)).unbind(), composite="epsilon", progress=False):
        assert (strategy.region, strategy.shortcut) == (None, False)
        assert "no region was tested" in repr(strategy)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"samples_per_class": 5}, SelectionError, "samples_per_class must be a whole number >= 10, got 5"),
        ({"max_strategies": 0}, SelectionError, "max_strategies must be a whole number >= 1, got 0"),
        ({"threshold": 1.0}, SelectionError, r"threshold must be in \[0, 1\), got 1.0"),
        ({"classes": [3]}, TargetError, "there is no class 3; the model has classes 0 to 2"),
        ({"loader": torch.rand(4, 1, 16, 16)}, InputError, "the loader must give batches"),
        ({"loader": []}, InputError, "the loader gives no samples"),
        ({"loader": [{"x": 1}]}, InputError, r"a batch must be \(inputs, labels\) or inputs, tensors of samples, got dict"),
        ({"loader": [(torch.rand(4, 1, 16, 16), torch.rand(4))]}, InputError, "labels must be one class number per sample"),
    ],
)
def test_bad_input(shortcut: nn.Module, given: dict, error: type[Exception], message: str) -> None:
    arguments = {"loader": batches(*images(60, 0, 0.4)[:2]), "progress": False, **given}
    with pytest.raises(error, match=message):
        find_strategies(shortcut, arguments.pop("loader"), **arguments)


def test_classes_with_few_samples_have_none(shortcut: nn.Module) -> None:
    x, labels, _ = images(60, 0, 0.4)
    few = torch.cat([(labels == 0).nonzero().flatten()[:5], (labels != 0).nonzero().flatten()])
    assert {s.label for s in find_strategies(shortcut, [(x[few], labels[few])], progress=False)} == {1, 2}


def test_a_strategy_as_text() -> None:
    assert repr(Strategy(3, torch.arange(12), 0.25)).startswith("Strategy(class 3, 12 samples, 25% of the class")


def test_mislabelled_samples_are_odd_and_the_strategies_of_their_own_class_claim_them(shortcut: nn.Module) -> None:
    x, labels, _ = images(600, 3, 0.0)
    with torch.no_grad():
        said = shortcut(x).argmax(1)
    flipped = torch.arange(600) % 20 == 7
    given = torch.where(flipped, (labels + 1) % 3, labels)
    found = find_strategies(shortcut, batches(x, given), progress=False)
    odd = {sample.sample: sample for sample in found.odd}
    sure = flipped & (said == labels)
    known = {n for n in sure.nonzero().flatten().tolist() if n in odd}
    assert len(known) > 0.9 * sure.sum()
    for n in known:
        assert odd[n].label == given[n]
        assert odd[n].matching_strategy is not None
        assert odd[n].matching_strategy.label == said[n]
        assert odd[n].margin > 0
    assert [s.margin for s in found.odd] == sorted((s.margin for s in found.odd), reverse=True)
    of_right = [s for s in found.odd if said[s.sample] == given[s.sample]]
    assert all(s.matching_strategy is None and s.margin < 0 for s in of_right)
    assert len(of_right) < 0.05 * 600
    with torch.no_grad():
        logits = shortcut(x)
    best = found.odd[0]
    rest = logits[best.sample].clone()
    rest[best.label] = -torch.inf
    assert best.margin == pytest.approx(float(rest.max() - logits[best.sample, best.label]), rel=1e-4)
    assert "odd samples" in repr(found)
    assert found.shortcuts == [s for s in found if s.shortcut]


@pytest.mark.parametrize(
    ("region", "shape", "where"),
    [
        ((0, 0, 4, 4), (1, 30, 60), "the upper left corner"),
        ((0, 28, 4, 4), (1, 30, 60), "the upper edge"),
        ((26, 56, 4, 4), (3, 30, 60), "the lower right corner"),
        ((13, 0, 4, 4), (1, 30, 60), "the left edge"),
        ((13, 28, 4, 4), (1, 30, 60), "the middle"),
        ((3, 5), (2, 40), "the interval 3 to 7"),
        ((4,), (9,), "feature 4"),
        ((1, 4), (9,), "features 1, 4"),
    ],
)
def test_regions_are_said_in_words(region: tuple[int, ...], shape: tuple[int, ...], where: str) -> None:
    test = Transplant(region, False, 0.31, 0.02, 0.2, 256)
    found = Strategy(1, torch.arange(12), 0.4, images=torch.zeros(6, *shape), test=test)
    assert found.where == where
    said = (
        f"the network decides 40% of class dog by {where}; copied into samples of other classes, this region turns 31% of "
        "them into class dog (controls 2%)"
    )
    assert found.sentence(["cat", "dog"]) == said
    assert replace(found, test=replace(test, moves=True)).where == "a region that moves"
    assert (
        f"the relevance of 40% of class 1 is densest in {where};" in replace(found, test=replace(test, bound=0.0)).sentence()
    )
    assert replace(found, test=None).sentence(["cat", "dog"]) == "40% of class dog: no region was tested"


def test_a_mark_that_few_samples_have_at_one_place_is_found_by_heatmaps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clusters by neurons alone put its samples among others, and the class has no shortcut."""
    (x, labels, marked), model = images(600, 1, 0.08), trained(0.08)
    [of_mark] = [s for s in find_strategies(model, batches(x, labels), progress=False) if s.shortcut]
    assert of_mark.label == 0
    assert torch.equal(of_mark.samples.sort().values, marked.nonzero().flatten())
    monkeypatch.setattr(Clusters, "alike", lambda *_: True)
    assert not find_strategies(model, batches(x, labels), progress=False).shortcuts


def stored(out: Path, explainer: Explainer, x: Tensor, labels: Tensor, **more: Any) -> RelevanceStore:
    writer = RelevanceWriter(out, **({"keep_inputs": True} | more))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    loader = DataLoader(TensorDataset(x, labels), 50)
    Trainer(accelerator="cpu", callbacks=[writer], **quiet).predict(explainer, loader, return_predictions=False)
    return RelevanceStore(out)


@pytest.mark.parametrize(
    ("target", "more"),
    [("predicted", {}), ("label", {"dtype": "float32"}), ("predicted", {"input_relevance": "places"})],
    ids=["predicted", "label", "places"],
)
def test_a_store_is_read_in_place_of_passes(
    shortcut: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, more: dict
) -> None:
    x, labels, _ = images(300, 1, 0.4)
    found = find_strategies(shortcut, batches(x, labels), samples_per_class=80, progress=False)
    store = stored(tmp_path, Explainer(shortcut, target=target), x, labels, **more)
    passed: list[Tensor] = []
    trace = SelectiveLRP.trace

    def seen(self: SelectiveLRP, inputs: Any, *given: Any, **named: Any) -> Any:
        passed.append(inputs)
        return trace(self, inputs, *given, **named)

    monkeypatch.setattr(SelectiveLRP, "trace", seen)
    of_store = find_strategies(shortcut, store, samples_per_class=80, progress=False)
    with torch.no_grad():
        mistaken = shortcut(x).argmax(1) != labels
    assert all(any(torch.equal(p, m) for m in x[mistaken]) for of in passed for p in of)  # of these alone
    assert [sorted(s.samples.tolist()) for s in of_store] == [sorted(s.samples.tolist()) for s in found]
    assert [s.shortcut for s in of_store] == [s.shortcut for s in found]
    assert [o.sample for o in of_store.odd] == [o.sample for o in found.odd]
    if "dtype" not in more:  # half precision may change the order of samples that are as typical
        return
    assert [s.test for s in of_store] == [s.test for s in found]
    for one, other in zip(of_store, found, strict=True):
        assert torch.equal(one.images, other.images)  # type: ignore[arg-type]
        assert torch.allclose(one.heatmaps, other.heatmaps, rtol=1e-2, atol=1e-2)  # type: ignore[arg-type]
        assert [(layer, n) for layer, n, _ in one.neurons[:3]] == [(layer, n) for layer, n, _ in other.neurons[:3]]


def test_stores_that_cannot_stand_for_passes(shortcut: nn.Module, tmp_path: Path) -> None:
    x, labels, _ = images(30, 1, 0.4)
    for name, explainer, more, says in (
        ("inputs", Explainer(shortcut), {"keep_inputs": False}, r"must hold one input and its relevance.*keep_inputs=True"),
        ("none", Explainer(shortcut), {"input_relevance": "none"}, "must hold one input and its relevance"),
        ("selection", Explainer(shortcut, selection=TopK(2)), {}, r"written with TopK\(keep=2.* relevance of all neurons"),
        ("composite", Explainer(shortcut, "epsilon"), {}, r"is of composite Composite\(.*, not of .*give composite="),
        ("model", Explainer(copy.deepcopy(shortcut).append(nn.ReLU())), {}, "is of another model, torch.nn"),
    ):
        if name == "model":
            explainer.model[0].weight.data.mul_(2)
        with pytest.raises(StoreError, match=says):
            find_strategies(shortcut, stored(tmp_path / name, explainer, x, labels, **more), progress=False)

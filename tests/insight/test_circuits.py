"""Class circuits: against brute force on small networks, and what they must not change."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from small_networks import mlp
from torch import Tensor, nn

from lrp_lightning import Circuits, SelectiveLRP, class_circuits, masked_forward
from lrp_lightning.errors import InputError, LayerError, SelectionError, TargetError
from lrp_lightning.insight.circuits import _error
from lrp_lightning.metrics import CircuitAgreement, circuits_agree

WIDTHS = (6, 12, 12, 3)


def batches(many: int = 6, of: int = 60) -> list[Tensor]:
    return list(torch.randn(many, of, 6, generator=torch.Generator().manual_seed(1)))


def correlation(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one, other]))[0, 1])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("replacement", ["zero", "mean"])
def test_is_near_the_best_of_all_sets(seed: int, replacement: str) -> None:
    """A hidden layer of ten neurons, of which three are kept: all 120 sets are tried."""
    model = mlp(6, 10, 3, seed=seed)
    data = batches()
    circuits = class_circuits(model, data, 3, replacement=replacement, steps=60, progress=False)
    x = torch.cat(data)
    whole, missed = model(x).detach(), []
    for c in range(3):
        reached = []
        for kept in itertools.combinations(range(10), 3):
            mask = torch.zeros(10, dtype=torch.bool)
            mask[list(kept)] = True
            reached.append(correlation(Circuits({c: {"0": mask}}, circuits.means).logits(model, x)[:, c], whole[:, c]))
        found = correlation(circuits.logits(model, x, calibrated=False)[:, c], whole[:, c])
        missed.append(max(reached) - found)
    assert max(missed) < 0.12
    assert sum(missed) / 3 < 0.07


@pytest.mark.parametrize("measure", ["mse", "smape"])
@pytest.mark.parametrize("per_layer", [False, True])
def test_sizes_and_dtypes(measure: str, per_layer: bool) -> None:
    circuits = class_circuits(
        mlp(*WIDTHS), batches(2), 0.25, measure=measure, per_layer=per_layer, steps=3, progress=False  # type: ignore[arg-type]
    )  # fmt: skip
    assert list(circuits) == [0, 1, 2]
    for masks in circuits.values():
        assert list(masks) == ["0", "2"]
        assert all((mask.shape, mask.dtype) == ((12,), torch.bool) for mask in masks.values())
        sizes = [int(mask.sum()) for mask in masks.values()]
        assert sum(sizes) == 6
        assert min(sizes) >= 1
        assert not per_layer or sizes == [3, 3]
    assert repr(circuits) == "Circuits(neurons of class 0: 6 of 24, 1: 6 of 24, 2: 6 of 24; the others give their mean)"


def test_every_neuron_is_the_whole_network() -> None:
    model, data = mlp(*WIDTHS), batches(3)
    circuits = class_circuits(model, data, 1.0, steps=2, progress=False)
    x = data[0]
    torch.testing.assert_close(circuits.logits(model, x, calibrated=False), model(x).detach())
    torch.testing.assert_close(circuits.logits(model, x), model(x).detach(), atol=1e-4, rtol=1e-4)
    metric = CircuitAgreement()
    metric.update(circuits.logits(model, x), model(x))
    assert metric.compute() == 1


@pytest.mark.parametrize("measure", ["mse", "smape"])
@pytest.mark.parametrize("seed", range(3))
def test_is_never_worse_than_its_start(measure: str, seed: int) -> None:
    """On the batches that circuits are judged by, whose sets of highest mean relevance are the start."""
    model, data = mlp(*WIDTHS, seed=seed), batches(2, 40)
    x, whole = torch.cat(data), mlp(*WIDTHS, seed=seed)(torch.cat(data)).detach()
    lrp = SelectiveLRP(model, "epsilon")
    found = class_circuits(model, data, 0.3, measure=measure, per_layer=True, steps=7, progress=False)  # type: ignore[arg-type]
    for c in range(3):
        relevance = lrp.trace(data[0], target=c).relevance
        highest = {layer: relevance[layer].abs().mean(0).topk(4).indices for layer in ("0", "2")}
        start = {layer: torch.zeros(12, dtype=torch.bool).index_fill(0, at, True) for layer, at in highest.items()}
        own = (
            Circuits(sets, found.means).logits(model, x)[:, c] for sets in ({c: start}, {c: found[c]})
        )  # fmt: skip
        was, is_ = (float(_error(logits, whole[:, c], measure)) for logits in own)
        assert is_ <= was + 1e-6


def test_edges() -> None:
    model, data = mlp(*WIDTHS), batches(3)
    circuits = class_circuits(model, data, 0.3, of="edges", steps=30, progress=False)
    assert {layer: mask.shape for layer, mask in circuits[0].items()} == {"0": (12, 6), "2": (12, 12)}
    assert [sum(int(m.sum()) for m in masks.values()) for masks in circuits.values()] == [65] * 3
    assert repr(circuits).startswith("Circuits(edges of class 0: 65 of 216, ")
    x = torch.cat(batches(8)[3:])
    whole = model(x).detach()
    own = circuits.logits(model, x)
    for c in range(3):
        assert correlation(own[:, c], whole[:, c]) > 0.8
    assert circuits_agree(own, whole).float().mean() > 0.85
    alone = masked_forward(model, x, circuits[1], of="edges", replacement=circuits.means or {})
    torch.testing.assert_close(circuits.logits(model, x, calibrated=False)[:, 1], alone[:, 1])


def test_calibration_gives_the_whole_networks_mean_and_deviation() -> None:
    model, data = mlp(*WIDTHS), batches(3)
    circuits = class_circuits(model, data, 0.3, steps=5, progress=False)
    x = torch.cat(data)
    again = Circuits(circuits, circuits.means).calibrated(model, x)
    torch.testing.assert_close(
        torch.tensor(list(again.calibration.values())), torch.tensor(list(circuits.calibration.values()))
    )
    own, whole = circuits.logits(model, x, calibrated=False), model(x).detach()
    calibrated = circuits.logits(model, x)
    for mine, theirs in ((calibrated.mean(0), whole.mean(0)), (calibrated.std(0), whole.std(0))):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
    for c in range(3):
        assert correlation(calibrated[:, c], own[:, c]) > 0.9999


def test_logits_are_those_of_masked_forward() -> None:
    model, data = mlp(*WIDTHS), batches(2)
    circuits = class_circuits(model, data, 0.3, classes=[2, 0], steps=2, progress=False)
    own = circuits.logits(model, data[0], calibrated=False)
    assert bool(own[:, 1].isnan().all())
    assert circuits.means is not None
    hidden = nn.Sequential(model[0])(torch.cat(data)).mean(0).detach()
    torch.testing.assert_close(circuits.means["0"], hidden)
    for c in (0, 2):
        alone = masked_forward(model, data[0], circuits[c], replacement=circuits.means)
        torch.testing.assert_close(own[:, c], alone[:, c])
    agree = circuits_agree(own, model(data[0]))
    of_two = model(data[0])[:, [0, 2]].argmax(1) == own[:, [0, 2]].argmax(1)
    assert torch.equal(agree, of_two)


def test_is_deterministic_and_leaves_the_model_alone() -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3)).train()
    data = [(torch.randn(20, 1, 5, 5, generator=torch.Generator().manual_seed(2)), torch.arange(20) % 3)] * 2
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    one, other = (class_circuits(model, data, 0.5, steps=3, progress=False) for _ in range(2))
    assert all(torch.equal(one[c][layer], other[c][layer]) for c in one for layer in one[c])
    assert one.calibration == other.calibration
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("state", [torch.no_grad, torch.inference_mode])
def test_in_a_validation_loop(state: type) -> None:
    model = mlp(*WIDTHS)
    outside = class_circuits(model, batches(2), 0.3, steps=3, progress=False)
    with state():
        inside = class_circuits(model, batches(2), 0.3, steps=3, progress=False)
    assert all(torch.equal(outside[c][layer], inside[c][layer]) for c in outside for layer in outside[c])


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"keep": 0}, SelectionError, "keep must be a number of neurons"),
        ({"keep": 1.5}, SelectionError, "keep must be a number of neurons"),
        ({"measure": "mae"}, SelectionError, r"one of \['mse', 'smape'\]"),
        ({"replacement": "noise"}, SelectionError, "'zero' or 'mean'"),
        ({"of": "weights"}, SelectionError, "'neurons' or 'edges'"),
        ({"steps": 0}, SelectionError, "steps must be a whole number"),
        ({"classes": [3]}, TargetError, "there is no class 3; the model has classes 0 to 2"),
        ({"classes": []}, TargetError, "classes is empty"),
        ({"loader": torch.randn(10, 6)}, InputError, r"pass a single batch as \[batch\]"),
        ({"loader": []}, InputError, "gives no batch"),
        ({"loader": [torch.randn(1, 6)]}, InputError, "at least two samples"),
        ({"loader": [{"x": 1}]}, InputError, "got dict"),
        ({"loader": iter(batches(2)), "steps": 5}, InputError, "only once"),
    ],
)
def test_bad_arguments(arguments: dict, error: type[Exception], says: str) -> None:
    loader = arguments.pop("loader", batches(2))
    with pytest.raises(error, match=says):
        class_circuits(mlp(*WIDTHS), loader, **{"progress": False, **arguments})


def test_bad_replacements() -> None:
    model, x = mlp(*WIDTHS), batches(1)[0]
    masks = {"0": torch.ones(12, dtype=torch.bool)}
    with pytest.raises(SelectionError, match="no replacement for the output of layer '0'; replacements were given for 2"):
        masked_forward(model, x, masks, replacement={"2": torch.zeros(12)})
    with pytest.raises(SelectionError, match=r"shape of one sample's output, \(12,\), got \(3,\)"):
        masked_forward(model, x, masks, replacement={"0": torch.zeros(3)})
    with pytest.raises(SelectionError, match="there is none for any class"):
        Circuits({}).logits(model, x)
    with pytest.raises(TargetError, match="there is no class 7"):
        Circuits({7: masks}).logits(model, x)
    with pytest.raises(LayerError):
        Circuits({0: {"9": masks["0"]}}).logits(model, x)


def test_metric_over_batches() -> None:
    logits = torch.tensor([[0.0, 5.0, 3.0], [4.0, 0.0, 3.0], [4.0, 0.0, 3.0]])
    own = torch.tensor([[0.0, 2.0, 1.0], [0.0, 2.0, 1.0], [torch.nan, torch.nan, torch.nan]])
    metric = CircuitAgreement()
    metric.update(own[:2], logits[:2])
    metric.update(own[2:], logits[2:])
    assert metric.compute() == pytest.approx(1 / 3)
    with pytest.raises(InputError, match="own_logits and logits must both be"):
        circuits_agree(own[:2], logits)

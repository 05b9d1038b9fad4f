"""What an Explainer predicts is what SelectiveLRP finds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from small_networks import TwoInputs
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from trainings import Classifier, images, same

from lrp_lightning import MinError, SelectiveLRP, TopK
from lrp_lightning.callbacks import Explainer
from lrp_lightning.errors import InputError, LRPError, ModelError, SelectionError, TargetError


def predict(explainer: Explainer, loader: Any, *callbacks: Callback, **more: Any) -> list[dict[str, Any]]:
    loader = DataLoader(loader, batch_size=None) if isinstance(loader, list) else loader  # whose entries are batches
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(devices=1, callbacks=list(callbacks), **(quiet | more)).predict(explainer, loader)


@pytest.mark.parametrize("selection", [None, TopK(2), MinError(max_passes=2)], ids=["whole", "topk", "min_error"])
def test_a_batch_is_explained_as_by_selective_lrp(selection: Any) -> None:
    model, data = Classifier(), images(10)
    batches = predict(Explainer(model, "epsilon", selection), DataLoader(data, 4))
    assert [len(batch["explained"]) for batch in batches] == [4, 4, 2]
    for batch, (x, y) in zip(batches, DataLoader(data, 4), strict=True):
        trace = SelectiveLRP(model, "epsilon", selection).trace(x, lambda output: output.argmax(1))
        expected = {
            "inputs": trace.inputs, "relevance": trace.relevance, "masks": trace.masks, "predicted": trace.output.argmax(1),
            "explained": trace.explained, "explained_class": trace.output.argmax(1), "labels": y,
            "conservation_error": trace.conservation_error, "kinds": trace.kinds, "places": trace.places,
        }  # fmt: skip
        assert same(batch, expected)


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        ("label", lambda labels, logits: labels),
        (3, lambda labels, logits: torch.full_like(labels, 3)),
        (-1, lambda labels, logits: torch.full_like(labels, 9)),
        ((4,), lambda labels, logits: torch.full_like(labels, 4)),
        (torch.tensor(2), lambda labels, logits: torch.full_like(labels, 2)),
        (lambda logits: logits.argmin(1), lambda labels, logits: logits.argmin(1)),
    ],
    ids=["label", "number", "negative", "tuple", "tensor", "function"],
)
def test_the_class_that_is_explained(target: Any, classes: Any) -> None:
    model, [x, y] = Classifier().eval(), images(6)[:]
    [found] = predict(Explainer(model, target=target), [(x, y)])
    logits = model(x).detach()
    expected = classes(y, logits)
    assert found["explained_class"].tolist() == expected.tolist()
    assert torch.allclose(found["explained"], logits.gather(1, expected[:, None])[:, 0])
    assert found["predicted"].tolist() == logits.argmax(1).tolist()


@pytest.mark.parametrize("target", [(0, 1), lambda logits: logits[:, :2].mean(1)], ids=["pair", "values"])
def test_what_is_not_the_output_of_one_class_has_none(target: Any) -> None:
    [x, y], model = images(6)[:], Classifier()
    given = target if callable(target) else [target] * 6
    [found] = predict(Explainer(model, target=given), [(x, y)])
    assert found["explained_class"].tolist() == [-1] * 6
    assert torch.equal(found["explained"], SelectiveLRP(model).trace(x, given).explained)


def test_a_single_output_and_outputs_with_places() -> None:
    [found] = predict(Explainer(nn.Linear(4, 1), target=None), [torch.rand(3, 4)])
    assert found["explained_class"].tolist() == [0, 0, 0]
    assert "labels" not in found
    maps = nn.Conv2d(1, 2, 3)
    [found] = predict(Explainer(maps, target=lambda y: y[:, 1].mean((1, 2))), [torch.rand(3, 1, 5, 5)])
    assert found["predicted"].tolist() == found["explained_class"].tolist() == [-1] * 3
    with pytest.raises(TargetError, match=r"an output \(N, classes\), got \(3, 2, 3, 3\)"):
        predict(Explainer(maps), [torch.rand(3, 1, 5, 5)])


def test_several_inputs_and_batches_of_any_kind() -> None:
    model, a, b = TwoInputs(4, 3), torch.rand(5, 4), torch.rand(5, 3)
    batch = {"a": a, "b": b, "class": torch.tensor([0, 1, 0, 1, 0])}
    [found] = predict(Explainer(model, target="label", batch_fn=lambda of: ((of["a"], of["b"]), of["class"])), [batch])
    trace = SelectiveLRP(model).trace((a, b), batch["class"])
    assert same(found["inputs"], trace.inputs)
    assert same(found["labels"], batch["class"])


def test_labels_that_are_not_one_number_a_sample_are_left_out() -> None:
    [found] = predict(Explainer(nn.Linear(4, 3)), [(torch.rand(5, 4), torch.rand(5, 3))])
    assert "labels" not in found


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_precision_is_the_trainers(precision: Any) -> None:
    model, x = Classifier(), torch.rand(4, 1, 8, 8)
    [found] = predict(Explainer(model), DataLoader(x, 4), precision=precision)
    own = {"bf16-true": torch.bfloat16, "64-true": torch.float64}.get(precision, torch.float32)
    assert found["relevance"]["conv2"].dtype == own
    trace = SelectiveLRP(model.to(own)).trace(x.to(own), lambda output: output.argmax(1))
    assert same(found["relevance"], trace.relevance)


def test_the_model_is_as_before() -> None:
    model = Classifier().train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    predict(Explainer(model), DataLoader(images(6), 3))
    assert same(model.state_dict(), before)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"model": lambda x: x}, ModelError, "must be a torch.nn.Module, got a function"),
        ({"selection": TopK}, SelectionError, "selection must be a selection"),
        ({"target": "labels"}, TargetError, "'predicted', 'label' or what SelectiveLRP takes, got 'labels'"),
    ],
    ids=lambda value: "",
)
def test_arguments_that_are_refused(arguments: dict, error: type[LRPError], says: str) -> None:
    with pytest.raises(error, match=says):
        Explainer(**({"model": nn.Linear(2, 2)} | arguments))


@pytest.mark.parametrize(
    ("batch", "more", "error", "says"),
    [
        ({"x": torch.rand(2, 4)}, {}, InputError, "got dict; name inputs and labels with batch_fn"),
        (torch.rand(2, 4), {"target": "label"}, TargetError, r"target='label' needs batches \(inputs, labels\)"),
        (torch.rand(2, 4), {"batch_fn": lambda batch: batch}, InputError, r"batch_fn must return \(inputs, labels\)"),
        (
            torch.rand(2, 4),
            {"batch_fn": lambda batch: ((batch, batch[:1]), None)},
            InputError,
            "must all have the same number of samples",
        ),
        (torch.full((2, 4), torch.nan), {}, InputError, "NaN"),
        (torch.rand(2, 4), {"target": 7}, TargetError, "does not fit an output of shape"),
    ],
    ids=["mapping", "no labels", "batch_fn", "numbers", "nan", "target"],
)
def test_batches_that_are_refused(batch: Any, more: dict, error: type[LRPError], says: str) -> None:
    with pytest.raises(error, match=says):
        predict(Explainer(nn.Linear(4, 3), **more), [batch])


def test_one_sample_and_a_batch_with_nothing_wanted() -> None:
    explainer = Explainer(nn.Linear(4, 3))
    [found] = predict(explainer, DataLoader(TensorDataset(torch.rand(1, 4), torch.tensor([2]))))
    assert found["relevance"]["input"].shape == (1, 4)
    explainer.wanted = torch.zeros(0, dtype=torch.long)
    assert explainer.predict_step(torch.rand(3, 4)) == {}

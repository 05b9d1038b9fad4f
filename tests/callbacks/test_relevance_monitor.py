"""What RelevanceMonitor logs, where, under which conditions; what it does when something goes wrong; what it remembers."""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
import signal
import warnings
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, OnExceptionCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from packaging.version import Version
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from trainings import LIGHTNING, Classifier, Lenient, images, loaders, trainer, weights_only

from lrp_lightning import Agreement, Epsilon, MinError, SelectiveLRP, TopK, masked_forward
from lrp_lightning.callbacks import RelevanceMonitor
from lrp_lightning.callbacks.loggers import Findings
from lrp_lightning.callbacks.settings import LOGGED, SCALARS
from lrp_lightning.errors import UnsupportedOperatorError
from lrp_lightning.selection import Selection
from lrp_lightning.tensorboard_plugin.schema import RECORD, read_head

OF_TWO_EPOCHS = ("stability", "circuit_agreement")
MEASURES = {f"relevance/{name}" for name in SCALARS if name not in OF_TWO_EPOCHS}
PICTURES = {
    f"relevance/{name}" for name in LOGGED if name.endswith(("heatmaps", "paths")) or name in ("mistakes", "reconstructions")
}

LAYERS = ("0_input", "1_conv1", "2_conv2", "3_head")


def few(**more) -> RelevanceMonitor:
    """A monitor of few samples and, unless asked, without pictures."""
    return RelevanceMonitor(**({"max_samples": 12, "n_heatmaps": 2, "graph_classes": 1, "log": SCALARS} | more))


def drawing(**more) -> RelevanceMonitor:
    """One that logs everything, and finds paths, which run along positive relevance, in a network of a few neurons."""
    return few(**({"log": LOGGED, "selection": TopK(0.1, by="relevance")} | more))


class Positive(Classifier):
    """Whose logits are positive from the start, so that there are critical paths to every class."""

    def __init__(self) -> None:
        super().__init__()
        torch.nn.init.constant_(self.head.bias, 3.0)


def fit(folder: Path, *callbacks: Callback, model: Classifier | None = None, **more) -> Trainer:
    run = trainer(folder, *callbacks, **more)
    run.fit(model or Classifier(), *loaders())
    return run


# what is logged


def test_tensorboard_gets_everything_of_every_epoch_at_its_step(tmp_path: Path):
    torch.manual_seed(0)  # so that there is a critical path in each
    logger = TensorBoardLogger(tmp_path)
    fit(tmp_path, drawing(), model=Positive(), logger=logger)

    logged = EventAccumulator(logger.log_dir, {"histograms": 0, "images": 0}).Reload()
    steps = [event.step for event in logged.Scalars("loss")]
    assert len(steps) == 2
    for name in MEASURES:
        assert [event.step for event in logged.Scalars(name)] == steps, name
    for name in OF_TWO_EPOCHS:
        assert [event.step for event in logged.Scalars(f"relevance/{name}")] == steps[1:]
    tags = logged.Tags()["images"]
    for name in PICTURES:
        of_name = [tag for tag in tags if tag == name or tag.startswith(f"{name}/class_")]
        assert of_name, name
        for tag in of_name:
            assert [event.step for event in logged.Images(tag)] == steps, tag
    assert sorted(logged.Tags()["histograms"]) == [f"relevance/shares/{layer}" for layer in LAYERS], "in the network's order"
    for layer in LAYERS:
        assert [event.step for event in logged.Histograms(f"relevance/shares/{layer}")] == steps
    assert [event.step for event in logged.Tensors("relevance/record")] == steps
    [text] = logged.Tensors("relevance/settings/text_summary")
    assert b"TopK(keep=0.1" in text.tensor_proto.string_val[0]
    assert max(event.value for event in logged.Scalars("relevance/conservation_error")) < 1e-3
    assert [event.value for event in logged.Scalars("relevance/samples")] == [12, 12]
    assert all(event.value > 0 for event in logged.Scalars("relevance/seconds"))


@pytest.mark.parametrize("csv", [True, False], ids=["CSVLogger", "logger=False"])
def test_without_tensorboard_pictures_and_numbers_are_files_in_the_runs_folder(
    tmp_path: Path, csv: bool, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level("INFO"):
        run = fit(tmp_path, drawing(graph_classes=2), model=Positive(), logger=CSVLogger(tmp_path) if csv else False)
    assert run.log_dir is not None
    folder = Path(run.log_dir)
    found = {re.sub(r"_class_\d/", "/", str(path.relative_to(folder))) for path in folder.rglob("*.png")}
    of_each = {f"{name.replace('/', '_')}/step={step:06d}.png" for name in PICTURES for step in (5, 11)}
    assert found == of_each | {"relevance_cards/step=000011.png"}
    numbers = json.loads((folder / "relevance_measures" / "step=000011.json").read_text())
    assert numbers["measures"]["relevance/critical_neuron_accuracy"] == pytest.approx(
        run.callback_metrics["relevance/critical_neuron_accuracy"].item()
    )
    assert len(numbers["histograms"]["relevance/shares/2_conv2"]) == 16
    assert caplog.text.count(f"RelevanceMonitor: report: {folder / 'relevance_report' / 'last.html'}") == 1
    page = (folder / "relevance_report" / "last.html").read_text()
    assert "Relevance, epoch 1" in page
    assert "Over epochs" in page
    assert "<dt>samples</dt><dd>12</dd>" in page
    assert re.search(
        r'<p class="about">Positive · 12 images · \d{4}-\d\d-\d\d · rules: epsilon_plus · critical: 10% of', page
    )
    assert page.count('<section id="graph') == 2
    assert page.count('<section id="graph') == page.count("<h3>Paths</h3>") == page.count("<svg")
    assert "TopK" in (folder / "relevance_settings" / "step=000000.md").read_text()


def test_what_is_not_in_log_is_not_logged_and_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    called = []  # an error would be a warning
    for name in ("measures.masked_forward", "measures.random_sets", "pictures.draw_graph"):
        costly = lambda *args, name=name, **kwargs: called.append(name)  # noqa: E731
        monkeypatch.setattr(f"lrp_lightning.callbacks.{name}", costly)
    run = fit(tmp_path, few(log=["conservation_error", "heatmaps"]))
    assert called == []
    assert {name for name in run.callback_metrics if "relevance" in name} == {"relevance/conservation_error"}
    assert {path.parent.name for path in tmp_path.rglob("step=*")} == {"relevance_heatmaps", "relevance_measures"}


@pytest.mark.parametrize(
    "searched",
    [MinError("smape", 0.3, max_passes=4), MinError(max_passes=2).smallest(0.5), Agreement("mse", 0.3)],
    ids=lambda searched: type(searched).__name__,
)
def test_sets_that_are_searched_for(tmp_path: Path, searched: Selection):
    """Everything is logged of them too, training ends in the same bits, and none is worse than where its search began."""
    torch.manual_seed(0)
    plain, watched = Classifier(), Classifier()
    watched.load_state_dict(plain.state_dict())
    for model, callbacks in ((plain, []), (watched, [drawing(selection=searched)])):
        torch.manual_seed(1)
        run = fit(tmp_path, *callbacks, model=model)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name
    found = {name: value.item() for name, value in run.callback_metrics.items()}
    assert found.keys() >= MEASURES
    assert 0 <= found["relevance/smape"] <= getattr(searched, "error", 2)
    assert list(tmp_path.rglob("relevance_heatmaps/*.png"))
    if isinstance(searched, MinError):
        start = trainer(tmp_path, few(selection=searched.start))
        start.validate(watched, loaders()[1], verbose=False)
        for name, sign in (("critical_neuron_accuracy", 1), ("smape", -1)):
            assert sign * found[f"relevance/{name}"] >= sign * start.callback_metrics[f"relevance/{name}"].item() - 1e-6


def test_measures_equal_those_taken_by_hand(tmp_path: Path):
    torch.manual_seed(0)
    model, val = Classifier().eval(), loaders()[1]
    run = trainer(tmp_path, RelevanceMonitor(selection=TopK(0.3)))
    run.validate(model, val, verbose=False)

    x = torch.cat([batch for batch, _ in val])
    masks = SelectiveLRP(model, selection=TopK(0.3)).trace(x, target=lambda logits: logits.argmax(1)).masks
    survives = masked_forward(model, x, masks).argmax(1) == model(x).argmax(1)
    assert run.callback_metrics["relevance/critical_neuron_accuracy"] == survives.float().mean()


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_works_under_inference_mode(tmp_path: Path, stage: str):
    [measured] = getattr(trainer(tmp_path, few()), stage)(Classifier(), loaders()[1], verbose=False)
    assert measured.keys() >= MEASURES


def test_checkpoints_and_early_stopping_can_watch_it(tmp_path: Path):
    best = ModelCheckpoint(tmp_path / "best", monitor="relevance/critical_neuron_accuracy", mode="max")
    stop = EarlyStopping("relevance/critical_neuron_accuracy", mode="max", stopping_threshold=-1.0)
    run = fit(tmp_path, few(), stop, best, epochs=3, enable_checkpointing=True)
    assert Path(best.best_model_path).is_file()
    assert run.current_epoch == 1  # an accuracy above -1 stopped it after the first


def test_early_stopping_watches_it_through_epochs_without_it(tmp_path: Path):
    stop = EarlyStopping("relevance/critical_neuron_accuracy", mode="max", patience=10)
    assert fit(tmp_path, few(every_n_epochs=2), stop, epochs=3).current_epoch == 3


def test_every_n_epochs(tmp_path: Path):
    fit(tmp_path, few(every_n_epochs=2), epochs=3)
    assert {path.stem for path in tmp_path.rglob("*.json")} == {"step=000005", "step=000017"}


def test_every_n_epochs_of_a_fit_that_validates_every_second(tmp_path: Path):
    fit(tmp_path, few(every_n_epochs=2), epochs=6, check_val_every_n_epoch=2)
    assert len(list(tmp_path.rglob("*.json"))) == 3  # each validation is the first of its two epochs


class Stop(Callback):
    """Ends a fit after an epoch, as early stopping does, an exception, or a person."""

    def __init__(self, epoch: int, error: type[BaseException] | None) -> None:
        self.epoch, self.error = epoch, error

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop |= trainer.current_epoch == self.epoch and not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.error is not None and trainer.current_epoch == self.epoch:
            raise self.error("that is enough")


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_the_network_that_training_ends_with_is_drawn_however_it_ends(tmp_path: Path, error: type[BaseException] | None):
    logger = TensorBoardLogger(tmp_path)
    ends = {
        None: nullcontext(),
        RuntimeError: pytest.raises(RuntimeError),
        KeyboardInterrupt: ends_in(KeyboardInterrupt, SystemExit),
    }
    with ends[error]:
        fit(tmp_path, drawing(), Stop(2, error), model=Positive(), logger=logger, epochs=100)
    logged = EventAccumulator(logger.log_dir, {"images": 0}).Reload()
    last = max(event.step for event in logged.Scalars("relevance/critical_neuron_accuracy"))
    tags = [tag for tag in logged.Tags()["images"] if tag.startswith(("relevance/heatmaps", "relevance/critical_paths/"))]
    assert len(tags) > 1
    for tag in tags:
        assert [event.step for event in logged.Images(tag)] == [5, last]
    assert len(logged.Scalars("relevance/critical_neuron_accuracy")) == 3  # none twice


def test_a_second_fit_is_not_compared_with_the_first(tmp_path: Path):
    monitor = few(log=["stability"], max_share=None)
    fit(tmp_path / "one", monitor, epochs=2)
    assert "relevance/stability" not in fit(tmp_path / "two", monitor, epochs=1).callback_metrics
    assert len(monitor._history) == 1


def test_max_seconds_stops_early_says_so_and_still_logs(tmp_path: Path):
    monitor = few(max_samples=24, max_seconds=1e-6)
    monitor._budget.micro_batch = 8
    with pytest.warns(UserWarning, match=r"stopped after 8 samples: it reached max_seconds=1e-06"):
        run = fit(tmp_path, monitor, epochs=1)
    assert run.callback_metrics["relevance/samples"] == 8
    assert "relevance/critical_neuron_accuracy" in run.callback_metrics


def test_out_of_memory_halves_the_micro_batch_and_goes_on(tmp_path: Path):
    class Large(Classifier):
        def forward(self, x: Tensor) -> Tensor:
            if not self.training and not torch.is_inference_mode_enabled() and len(x) > 3 and torch.is_grad_enabled():
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more than there is")
            return super().forward(x)

    monitor = few(max_samples=24)
    [measured] = trainer(tmp_path, monitor).validate(Large(), loaders()[1], verbose=False)
    assert measured["relevance/samples"] == 24
    assert monitor._budget.micro_batch == 3


def test_several_loaders_are_one(tmp_path: Path):
    val = [DataLoader(images(12, seed), 6) for seed in (1, 2, 3)]
    run = trainer(tmp_path, few(max_samples=18))
    model = Classifier().eval()
    run.validate(model, val, verbose=False)
    x = torch.cat([batch for loader in val for batch, _ in loader])[1::2]  # every second of 36
    masks = SelectiveLRP(model, selection=TopK(0.1)).trace(x, target=lambda logits: logits.argmax(1)).masks
    survives = masked_forward(model, x, masks).argmax(1) == model(x).argmax(1)
    assert run.callback_metrics["relevance/samples"] == 18
    assert run.callback_metrics["relevance/critical_neuron_accuracy"] == survives.float().mean()


@pytest.mark.parametrize("mode", ["max_size", "min_size"])
def test_loaders_side_by_side(tmp_path: Path, mode: str):
    from lightning.pytorch.utilities import CombinedLoader

    class Pairs(Lenient):
        pass

    val = CombinedLoader({"a": DataLoader(images(8, 1), 4), "b": DataLoader(images(12, 2), 4)}, mode)
    run = trainer(tmp_path, few(batch_fn=lambda batch: batch["b"] if batch["b"] is not None else batch["a"]))
    run.validate(Pairs(), val, verbose=False)
    assert run.callback_metrics["relevance/samples"] == (12 if mode == "max_size" else 8)


def test_a_stream_of_unknown_length(tmp_path: Path):
    class Stream(IterableDataset):
        def __iter__(self):
            yield from images(40, 1)

    run = trainer(tmp_path, few())
    run.validate(Classifier(), DataLoader(Stream(), 5), verbose=False)
    assert run.callback_metrics["relevance/samples"] == 12


def test_no_files_in_fast_dev_run(tmp_path: Path):
    fit(tmp_path, drawing(), fast_dev_run=True)
    assert not list(tmp_path.rglob("*.*"))


def test_autocast_and_frozen_layers(tmp_path: Path):
    model = Classifier()
    model.conv1.requires_grad_(False)
    run = fit(tmp_path, few(), model=model, precision="bf16-mixed")
    assert run.callback_metrics["relevance/conservation_error"] < 1e-3  # explained in the parameters' own precision
    assert not model.conv1.weight.requires_grad


def test_two_monitors_log_beside_each_other(tmp_path: Path):
    first, second = few(), few(selection=TopK(0.9), composite=Epsilon())
    assert first.state_key != second.state_key
    run = fit(tmp_path, first, second, epochs=1)
    assert {"relevance/critical_neuron_accuracy", "relevance_2/critical_neuron_accuracy"} <= run.callback_metrics.keys()


def test_monitors_that_differ_in_any_argument_have_states_of_their_own():
    class Mine(TopK):
        __repr__ = object.__repr__

    def first(logits: Tensor, labels: object) -> Tensor:
        return labels[:, 0]  # type: ignore[index]

    keys = [RelevanceMonitor(**more).state_key for more in (
        {}, {"max_samples": 64}, {"log": ["smape"]}, {"target_fn": first}, {"max_share": None}, {"class_names": ["a"]},
        {"selection": Mine(0.1)}, {"model": "net"},
    )]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert not any(" at 0x" in key for key in keys)
    assert RelevanceMonitor(selection=Mine(0.1)).state_key == RelevanceMonitor(selection=Mine(0.1)).state_key
    assert keys[0] == RelevanceMonitor(max_samples=256, max_share=0.03).state_key


# which models


class Student(Classifier):
    """Classifies by a part of itself; its forward is something else."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.ModuleDict({"student": nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))})

    def forward(self, x: Tensor) -> str:
        return "an answer"

    def classify(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.net["student"](x)}

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net["student"](batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        pass


@pytest.mark.parametrize(
    ("model", "layer"),
    [
        ("net.student", "1"),
        ("classify", "net.student.1"),
        (lambda module: module.net["student"], "1"),
        (lambda module: lambda x: module.classify(x)["logits"], "net.student.1"),
    ],
)
def test_a_model_whose_forward_is_not_the_classifier(tmp_path: Path, model: object, layer: str):
    run = fit(tmp_path, few(model=model, log=[*SCALARS, "shares"]), model=Student(), epochs=1)
    assert run.callback_metrics["relevance/conservation_error"] < 1e-3
    [numbers] = [json.loads(path.read_text()) for path in tmp_path.rglob("*.json")]
    assert layer in [name.removeprefix("relevance/shares/").partition("_")[2] for name in numbers["histograms"]]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "the model returned str; name a classifier with model="),
        ("net.teacher", r"Student has no attribute 'net.teacher' \(model=\); it has 'conv1', .*'net'"),
        ("net", "must give one tensor|model="),
        (lambda module: 3, "must name or return a module or a function of the inputs, got int"),
    ],
)
def test_a_model_that_cannot_be_explained_is_told_before_training(tmp_path: Path, model: object, message: str):
    with pytest.raises((MisconfigurationException, NotImplementedError), match=message if model != "net" else ""):
        fit(tmp_path, few(model=model), model=Student())


def test_a_module_without_forward_is_told_what_to_name(tmp_path: Path):
    class Parts(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.loss = Classifier(), nn.CrossEntropyLoss()

        def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
            pass

    message = "the module's forward, and Parts has none; name what to explain with model=, such as one of 'net', 'loss'"
    with pytest.raises(MisconfigurationException, match=message):
        trainer(tmp_path, few()).validate(Parts(), loaders()[1], verbose=False)


def test_too_few_class_names_are_told_before_training(tmp_path: Path):
    with pytest.raises(MisconfigurationException, match="class_names must have a name for each of 10 classes, got 2"):
        fit(tmp_path, few(class_names=["cat", "dog"]))


def test_a_model_without_a_hidden_layer_has_relevance_and_no_measures_of_critical_neurons(tmp_path: Path):
    class Linear(Classifier):
        def forward(self, x: Tensor) -> Tensor:
            return self.flat(x.flatten(1))

        def __init__(self) -> None:
            super().__init__()
            self.flat = nn.Linear(64, 10)

    with pytest.warns(UserWarning, match="no hidden layer to mask in Linear") as told:
        run = fit(tmp_path, drawing(), model=Linear())
    assert len([w for w in told if "no hidden layer" in str(w.message)]) == 1
    logged = {name for name in run.callback_metrics if name.startswith("relevance/")}
    assert logged == {"relevance/conservation_error", "relevance/samples", "relevance/seconds"}
    assert list((tmp_path / "relevance_heatmaps").iterdir())


def test_bfloat16_has_graphs_too(tmp_path: Path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="RelevanceMonitor could not draw")
        fit(tmp_path, drawing(), model=Positive(), precision="bf16-true", epochs=1)
    names = {re.sub(r"_class_\d$", "", path.name) for path in tmp_path.iterdir()}
    assert {"relevance_critical_paths", "relevance_path_heatmaps"} <= names


class Headed(Classifier):
    """The network with another head."""

    def __init__(self, head: nn.Module, loss: object = None) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv2(F.relu(self.conv1(x)))))

    def validation_step(self, batch: object, batch_idx: int) -> None:
        pass


def heads() -> dict[str, nn.Module]:
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return {
        "binary": nn.Sequential(*pooled, nn.Linear(16, 1)),
        "binary, flat": nn.Sequential(*pooled, nn.Linear(16, 1), nn.Flatten(0)),
        "multi-label": nn.Sequential(*pooled, nn.Linear(16, 4)),
        "sequence": nn.Sequential(nn.Flatten(2), Turned(), nn.Linear(16, 4)),
        "map": nn.Conv2d(16, 4, 1),
    }


class Turned(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        ("binary", torch.tensor([0, 1, 1, 0, 1, 0])),
        ("binary", torch.tensor([[0.0], [1], [1], [0], [1], [0]])),
        ("binary, flat", torch.tensor([0.0, 1, 1, 0, 1, 0])),
        ("multi-label", (torch.eye(4)[[0, 1, 2, 3, 0, 1]] + torch.eye(4)[[1, 1, 3, 0, 2, 2]]).clamp(max=1)),
        ("sequence", torch.arange(6 * 64).view(6, 64) % 4),
        ("sequence", torch.arange(6) % 4),
        ("map", torch.arange(6 * 64).view(6, 8, 8) % 4),
    ],
)
def test_outputs_of_every_kind(tmp_path: Path, kind: str, labels: Tensor):
    torch.manual_seed(0)
    x, head = images(6).tensors[0], heads()[kind]
    monitor = drawing()
    [measured] = trainer(tmp_path, monitor).validate(Headed(head), DataLoader([(x, labels)], batch_size=None), verbose=False)
    assert measured["relevance/samples"] == 6
    assert measured["relevance/conservation_error"] < 1e-3
    assert 0 <= measured["relevance/critical_neuron_accuracy"] <= 1


def test_target_fn_chooses_what_is_explained(tmp_path: Path):
    """Of a multi-label sample its highest-scored true label; the same seen in the relevance, by hand."""
    torch.manual_seed(0)
    x = images(6).tensors[0]
    labels = (torch.rand(6, 4) > 0.5).float()
    labels[:, 0] = 1
    model = Headed(heads()["multi-label"]).eval()

    def best_true(logits: Tensor, labels: Tensor) -> Tensor:
        return logits.masked_fill(labels == 0, -torch.inf).argmax(1)

    monitor = few(target_fn=best_true, log=["shares"])
    trainer(tmp_path, monitor).validate(model, DataLoader([(x, labels)], batch_size=None), verbose=False)
    [numbers] = [json.loads(path.read_text()) for path in tmp_path.rglob("*.json")]
    trace = SelectiveLRP(model, selection=TopK(0.1)).trace(x, target=best_true(model(x), labels))
    shares = trace.relevance["conv2"] / trace.relevance["conv2"].abs().sum(1, keepdim=True)
    expected = shares.mean(0)
    assert numbers["histograms"]["relevance/shares/2_conv2"] == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize("wrong", [lambda logits, labels: 3, lambda logits, labels: logits])
def test_a_target_fn_that_gives_no_class_a_sample(tmp_path: Path, wrong: object):
    with pytest.raises(MisconfigurationException, match="target_fn must return one class number per sample"):
        fit(tmp_path, few(target_fn=wrong))


def test_images_of_varying_size(tmp_path: Path):
    batches = [
        ([torch.rand(1, 8 + i % 3, 8) for i in range(6)], torch.arange(6)),
        (torch.rand(4, 1, 12, 12), torch.arange(4)),
    ]
    run = trainer(tmp_path, drawing(n_heatmaps=8, max_samples=10))
    run.validate(Lenient(), DataLoader(batches, batch_size=None), verbose=False)
    assert run.callback_metrics["relevance/samples"] == 10
    assert list(tmp_path.rglob("relevance_heatmaps/*.png"))


def test_inputs_that_are_no_images_have_no_heatmaps(tmp_path: Path):
    class Rows(Lenient):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    batches = [(torch.rand(6, 5), torch.arange(6) % 3)]
    run = trainer(tmp_path, drawing())
    run.validate(Rows(), DataLoader(batches, batch_size=None), verbose=False)
    assert run.callback_metrics["relevance/samples"] == 6
    names = {path.parent.name for path in tmp_path.rglob("*.png")}
    assert {name.rpartition("_class_")[0] for name in names} == {"relevance_critical_paths"}


# what is shown


class Watching(RelevanceMonitor):
    """Keeps what each epoch would show."""

    def _findings(self, drawn, observation, history, samples):
        self.shown = [*getattr(self, "shown", []), observation.of_remembered()]
        return super()._findings(drawn, observation, history, samples)


def test_the_same_images_are_shown_in_every_epoch_one_of_each_class(tmp_path: Path):
    torch.manual_seed(0)
    monitor = Watching(n_heatmaps=5, max_samples=40, log=["heatmaps"])
    val = DataLoader(images(40, 1), 8, shuffle=True)  # another order in each epoch
    trainer(tmp_path, monitor, epochs=3).fit(Classifier(), loaders()[0], val)
    first, *others = monitor.shown
    assert len(others) == 2
    assert len({e.label for e in first}) == 5
    assert [e.label for e in first] == sorted(e.label for e in first)
    for other in others:
        assert all(torch.equal(a.image, b.image) and a.label == b.label for a, b in zip(first, other, strict=True))
        assert any(not torch.equal(a.relevance, b.relevance) for a, b in zip(first, other, strict=True))


def test_the_worst_mistakes_are_those_of_all_samples(tmp_path: Path):
    torch.manual_seed(0)
    model, val = Classifier().eval(), loaders()[1]
    monitor = drawing(max_samples=24, n_heatmaps=3)
    monitor._budget.micro_batch = 5
    seen = []
    monitor._findings = lambda drawn, observation, history, samples: seen.extend(observation.mistaken) or Findings()
    trainer(tmp_path, monitor).validate(model, val, verbose=False)

    x, y = (torch.cat(column) for column in zip(*val, strict=True))
    logits = model(x)
    right = logits.gather(1, y[:, None]).flatten()
    margin = logits.scatter(1, y[:, None], -torch.inf).amax(1) - right
    worst = margin.topk(3).indices
    assert [e.label for e in seen] == y[worst].tolist()
    assert all(torch.equal(e.image, x[i]) for e, i in zip(seen, worst, strict=True))


# what goes wrong


class Unsupported(Classifier):
    """Uses an operator without a rule, from some epoch on."""

    def __init__(self, from_epoch: int) -> None:
        super().__init__()
        self.from_epoch = from_epoch

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits.cumprod(1) if self.current_epoch >= self.from_epoch else logits


def test_an_unsupported_model_is_seen_before_training(tmp_path: Path):
    with pytest.raises(UnsupportedOperatorError, match="cumprod"):
        fit(tmp_path, few(), model=(model := Unsupported(0)))
    assert model.global_step == 0


def test_a_fault_in_a_running_training_is_a_warning(tmp_path: Path):
    with pytest.warns(UserWarning, match=r"skips this validation.*cumprod.*with on_error=.warn"):
        run = fit(tmp_path, few(), model=Unsupported(1))
    assert run.current_epoch == 2


def test_by_on_error_warn_an_unsupported_model_gets_one_warning_and_what_can_be_computed(tmp_path: Path):
    with pytest.warns(UserWarning, match="plain gradient") as told:
        run = fit(tmp_path, few(on_error="warn"), model=Unsupported(0))
    assert len([w for w in told if "cumprod" in str(w.message)]) == 1
    assert run.current_epoch == 2
    assert {"relevance/critical_neuron_accuracy", "relevance/seconds"} <= run.callback_metrics.keys()


def test_by_on_error_warn_a_batch_that_cannot_be_read_is_one_warning(tmp_path: Path):
    def broken(batch: object) -> None:
        raise KeyError("image")

    with pytest.warns(UserWarning, match="image") as told:
        run = fit(tmp_path, few(on_error="warn", batch_fn=broken))
    assert len([w for w in told if "skips this validation" in str(w.message)]) == 1
    assert run.current_epoch == 2
    assert not MEASURES & run.callback_metrics.keys()


def ends_in(*errors: type[BaseException]) -> AbstractContextManager:
    """Before Lightning 2.6 a training that is interrupted from the keyboard just ends."""
    return pytest.raises(errors) if Version("2.6") <= LIGHTNING else suppress(*errors)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_an_exception_in_its_pass_leaves_hooks_modes_and_logs_whole(tmp_path: Path, error: type[BaseException]):
    class Interrupted(Classifier):
        def forward(self, x: Tensor) -> Tensor:
            looked_at = not self.training and torch.is_grad_enabled() and self.current_epoch == 1
            if looked_at:
                raise error("in the middle")
            return super().forward(x)

    model, logger = Interrupted(), TensorBoardLogger(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if error is RuntimeError:
            fit(tmp_path, drawing(log=[*SCALARS, "heatmaps"]), model=model, logger=logger, epochs=3)
        else:
            with ends_in(SystemExit):
                fit(tmp_path, drawing(log=[*SCALARS, "heatmaps"]), model=model, logger=logger, epochs=3)
    assert torch.overrides._len_torch_function_stack() == 0
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()
    logged = EventAccumulator(logger.log_dir, {"images": 0}).Reload()
    assert len(logged.Images("relevance/heatmaps")) == (1 if error is not RuntimeError else 2)


class Stopped(Classifier):
    """Something happens to its training in the second epoch."""

    def __init__(self, happens: object) -> None:
        super().__init__()
        self.happens = happens

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if self.current_epoch == 1:
            self.happens()
        return super().training_step(batch, batch_idx)


def failing() -> None:
    raise ValueError("in training")


def interrupted() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("happens", [failing, interrupted, lambda: os.kill(os.getpid(), signal.SIGTERM)])
def test_a_training_that_stops_leaves_logs_that_can_be_read_and_a_checkpoint_with_the_monitors_state(
    tmp_path: Path, happens: object
):
    logger, monitor, saved = TensorBoardLogger(tmp_path), drawing(), OnExceptionCheckpoint(tmp_path)
    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    with ends_in(ValueError, SIGTERMException, SystemExit):
        fit(tmp_path, monitor, saved, model=Stopped(happens), logger=logger, enable_checkpointing=True)
    if Version("2.6") <= LIGHTNING:  # before, Lightning itself leaves its handlers behind
        assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == before
    logged = EventAccumulator(logger.log_dir).Reload()
    assert [event.step for event in logged.Scalars("relevance/critical_neuron_accuracy")] == [5]
    assert len(logged.Images("relevance/heatmaps")) == 1
    state = torch.load(saved.ckpt_path, weights_only=True)["callbacks"][monitor.state_key]
    assert len(state["remembered"]["validation"]["shown"]) == 2
    assert state["has_worked"]


def test_weights_that_are_not_a_number_are_a_warning(tmp_path: Path):
    class Diverged(Classifier):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return super().training_step(batch, batch_idx) * float("nan")

    with pytest.warns(UserWarning, match="skips this validation.*not finite"):
        run = fit(tmp_path, few(), model=Diverged(), num_sanity_val_steps=0)
    assert run.current_epoch == 2


def test_a_graph_that_cannot_be_told_leaves_the_rest(tmp_path: Path):
    class Mixed(Classifier):
        def forward(self, x: Tensor) -> Tensor:  # channels meet before the head, so edges below it cannot be told
            x = F.relu(self.conv2(F.relu(self.conv1(x))))
            x = x.cumsum(1).unflatten(1, (8, 2)).mean([2, 3, 4])
            return self.head(torch.cat([x, x], 1))

    with pytest.warns(UserWarning, match="could not draw the graph of critical paths"):
        run = fit(tmp_path, drawing(), model=Mixed(), epochs=1)
    assert run.callback_metrics.keys() >= MEASURES
    found = {path.parent.name for path in tmp_path.rglob("*.png")}
    assert "relevance_heatmaps" in found
    assert not any("critical_paths" in name for name in found)


@pytest.mark.parametrize("kind", ["tensor", "float labels", "labels of another length", "labels beyond the classes"])
def test_batches_it_cannot_read(tmp_path: Path, kind: str):
    x, y = torch.rand(8, 1, 8, 8), torch.zeros(8, dtype=torch.long)
    wrong = {"tensor": x, "float labels": (x, y.float()), "labels of another length": (x, y[:4])}
    data = [wrong.get(kind, (x, y + 10))]
    with pytest.raises(MisconfigurationException, match=r"cannot read inputs and labels|labels must be class numbers"):
        trainer(tmp_path, few()).validate(Lenient(), DataLoader(data, batch_size=None), verbose=False)


def test_strategies_that_shard_parameters_in_ways_it_cannot_gather_are_refused_in_setup(tmp_path: Path):
    run, monitor = trainer(tmp_path), RelevanceMonitor()
    run.strategy.zero_stage_3 = True  # what DeepSpeedStrategy says of itself at stage 3
    with pytest.raises(MisconfigurationException, match=r"unsharded parameters.*run trainer\.validate on one device"):
        monitor.setup(run, Classifier(), "fit")
    run._accelerator_connector.strategy = FSDPStrategy()
    with pytest.raises(MisconfigurationException, match=r"not those of FSDPStrategy: use ModelParallelStrategy"):
        monitor.setup(run, Classifier(), "fit")
    mesh = {"tensor_parallel": SimpleNamespace(size=lambda: 2)}
    run._accelerator_connector.strategy = type("ModelParallelStrategy", (), {"device_mesh": mesh})()
    with pytest.raises(
        MisconfigurationException, match=r"not those of ModelParallelStrategy with tensor_parallel_size above 1"
    ):
        monitor.setup(run, Classifier(), "fit")


def test_nothing_is_logged_where_nothing_was_seen(tmp_path: Path):
    with pytest.warns(UserWarning, match="needs validation batches, and this fit has none"):
        run = fit(tmp_path, RelevanceMonitor(), limit_val_batches=0)
    assert not MEASURES & run.callback_metrics.keys()


def test_an_empty_validation_loader_gets_a_sentence(tmp_path: Path):
    empty = DataLoader(TensorDataset(torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.long)), 4)
    with pytest.warns(UserWarning, match="non-empty validation loader"):
        trainer(tmp_path, RelevanceMonitor()).fit(Classifier(), loaders()[0], empty)


def test_labels_beyond_the_classes_are_an_error_whenever_they_come(tmp_path: Path):
    x, y = images(12, 1).tensors
    beyond = TensorDataset(x, torch.cat([y[:-1], torch.tensor([10])]))  # in the last batch, after the sanity check
    with pytest.raises(
        MisconfigurationException, match="class numbers 0 to 9, as the model's output has 10 classes; got 10"
    ):
        trainer(tmp_path, few()).fit(Lenient(), loaders()[0], DataLoader(beyond, 4))
    left_out = TensorDataset(x, torch.where(y == y[0], -100, y))
    run = trainer(tmp_path, few(log=["samples"]))
    run.fit(Lenient(), loaders()[0], DataLoader(left_out, 4))
    assert run.callback_metrics["relevance/samples"] == 12


def test_a_loader_that_is_shorter_than_its_limit(tmp_path: Path):
    run = fit(tmp_path, few(), limit_val_batches=1000)
    assert run.callback_metrics["relevance/samples"] == 12


# what it remembers


def test_a_resumed_run_shows_the_same_images(tmp_path: Path):
    torch.manual_seed(0)
    monitor, resumed = (Watching(n_heatmaps=3, log=["heatmaps", "samples"]) for _ in range(2))
    saved = ModelCheckpoint(tmp_path, filename="last", save_top_k=1)

    def val(seed: int) -> DataLoader:
        return DataLoader(images(24, seed), 8)

    run = trainer(tmp_path, monitor, saved, epochs=1, enable_checkpointing=True)
    run.fit(Classifier(), loaders()[0], val(1))
    run = trainer(tmp_path, resumed, epochs=2, num_sanity_val_steps=0)
    run.fit(Classifier(), loaders()[0], val(2), ckpt_path=saved.best_model_path, **weights_only(True))
    before, after = monitor.shown[-1], resumed.shown[-1]
    assert all(torch.equal(a.image, b.image) for a, b in zip(before, after, strict=True))


def test_a_resumed_run_compares_with_the_epoch_before_it(tmp_path: Path):
    """Stability of the second epoch, in one run and in two."""

    def stability(*parts: int) -> float:
        torch.manual_seed(0)
        path = None
        for number, epochs in enumerate(parts):
            saved = ModelCheckpoint(tmp_path / f"{len(parts)} {number}", save_top_k=1)
            train = DataLoader(images(48), 8)  # not shuffled, so that a resumed run trains alike
            run = trainer(tmp_path, few(), saved, epochs=epochs, enable_checkpointing=True, num_sanity_val_steps=0)
            torch.manual_seed(1)
            run.fit(NoDropout(), train, loaders()[1], ckpt_path=path, **weights_only(True if path else None))
            path = saved.best_model_path
        return run.callback_metrics["relevance/stability"].item()

    assert stability(1, 2) == stability(2)


class NoDropout(Classifier):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv2(F.relu(self.conv1(x)))).mean([2, 3]))


def test_it_pickles_before_and_after_it_has_worked(tmp_path: Path):
    monitor = drawing()
    for _ in range(2):
        again = pickle.loads(pickle.dumps(monitor))
        assert again.settings == monitor.settings
        copy.deepcopy(monitor)
        fit(tmp_path, monitor, epochs=1, logger=TensorBoardLogger(tmp_path))
    assert repr(monitor).startswith("RelevanceMonitor(composite=")


def test_one_monitor_in_one_run_after_another(tmp_path: Path):
    monitor = drawing()
    run = fit(tmp_path, monitor, epochs=1)
    run.test(run.lightning_module, loaders()[1], verbose=False)
    again = fit(tmp_path / "again", monitor, epochs=1)
    assert again.callback_metrics.keys() >= MEASURES
    assert list((tmp_path / "again").rglob("*.png"))


@pytest.mark.skipif(Version("2.5") > LIGHTNING, reason="before, validate does not give checkpoints to callbacks")
def test_a_checkpoint_is_looked_at_by_its_own_epoch_beside_the_looks_of_the_fit(tmp_path: Path):
    torch.manual_seed(0)
    logger, each = TensorBoardLogger(tmp_path), ModelCheckpoint(tmp_path / "saved", "{epoch}", save_top_k=-1)
    run = trainer(tmp_path, drawing(), each, logger=logger, epochs=3, enable_checkpointing=True)
    run.fit(Classifier(), *loaders())
    run.validate(run.lightning_module, loaders()[1], verbose=False)
    for _ in range(2):
        run.validate(run.lightning_module, loaders()[1], ckpt_path=tmp_path / "saved" / "epoch=0.ckpt", verbose=False)
    log = EventAccumulator(logger.log_dir, {"images": 0}).Reload()
    records = {event.step: read_head(make_ndarray(event.tensor_proto)) for event in log.Tensors(RECORD)}
    steps = sorted(records)
    assert [records[step]["epoch"] for step in steps] == [0, 2, 2, 0, 0]
    assert steps[2:] == [18, 19, 20]  # 17 is the fit's last
    assert [event.step for event in log.Images("relevance/heatmaps")] == steps


def test_the_same_package_under_its_other_name(tmp_path: Path):
    import pytorch_lightning

    class Other(pytorch_lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return F.cross_entropy(self.net(batch[0]), batch[1])

        validation_step = training_step

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False, "logger": False}
    run = pytorch_lightning.Trainer(
        callbacks=few(model="net"), max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, **quiet
    )
    run.fit(Other(), *loaders())
    assert run.callback_metrics.keys() >= MEASURES


def test_a_deep_network_has_histograms_of_some_layers_from_the_first_to_the_last(tmp_path: Path):
    deep = [module for _ in range(30) for module in (nn.Linear(16, 16), nn.ReLU())]

    class Deep(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), *deep, nn.Linear(16, 10))

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    trainer(tmp_path, few(log=["shares"])).validate(Deep(), loaders()[1], verbose=False)
    [numbers] = [json.loads(path.read_text()) for path in tmp_path.rglob("*.json")]
    layers = [name.removeprefix("relevance/shares/") for name in numbers["histograms"]]
    assert len(layers) == 16
    assert (layers[0], layers[-1]) == ("00_input", "32_net.63")
    assert layers == sorted(layers)

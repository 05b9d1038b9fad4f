"""RelevanceMonitor against training without it, bit by bit; and what it logs, where, under which conditions."""

from __future__ import annotations

import copy
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from sklearn.datasets import load_digits
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lrp_lightning import SelectiveLRP, TopK, masked_forward
from lrp_lightning.callbacks import RelevanceMonitor
from lrp_lightning.errors import UnsupportedOperatorError

SCALARS = {"relevance/critical_neuron_accuracy", "relevance/random_accuracy", "relevance/conservation_error"}
PICTURES = {"relevance/heatmaps", "relevance/critical_paths"}


class Classifier(LightningModule):
    """Batch norm, dropout and functional operators: all that a careless observer could disturb."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.head = nn.Conv2d(8, 16, 3, padding=1), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn(self.conv1(x))), 2)
        x = F.relu(self.conv2(x)).mean([2, 3])
        return self.head(F.dropout(x, 0.2, self.training))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("loss", F.cross_entropy(self(batch[0]), batch[1]))

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


@pytest.fixture(scope="module")
def digits() -> TensorDataset:
    images, labels = load_digits(return_X_y=True)
    return TensorDataset(torch.tensor(images).view(-1, 1, 8, 8).float()[:160] / 16, torch.tensor(labels)[:160])


@pytest.fixture
def loaders(digits: TensorDataset) -> tuple[DataLoader, DataLoader]:
    train, val = torch.utils.data.Subset(digits, range(96)), torch.utils.data.Subset(digits, range(96, 160))
    return DataLoader(train, 32, shuffle=True), DataLoader(val, 40)


def trainer(tmp_path: Path, *callbacks: Callback, logger=False, epochs: int = 2, **more) -> Trainer:
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "accelerator": "cpu",
    }
    return Trainer(
        default_root_dir=tmp_path, callbacks=list(callbacks), logger=logger, max_epochs=epochs, log_every_n_steps=1,
        **(quiet | more),
    )  # fmt: skip


# what must not change


class Witness(Callback):
    """Writes down, after every validation, all that a callback could disturb."""

    def __init__(self) -> None:
        self.seen: list[dict] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen.append(
            {
                "state": copy.deepcopy(pl_module.state_dict()),
                "grads": [None if p.grad is None else p.grad.clone() for p in pl_module.parameters()],
                "requires_grad": [p.requires_grad for p in pl_module.parameters()],
                "modes": [m.training for m in pl_module.modules()],
                "hooks": [len(m._forward_hooks) + len(m._backward_hooks) for m in pl_module.modules()],
                "attributes": [sorted(vars(m)) for m in pl_module.modules()],
                "torch": torch.get_rng_state(),
                "numpy": np.random.get_state()[1],
                "python": random.getstate(),
                "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
            }
        )


def same(a: object, b: object) -> bool:
    if isinstance(a, Tensor | np.ndarray):
        return type(a) is type(b) and bool((a == b).all())
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_training_with_and_without_it_ends_in_the_same_bits(tmp_path: Path, loaders):
    def train(*callbacks: Callback) -> tuple[list[dict], dict, dict]:
        seed_everything(0, verbose=False)
        model, witness = Classifier(), Witness()
        run = trainer(tmp_path, *callbacks, witness, logger=TensorBoardLogger(tmp_path), epochs=3)
        run.fit(model, *loaders)
        after = {"torch": torch.get_rng_state(), "numpy": np.random.get_state()[1], "python": random.getstate()}
        return witness.seen, run.optimizers[0].state_dict(), after

    without, with_it = train(), train(RelevanceMonitor())
    assert len(without[0]) == 4  # the sanity check and three epochs
    assert same(without, with_it)


def test_a_difference_would_be_seen(tmp_path: Path, loaders):
    """The comparison above can fail: one random number drawn in between is enough."""

    class Careless(Callback):
        def on_validation_batch_end(self, *args, **kwargs) -> None:
            torch.rand(1)

    def train(*callbacks: Callback) -> list[dict]:
        seed_everything(0, verbose=False)
        witness = Witness()
        trainer(tmp_path, *callbacks, witness).fit(Classifier(), *loaders)
        return witness.seen

    assert not same(train(), train(Careless()))


# what is logged


def test_tensorboard_gets_scalars_and_pictures_of_every_epoch_at_its_step(tmp_path: Path, loaders):
    logger = TensorBoardLogger(tmp_path)
    trainer(tmp_path, RelevanceMonitor(), logger=logger).fit(Classifier(), *loaders)

    logged = EventAccumulator(logger.log_dir).Reload()
    steps = [event.step for event in logged.Scalars("loss")]
    assert len(steps) == 2
    for name in SCALARS:
        assert [event.step for event in logged.Scalars(name)] == steps
    for name in PICTURES:
        assert [event.step for event in logged.Images(name)] == steps
    assert max(event.value for event in logged.Scalars("relevance/conservation_error")) < 1e-3


@pytest.mark.parametrize("csv", [True, False], ids=["CSVLogger", "logger=False"])
def test_without_tensorboard_pictures_are_files_in_the_runs_folder(tmp_path: Path, loaders, csv: bool):
    logger = CSVLogger(tmp_path) if csv else False
    run = trainer(tmp_path, RelevanceMonitor(), logger=logger)
    run.fit(Classifier(), *loaders)
    assert run.log_dir is not None
    found = {str(path.relative_to(run.log_dir)) for path in Path(run.log_dir).rglob("*.png")}
    assert found == {f"{name.replace('/', '_')}/step={step:06d}.png" for name in PICTURES for step in (2, 5)}


def test_measures_equal_those_taken_by_hand(tmp_path: Path, loaders):
    torch.manual_seed(0)
    model, val = Classifier().eval(), loaders[1]
    run = trainer(tmp_path, RelevanceMonitor(selection=TopK(0.3)))
    run.validate(model, val, verbose=False)

    x = torch.cat([images for images, _ in val])
    masks = SelectiveLRP(model, selection=TopK(0.3)).trace(x, target=lambda logits: logits.argmax(1)).masks
    survives = masked_forward(model, x, masks).argmax(1) == model(x).argmax(1)
    assert run.callback_metrics["relevance/critical_neuron_accuracy"] == survives.float().mean()


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_works_under_inference_mode(tmp_path: Path, loaders, stage: str):
    run = trainer(tmp_path, RelevanceMonitor())
    [measured] = getattr(run, stage)(Classifier(), loaders[1], verbose=False)
    assert measured.keys() >= SCALARS


def test_checkpoints_and_early_stopping_can_watch_it(tmp_path: Path, loaders):
    best = ModelCheckpoint(tmp_path / "best", monitor="relevance/critical_neuron_accuracy", mode="max")
    stop = EarlyStopping("relevance/critical_neuron_accuracy", mode="max", stopping_threshold=0.0)
    run = trainer(tmp_path, RelevanceMonitor(), stop, best, epochs=3, enable_checkpointing=True)
    run.fit(Classifier(), *loaders)
    assert Path(best.best_model_path).is_file()
    assert run.current_epoch == 1  # an accuracy above 0 stopped it after the first


def test_every_n_epochs_and_max_samples_bound_the_cost(tmp_path: Path, loaders, monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []
    monitor = RelevanceMonitor(every_n_epochs=2, max_samples=50, n_heatmaps=3)
    look = monitor._look
    monkeypatch.setattr(monitor, "_look", lambda model, x, y: (seen.append(len(x)), look(model, x, y)))
    trainer(tmp_path, monitor, epochs=3, num_sanity_val_steps=0).fit(Classifier(), *loaders)
    assert sum(seen) == 2 * 50
    assert len(monitor._shown) == 3


def test_no_files_in_fast_dev_run(tmp_path: Path, loaders):
    trainer(tmp_path, RelevanceMonitor(), fast_dev_run=True).fit(Classifier(), *loaders)
    assert not list(tmp_path.rglob("*.png"))


def test_autocast_and_frozen_layers(tmp_path: Path, loaders):
    model = Classifier()
    model.conv1.requires_grad_(False)
    run = trainer(tmp_path, RelevanceMonitor(), precision="bf16-mixed")
    run.fit(model, *loaders)
    assert run.callback_metrics["relevance/conservation_error"] < 1e-3  # explained in the parameters' own precision
    assert not model.conv1.weight.requires_grad


# what goes wrong


class Unsupported(Classifier):
    """Uses an operator without a rule, from some epoch on."""

    def __init__(self, from_epoch: int) -> None:
        super().__init__()
        self.from_epoch = from_epoch

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits.cumprod(1) if self.current_epoch >= self.from_epoch else logits


def test_an_unsupported_model_is_seen_before_training(tmp_path: Path, loaders):
    with pytest.raises(UnsupportedOperatorError, match="cumprod"):
        trainer(tmp_path, RelevanceMonitor()).fit(model := Unsupported(0), *loaders)
    assert model.global_step == 0


def test_a_fault_in_a_running_training_is_a_warning(tmp_path: Path, loaders):
    model, run = Unsupported(1), trainer(tmp_path, RelevanceMonitor())
    with pytest.warns(UserWarning, match=r"skips this validation.*cumprod"):
        run.fit(model, *loaders)
    assert run.current_epoch == 2


def test_a_graph_that_cannot_be_told_leaves_the_rest(tmp_path: Path, loaders):
    class Mixed(Classifier):
        def forward(self, x: Tensor) -> Tensor:  # channels meet before the head, so edges below it cannot be told
            x = F.relu(self.conv2(F.relu(self.conv1(x))))
            x = x.unflatten(1, (8, 2)).mean([2, 3, 4])
            return self.head(torch.cat([x, x], 1))

    logger = TensorBoardLogger(tmp_path)
    with pytest.warns(UserWarning, match="no graph of critical paths"):
        trainer(tmp_path, RelevanceMonitor(), logger=logger, epochs=1).fit(Mixed(), *loaders)
    logged = EventAccumulator(logger.log_dir).Reload().Tags()
    assert set(logged["scalars"]) >= SCALARS
    assert "relevance/heatmaps" in logged["images"]
    assert "relevance/critical_paths" not in logged["images"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"every_n_epochs": 0}, "every_n_epochs"),
        ({"max_samples": 0}, "max_samples"),
        ({"n_heatmaps": -1}, "n_heatmaps"),
        ({"max_samples": 1.5}, "max_samples"),
        ({"selection": 0.1}, "selection"),
        ({"selection": TopK}, "selection"),
    ],
)
def test_wrong_arguments(wrong: dict, message: str):
    with pytest.raises(MisconfigurationException, match=message):
        RelevanceMonitor(**wrong)


def test_wrong_composite():
    with pytest.raises(ValueError, match="epsilon_plus"):
        RelevanceMonitor(composite="epsilon_minus")


@pytest.mark.parametrize("kind", ["tensor", "float labels", "labels of another length"])
def test_batches_it_cannot_read(tmp_path: Path, kind: str):
    class Lenient(Classifier):
        def validation_step(self, batch: object, batch_idx: int) -> None:
            pass

    x, y = torch.rand(8, 1, 8, 8), torch.zeros(8, dtype=torch.long)
    data = {"tensor": [x], "float labels": [(x, y.float())], "labels of another length": [(x, y[:4])]}[kind]
    with pytest.raises(MisconfigurationException, match="RelevanceMonitor reads"):
        trainer(tmp_path, RelevanceMonitor()).validate(Lenient(), DataLoader(data, batch_size=None), verbose=False)


def test_strategies_that_shard_parameters_are_refused_in_setup(tmp_path: Path):
    run, monitor = trainer(tmp_path), RelevanceMonitor()
    run.strategy.zero_stage_3 = True  # what DeepSpeedStrategy says of itself at stage 3
    with pytest.raises(MisconfigurationException, match="whole parameters"):
        monitor.setup(run, Classifier(), "fit")


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path: Path, loaders):
    (tmp_path / "relevance_heatmaps").write_text("in the way")
    with pytest.warns(UserWarning, match="could not write the picture 'relevance/heatmaps'"):
        trainer(tmp_path, RelevanceMonitor(), epochs=1).fit(Classifier(), *loaders)
    assert list((tmp_path / "relevance_critical_paths").glob("*.png"))


def test_nothing_is_logged_where_nothing_was_seen(tmp_path: Path, loaders):
    run = trainer(tmp_path, RelevanceMonitor(), limit_val_batches=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.fit(Classifier(), *loaders)
    assert not SCALARS & run.callback_metrics.keys()

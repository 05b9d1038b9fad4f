"""Batches, labels, loaders and fits of unusual kinds: what is looked at, what is left out, and what is said of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, StochasticWeightAveraging
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from trainings import Lenient, images, loaders, trainer

from lrp_lightning.callbacks import RelevanceMonitor
from lrp_lightning.callbacks.settings import LOGGED, SCALARS

X, Y = images(24, 1).tensors
ONE_HOT = F.one_hot(Y, 10)
MEASURES = {f"relevance/{name}" for name in SCALARS}
AGAINST_LABELS = {"relevance/retained_accuracy", "relevance/ablated_accuracy"}
OF_SEVERAL = {"relevance/logit_correlation", "relevance/circuit_agreement"}


class Silent(Lenient):
    """Its validation runs the model, whatever labels are."""

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        x = batch["image"] if isinstance(batch, dict) else batch[0]
        if isinstance(x, Tensor):
            self(x)


def few(**more) -> RelevanceMonitor:
    log = [*SCALARS, "heatmaps", "mistakes", "critical_paths"]
    given = {"max_samples": 24, "n_heatmaps": 3, "graph_classes": 2, "max_share": None, "log": log}
    return RelevanceMonitor(**(given | more))


def fit(folder: Path, monitor: RelevanceMonitor, val: Any, *more: Callback, model: Any = None, **options: Any) -> Trainer:
    torch.manual_seed(0)
    run = trainer(folder, monitor, *more, **options)
    run.fit(Silent() if model is None else model, loaders()[0], val)
    return run


def measured(run: Trainer) -> dict[str, float]:
    return {name: value.item() for name, value in run.callback_metrics.items() if name.startswith("relevance/")}


def loader(x: Tensor = X, y: Tensor = Y, size: int = 8, **more: Any) -> DataLoader:
    return DataLoader(TensorDataset(x, y), size, **more)


@pytest.fixture(autouse=True)
def without_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are composed and not rasterised, which would take most of the time."""
    monkeypatch.setattr("lrp_lightning.callbacks.pictures.as_array", lambda figure: np.zeros((8, 8, 3), np.uint8))


@pytest.fixture
def quiet() -> Iterator[None]:
    """Whatever the monitor warns of is an error, but shortcuts, of which noise has some."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="RelevanceMonitor|The variance of predictions")
        warnings.filterwarnings("ignore", message="RelevanceMonitor: likely shortcut")
        yield


# batches and labels


class Dicts(Dataset):
    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"image": X[i], "label": Y[i], "path": "a.png", "about": {"id": i}}


def of_several_sizes() -> DataLoader:
    return DataLoader(
        [
            (torch.rand(3, 1, 8, 8), torch.arange(3)),
            (torch.rand(4, 1, 12, 10), torch.arange(4)),
            ([torch.rand(1, 8, 8), torch.rand(1, 9, 9)], torch.tensor([1, 2])),
            (torch.rand(1, 1, 8, 8), torch.tensor([0])),
        ],
        batch_size=None,
    )


@pytest.mark.parametrize(
    ("make", "samples", "lacking"),
    [
        pytest.param(lambda: loader(size=1), 24, set(), id="one a batch"),
        pytest.param(lambda: loader(X[:21], Y[:21]), 21, set(), id="a smaller last batch"),
        pytest.param(lambda: loader(X[:1], Y[:1]), 1, OF_SEVERAL, id="one sample"),
        pytest.param(lambda: DataLoader(Dicts(), 8), 24, set(), id="dicts"),
        pytest.param(of_several_sizes, 10, set(), id="several sizes"),
        pytest.param(lambda: DataLoader([(X[:4], Y[:4]), (X[:0], Y[:0])], batch_size=None), 4, set(), id="an empty batch"),
        pytest.param(lambda: DataLoader([(X[:0], Y[:0]), (X[:4], Y[:4])], batch_size=None), 4, set(), id="an empty first"),
        pytest.param(lambda: loader(y=Y.to(torch.uint8)), 24, set(), id="labels as bytes"),
        pytest.param(lambda: loader(y=Y[:, None]), 24, set(), id="labels in a column"),
        pytest.param(lambda: loader(y=ONE_HOT), 24, set(), id="one-hot"),
        pytest.param(lambda: loader(y=ONE_HOT.bool()), 24, set(), id="one-hot, bool"),
        pytest.param(lambda: loader(y=ONE_HOT * 0.9 + 0.01), 24, set(), id="smoothed"),
        pytest.param(lambda: loader(y=torch.full_like(Y, -100)), 24, AGAINST_LABELS, id="no labels"),
        pytest.param(lambda: loader(y=torch.zeros(24, 10)), 24, AGAINST_LABELS, id="multi-label, of no class"),
        pytest.param(lambda: loader(y=torch.ones(24, 10)), 24, set(), id="multi-label, of all classes"),
        pytest.param(lambda: loader(x=X.to(memory_format=torch.channels_last)), 24, set(), id="channels last"),
        pytest.param(lambda: loader(x=torch.zeros_like(X)), 24, {"relevance/logit_correlation"}, id="all black"),
    ],
)
def test_batches_that_are_looked_at(
    tmp_path: Path, quiet: None, make: Callable[[], DataLoader], samples: int, lacking: set[str]
) -> None:
    found = measured(fit(tmp_path, few(), make()))
    assert found["relevance/samples"] == samples
    assert MEASURES - found.keys() <= lacking | {"relevance/stability"}
    assert all(value == value for value in found.values())


def test_samples_without_a_label_are_neither_right_nor_wrong(tmp_path: Path) -> None:
    """By number, and of multi-label none: what is measured against labels is of the other samples."""
    known = torch.arange(24) % 3 != 0

    def found(x: Tensor, y: Tensor) -> dict[str, float]:
        torch.manual_seed(0)
        run = trainer(tmp_path, few(log=SCALARS))
        run.validate(Silent(), loader(x, y), verbose=False)
        return measured(run)

    expected = found(X[known], Y[known])
    for labels in (Y.where(known, -100), ONE_HOT * known[:, None]):
        some = found(X, labels)
        assert some["relevance/samples"] == 24
        for name in AGAINST_LABELS:
            assert some[name] == expected[name]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", [0, 13])
def test_images_that_are_not_finite_are_left_out_and_the_others_looked_at(tmp_path: Path, value: float, where: int) -> None:
    """In the first batch, which the sanity check sees, or later."""
    x = X.clone()
    x[where, 0, 2, 3] = value
    with pytest.warns(UserWarning, match="leaves out samples that hold NaN or infinite values") as told:
        found = measured(fit(tmp_path, few(log=LOGGED), loader(x)))
    assert {str(w.message) for w in told if "RelevanceMonitor" in str(w.message) and "shortcut" not in str(w.message)} == {
        "RelevanceMonitor leaves out samples that hold NaN or infinite values"
    }
    assert found["relevance/samples"] == 23
    assert found.keys() >= MEASURES


def test_where_no_image_is_finite_training_goes_on_and_a_sentence_says_so(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="received no sample in this validation") as told:
        run = fit(tmp_path, few(), loader(X * torch.nan))
    assert len([w for w in told if "RelevanceMonitor" in str(w.message)]) == 2  # once each, in two epochs
    assert run.current_epoch == 2
    assert not measured(run)


class OfBytes(Silent):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float() / 255)


def test_images_of_bytes_are_those_of_the_same_values(tmp_path: Path, quiet: None) -> None:
    torch.manual_seed(0)
    x, model = (X.clamp(0, 1) * 255).to(torch.uint8), OfBytes()
    runs = [trainer(tmp_path, few()) for _ in range(3)]
    for run, val in zip(runs, (loader(x), loader(x.float()), DataLoader(Dicts(), 8)), strict=True):
        run.validate(model, val, verbose=False)
    as_bytes, as_floats, others = ({n: v for n, v in measured(run).items() if "seconds" not in n} for run in runs)
    assert as_bytes == as_floats != others


# loaders


class Rows(IterableDataset):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(X, Y, strict=True)


class Promising(Rows):
    """Gives fewer samples than it says."""

    def __len__(self) -> int:
        return 100


class Nothing(IterableDataset):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


class Saying(DataLoader):
    """Says that it has some number of batches."""

    batches = 3

    def __len__(self) -> int:
        return self.batches


class More(Saying):
    batches = 10


class Fewer(Saying):
    batches = 2


EMPTY = (X[:0], Y[:0])


@pytest.mark.parametrize(
    ("make", "samples"),
    [
        pytest.param(lambda: DataLoader(Rows(), 8), 24, id="a stream"),
        pytest.param(lambda: DataLoader(Promising(), 8), 24, id="a stream that promises more"),
        pytest.param(lambda: More(TensorDataset(X, Y), 8), 24, id="fewer batches than it says"),
        pytest.param(lambda: Fewer(TensorDataset(X, Y), 8), 16, id="more batches than it says"),
        pytest.param(lambda: [loader(), loader(X[:5], Y[:5], size=2)], 24, id="two"),
        pytest.param(lambda: {"a": loader(X[:8], Y[:8]), "b": loader(X[8:], Y[8:])}, 24, id="two, by name"),
        pytest.param(lambda: [loader(), loader(*EMPTY)], 24, id="two, the second empty"),
        pytest.param(lambda: [loader(*EMPTY), loader()], 24, id="two, the first empty"),
        pytest.param(lambda: [loader(), loader(torch.rand(8, 1, 12, 12), Y[:8])], 24, id="two, of different sizes"),
        pytest.param(lambda: loader(X[:21], Y[:21], drop_last=True), 16, id="the last batch dropped"),
    ],
)
def test_loaders_that_are_looked_at(tmp_path: Path, quiet: None, make: Callable[[], Any], samples: int) -> None:
    monitor = few()
    found = measured(fit(tmp_path, monitor, make()))
    assert found["relevance/samples"] == samples
    assert found.keys() >= MEASURES
    assert len(monitor._remembered["validation"].shown) == 3


def test_a_stream_of_nothing_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="received no sample in this validation, so it logs nothing"):
        run = fit(tmp_path, few(), DataLoader(Nothing(), 8))
    assert run.current_epoch == 2


# fits


class Averaging(Callback):
    """Averages weights as Lightning's callbacks do: validates by the average, and trains on without it."""

    def __init__(self) -> None:
        self.average: dict[str, Tensor] = {}
        self.own: dict[str, Tensor] = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        for name, t in pl_module.state_dict().items():
            self.average[name] = (0.9 * self.average.get(name, t) + 0.1 * t).to(t.dtype)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.own = {name: t.clone() for name, t in pl_module.state_dict().items()}
        pl_module.load_state_dict(self.average or self.own)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        pl_module.load_state_dict(self.own)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "make",
    [loader, lambda: DataLoader(Rows(), 8), lambda: [loader(), DataLoader(Rows(), 5)], lambda: [loader(), loader(*EMPTY)]],
    ids=["one loader", "a stream", "a loader and a stream", "a loader and an empty one"],
)
def test_weights_that_are_averaged_for_validation_are_those_that_are_explained(
    tmp_path: Path, make: Callable[[], Any], first: bool
) -> None:
    averaging, monitor = Averaging(), few()
    torch.manual_seed(0)
    run = trainer(tmp_path, *([averaging, monitor] if first else [monitor, averaging]))
    run.fit(model := Silent(), loaders()[0], make())
    found = measured(run)
    model.load_state_dict(averaging.average)
    again = trainer(tmp_path, few())
    again.validate(model, make(), verbose=False)
    for name in ("contest_accuracy", "critical_neuron_accuracy", "smape", "conservation_error", "sufficiency"):
        assert found[f"relevance/{name}"] == measured(again)[f"relevance/{name}"]


def compiled() -> nn.Module:
    model = Silent()
    model.conv2 = torch.compile(model.conv2, backend="eager")
    return model


@pytest.mark.parametrize(
    ("options", "looks", "samples"),
    [
        ({"limit_val_batches": 0.5}, 2, 8),
        ({"limit_val_batches": 1}, 2, 8),
        ({"val_check_interval": 0.5}, 4, 24),
        ({"val_check_interval": 4, "check_val_every_n_epoch": None}, 3, 24),
        ({"check_val_every_n_epoch": 2, "epochs": 5}, 2, 24),
        ({"num_sanity_val_steps": 0}, 2, 24),
        ({"num_sanity_val_steps": -1}, 2, 24),
        ({"accumulate_grad_batches": 4, "gradient_clip_val": 0.1}, 2, 24),
        ({"precision": "bf16-mixed"}, 2, 24),
        ({"precision": "64-true"}, 2, 24),
        ({"reload_dataloaders_every_n_epochs": 1}, 2, 24),
        ({"inference_mode": False}, 2, 24),
        ({"max_steps": 7}, 1, 24),
    ],
    ids=str,
)
def test_fits_that_are_looked_at(tmp_path: Path, quiet: None, options: dict[str, Any], looks: int, samples: int) -> None:
    monitor = few()
    found = measured(fit(tmp_path, monitor, loader(), **options))
    assert len(monitor._history) == looks
    assert found["relevance/samples"] == samples
    assert found.keys() >= MEASURES - ({"relevance/stability", "relevance/circuit_agreement"} if looks == 1 else set())


def test_compiled_parts_and_weights_averaged_by_swa(tmp_path: Path, quiet: None) -> None:
    averaging = StochasticWeightAveraging(1e-2, swa_epoch_start=1)
    found = measured(fit(tmp_path, few(), loader(), averaging, model=Silent(), epochs=3))
    assert found.keys() >= MEASURES
    assert measured(fit(tmp_path, few(), loader(), model=compiled())).keys() >= MEASURES


@pytest.mark.parametrize("inference_mode", [True, False])
@pytest.mark.parametrize("stage", ["validate", "test"])
def test_outside_of_a_fit(tmp_path: Path, quiet: None, stage: str, inference_mode: bool) -> None:
    run = trainer(tmp_path, few(), inference_mode=inference_mode)
    [found] = getattr(run, stage)(Silent(), loader(), verbose=False)
    assert found.keys() >= MEASURES - {"relevance/stability", "relevance/circuit_agreement"}


# arguments at their ends


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        {"n_heatmaps": 0}, {"n_heatmaps": 0, "graph_classes": 0, "n_paths": 0}, {"n_heatmaps": 100}, {"graph_classes": 0},
        {"graph_classes": "all"}, {"graph_classes": [9, 3]}, {"n_paths": 0}, {"log": []}, {"max_samples": 1},
        {"max_share": 1e-9}, {"max_share": 1.0}, {"max_seconds": 1e-9, "max_samples": 8},
        *({"log": [name]} for name in LOGGED if name not in SCALARS),
    ],
    ids=str,
)  # fmt: skip
def test_arguments_that_ask_for_little_or_for_all(tmp_path: Path, quiet: None, given: dict[str, Any]) -> None:
    monitor = few(**({"log": LOGGED} | given))
    run = fit(tmp_path, monitor, loader())
    assert run.current_epoch == 2
    assert len(monitor._history) == 2

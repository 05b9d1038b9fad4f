"""Strategies, shortcuts and neuron cards of a training: kept samples, the end of fit, the warning, what is in the log."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from small_networks import waves
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from trainings import Witness, same, trainer

from lrp_lightning.callbacks import RelevanceMonitor
from lrp_lightning.callbacks.batches import Samples
from lrp_lightning.callbacks.kept import Kept
from lrp_lightning.callbacks.time_share import TimeShare
from lrp_lightning.tensorboard_plugin import schema

SIDE = 16
NAMES = ["still", "wave", "ripple"]


def data(n: int, seed: int, share: float) -> TensorDataset:
    """A faint wave for each of three classes in much noise; of class 0 some have a mark in the upper right corner."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    waves = torch.stack([torch.sin(torch.arange(SIDE) * (c + 1.0) / 2)[None].expand(SIDE, SIDE) for c in range(3)])
    x = 0.2 * waves[labels][:, None] + torch.randn(n, 1, SIDE, SIDE, generator=generator)
    marked = (labels == 0) & (torch.rand(n, generator=generator) < share)
    x[marked, :, 1:4, 12:15] = 4.0
    return TensorDataset(x, labels)


class Waves(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = waves()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("loss", F.cross_entropy(self(batch[0]), batch[1]))

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 3e-3)


def fit(folder: Path, *callbacks: Callback, share: float = 0.4, epochs: int = 4, **more) -> Waves:
    model = Waves()
    run = trainer(folder, *callbacks, epochs=epochs, **more)
    run.fit(model, DataLoader(data(900, 0, share), 60), DataLoader(data(240, 1, share), 60))
    return model


def monitor(**more) -> RelevanceMonitor:
    return RelevanceMonitor(**({"max_samples": 64, "n_heatmaps": 2, "class_names": NAMES} | more))


def heads(folder: str) -> dict[int, dict]:
    logged = EventAccumulator(folder, {"tensors": 0}).Reload()
    return {event.step: schema.read_head(make_ndarray(event.tensor_proto)) for event in logged.Tensors(schema.RECORD)}


def test_a_planted_mark_is_warned_of_by_itself_and_is_in_the_log(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(tmp_path, monitor(), logger=logger)
    told = [str(w.message) for w in caught if "shortcut" in str(w.message)]
    assert len(told) == 1
    assert "of class still by" in told[0]
    assert "corner" in told[0] or "moves" in told[0]
    assert "relevance/strategies" in told[0]
    logged = EventAccumulator(logger.log_dir, {"images": 0}).Reload()
    assert logged.Scalars("relevance/shortcuts")[-1].value >= 1
    names = {tag for tag in logged.Tags()["images"] if tag.startswith(("relevance/strategies", "relevance/cards"))}
    assert names == {"relevance/cards", *(f"relevance/strategies/{c}_{name}" for c, name in enumerate(NAMES))}
    last = max(found := heads(logger.log_dir))
    assert {s["class"] for s in found[last]["strategies"]} == {0, 1, 2}
    assert {s["class"] for s in found[last]["strategies"] if s["shortcut"]} == {0}
    contest, shortcut = found[last]["headline"]
    assert re.match(
        r"With only its own 10% of each layer's neurons, the predicted class beats the runner-up in \d+% of 16 images",
        contest,
    )
    assert re.match(r"Likely shortcut: the network decides \d+% of class still by the upper right corner; ", shortcut)
    assert not any("shortcut" in sentence for step in sorted(found)[:-1] for sentence in found[step]["headline"])
    assert found[last]["measures"]["shortcuts"] >= 1
    layers = [card["layer"] for card in found[last]["cards"]]
    assert set(layers) == {"net.0", "net.3"}
    assert layers == sorted(layers)  # in the order of the network


def test_without_a_mark_nothing_is_warned_of(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(tmp_path, monitor(), share=0.0, logger=logger)
    assert not [w for w in caught if "shortcut" in str(w.message)]
    assert EventAccumulator(logger.log_dir).Reload().Scalars("relevance/shortcuts")[-1].value == 0


class StopsLate(Callback):
    """Ends training where nobody could know it before validation."""

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        trainer.should_stop = trainer.current_epoch == 1


@pytest.mark.parametrize("stops", [EarlyStopping("loss", patience=1, stopping_threshold=1e9), StopsLate()])
def test_a_training_that_ends_early_has_them_of_the_network_that_it_ends_with(tmp_path: Path, stops: Callback) -> None:
    logger = TensorBoardLogger(tmp_path)
    fit(tmp_path, monitor(), stops, epochs=50, logger=logger)
    found = heads(logger.log_dir)
    last = found[max(found)]
    assert last["strategies"]
    assert last["cards"]
    assert last["epoch"] == max(head["epoch"] for head in found.values())
    assert sum(bool(head["strategies"]) for head in found.values()) == 1


@pytest.mark.parametrize(("epochs", "stops", "where"), [(2, [], ""), (9, [StopsLate()], ", where training ended")])
def test_it_says_that_it_is_at_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, epochs: int, stops: list[Callback], where: str
) -> None:
    with caplog.at_level("INFO"):
        fit(tmp_path, monitor(), *stops, epochs=epochs, logger=CSVLogger(tmp_path))
    [line] = [record.message for record in caplog.records if "drawing epoch" in record.message]
    assert re.fullmatch(rf"RelevanceMonitor: drawing epoch \d{where}, about \d+ s", line)


def test_training_ends_in_the_same_bits(tmp_path: Path) -> None:
    without, beside = Witness(), Witness()
    a = fit(tmp_path / "a", without, epochs=2)
    b = fit(tmp_path / "b", monitor(max_share=None), beside, epochs=2)
    assert same(a.state_dict(), b.state_dict())
    assert same(without.seen, beside.seen)


def test_what_is_not_asked_for_is_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_for = []  # an error would be a warning
    for name in ("Kept", "add_insights"):
        costly = lambda *args, name=name, **kwargs: looked_for.append(name)  # noqa: E731
        monkeypatch.setattr(f"lrp_lightning.callbacks.relevance_monitor.{name}", costly)
    fit(tmp_path, monitor(log=["heatmaps", "contest_accuracy"]), epochs=1)
    assert looked_for == []


def test_files_where_there_is_no_tensorboard(tmp_path: Path) -> None:
    fit(tmp_path, monitor(log=["strategies", "shortcuts", "cards", "critical_paths", "report"]), logger=CSVLogger(tmp_path))
    names = {path.parent.name for path in tmp_path.rglob("*.png")}
    assert {"relevance_strategies_0_still", "relevance_cards"} <= names
    [page] = tmp_path.rglob("last.html")
    text = page.read_text()
    assert "Likely shortcut." in text
    assert 'alt="patches: drive it most"' in text
    assert any('"relevance/shortcuts": ' in path.read_text() for path in tmp_path.rglob("step=*.json"))


def test_a_test_run_looks_too(tmp_path: Path) -> None:
    model = fit(tmp_path, epochs=3)
    run = trainer(tmp_path / "test", monitor(log=["strategies"]))
    run.test(model, DataLoader(data(120, 2, 0.4), 60), verbose=False)
    assert {path.parent.name for path in (tmp_path / "test").rglob("*.png")} == {
        f"relevance_strategies_{c}_{name}" for c, name in enumerate(NAMES)
    }


def test_an_error_of_theirs_is_a_warning_and_all_else_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args, **kwargs) -> None:
        raise RuntimeError("no strategies today")

    monkeypatch.setattr("lrp_lightning.callbacks.pictures.strategies_of", fails)
    with pytest.warns(UserWarning, match="could not draw the strategies: no strategies today"):
        fit(tmp_path, monitor(), epochs=1)
    names = {path.parent.name for path in tmp_path.rglob("*.png")}
    assert "relevance_cards" in names
    assert not any("strategies" in name for name in names)


# kept samples


def batch(labels: Tensor | None, n: int = 0, shape: tuple[int, ...] = (1, 2, 2)) -> list[Samples]:
    n = n if labels is None else len(labels)
    return [Samples((torch.arange(n).float().view(-1, 1, 1, 1).expand(n, *shape),), labels, torch.arange(n))]


def test_kept_are_the_first_of_each_class_and_evenly_many() -> None:
    kept = Kept(most=6)
    kept.see(batch(torch.tensor([0] * 100 + [1] * 100)))
    kept.see(batch(torch.tensor([2, 2, -100])))
    assert len(kept) == 6
    [(x, labels)] = kept.batches()
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert x[:, 0, 0, 0].tolist() == [0, 1, 100, 101, 0, 1]


@pytest.mark.parametrize("labels", [None, torch.rand(5, 3), torch.zeros(5, 3, dtype=torch.long)])
def test_without_one_class_a_sample_inputs_are_kept_alone(labels: Tensor | None) -> None:
    kept = Kept(most=4)
    kept.see(batch(labels, 5))
    [(x,)] = kept.batches()
    assert len(x) == 4


def test_other_shapes_and_several_inputs_are_not_kept() -> None:
    kept = Kept(most=100)
    kept.see(batch(torch.tensor([0, 1])))
    kept.see(batch(torch.tensor([0, 1]), shape=(1, 3, 3)))
    two = torch.zeros(2, 1, 2, 2)
    kept.see([Samples((two, two), torch.tensor([0, 1]), torch.arange(2))])
    assert len(kept) == 2


def test_large_images_are_kept_in_bounded_memory() -> None:
    kept = Kept(most=10_000)
    shape = (3, 512, 512)
    for c in range(3):
        kept.see([Samples((torch.zeros(1).expand(60, *shape),), torch.full((60,), c), torch.arange(60))])
    assert len(kept) * 3 * 512 * 512 * 4 <= 2**28


def test_insights_are_paid_for_by_what_is_saved_up() -> None:
    account = TimeShare(0.1, 256)
    account.start()
    assert not account.allows_insights(0.0, 1000)  # what they cost is not known
    account._trained = 10_000.0
    account.seconds_per_sample = 0.1
    assert account.allows_insights(0.0, 1000)
    assert not account.allows_insights(900.0, 1000)
    account.insight_seconds_per_sample = 0.005
    assert account.allows_insights(450.0, 1000)
    assert TimeShare(None, 256).allows_insights(0.0, 1000)
    other = TimeShare(0.1, 256)
    other.load_state_dict({key: value for key, value in account.state_dict().items() if key != "insight_seconds_per_sample"})
    assert other.insight_seconds_per_sample is None

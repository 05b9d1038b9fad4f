"""A share of the time: on how many samples the monitor measures, and in which epochs it draws."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from torch.utils.data import DataLoader
from trainings import Classifier, images, loaders, trainer, weights_only

from lrp_lightning.callbacks import RelevanceMonitor, time_share
from lrp_lightning.callbacks.settings import SCALARS
from lrp_lightning.callbacks.time_share import LEAST, TimeShare, fewest, is_last_look, is_looked_at
from lrp_lightning.tensorboard_plugin.schema import RECORD, read_head


class Clock:
    """Stands still until it is moved."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(time_share, "time", fake)
    return fake


@pytest.mark.parametrize(("most", "least"), [(256, 16), (128, 32), (64, 16), (63, 63), (16, 16), (5, 5), (1000, 62)])
def test_fewest(most: int, least: int):
    assert fewest(most) == least


@pytest.mark.parametrize(
    ("share", "trained", "price", "samples"),
    [
        (0.03, 1000.0, 0.02, 256),  # 15 s for 5.1 s
        (0.03, 300.0, 0.02, 64),  # 4.5 s, for 5.1 s too little
        (0.03, 60.0, 0.01, 64),  # .9 s for .64
        (0.03, 20.0, 0.01, 64),  # as much as of a minute
        (0.03, 10.0, 0.01, 16),  # half of that
        (0.03, 0.01, 0.02, 16),
        (None, 0.01, 0.02, 256),
    ],
)
def test_half_of_the_share_pays_for_samples(clock: Clock, share: float | None, trained: float, price: float, samples: int):
    account = TimeShare(share, 256)
    account.start()
    clock.now += trained
    assert account.choose_samples() is None  # no price yet
    assert account.most == (16 if share else 256)
    account.seconds_per_sample = price
    account.choose_samples()
    assert account.most == samples


def test_samples_that_are_not_there_cost_nothing(clock: Clock):
    account = TimeShare(0.03, 256)
    account.seconds_per_sample = 0.02
    account.start()
    clock.now += 140  # 2.1 seconds, for 105 samples
    assert account.choose_samples(there=100) == 256


def test_what_is_settled_stays_and_epochs_between_looks_count(clock: Clock):
    account = TimeShare(0.03, 256)
    account.seconds_per_sample = 0.02
    account.start()
    clock.now += 100
    assert account.choose_samples(every_n_epochs=5) == 256
    clock.now += 1e-3
    account.seconds_per_sample = 100.0
    assert account.choose_samples() == 256


@pytest.mark.parametrize(
    ("epoch", "share", "between"),
    [(10, 0.09, 4), (20, 0.09, 2), (40, 0.045, 2), (60, 0.03, 2), (150, 0.03, 1)],  # 3 % of a minute are 1.8 s
)
def test_a_long_fit_stays_below_its_share_with_one_set_of_pictures_above_it(
    clock: Clock, epoch: float, share: float, between: int
):
    account, measures, pictures, drawn = TimeShare(0.03, 256), 0.1, 3.1, []
    account.start()
    for number in range(200):
        clock.now += epoch + measures
        now = measures
        if account.allows_pictures(now):
            drawn.append(number)
            account.seconds_of_pictures = pictures
            clock.now += pictures
            now += pictures
        account.end_look(now)
        assert account.spent <= share * account.trained + pictures
    assert account.trained == pytest.approx(200 * epoch)
    assert drawn[0] == 0
    assert {b - a for a, b in pairwise(drawn)} <= {between, between - 1}
    assert account.saved >= 0


@pytest.mark.parametrize(
    ("trained", "samples"),
    [(1000.0, 1024), (171.0, 512), (80.0, 256), (1.0, 256)],  # for 10.24, 5.12 and 2.56 seconds
)
def test_strategies_come_of_as_many_samples_as_the_share_of_the_fit_pays_for(clock: Clock, trained: float, samples: int):
    account = TimeShare(0.03, 256)
    assert account.samples_for_insights(100) == 100  # few are taken whole, whatever they cost
    account.start()
    clock.now += trained
    account.insight_seconds_per_sample = 0.01
    assert account.samples_for_insights(1024) == samples
    assert account.samples_for_insights(300) == 300
    account.saved = 20.0
    assert account.samples_for_insights(1024) == 1024
    assert TimeShare(None, 256).samples_for_insights(1024) == 1024


def test_what_the_first_look_takes_is_no_debt(clock: Clock):
    account = TimeShare(0.03, 256)
    account.start()
    clock.now += 20 + 100
    account.seconds_of_pictures = 1.0
    account.end_look(100.0)
    clock.now += 20 + 0.5
    assert account.allows_pictures(0.5)


def test_a_resumed_account_goes_on(clock: Clock):
    account = TimeShare(0.03, 256)
    account.seconds_per_sample = 0.02
    account.start()
    clock.now += 300
    account.choose_samples()
    account.seconds_of_pictures = 3.0
    clock.now += 5
    account.end_look(5.0)
    again = TimeShare(0.03, 256)
    again.load_state_dict(account.state_dict())
    clock.now += 1000  # nothing ran
    again.start()
    clock.now += 40
    assert (again.trained, again.spent, again.most) == (pytest.approx(340), 5.0, 64)
    assert again.saved == pytest.approx(4.0)
    assert again.allows_pictures(2.0)  # 4 and 1.8 seconds for 2 and 3
    assert not again.allows_pictures(3.0)


# the last look


class Asking(Callback):
    """Asks in every validation whether it is the last that is looked at."""

    def __init__(self, every_n_epochs: int = 1) -> None:
        self.every_n_epochs, self.told = every_n_epochs, []

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        looked_at = is_looked_at(trainer, trainer.current_epoch, self.every_n_epochs)
        if not trainer.sanity_checking and looked_at:
            self.told.append(is_last_look(trainer, self.every_n_epochs))


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"epochs": 1},
        {"every": 2, "epochs": 4},
        {"check_val_every_n_epoch": 2, "epochs": 5},
        {"check_val_every_n_epoch": 2, "every": 3, "epochs": 8},
        {"val_check_interval": 2},
        {"val_check_interval": 4},
        {"val_check_interval": 4, "check_val_every_n_epoch": None},
        {"epochs": -1, "max_steps": 12},
        {"epochs": 9, "max_steps": 13},
        {"max_steps": 6, "accumulate_grad_batches": 2, "epochs": 9},
    ],
)
def test_the_last_look_is_known(tmp_path: Path, how: dict):
    how = {"epochs": 3, **how}
    asking = Asking(how.pop("every", 1))
    trainer(tmp_path, asking, num_sanity_val_steps=0, **how).fit(Classifier(), *loaders())
    assert asking.told == [False] * (len(asking.told) - 1) + [True]


# in a fit


def logged(
    folder: Path, monitor: RelevanceMonitor, *more: Callback, epochs: int = 4, val: int = 80, **options
) -> EventAccumulator:
    logger = TensorBoardLogger(folder)
    run = trainer(folder, monitor, *more, logger=logger, epochs=epochs, **options)
    run.fit(Classifier(), loaders()[0], DataLoader(images(80, 1), 8))
    return EventAccumulator(logger.log_dir, {"images": 0}).Reload()


def brief(**more) -> RelevanceMonitor:
    """One that draws little."""
    return RelevanceMonitor(log=[*SCALARS, "heatmaps", "settings"], n_heatmaps=2, **more)


def samples(log: EventAccumulator) -> list[int]:
    return [int(event.value) for event in log.Scalars("relevance/samples")]


def test_a_short_training_has_all_measures_of_few_samples_and_pictures_first_and_last(tmp_path: Path):
    log = logged(tmp_path, RelevanceMonitor())
    steps = [event.step for event in log.Scalars("loss")]
    assert len(steps) == 4
    assert samples(log) == [LEAST] * 4
    for name in ("critical_neuron_accuracy", "random_accuracy", "smape", "seconds"):
        assert [event.step for event in log.Scalars(f"relevance/{name}")] == steps
    tags = [tag for tag in log.Tags()["images"] if tag.startswith(("relevance/heatmaps", "relevance/critical_paths/"))]
    assert len(tags) > 1
    for tag in tags:
        assert [event.step for event in log.Images(tag)] == [steps[0], steps[-1]]
    assert [event.step for event in log.Tensors("relevance/record")] == [steps[0], steps[-1]]
    [text] = log.Tensors("relevance/settings/text_summary")
    assert b"at most 16 samples, limited by max_share" in text.tensor_proto.string_val[0]
    [first, last] = [read_head(make_ndarray(event.tensor_proto))["notes"][0] for event in log.Tensors(RECORD)]
    assert first.startswith("Measured on 16 of 80 samples in ")
    assert first.endswith(
        "allows no more. Strategies, shortcuts and neuron cards follow at the last epoch, or earlier if max_share allows."
    )
    assert last.endswith("allows no more.")


def test_without_a_share_nothing_is_saved(tmp_path: Path):
    log = logged(tmp_path, brief(max_share=None), epochs=3)
    assert samples(log) == [80] * 3
    assert len(log.Images("relevance/heatmaps")) == 3


def test_a_long_training_pays_for_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(TimeShare, "trained", 1e6)
    log = logged(tmp_path, brief(), epochs=3)
    assert samples(log) == [80] * 3
    assert len(log.Images("relevance/heatmaps")) == 3


def test_without_a_sanity_check_the_first_look_tells_the_price(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(TimeShare, "trained", property(lambda account: 0.0 if account._at_last_look is None else 1e6))
    log = logged(tmp_path, brief(max_samples=80), num_sanity_val_steps=0, epochs=3)
    assert samples(log) == [20, 80, 80]
    texts = log.Tensors("relevance/settings/text_summary")
    assert [b"at most 20 samples, limited by max_share" in text.tensor_proto.string_val[0] for text in texts] == [
        True,
        False,
    ]
    assert b"at most 80 samples, limited by max_samples" in texts[1].tensor_proto.string_val[0]


def test_validate_and_test_know_no_share(tmp_path: Path):
    run = trainer(tmp_path, brief())
    [measured] = run.validate(Classifier(), DataLoader(images(80, 1), 8), verbose=False)
    assert measured["relevance/samples"] == 80


def test_pictures_alone_are_withheld_where_none_are_asked_for_the_record_comes_in_every_epoch(tmp_path: Path):
    log = logged(tmp_path, RelevanceMonitor(log=["critical_neuron_accuracy"]), epochs=3)
    assert len(log.Tensors("relevance/record")) == 3


def test_a_resumed_run_keeps_its_number_of_samples_and_draws_no_first_pictures(
    tmp_path: Path,
):
    saved, monitor = ModelCheckpoint(tmp_path, save_top_k=1, monitor=None), brief()
    logged(tmp_path / "a", monitor, saved, epochs=1, enable_checkpointing=True)
    assert monitor._time_share.samples == LEAST
    assert monitor._time_share.seconds_of_pictures > 0
    assert monitor._time_share.spent > 0
    again = brief()
    logger = TensorBoardLogger(tmp_path / "b")
    run = trainer(tmp_path, again, logger=logger, epochs=4)
    run.fit(Classifier(), loaders()[0], DataLoader(images(80, 1), 8), ckpt_path=saved.best_model_path, **weights_only(True))
    log = EventAccumulator(logger.log_dir, {"images": 0}).Reload()
    assert samples(log) == [LEAST] * 3
    assert [event.step for event in log.Images("relevance/heatmaps")] == [23]  # the last alone
    assert again._time_share.spent > monitor._time_share.spent

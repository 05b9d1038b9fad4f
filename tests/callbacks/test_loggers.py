"""Where findings go: every logger that takes some, or files; and never an exception."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from matplotlib.image import imread
from trainings import trainer

from lrp_lightning.callbacks.loggers import Findings, destinations, write

PICTURE = np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8)
FOUND = Findings(
    scalars={"relevance/a": 0.5, "relevance/b": float("nan")},
    pictures={"relevance/heatmaps": PICTURE},
    histograms={"relevance/shares/conv": np.array([0.25, 0.75])},
    texts={"relevance/settings": "text"},
)


class Foreign(Logger):
    """A logger of somebody else's."""

    name, version = "foreign", 0

    def __init__(self, experiment: object = None) -> None:
        super().__init__()
        self.experiment = experiment
        self.run_id = "run 7"

    def log_metrics(self, *args, **kwargs) -> None: ...

    def log_hyperparams(self, *args, **kwargs) -> None: ...


class LikeWandb(Foreign):
    def log_image(self, key: str, images: list, step: int | None = None, **kwargs: object) -> None:
        assert isinstance(images, list)
        self.got = key, images[0], step


def test_a_logger_with_log_image_gets_the_pictures(tmp_path: Path):
    logger = LikeWandb()
    write(destinations(trainer(tmp_path, logger=logger), None), FOUND, 3)
    assert logger.got == ("relevance/heatmaps", PICTURE, 3)


def test_an_experiment_like_comets(tmp_path: Path):
    got = {}

    def log_image(image_data: object, name: str | None = None, overwrite: bool = False, step: int | None = None) -> None:
        got[name] = image_data, step

    write(destinations(trainer(tmp_path, logger=Foreign(SimpleNamespace(log_image=log_image))), None), FOUND, 3)
    assert got == {"relevance/heatmaps": (PICTURE, 3)}


def test_a_client_like_mlflows(tmp_path: Path):
    got = {}

    def log_image(run_id: str, image: object, artifact_file: str | None = None, key: str | None = None) -> None:
        got[artifact_file] = run_id, image

    write(destinations(trainer(tmp_path, logger=Foreign(SimpleNamespace(log_image=log_image))), None), FOUND, 3)
    assert got == {"relevance/heatmaps/step=000003.png": ("run 7", PICTURE)}


def test_files_where_no_logger_takes_pictures(tmp_path: Path):
    for logger in (False, CSVLogger(tmp_path), Foreign()):
        folder = tmp_path / type(logger).__name__
        write(destinations(trainer(tmp_path, logger=logger), str(folder)), FOUND, 3)
        assert {str(path.relative_to(folder)) for path in folder.rglob("*.*")} == {
            "relevance_heatmaps/step=000003.png",
            "relevance_settings/step=000003.md",
            "relevance_measures/step=000003.json",
        }
        assert np.array_equal(np.round(imread(folder / "relevance_heatmaps/step=000003.png")[..., :3] * 255), PICTURE)
        numbers = json.loads((folder / "relevance_measures/step=000003.json").read_text())
        assert numbers["measures"] == {"relevance/a": 0.5, "relevance/b": None}
        assert numbers["histograms"] == {"relevance/shares/conv": [0.25, 0.75]}


def test_without_a_folder_files_go_to_the_trainers_root(tmp_path: Path):
    write(destinations(trainer(tmp_path), None), FOUND, 3)
    assert (tmp_path / "relevance_heatmaps" / "step=000003.png").is_file()


def test_several_loggers_at_once(tmp_path: Path):
    wandb, board = LikeWandb(), TensorBoardLogger(tmp_path)
    to = destinations(trainer(tmp_path, logger=[CSVLogger(tmp_path), wandb, board]), None)
    assert len(to) == 2
    write(to, FOUND, 3)
    assert wandb.got[2] == 3
    assert list(Path(board.log_dir).glob("events*"))
    assert not list(tmp_path.rglob("*.png"))


def test_a_logger_that_fails_is_a_warning_and_the_others_go_on(tmp_path: Path):
    class Offline(LikeWandb):
        def log_image(self, key: str, images: list, step: int | None = None, **kwargs: object) -> None:
            raise ConnectionError("no network")

    other = LikeWandb()
    with pytest.warns(UserWarning, match="could not log by ImageLogger: ConnectionError"):
        write(destinations(trainer(tmp_path, logger=[Offline(), other]), None), FOUND, 3)
    assert other.got[0] == "relevance/heatmaps"


def test_a_logger_without_its_service_is_a_warning(tmp_path: Path):
    class Unreachable(Foreign):
        @property
        def experiment(self) -> object:
            raise ConnectionError("no server")

        @experiment.setter
        def experiment(self, value: object) -> None: ...

    with pytest.warns(UserWarning, match="does without Unreachable: ConnectionError"):
        write(destinations(trainer(tmp_path, logger=Unreachable()), None), FOUND, 3)
    assert (tmp_path / "relevance_heatmaps" / "step=000003.png").is_file()


def test_what_cannot_be_written_is_told_once_and_goes_elsewhere(tmp_path: Path):
    (tmp_path / "relevance_heatmaps").write_text("in the way")
    to = destinations(trainer(tmp_path), str(tmp_path))
    with pytest.warns(UserWarning, match="could not write the picture 'relevance/heatmaps'.*it goes to") as told:
        write(to, FOUND, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(to, FOUND, 4)
    assert len(told) == 1
    elsewhere = Path(str(told[0].message).rpartition("it goes to ")[2])
    assert {path.name for path in elsewhere.iterdir()} == {"step=000003.png", "step=000004.png"}
    assert (tmp_path / "relevance_measures" / "step=000004.json").is_file()


def test_an_experiment_that_takes_anything_does_not_break(tmp_path: Path):
    write(destinations(trainer(tmp_path, logger=Foreign(MagicMock())), None), FOUND, 3)

"""Where findings go: every logger that takes some, or files; and never an exception.

Services' loggers stand here as fakes with their real signatures, and where they are installed as themselves, offline.
"""

from __future__ import annotations

import errno
import json
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CometLogger, CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger, Logger
from matplotlib.image import imread
from PIL import Image
from trainings import Classifier, loaders, trainer

from lrp_lightning.callbacks import RelevanceMonitor, loggers
from lrp_lightning.callbacks.loggers import Destination, Findings, destinations, end, write
from lrp_lightning.report import Report

PICTURE = np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8)
FOUND = Findings(
    scalars={"relevance/a": 0.5, "relevance/b": float("nan")},
    counts={"relevance/shortcuts": 2},
    pictures={"relevance/heatmaps": PICTURE, "relevance/mistakes": PICTURE},
    histograms={"relevance/shares/conv": np.array([0.25, 0.75])},
    texts={"relevance/settings": "text"},
    report=Report(title="what was found"),
)
FILES = {
    "relevance_heatmaps/step=000003.png",
    "relevance_mistakes/step=000003.png",
    "relevance_settings/step=000003.md",
    "relevance_measures/step=000003.json",
    "relevance_report/last.html",
}


class Foreign(Logger):
    """A logger of somebody else's."""

    name, version, run_id = "foreign", 0, "run 7"

    def __init__(self, experiment: object = None) -> None:
        super().__init__()
        self.experiment = experiment
        self.metrics: list[tuple[dict, int | None]] = []

    def log_metrics(self, metrics: dict, step: int | None = None) -> None:
        self.metrics.append((metrics, step))

    def log_hyperparams(self, *args: object, **kwargs: object) -> None: ...


class LikeSwanLab(Foreign):
    def log_image(self, key: str, images: list, step: int | None = None, **kwargs: object) -> None:
        assert isinstance(images, list)
        self.got = key, images[0], step


class OfWandb(LikeSwanLab):
    def __init__(self) -> None:
        super().__init__(type("Run", (), {"__module__": "wandb.sdk.wandb_run"})())


class Down(LikeSwanLab):
    """Another error each time."""

    def log_metrics(self, *args: object, **kwargs: object) -> None:
        raise ConnectionError(f"{object()} does not answer")


class Full(MemoryFileSystem):
    """A service without space."""

    protocol = "full"
    store: dict[str, Any] = {}

    def pipe_file(self, path: str, value: bytes, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", path)


fsspec.register_implementation("full", Full)


@pytest.fixture
def memory() -> MemoryFileSystem:
    files = fsspec.filesystem("memory")
    files.store.clear()
    return files


def opened(folder: Path | str, logger: object = False) -> list[Destination]:
    return destinations(trainer(folder, logger=logger), None)


def told(action: Any, *args: object) -> list[str]:
    """What RelevanceMonitor warns of meanwhile."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action(*args)
    return [str(warning.message) for warning in caught if "RelevanceMonitor" in str(warning.message)]


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}


# loggers


def test_one_with_log_image_gets_the_pictures(tmp_path: Path):
    logger = LikeSwanLab()
    write(to := opened(tmp_path, logger), FOUND, 3)
    assert logger.got == ("relevance/mistakes", PICTURE, 3)
    assert logger.metrics == [({"relevance/shortcuts": 2}, 3)]
    assert end(to) == []
    assert not files_in(tmp_path)


def test_wandb_gets_one_row_a_look_and_the_last_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def html(data: str, inject: bool = True, data_is_not_path: bool = False) -> tuple:
        return "html", data, inject

    def image(data_or_path: object, mode: str | None = None, caption: str | None = None) -> tuple:
        assert isinstance(data_or_path, Image.Image)
        return "image", np.array(data_or_path).tolist()

    def histogram(sequence: object = None, np_histogram: object = None, num_bins: int = 64) -> tuple:
        return "histogram", list(sequence)

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(Image=image, Histogram=histogram, Html=html))
    logger = OfWandb()
    to = opened(tmp_path, logger)
    for step in (3, 4):
        write(to, FOUND, step)
    write(to, Findings(texts=FOUND.texts), 5)
    end(to)
    end(to)
    row = {
        "relevance/shortcuts": 2,
        "relevance/heatmaps": ("image", PICTURE.tolist()),
        "relevance/mistakes": ("image", PICTURE.tolist()),
        "relevance/shares/conv": ("histogram", [0.25, 0.75]),
    }
    assert logger.metrics[:2] == [(row, 3), (row, 4)]
    [(report, step)] = logger.metrics[2:]
    kind, page, inject = report["relevance/report"]
    assert (kind, inject, step) == ("html", False, 4)
    assert "what was found" in page


def test_an_experiment_like_comets(tmp_path: Path):
    got = {}

    class Experiment:
        def log_image(self, image_data, name=None, overwrite=False, image_format="png", image_scale=1.0, image_shape=None,
                      image_colormap=None, image_minmax=None, image_channels="last", copy_to_tmp=True, step=None,
                      annotations=None, metadata=None):  # fmt: skip
            assert isinstance(image_data, Image.Image)  # an array's values would be stretched to its own range
            got[name] = np.array(image_data).tolist(), step

        def log_histogram_3d(self, values, name=None, step=None, epoch=None, metadata=None, **kwargs):
            got[name] = list(values), step

        def log_asset(self, file_data, file_name=None, overwrite=False, copy_to_tmp=True, step=None, metadata=None):
            got[file_name] = file_data.read(), overwrite, step

    write(to := opened(tmp_path, Foreign(Experiment())), FOUND, 3)
    end(to)
    page, overwrite, step = got.pop("relevance/report.html")
    assert "what was found" in page
    assert (overwrite, step) == (True, 3)
    assert got == {
        "relevance/heatmaps": (PICTURE.tolist(), 3),
        "relevance/mistakes": (PICTURE.tolist(), 3),
        "relevance/shares/conv": ([0.25, 0.75], 3),
    }


def test_a_client_like_mlflows(tmp_path: Path):
    got = {}

    class Client:
        def log_image(self, run_id, image, artifact_file=None, key=None, step=None, timestamp=None, synchronous=None):
            got[artifact_file] = run_id, image

        def log_text(self, run_id, text, artifact_file):
            got[artifact_file] = run_id, "what was found" in text

    write(to := opened(tmp_path, Foreign(Client())), FOUND, 3)
    end(to)
    assert got == {
        "relevance/heatmaps/step=000003.png": ("run 7", PICTURE),
        "relevance/mistakes/step=000003.png": ("run 7", PICTURE),
        "relevance/report.html": ("run 7", True),
    }


def test_an_experiment_like_dvclives(tmp_path: Path):
    got = {}

    class Live:
        def log_image(self, name, val):
            got[name] = val

    write(opened(tmp_path, Foreign(Live())), FOUND, 3)
    assert got == {"relevance/heatmaps/3.png": PICTURE, "relevance/mistakes/3.png": PICTURE}


def test_a_report_is_not_made_where_nobody_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loggers, "page_of", MagicMock(side_effect=AssertionError))
    to = opened(tmp_path, [LikeSwanLab(), TensorBoardLogger(tmp_path)])
    assert not told(write, to, FOUND, 3)
    assert not told(end, to)


def test_several_loggers_at_once(tmp_path: Path):
    images, board = LikeSwanLab(), TensorBoardLogger(tmp_path)
    to = opened(tmp_path, [CSVLogger(tmp_path), images, board])
    assert len(to) == 2
    write(to, FOUND, 3)
    assert images.got[2] == 3
    assert list(Path(board.log_dir).glob("events*"))
    assert not list(tmp_path.rglob("*.png"))
    assert end(to) == [
        f"results: tensorboard --logdir {tmp_path}/lightning_logs, then open http://localhost:6006/#relevance"
    ]


def test_an_experiment_that_takes_anything_does_not_break(tmp_path: Path):
    write(opened(tmp_path, Foreign(MagicMock())), FOUND, 3)


class Odd(Foreign):
    def log_image(self, picture: np.ndarray, title: str, dpi: int) -> None:
        raise AssertionError


@pytest.mark.parametrize("logger", [False, DummyLogger(), Foreign(), Odd()], ids=lambda logger: type(logger).__name__)
def test_files_where_no_logger_takes_pictures(tmp_path: Path, logger: object):
    write(to := opened(tmp_path, logger), FOUND, 3)
    assert files_in(tmp_path) == FILES
    assert np.array_equal(np.round(imread(tmp_path / "relevance_heatmaps/step=000003.png") * 255), PICTURE)
    numbers = json.loads((tmp_path / "relevance_measures/step=000003.json").read_text())
    assert numbers["measures"] == {"relevance/a": 0.5, "relevance/b": None, "relevance/shortcuts": 2}
    assert numbers["histograms"] == {"relevance/shares/conv": [0.25, 0.75]}
    assert end(to) == [f"report: {tmp_path}/relevance_report/last.html"]
    assert "what was found" in (tmp_path / "relevance_report/last.html").read_text()


def test_files_of_two_monitors_lie_apart(tmp_path: Path):
    monitors = [RelevanceMonitor(max_samples=8, log=log) for log in (["smape", "report"], ["mse", "report"])]
    trainer(tmp_path, *monitors, epochs=1).fit(Classifier(), *loaders())
    for name, measure in ("relevance", "smape"), ("relevance_2", "mse"):
        [numbers] = (tmp_path / f"{name}_measures").iterdir()
        assert json.loads(numbers.read_text())["measures"].keys() == {f"{name}/{measure}"}
        assert (tmp_path / f"{name}_report" / "last.html").is_file()


# folders elsewhere


@pytest.mark.parametrize("folder", ["memory://runs/a", "memory://runs/a/"])
def test_files_go_to_a_remote_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: Any, folder: str):
    monkeypatch.chdir(tmp_path)
    write(to := opened(folder), FOUND, 3)
    assert set(memory.find("/runs/a")) == {f"/runs/a/{file}" for file in FILES}
    assert end(to) == ["report: memory://runs/a/relevance_report/last.html"]
    assert memory.cat("/runs/a/relevance_settings/step=000003.md") == b"text"
    assert not list(tmp_path.iterdir())


def test_a_remote_run_folder_of_a_logger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: Any):
    monkeypatch.chdir(tmp_path)
    run = trainer("memory://root", RelevanceMonitor(max_samples=8, n_paths=0), logger=CSVLogger("memory://runs"), epochs=1)
    assert not told(run.fit, Classifier(), *loaders())
    assert {"metrics.csv", "relevance_heatmaps", "relevance_measures", "relevance_report"} <= {
        Path(name).name for name in memory.ls("/runs/lightning_logs/version_0", detail=False)
    }
    assert not list(tmp_path.iterdir())


def test_a_remote_log_of_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: Any):
    monkeypatch.chdir(tmp_path)
    logger = TensorBoardLogger("memory://runs")
    run = trainer("memory://root", RelevanceMonitor(max_samples=8, n_paths=0), logger=logger, epochs=1)
    assert not told(run.fit, Classifier(), *loaders())
    [events] = [file for file in memory.find("/runs") if "tfevents" in file]
    assert b"relevance/record" in memory.cat(events)
    assert b"relevance/heatmaps" in memory.cat(events)
    assert not list(tmp_path.iterdir())


# what goes wrong


def test_a_service_that_is_down_is_one_warning_and_the_others_go_on(tmp_path: Path):
    to = opened(tmp_path, [Down(), other := LikeSwanLab()])
    [warning] = told(lambda: [write(to, FOUND, step) for step in (3, 4, 5)])
    assert "could not log to Down (this warning is given once): ConnectionError" in warning
    assert other.got[2] == 5


def test_a_report_that_cannot_be_sent_is_a_warning(tmp_path: Path):
    class Client:
        def log_image(self, run_id, image, artifact_file=None, key=None): ...

        def log_text(self, run_id, text, artifact_file):
            raise ConnectionError

    write(to := opened(tmp_path, Foreign(Client())), FOUND, 3)
    [warning] = told(end, to)
    assert "could not log to Foreign" in warning


def test_a_logger_without_its_service_is_one_warning_in_a_run(tmp_path: Path):
    class Unreachable(Foreign):
        @property
        def experiment(self) -> object:
            raise ConnectionError("no server")

        @experiment.setter
        def experiment(self, value: object) -> None: ...

    class Unplugs(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            trainer.loggers = [Unreachable()]  # no sooner, as Lightning itself asks for the experiment before

    monitor = RelevanceMonitor(max_samples=8, n_paths=0, max_share=None)
    [warning] = told(trainer(tmp_path, monitor, Unplugs()).fit, Classifier(), *loaders())
    assert "does not log to Unreachable: ConnectionError" in warning
    assert len(list((tmp_path / "relevance_heatmaps").iterdir())) == 2


def test_an_experiment_like_neptunes_that_raises_when_asked_what_it_has(tmp_path: Path):
    class Run:
        def __getattr__(self, name: str) -> None:
            raise RuntimeError("legacy usage") if name == "log_image" else AttributeError(name)

    to: list[Destination] = []
    [warning] = told(lambda: to.extend(opened(tmp_path, Foreign(Run()))))
    assert "does not log to Foreign: RuntimeError('legacy usage')" in warning
    write(to, FOUND, 3)
    assert files_in(tmp_path) == FILES


@pytest.mark.parametrize("where", ["full", "local", "no such scheme"])
def test_what_cannot_be_written_is_told_once_and_goes_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str):
    own = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.is_relative_to(tmp_path / "runs"):
            own(path, content[:1])
            raise OSError(errno.ENOSPC, "No space left on device")
        return own(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = {"full": "full://runs", "local": str(tmp_path / "runs"), "no such scheme": "no-such://runs"}[where]
    to = opened(folder)
    [warning] = told(lambda: [write(to, FOUND, step) for step in (3, 4)])
    assert f"could not write to {folder}: " in warning
    assert where == "no such scheme" or "No space left on device" in warning
    elsewhere = Path(warning.rpartition("written to ")[2])
    assert elsewhere.parent == tmp_path
    assert files_in(elsewhere) == FILES | {file.replace("3.", "4.") for file in FILES}
    assert end(to) == [f"report: {elsewhere}/relevance_report/last.html"]
    assert not files_in(tmp_path / "runs")


def test_a_folder_that_has_space_again_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loggers, "monotonic", lambda: 100.0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path.parent))
    (tmp_path / "relevance_heatmaps").write_text("in the way")
    to = opened(tmp_path)
    assert told(write, to, FOUND, 3)
    (tmp_path / "relevance_heatmaps").unlink()
    write(to, FOUND, 3)
    assert files_in(tmp_path) == FILES


def test_a_service_that_is_slow_to_fail_is_not_asked_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    now, asked = 100.0, []

    def slow(self: Full, path: str, value: bytes) -> None:
        nonlocal now
        now += 5
        asked.append(now)
        raise TimeoutError

    monkeypatch.setattr(loggers, "monotonic", lambda: now)
    monkeypatch.setattr(Full, "pipe_file", slow)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    to = opened("full://runs")
    for step in range(100):
        told(write, to, FOUND, step)
        now += 10
    assert len(asked) == 10  # of 1050 seconds 50
    assert len(list(tmp_path.rglob("*.png"))) == 200


def test_no_space_anywhere_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    to = opened(tmp_path)
    [warning] = told(lambda: [write(to, FOUND, step) for step in (3, 4)])
    assert f"could not log to {tmp_path} (this warning is given once)" in warning
    assert end(to) == []


def test_a_run_that_fails_leaves_its_report_and_the_next_has_its_own_loggers(tmp_path: Path):
    class Fails(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.current_epoch == 1:
                raise RuntimeError("on purpose")

    reports = []

    class Client(Foreign):
        def log_image(self, run_id, image, artifact_file=None, key=None): ...

        def log_text(self, run_id, text, artifact_file):
            reports.append(self)

    monitor = RelevanceMonitor(max_samples=8, n_paths=0, max_share=None, log=["heatmaps", "report"])
    first, second = Client(), Client()
    with pytest.raises(RuntimeError, match="on purpose"):
        trainer(tmp_path, monitor, Fails(), logger=Foreign(first)).fit(Classifier(), *loaders())
    assert reports == [first]
    trainer(tmp_path, monitor, logger=Foreign(second)).fit(Classifier(), *loaders())
    assert reports == [first, second]


# the services' own, offline


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Logger], list[str]]:
    """A fit with a logger, whose last pictures are drawn after its end; what is warned of."""

    class Stops(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            trainer.should_stop = trainer.current_epoch == 1

    def fit(logger: Logger) -> list[str]:
        monitor = RelevanceMonitor(max_samples=8, max_share=1e-9, log=["heatmaps", "shares", "report"])
        return told(trainer(tmp_path, monitor, Stops(), logger=logger, epochs=5).fit, Classifier(), *loaders())

    monkeypatch.chdir(tmp_path)  # some look there for git, and write there
    return fit


def test_wandb_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: Callable):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(save_dir=str(tmp_path), offline=True)
    rows, own = [], wandb.Run.log
    monkeypatch.setattr(
        wandb.Run, "log", lambda run, data, *args, **kwargs: (rows.append(data), own(run, data, *args, **kwargs))
    )
    assert not offline(logger)
    wandb.finish()
    steps = [row["trainer/global_step"] for row in rows]
    assert steps == sorted(steps)
    assert [row["trainer/global_step"] for row in rows if "relevance/heatmaps" in row] == [5, 11]
    files = sorted(path.name.partition("_")[0] for path in tmp_path.rglob("media/**/*.*"))
    assert files == ["heatmaps", "heatmaps", "report"]
    assert isinstance(rows[0]["relevance/shares/1_conv1"], wandb.Histogram)


def test_mlflow_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: Callable):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = MLFlowLogger(tracking_uri=(tmp_path / "mlruns").as_uri())
    assert not offline(logger)
    assert logger.run_id is not None
    pictures = [file.path for file in logger.experiment.list_artifacts(logger.run_id, "relevance/heatmaps")]
    assert pictures == [f"relevance/heatmaps/step={step:06d}.png" for step in (5, 11)]
    report = logger.experiment.download_artifacts(logger.run_id, "relevance/report.html")
    assert "Relevance, epoch 1" in Path(report).read_text()


def test_comet_itself(tmp_path: Path, offline: Callable):
    comet_ml = pytest.importorskip("comet_ml")
    logger = CometLogger(api_key="none", online=False)
    logger._experiment = comet_ml.OfflineExperiment(offline_directory=str(tmp_path), project_name="p", workspace="w")
    assert not offline(logger)
    logger.experiment.end()
    [archive] = tmp_path.glob("*.zip")
    with zipfile.ZipFile(archive) as read:
        messages = [json.loads(line)["payload"] for line in read.read("messages.json").splitlines()]
        uploads = [(m["additional_params"], read.read(Path(m["file_path"]).name)) for m in messages if "file_path" in m]
    assert [about["step"] for about, content in uploads if content.startswith(b"\x89PNG")] == [5, 11]
    [page] = [content for about, content in uploads if about.get("fileName") == "relevance/report.html"]
    assert b"Relevance, epoch 1" in page


def test_dvclive_itself(tmp_path: Path, offline: Callable):
    lightning = pytest.importorskip("dvclive.lightning")
    logger = lightning.DVCLiveLogger(dir=str(tmp_path), save_dvc_exp=False, dvcyaml=None)
    assert not offline(logger)
    assert files_in(tmp_path / "plots/images/relevance/heatmaps") == {"5.png", "11.png"}

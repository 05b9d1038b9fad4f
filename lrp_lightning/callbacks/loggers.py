"""Where what was found goes: to every logger that takes pictures; where there is none, to files in the run's folder."""

from __future__ import annotations

import inspect
import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO, StringIO
from pathlib import Path
from posixpath import join
from time import monotonic
from typing import Any

import numpy as np
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image

from lrp_lightning.files import replacing
from lrp_lightning.report import Report
from lrp_lightning.report.page import page_of
from lrp_lightning.tensorboard_plugin.summary import Record, RelevanceSummary, write_picture

__all__ = ["Destination", "Findings", "destinations", "end", "has_tab", "write"]

_WAITS = 20
"""A folder that could not be written is left alone for this many times as long as that took: services may wait long."""


@dataclass(frozen=True)
class Findings:
    """What one epoch leaves to be logged, beside the scalars that Lightning logs; names are whole tags.

    Attributes:
        name: the monitor's, for what has no tag.
        scalars: for files, where there is no logger for them.
        counts: numbers that only some looks have, which Lightning therefore does not log.
        pictures: ``(height, width, 3)`` uint8.
        histograms: values, in one dimension.
        texts: Markdown.
        record: what the *Relevance* tab of TensorBoard shows.
        report: for one HTML file, for files and loggers that take such.
    """

    name: str = "relevance"
    scalars: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, float] = field(default_factory=dict)
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)
    histograms: Mapping[str, np.ndarray] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    record: Record | None = None
    report: Report | None = None


@dataclass
class Destination:
    """Takes what it can of an epoch's findings.

    Attributes:
        to: a logger, or the folder.
        told: whether a warning was given; one is enough.
        last: the monitor's name, its last report, and their step.
    """

    to: Any
    told: bool = field(default=False, init=False)
    last: tuple[str, Report, int] | None = field(default=None, init=False)

    def write(self, findings: Findings, step: int) -> None:
        """Write them at a step."""
        raise NotImplementedError

    def end(self, name: str, report: Report, step: int) -> str | None:
        """Take the last report, where one of each look would be too much; where to look at what was found, in words."""

    def warn(self, message: str) -> None:
        """Once."""
        if not self.told:
            self.told = True
            rank_zero_warn(f"RelevanceMonitor {message}")

    @contextmanager
    def trying(self) -> Iterator[None]:
        """What goes wrong is a warning, never an error: a run goes on without its pictures."""
        try:
            yield
        except Exception as error:  # a logger of somebody else's, over a network perhaps: anything may go wrong
            to = self.to if isinstance(self.to, str) else type(self.to).__name__
            self.warn(f"could not log to {to} (this warning is given once): {error!r}")


class _Logger(Destination):
    """A logger of pictures; its kinds say how they are logged, and what else."""

    def write(self, findings: Findings, step: int) -> None:
        if findings.counts:
            self.to.log_metrics(dict(findings.counts), step)
        for name, picture in findings.pictures.items():
            self.log_picture(name, picture, step)
        for name, values in findings.histograms.items():
            self.log_histogram(name, values, step)

    def log_picture(self, name: str, picture: np.ndarray, step: int) -> None:
        raise NotImplementedError

    def log_histogram(self, name: str, values: np.ndarray, step: int) -> None:
        """Nothing, as most have none."""


@dataclass
class _TensorBoard(_Logger):
    """An experiment that is a ``SummaryWriter``; it gets the record of the *Relevance* tab too."""

    summary: RelevanceSummary | None = None

    def write(self, findings: Findings, step: int) -> None:
        super().write(findings, step)
        for name, text in findings.texts.items():
            self.to.experiment.add_text(name, text, step)
        if findings.record is not None:
            self.summary = self.summary or RelevanceSummary(self.to.experiment)
            self.summary.write(findings.record, step)

    def end(self, name: str, report: Report, step: int) -> str | None:
        folder = getattr(self.to, "root_dir", None)  # of all versions
        return folder and f"results: tensorboard --logdir {folder}, then open http://localhost:6006/#relevance"

    def log_picture(self, name: str, picture: np.ndarray, step: int) -> None:
        write_picture(self.to.experiment, name, picture, step)

    def log_histogram(self, name: str, values: np.ndarray, step: int) -> None:
        self.to.experiment.add_histogram(name, values, step)


class _ImageLogger(_Logger):
    """A logger with ``log_image(key, images, step)``, such as ``SwanLabLogger``."""

    def log_picture(self, name: str, picture: np.ndarray, step: int) -> None:
        self.to.log_image(key=name, images=[picture], step=step)


class _Wandb(Destination):
    """``WandbLogger``: all in one row of a run's history, so that the sliders of its pictures move together."""

    def write(self, findings: Findings, step: int) -> None:
        import wandb

        pictures = {name: wandb.Image(Image.fromarray(picture)) for name, picture in findings.pictures.items()}
        histograms = {name: wandb.Histogram(values) for name, values in findings.histograms.items()}
        if row := {**findings.counts, **pictures, **histograms}:
            self.to.log_metrics(row, step)

    def end(self, name: str, report: Report, step: int) -> None:
        import wandb

        self.to.log_metrics({f"{name}/report": wandb.Html(page_of(report), inject=False)}, step)


class _MLflow(_Logger):
    """An experiment with ``log_image(run_id, image, artifact_file)``."""

    def log_picture(self, name: str, picture: np.ndarray, step: int) -> None:
        self.to.experiment.log_image(self.to.run_id, picture, artifact_file=f"{name}/step={step:06d}.png")

    def end(self, name: str, report: Report, step: int) -> None:
        self.to.experiment.log_text(self.to.run_id, page_of(report), f"{name}/report.html")


class _Comet(_Logger):
    """An experiment with ``log_image(image_data, name, step)``."""

    def log_picture(self, name: str, picture: np.ndarray, step: int) -> None:
        # no array, whose values it stretches
        self.to.experiment.log_image(Image.fromarray(picture), name=name, step=step)

    def log_histogram(self, name: str, values: np.ndarray, step: int) -> None:
        self.to.experiment.log_histogram_3d(values, name=name, step=step)

    def end(self, name: str, report: Report, step: int) -> None:
        page = StringIO(page_of(report))
        self.to.experiment.log_asset(page, file_name=f"{name}/report.html", overwrite=True, step=step)


class _DVCLive(_Logger):
    """An experiment with ``log_image(name, val)``; files named by steps get a slider."""

    def log_picture(self, name: str, picture: np.ndarray, step: int) -> None:
        self.to.experiment.log_image(f"{name}/{step}.png", picture)


@dataclass
class _Folder(Destination):
    """PNG, Markdown, JSON and HTML files in a folder, local or at a URL; in a temporary one what cannot be written there."""

    refuge: str = ""
    report: str | None = None
    left_alone_until: float = 0.0

    def write(self, findings: Findings, step: int) -> None:
        failure, began = None, monotonic()
        if began >= self.left_alone_until:
            try:
                return self._put(self.to, findings, step)
            except Exception as error:  # what a service raises is its own
                failure, self.left_alone_until = error, monotonic() + _WAITS * (monotonic() - began)
        self.refuge = self.refuge or tempfile.mkdtemp(prefix="relevance_")
        self._put(self.refuge, findings, step)
        if failure is not None:
            self.warn(f"could not write to {self.to}: {failure!r}; its files are written to {self.refuge}")

    def end(self, name: str, report: Report, step: int) -> str | None:
        return self.report and f"report: {self.report}"

    def _put(self, folder: str, findings: Findings, step: int) -> None:
        for name, content in _files(findings, step):
            path = join(folder, name)
            if "://" not in folder:
                with replacing(Path(path)) as file:
                    file.write_bytes(content)
            else:  # whole, by one call, as replacing is not for every service to have
                files = get_filesystem(folder)
                files.makedirs(path.rpartition("/")[0], exist_ok=True)
                files.pipe_file(path, content)
            if name.endswith(".html"):
                self.report = path


def _files(findings: Findings, step: int) -> Iterator[tuple[str, bytes]]:
    """Names below a folder, and contents."""
    at = f"step={step:06d}"
    for name, picture in findings.pictures.items():
        png = BytesIO()
        Image.fromarray(picture).save(png, "png")
        yield f"{name.replace('/', '_')}/{at}.png", png.getvalue()
    for name, text in findings.texts.items():
        yield f"{name.replace('/', '_')}/{at}.md", text.encode()
    if findings.scalars or findings.counts or findings.histograms:
        scalars = {**findings.scalars, **findings.counts}
        numbers = {
            "step": step,
            "measures": {name: value if math.isfinite(value) else None for name, value in scalars.items()},
            "histograms": {name: np.round(v, 6).tolist() for name, v in findings.histograms.items()},
        }
        yield f"{findings.name}_measures/{at}.json", json.dumps(numbers).encode()
    if findings.report is not None:
        yield f"{findings.name}_report/last.html", page_of(findings.report).encode()


def destinations(trainer: Trainer, folder: str | None) -> list[Destination]:
    """Every logger that takes pictures; where there is none, files in ``folder``. Nothing in a ``fast_dev_run``."""
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return []
    found = list[Destination | None]()
    for logger in trainer.loggers:
        try:
            found.append(_taker(logger))
        except Exception as error:  # such as a service that cannot be reached
            rank_zero_warn(f"RelevanceMonitor does not log to {type(logger).__name__}: {error!r}")
    return [taker for taker in found if taker is not None] or [_Folder(str(folder or trainer.default_root_dir))]


def has_tab(to: list[Destination]) -> bool:
    """Whether one of them takes records of the *Relevance* tab."""
    return any(isinstance(destination, _TensorBoard) for destination in to)


def _taker(logger: Any) -> Destination | None:
    experiment = getattr(logger, "experiment", None)
    if type(experiment).__name__ == "_DummyExperiment":  # Lightning's, which has whatever is asked for
        return None
    if hasattr(experiment, "add_image") and hasattr(experiment, "add_histogram"):
        return _TensorBoard(logger)
    own, its = getattr(logger, "log_image", None), getattr(experiment, "log_image", None)
    if _takes(own, "key", "images", "step"):
        return _Wandb(logger) if type(experiment).__module__.startswith("wandb.") else _ImageLogger(logger)
    if _takes(its, "run_id", "image", "artifact_file"):
        return _MLflow(logger)
    if _takes(its, "image_data", "name", "step"):
        return _Comet(logger)
    return _DVCLive(logger) if _takes(its, "name", "val") else None


def _takes(function: Any, *arguments: str) -> bool:
    """Whether there is such a function, and these are all it needs."""
    try:
        inspect.signature(function).bind(**dict.fromkeys(arguments))
    except (TypeError, ValueError):
        return False
    return True


def write(to: list[Destination], findings: Findings, step: int) -> None:
    """Write findings everywhere."""
    for destination in to:
        if findings.report is not None:
            destination.last = findings.name, findings.report, step
        with destination.trying():
            destination.write(findings, step)


def end(to: list[Destination]) -> list[str]:
    """End a run: the last report goes where one is enough. Where to look at what was found, in words."""
    said = list[str | None]()
    for destination in to:
        if destination.last is not None:
            last, destination.last = destination.last, None
            with destination.trying():
                said.append(destination.end(*last))
    return [where for where in said if where]

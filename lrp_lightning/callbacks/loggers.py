"""Where findings are written: to every logger that takes pictures, or, without such a logger, to the run's folder."""

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
"""After a failed write, a folder is skipped for this multiple of the time that it took, because services may wait long."""


@dataclass(frozen=True)
class Findings:
    """The findings of an epoch, except the scalars that Lightning logs; names are full tags.

    Attributes:
        name: the monitor's name, for findings without a tag.
        scalars: for files, if no logger writes them.
        counts: numbers that exist only in some looks, so Lightning does not log them.
        pictures: ``(height, width, 3)`` uint8.
        histograms: values, in one dimension.
        texts: Markdown.
        record: the data of the *Relevance* tab in TensorBoard.
        report: for an HTML file, for folders and loggers that take one.
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
    """Writes those of an epoch's findings that it supports.

    Attributes:
        to: a logger, or the folder.
        warned: whether a warning was given; there is only one.
        last: the monitor's name, its last report, and their step.
    """

    to: Any
    warned: bool = field(default=False, init=False)
    last: tuple[str, Report, int] | None = field(default=None, init=False)

    def write(self, findings: Findings, step: int) -> None:
        """Write findings at a step."""
        raise NotImplementedError

    def end(self, name: str, report: Report, step: int) -> str | None:
        """Write the last report, if reports of all looks would be too many; return where the findings are, in words."""

    def warn(self, message: str) -> None:
        """Warn, but only once."""
        if not self.warned:
            self.warned = True
            rank_zero_warn(f"RelevanceMonitor {message}")

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Errors become warnings, so that a run continues without its pictures."""
        try:
            yield
        except Exception as error:  # third-party loggers, perhaps over a network, may raise anything
            to = self.to if isinstance(self.to, str) else type(self.to).__name__
            self.warn(f"could not log to {to} (this warning is given once): {error!r}")


class _Logger(Destination):
    """A logger that takes pictures; subclasses implement how it logs them and other findings."""

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
        """Do nothing by default, because most loggers do not support it."""


@dataclass
class _TensorBoard(_Logger):
    """An experiment that is a ``SummaryWriter``; it also gets the record of the *Relevance* tab."""

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
    """``WandbLogger``: everything in one row of the run's history, so that the sliders of pictures move together."""

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
        # not an array, because its values would be rescaled
        self.to.experiment.log_image(Image.fromarray(picture), name=name, step=step)

    def log_histogram(self, name: str, values: np.ndarray, step: int) -> None:
        self.to.experiment.log_histogram_3d(values, name=name, step=step)

    def end(self, name: str, report: Report, step: int) -> None:
        page = StringIO(page_of(report))
        self.to.experiment.log_asset(page, file_name=f"{name}/report.html", overwrite=True, step=step)


class _DVCLive(_Logger):
    """An experiment with ``log_image(name, val)``; files named by step get a slider."""

    def log_picture(self, name: str, picture: np.ndarray, step: int) -> None:
        self.to.experiment.log_image(f"{name}/{step}.png", picture)


@dataclass
class _Folder(Destination):
    """PNG, Markdown, JSON and HTML files in a folder, local or at a URL; in a temporary folder if that cannot be written."""

    refuge: str = ""
    report: str | None = None
    left_alone_until: float = 0.0

    def write(self, findings: Findings, step: int) -> None:
        failure, began = None, monotonic()
        if began >= self.left_alone_until:
            try:
                return self._put(self.to, findings, step)
            except Exception as error:  # services raise errors of their own
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
            else:  # in one call, because not every service can replace files
                files = get_filesystem(folder)
                files.makedirs(path.rpartition("/")[0], exist_ok=True)
                files.pipe_file(path, content)
            if name.endswith(".html"):
                self.report = path


def _files(findings: Findings, step: int) -> Iterator[tuple[str, bytes]]:
    """Pairs of a name below a folder and a file's contents."""
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
    """All loggers that take pictures, or, without such a logger, files in ``folder``. Empty in a ``fast_dev_run``."""
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
    """Whether a destination takes records of the *Relevance* tab."""
    return any(isinstance(destination, _TensorBoard) for destination in to)


def _taker(logger: Any) -> Destination | None:
    experiment = getattr(logger, "experiment", None)
    if type(experiment).__name__ == "_DummyExperiment":  # Lightning's dummy experiment has any attribute
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
    """Whether a function exists and needs only these arguments."""
    try:
        inspect.signature(function).bind(**dict.fromkeys(arguments))
    except (TypeError, ValueError):
        return False
    return True


def write(to: list[Destination], findings: Findings, step: int) -> None:
    """Write findings to all destinations."""
    for destination in to:
        if findings.report is not None:
            destination.last = findings.name, findings.report, step
        with destination.trying():
            destination.write(findings, step)


def end(to: list[Destination]) -> list[str]:
    """End a run: write the last report to destinations that take only one; return where the findings are, in words."""
    said = list[str | None]()
    for destination in to:
        if destination.last is not None:
            last, destination.last = destination.last, None
            with destination.trying():
                said.append(destination.end(*last))
    return [where for where in said if where]

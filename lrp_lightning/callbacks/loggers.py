"""Where pictures, histograms and texts go: to every logger that takes them, else to files in the run's folder."""

from __future__ import annotations

import inspect
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.image import imsave

from lrp_lightning.files import replacing
from lrp_lightning.report import Report, write_report
from lrp_lightning.tensorboard_plugin.summary import Record, RelevanceSummary

__all__ = ["Destination", "Findings", "destinations", "has_tab", "reports", "write"]


@dataclass(frozen=True)
class Findings:
    """What one epoch leaves to be logged, beside the scalars that Lightning logs; names are whole tags.

    Attributes:
        scalars: for files, where there is no logger for them.
        counts: numbers that only some looks have, which Lightning therefore does not log.
        pictures: ``(height, width, 3)`` uint8.
        histograms: values, in one dimension.
        texts: Markdown.
        record: what the *Relevance* tab of TensorBoard shows.
        report: for one HTML file, where pictures are files.
    """

    scalars: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, float] = field(default_factory=dict)
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)
    histograms: Mapping[str, np.ndarray] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    record: Record | None = None
    report: Report | None = None


class Destination(Protocol):
    """Takes what it can of an epoch's findings."""

    def write(self, findings: Findings, step: int) -> None:
        """Write them at a step."""
        ...


@dataclass
class _TensorBoard:
    """A ``SummaryWriter``; it gets the record of the *Relevance* tab too."""

    writer: Any
    summary: RelevanceSummary | None = None

    def write(self, findings: Findings, step: int) -> None:
        for name, count in findings.counts.items():
            self.writer.add_scalar(name, count, step)
        for name, picture in findings.pictures.items():
            self.writer.add_image(name, picture, step, dataformats="HWC")
        for name, values in findings.histograms.items():
            self.writer.add_histogram(name, values, step)
        for name, text in findings.texts.items():
            self.writer.add_text(name, text, step)
        if findings.record is not None:
            self.summary = self.summary or RelevanceSummary(self.writer)
            self.summary.write(findings.record, step)


@dataclass
class _ImageLogger:
    """A Lightning logger with ``log_image(key, images, step)``, such as ``WandbLogger``."""

    logger: Any

    def write(self, findings: Findings, step: int) -> None:
        if findings.counts:
            self.logger.log_metrics(dict(findings.counts), step)
        for name, picture in findings.pictures.items():
            self.logger.log_image(key=name, images=[picture], step=step)


@dataclass
class _Comet:
    """An experiment with ``log_image(image_data, name, step)``."""

    experiment: Any

    def write(self, findings: Findings, step: int) -> None:
        for name, count in findings.counts.items():
            self.experiment.log_metric(name, count, step=step)
        for name, picture in findings.pictures.items():
            self.experiment.log_image(picture, name=name, step=step)


@dataclass
class _MLflow:
    """A client with ``log_image(run_id, image, artifact_file)``."""

    client: Any
    run_id: str

    def write(self, findings: Findings, step: int) -> None:
        for name, count in findings.counts.items():
            self.client.log_metric(self.run_id, name, count, step=step)
        for name, picture in findings.pictures.items():
            self.client.log_image(self.run_id, picture, artifact_file=f"{name}/step={step:06d}.png")


@dataclass
class _Folder:
    """PNG, JSON and Markdown files; in a temporary folder what cannot be written in the run's own. Knows its last report."""

    folder: Path
    refuge: Path | None = None
    told: set[str] = field(default_factory=set)
    report: Path | None = None

    def write(self, findings: Findings, step: int) -> None:
        for name, picture in findings.pictures.items():
            self._save("picture", name, step, "png", partial(imsave, arr=picture))
        for name, text in findings.texts.items():
            self._save("text", name, step, "md", partial(Path.write_text, data=text))
        if findings.report is not None:
            report = findings.report
            save = partial(write_report, report)
            self.report = self._save("report", "relevance_report", None, "html", save)
        if findings.scalars or findings.counts or findings.histograms:
            scalars = {**findings.scalars, **findings.counts}
            numbers = json.dumps(
                {
                    "step": step,
                    "measures": {name: value if math.isfinite(value) else None for name, value in scalars.items()},
                    "histograms": {name: np.round(v, 6).tolist() for name, v in findings.histograms.items()},
                }
            )
            self._save("file", "relevance_measures", step, "json", partial(Path.write_text, data=numbers))

    def _save(self, what: str, name: str, step: int | None, kind: str, save: Callable[[Path], Any]) -> Path:
        file = Path(name.replace("/", "_")) / ("last" if step is None else f"step={step:06d}")
        file = file.with_suffix(f".{kind}")
        try:
            return self._make(self.folder / file, save)
        except OSError as error:
            self.refuge = self.refuge or Path(tempfile.mkdtemp(prefix="relevance_"))
            path = self._make(self.refuge / file, save)
            if name not in self.told:
                self.told.add(name)
                rank_zero_warn(
                    f"RelevanceMonitor could not write the {what} {name!r}: {error}; it goes to {self.refuge / file.parent}"
                )
            return path

    @staticmethod
    def _make(path: Path, save: Callable[[Path], Any]) -> Path:
        with replacing(path) as file:
            save(file)
        return path


def destinations(trainer: Trainer, folder: str | None) -> list[Destination]:
    """Every logger that takes pictures; where there is none, files in ``folder``. Nothing in a ``fast_dev_run``."""
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return []
    found = [taker for logger in trainer.loggers if (taker := _taker(logger)) is not None]
    return found or [_Folder(Path(folder or trainer.default_root_dir))]


def reports(to: list[Destination]) -> list[Path]:
    """The files that reports were written to."""
    return [destination.report for destination in to if isinstance(destination, _Folder) and destination.report is not None]


def has_tab(trainer: Trainer) -> bool:
    """Whether a logger takes records of the *Relevance* tab."""
    return any(isinstance(_taker(logger), _TensorBoard) for logger in trainer.loggers)


def _taker(logger: Any) -> Destination | None:
    try:
        experiment = getattr(logger, "experiment", None)
    except Exception as error:  # such as a service that cannot be reached
        rank_zero_warn(f"RelevanceMonitor does without {type(logger).__name__}: {error!r}")
        return None
    if hasattr(experiment, "add_image") and hasattr(experiment, "add_histogram"):
        return _TensorBoard(experiment)
    if callable(getattr(logger, "log_image", None)):
        return _ImageLogger(logger)
    log_image = getattr(experiment, "log_image", None)
    if not callable(log_image):
        return None
    if "run_id" in inspect.signature(log_image).parameters:
        return _MLflow(experiment, str(logger.run_id))
    return _Comet(experiment)


def write(to: list[Destination], findings: Findings, step: int) -> None:
    """Write findings everywhere. What cannot be written is a warning, never an error: a run goes on without its pictures."""
    for destination in to:
        try:
            destination.write(findings, step)
        except Exception as error:  # a logger of somebody else's, over a network perhaps: anything may go wrong
            rank_zero_warn(f"RelevanceMonitor could not log by {type(destination).__name__.strip('_')}: {error!r}")

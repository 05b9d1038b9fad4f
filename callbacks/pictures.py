"""Where pictures go: to every logger that takes images, else to PNG files in the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.figure import Figure

from lrp_lightning.drawing import as_array

__all__ = ["log_pictures"]


def log_pictures(trainer: Trainer, folder: str | None, pictures: dict[str, Figure], step: int) -> None:
    """Log figures under their names at a step. A picture that cannot be written is a warning, never an error."""
    experiments: list[Any] = [getattr(logger, "experiment", None) for logger in trainer.loggers]
    takers = [experiment for experiment in experiments if hasattr(experiment, "add_image")]
    for name, figure in pictures.items():
        try:
            for experiment in takers:
                experiment.add_image(name, as_array(figure), step, dataformats="HWC")
            if not takers and folder is not None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
                path = Path(folder) / name.replace("/", "_") / f"step={step:06d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                figure.savefig(path)
        except OSError as error:
            rank_zero_warn(f"RelevanceMonitor could not write the picture {name!r}: {error}")

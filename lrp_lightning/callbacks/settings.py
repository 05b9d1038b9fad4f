"""What a RelevanceMonitor was asked for, checked."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lrp_lightning.callbacks.batches import BatchFn
from lrp_lightning.callbacks.classifier import ModelOf
from lrp_lightning.composites import Composite
from lrp_lightning.selection import Selection

__all__ = ["DEFAULT", "LOGGED", "SCALARS", "OnError", "Settings", "TargetFn"]

TargetFn = Callable[[Tensor, Any], Tensor]
"""From logits, ``(N, classes)``, and the batch's labels to the class that is explained of each sample, ``(N,)``."""
OnError = Literal["raise", "warn"]

SCALARS = (
    "contest_accuracy",
    "random_contest_accuracy",
    "runner_up_accuracy",
    "critical_neuron_accuracy",
    "random_accuracy",
    "retained_accuracy",
    "ablated_accuracy",
    "sufficiency",
    "comprehensiveness",
    "logit_correlation",
    "circuit_agreement",
    "smape",
    "mse",
    "stability",
    "conservation_error",
    "samples",
    "seconds",
)
DEFAULT = (
    *SCALARS, "shortcuts", "heatmaps", "mistakes", "critical_paths", "path_heatmaps", "neurons", "strategies", "cards",
    "shares", "report", "settings",
)  # fmt: skip
"""What is logged, by its name below ``relevance/``."""
LOGGED = (*DEFAULT, "reconstructions")
"""Everything that can be."""


@dataclass(frozen=True)
class Settings:
    """The arguments of RelevanceMonitor; see there.

    Raises:
        MisconfigurationException: if one is out of range.
    """

    composite: Composite
    selection: Selection
    every_n_epochs: int
    max_samples: int
    n_heatmaps: int
    class_names: Sequence[str] | None
    model: ModelOf | None
    batch_fn: BatchFn | None
    target_fn: TargetFn | None
    graph_classes: int | Sequence[int]
    n_paths: int
    log: Sequence[str]
    max_seconds: float | None
    max_share: float | None
    on_error: OnError

    def __post_init__(self) -> None:
        for name, least in (("every_n_epochs", 1), ("max_samples", 1), ("n_heatmaps", 0), ("n_paths", 0)):
            value = getattr(self, name)
            if not _whole(value) or value < least:
                raise _wrong(name, f"an int >= {least}", value)
        if isinstance(self.selection, type) or not isinstance(self.selection, Selection):
            raise _wrong("selection", "a selection such as TopK(0.1)", self.selection)
        classes = self.graph_classes
        if not (_whole(classes) and classes >= 0) and not (  # type: ignore[operator]
            isinstance(classes, Sequence)
            and all(_whole(c) and c >= 0 for c in classes)
            and len(set(classes)) == len(classes)
        ):
            raise _wrong("graph_classes", "a number of classes, or the classes", classes)
        if self.class_names is not None and (
            isinstance(self.class_names, str) or not isinstance(self.class_names, Sequence)
        ):
            raise _wrong("class_names", "a list of names, one a class", self.class_names)
        seconds = self.max_seconds
        if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0):
            raise _wrong("max_seconds", "seconds > 0, or None", seconds)
        share = self.max_share
        if share is not None and (isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1):
            raise _wrong("max_share", "a share in (0, 1], or None", share)
        if self.on_error not in ("raise", "warn"):
            raise _wrong("on_error", "'raise' or 'warn'", self.on_error)
        for name in ("batch_fn", "target_fn"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise _wrong(name, "a function", getattr(self, name))
        if self.model is not None and not isinstance(self.model, str) and not callable(self.model):
            raise _wrong("model", "the name of an attribute or method, or a function of the LightningModule", self.model)
        if isinstance(self.log, str) or not isinstance(self.log, Sequence):
            raise _wrong("log", f"a list of names among {', '.join(LOGGED)}", self.log)
        for name in self.log:
            if name not in LOGGED:
                close = difflib.get_close_matches(str(name), LOGGED, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(LOGGED)}"
                raise MisconfigurationException(f"RelevanceMonitor: nothing called {name!r} is logged (log=); {hint}")

    def name_of(self, label: int) -> str:
        """A class's name, else its number."""
        names = self.class_names
        return str(names[label]) if names is not None and 0 <= label < len(names) else str(label)

    def told(self) -> dict[str, str]:
        """What a reader should know, as text: each argument that is not None."""
        return {f.name: _told(getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) is not None}


def _told(value: Any) -> str:
    if callable(value) and hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    return value if isinstance(value, str) else repr(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _wrong(name: str, expected: str, got: object) -> MisconfigurationException:
    return MisconfigurationException(f"RelevanceMonitor: {name} must be {expected}, got {got!r}")

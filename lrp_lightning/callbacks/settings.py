"""The arguments of RelevanceMonitor, checked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lrp_lightning.callbacks.batches import BatchFn
from lrp_lightning.callbacks.classifier import ModelOf
from lrp_lightning.composites import Composite
from lrp_lightning.selection import Selection

__all__ = ["DEFAULT", "LOGGED", "MOST_GRAPHS", "SCALARS", "GraphClasses", "OnError", "Settings", "TargetFn"]

TargetFn = Callable[[Tensor, Any], Tensor]
"""A function that maps logits, ``(N, classes)``, and the batch's labels to the class to explain per sample, ``(N,)``."""
OnError = Literal["raise", "warn"]
GraphClasses = int | Literal["all"] | Sequence[int | str]
"""The number of classes with a graph, or the classes."""

MOST_GRAPHS = 20
"""The most classes with a graph if all classes are requested."""

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
"""Names of what is logged, below ``relevance/``."""
LOGGED = (*DEFAULT, "reconstructions")
"""All names that can be logged."""


@dataclass(frozen=True)
class Settings:
    """The arguments of RelevanceMonitor; see there.

    Raises:
        MisconfigurationException: if an argument is out of range.
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
    graph_classes: GraphClasses
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
        if self.class_names is not None and (
            isinstance(self.class_names, str) or not isinstance(self.class_names, Sequence)
        ):
            raise _wrong("class_names", "a list of names, one per class", self.class_names)
        self._check_graph_classes()
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
                hint = f"did you mean {close[0]!r}?" if close else f"allowed names are {', '.join(LOGGED)}"
                raise MisconfigurationException(f"RelevanceMonitor: log= has an unknown name {name!r}; {hint}")

    def _check_graph_classes(self) -> None:
        given, names = self.graph_classes, [str(name) for name in self.class_names or ()]
        if given == "all" or (_whole(given) and given >= 0):  # type: ignore[operator]
            return
        listed = isinstance(given, Sequence) and not isinstance(given, str)
        unknown = [c for c in given if isinstance(c, str) and c not in names] if listed else []  # type: ignore[union-attr]
        if unknown:
            known = f"class_names are {', '.join(names)}" if names else "give class_names too, or use class numbers"
            raise MisconfigurationException(f"RelevanceMonitor: graph_classes has an unknown class {unknown[0]!r}; {known}")
        if not listed or not all(isinstance(c, str) or (_whole(c) and c >= 0) for c in given):  # type: ignore[union-attr]
            raise _wrong("graph_classes", "'all', a number of classes, or the classes, by number or name", given)
        if len(set(self.listed_classes)) < len(self.listed_classes):
            raise _wrong("graph_classes", "a list with each class once", given)

    @property
    def listed_classes(self) -> list[int]:
        """The numbers of the classes with a graph that the arguments list."""
        given, names = self.graph_classes, [str(name) for name in self.class_names or ()]
        listed = () if isinstance(given, int | str) else given
        return [names.index(c) if isinstance(c, str) else c for c in listed]

    @property
    def free_classes(self) -> int:
        """The number of further classes with a graph: the first that occur."""
        if self.graph_classes == "all":
            return MOST_GRAPHS
        return self.graph_classes if isinstance(self.graph_classes, int) else 0

    def name_of(self, label: int) -> str:
        """A class's name, or its number."""
        names = self.class_names
        return str(names[label]) if names is not None and 0 <= label < len(names) else str(label)

    def described(self) -> dict[str, str]:
        """The arguments that are not None, as text."""
        return {f.name: _text(getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) is not None}

    def key(self, defaults: Mapping[str, Any]) -> dict[str, str | None]:
        """The arguments that identify a monitor: those of the explanation, and all others that differ from the default."""
        texts = {of.name: _text(getattr(self, of.name)) for of in fields(self)}
        always = {name: self.described().get(name) for name in ("composite", "selection", "model")}
        return always | {name: text for name, text in texts.items() if name not in always and text != _text(defaults[name])}


def _text(value: Any) -> str:
    """A value as text, without the memory address in Python's default ``repr``, which differs between runs."""
    if callable(value) and hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    return value if isinstance(value, str) else re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _wrong(name: str, expected: str, got: object) -> MisconfigurationException:
    return MisconfigurationException(f"RelevanceMonitor: {name} must be {expected}, got {got!r}")

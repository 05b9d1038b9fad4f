"""Errors at chosen points of RelevanceMonitor's work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from lrp_lightning.callbacks import relevance_monitor
from lrp_lightning.callbacks.classifier import Classifier
from lrp_lightning.callbacks.kept import Kept
from lrp_lightning.callbacks.measures import Measures
from lrp_lightning.callbacks.observation import Observation
from lrp_lightning.callbacks.relevance_monitor import RelevanceMonitor
from lrp_lightning.callbacks.settings import DEFAULT

_OWNERS: dict[str, Any] = {
    of.__name__: of for of in (Classifier, Kept, Measures, Observation, RelevanceMonitor)
} | {"": relevance_monitor}  # fmt: skip

POINTS = (
    "_sampling", "Classifier.__init__", "Observation.__init__", "Kept.__init__", "Measures.reset", "read_batch",
    "Observation.see", "Kept.see", "Measures.update", "Observation.finish", "look_at", "add_insights",
    "Observation.of_remembered", "Observation.class_trace", "has_tab", "RelevanceMonitor._tell_settings",
    "RelevanceMonitor._findings", "RelevanceMonitor._report", "RelevanceMonitor._open", "write", "Measures.compute",
)  # fmt: skip
"""What is called in a look, in its order."""

ON_THE_FIRST = {
    "Kept.__init__", "Kept.see", "look_at", "add_insights", "Observation.of_remembered", "Observation.class_trace",
    "has_tab", "write", *(point for point in POINTS if point.startswith("RelevanceMonitor.")),
}  # fmt: skip
"""Those that the first process alone comes to, if there are several."""


def logged(point: str) -> list[str]:
    """What a monitor logs that comes to the point, without what takes long elsewhere."""
    slow = () if "Kept" in point or "insights" in point else ("shortcuts", "strategies", "cards")
    return [name for name in DEFAULT if name not in slow]


@contextmanager
def at(point: str, when: Callable[[], bool]) -> Iterator[None]:
    """While this lasts a function raises where ``when`` says so."""
    owner, _, name = point.rpartition(".")
    own = getattr(_OWNERS[owner], name)

    def failing(*args: Any, **kwargs: Any) -> Any:
        if when():
            raise RuntimeError(f"fault in {point}")
        return own(*args, **kwargs)

    with mock.patch.object(_OWNERS[owner], name, failing):
        yield

"""A log's records, each checked once; a summary is kept, which answers requests about all steps without reading again.

For each record, its entry in the list of steps is kept and, for a class's graph, the relevance of each neuron, in few bytes.
Memory is bounded for any log, and so are records that are unpacked at a time: one for the summary, and one for a request.
"""

from __future__ import annotations

import json
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from tensorboard import errors
from tensorboard.data.provider import RunTagFilter

from lrp_lightning.errors import RecordError
from lrp_lightning.tensorboard_plugin.schema import PICTURES, PLUGIN, RECORD, read_head, read_neurons, short, unpack_picture

__all__ = ["Place", "Records", "Relevances", "StepSummary", "json_of", "seconds"]

MAX_KEPT = 96 * 2**20
"""The most bytes that are kept for all logs."""
MAX_SUMMARY = 16 * 2**10
"""The most bytes of a step's entry in the list."""
MAX_ANSWER = 32 * 2**20
"""The most bytes of an answer."""


class Place(NamedTuple):
    """A run, as a data provider identifies it."""

    context: Any
    experiment: str
    run: str


class StepSummary(NamedTuple):
    """A step's entry in the list of steps, as JSON; ``shared`` belongs to the run and is equal for most steps."""

    shared: str | None
    step: str

    @classmethod
    def of(cls, datum: Any) -> StepSummary:
        step: dict[str, Any] = {"step": datum.step, "wall_time": seconds(datum.wall_time)}
        try:
            head = read_head(datum.numpy)
            shortcuts = sorted({strategy["class"] for strategy in head["strategies"] if strategy["shortcut"]})
            says = {"epoch": head["epoch"], "measures": head["measures"], "classes": head["explained"]}
            summary = json_of({**step, **says, "shortcuts": shortcuts})
            if len(summary) > MAX_SUMMARY:
                raise RecordError("this step's record has too many measures or classes")
            return cls(json_of({key: head[key] for key in ("class_names", "settings")}), summary)
        except RecordError as error:
            return cls(None, json_of({**step, "problem": str(error)}))

    def sizes(self) -> tuple[int, int]:
        return len(self.shared or ""), 200 + len(self.step)


class Relevances(NamedTuple):
    """The relevance of each neuron of a graph.

    ``shared`` is equal for most steps of a run: the layers, each with the number of neurons up to its end, and all neurons,
    sorted within a layer.
    """

    shared: tuple[list[tuple[str, int]], bytes]
    values: np.ndarray
    total: float

    @classmethod
    def of(cls, datum: Any, label: int) -> Relevances | None:
        """None if the step does not have the class or is broken."""
        try:
            layers, numbers, relevances, total = read_neurons(datum.numpy, label)
        except RecordError:
            return None
        return cls((layers, numbers.tobytes()), relevances, total)

    def at(self, layer: str, neuron: int) -> float | None:
        """The relevance of a neuron; None if the graph does not have it."""
        start = 0
        for name, end in self.shared[0]:
            if name == layer:
                neurons = np.frombuffer(self.shared[1], np.int64)[start:end]
                place = int(np.searchsorted(neurons, neuron))
                there = place < len(neurons) and neurons[place] == neuron
                return short(float(self.values[start + place])) if there else None
            start = end
        return None

    def sizes(self) -> tuple[int, int]:
        return len(self.shared[1]) + sum(200 + 4 * len(name) for name, _ in self.shared[0]), 300 + self.values.nbytes


class Records:
    """The records of all runs.

    Args:
        provider: TensorBoard's data provider.
        most: the most bytes to keep.
    """

    def __init__(self, provider: Any, most: int = MAX_KEPT) -> None:
        self._provider = provider
        self._kept = _Kept(most)
        # a read returns all records of a run, so only one read at a time; records are checked while the next is read
        self._reading, self._checking = threading.Lock(), threading.Lock()

    def runs(self, context: Any, experiment: str, run: str | None = None) -> dict[str, Any]:
        """The runs with records, each with its last step and the time when it was written."""
        with _reading("runs"):
            found = self._provider.list_tensors(
                context,
                experiment_id=experiment,
                plugin_name=PLUGIN,
                run_tag_filter=RunTagFilter(runs=None if run is None else [run], tags=[RECORD]),
            )
        return {run: tags[RECORD] for run, tags in sorted(found.items()) if RECORD in tags}

    @contextmanager
    def at(self, place: Place, step: int) -> Iterator[Any]:
        """A context with one step's record; only one is in use at a time, to save memory.

        Raises:
            NotFoundError: if there is no such run or step.
            RecordError: if TensorBoard cannot read the run's records.
        """
        with self._reading:
            for datum in self._data(place):
                if datum.step == step:
                    break
            else:
                raise errors.NotFoundError("no such step")
            yield datum.numpy

    def steps(self, place: Place) -> tuple[str | None, list[str]]:
        """The list of a run's steps, in order, with the data of the run; raises as :meth:`at`."""
        found = self._each(place, None, lambda _, kept: (kept.shared, kept.step))
        return next((shared for shared, _ in reversed(found) if shared is not None), None), [step for _, step in found]

    def line(self, place: Place, label: int, layer: str, neuron: int) -> list[tuple[int, float | None, float]]:
        """For each step, in order, a neuron's relevance and the output's; raises as :meth:`at`."""
        found = self._each(place, label, lambda step, of: of and (step, of.at(layer, neuron), of.total))
        return [point for point in found if point is not None]

    def prepare(self, place: Place, label: int) -> None:
        """Check a class's graphs in advance, because the lines of its neurons will probably be requested."""

        def check() -> None:
            with suppress(RecordError, errors.PublicError):
                self._each(place, label, lambda *_: None)

        if not self._checking.locked():
            threading.Thread(target=check, daemon=True).start()

    def picture(self, place: Place, step: int, index: int) -> bytes:
        """The bytes of a step's picture.

        Raises:
            NotFoundError: if there is no such picture.
            RecordError: if it is broken or too large.
        """
        with _reading("pictures"):
            found = self._provider.read_blob_sequences(
                place.context,
                experiment_id=place.experiment,
                plugin_name=PLUGIN,
                downsample=_ALL,
                run_tag_filter=RunTagFilter(runs=[place.run], tags=[PICTURES]),
            )
            for datum in found.get(place.run, {}).get(PICTURES, ()):
                if datum.step == step and 0 <= index < len(datum.values):
                    return unpack_picture(self._provider.read_blob(place.context, blob_key=datum.values[index].blob_key))
        raise errors.NotFoundError("no such picture")

    def _each(self, place: Place, label: int | None, take: Callable[[int, Any], Any]) -> list[Any]:
        """The result of ``take`` for each step, from its entry in the list, or from a class's relevances."""
        now = self.runs(place.context, place.experiment, place.run).get(place.run)
        if now is None:
            raise errors.NotFoundError("there is no such run, or it has no records")
        # these two change with every record that is written
        stamp, key = (now.max_step, seconds(now.max_wall_time)), (place.experiment, place.run, label)
        if (kept := self._kept.all(key, stamp)) is not None:
            return [take(step, value) for step, value in kept]
        with self._checking:
            if (kept := self._kept.all(key, stamp)) is not None:  # another request did it meanwhile
                return [take(step, value) for step, value in kept]
            with self._reading:
                data = self._data(place)
            taken, marks = [], []
            for datum in data:
                mark = (datum.step, seconds(datum.wall_time))
                if (found := self._kept.one(key, mark)) is None:
                    value = StepSummary.of(datum) if label is None else Relevances.of(datum, label)
                    self._kept.keep(key, mark, value)
                else:
                    value = found[0]
                taken.append(take(datum.step, value))
                marks.append(mark)
            self._kept.settle(key, stamp, marks)
        return taken

    def _data(self, place: Place) -> list[Any]:
        """A run's records, in order; if a step was logged twice, the first, as TensorBoard does for blobs."""
        for most in _MOST:
            try:
                found = self._read(place, most)
                break
            except RecordError as error:
                if most == _MOST[-1] or not _is_too_large(error.__cause__):
                    raise
        data = found.get(place.run, {}).get(RECORD)
        if not data:
            raise errors.NotFoundError("there is no such run, or it has no records")
        by_step: dict[int, Any] = {}
        for datum in data:
            by_step.setdefault(datum.step, datum)
        return [datum for _, datum in sorted(by_step.items())]

    def _read(self, place: Place, most: int) -> Any:
        with _reading("records"):
            return self._provider.read_tensors(
                place.context,
                experiment_id=place.experiment,
                plugin_name=PLUGIN,
                downsample=most,
                run_tag_filter=RunTagFilter(runs=[place.run], tags=[RECORD]),
            )


_Mark = tuple[int, float]
"""A step, and the time when it was written."""


class _Shelf:
    """What is kept of one run's steps: pairs of a value and its size, by mark."""

    def __init__(self) -> None:
        self.values: dict[_Mark, tuple[Any, int]] = {}
        self.last: Any = None
        self.stamp: _Mark | None = None  # the log's state when everything was kept


class _Kept:
    """A cache of at most ``most`` bytes, with a shelf per run. The least recently used values are removed, but not to make
    room for later values of the same shelf, which would themselves be removed before the shelf is read again."""

    def __init__(self, most: int) -> None:
        self._most, self._size = most, 0
        self._shelves: OrderedDict[Hashable, _Shelf] = OrderedDict()
        self._lock = threading.Lock()

    def all(self, key: Hashable, stamp: _Mark) -> list[tuple[int, Any]] | None:
        """All steps in order, if none is missing."""
        with self._lock:
            shelf = self._shelves.get(key)
            if shelf is None or shelf.stamp != stamp:
                return None
            self._shelves.move_to_end(key)
            return [(step, value) for (step, _), (value, _) in sorted(shelf.values.items(), key=itemgetter(0))]

    def one(self, key: Hashable, mark: _Mark) -> tuple[Any, int] | None:
        with self._lock:
            shelf = self._shelves.get(key)
            return None if shelf is None else shelf.values.get(mark)

    def keep(self, key: Hashable, mark: _Mark, value: StepSummary | Relevances | None) -> None:
        """Keep a value, if there is room or room can be made."""
        with self._lock:
            shelf = self._shelves.setdefault(key, _Shelf())
            self._shelves.move_to_end(key)
            shared, size = (0, 200) if value is None else value.sizes()
            if value is not None and shelf.last is not None and shelf.last.shared == value.shared:
                value, shared = value._replace(shared=shelf.last.shared), 0
            size += shared
            while self._size + size > self._most and len(self._shelves) > 1:
                _, oldest = self._shelves.popitem(last=False)
                self._size -= sum(size for _, size in oldest.values.values())
            if self._size + size <= self._most:
                shelf.values[mark] = value, size
                shelf.last = value or shelf.last
                self._size += size

    def settle(self, key: Hashable, stamp: _Mark, marks: list[_Mark]) -> None:
        """Remove values of steps that do not exist any more."""
        with self._lock:
            shelf = self._shelves.setdefault(key, _Shelf())
            for gone in shelf.values.keys() - set(marks):
                self._size -= shelf.values.pop(gone)[1]
            shelf.stamp = stamp if len(shelf.values) == len(marks) else None


def _is_too_large(error: BaseException | None) -> bool:
    """Whether an error is gRPC's for a message above its limit; by attributes, because not every TensorBoard has gRPC."""
    code = getattr(error, "code", None)
    return callable(code) and getattr(code(), "name", None) == "RESOURCE_EXHAUSTED"


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Report data that TensorBoard's provider cannot read; its own errors for users pass.

    Raises:
        RecordError: for any other error, such as an invalid tensor, or more data than fits into a message.
    """
    try:
        yield
    except (errors.PublicError, RecordError):
        raise
    except Exception as error:
        raise RecordError(f"TensorBoard cannot read the {what} of this log: {str(error)[:200]}") from error


def seconds(wall_time: float) -> float:
    """The time in seconds; 0 if the log has no time that JSON can express."""
    return wall_time if math.isfinite(wall_time) else 0.0


def json_of(content: dict[str, Any]) -> str:
    """The JSON text of an answer.

    Raises:
        RecordError: if it has numbers that are not finite, is nested too deeply, or is too large.
    """
    try:
        text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError) as error:
        raise RecordError(f"this step's record is broken: {error}") from error
    if len(text) > MAX_ANSWER:
        raise RecordError(f"this step's record is larger than {MAX_ANSWER} bytes")
    return text


_ALL = 1_000_000
"""The limit that a data provider requires."""
_MOST = (_ALL, 512, 256, 128, 64, 32)
"""The most steps; fewer if all of them exceed 256 MB, the limit of a message of TensorBoard's data server."""

"""In-place writes, which every view of the same memory must see.

In-place operators run out of place, so that values that autograd saved do not change. From then on, a tensor that was
written to is replaced by a new one, and so are all tensors that share its memory. Tensors are places in a chain of views;
the root of a chain has its latest value and a count of writes. A tensor that is read later is taken from the root again.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lrp_lightning.engine.notes import Notes

__all__ = ["Aliases", "Frame", "overwritten", "region"]


Run = Callable[..., Tensor]


class Frame(NamedTuple):
    """The layout of a tensor in its memory."""

    size: torch.Size
    stride: tuple[int, ...]
    offset: int

    @staticmethod
    def of(t: Tensor) -> Frame:
        return Frame(t.size(), t.stride(), int(t.storage_offset()))


class _Place:
    """A tensor's place within its ``parent``: all of it, or the part ``inside`` of a ``frame``."""

    __slots__ = ("__weakref__", "current", "frame", "inside", "keeps", "parent", "root", "seen", "version")

    def __init__(self, parent: Any = None) -> None:
        self.parent: Any = parent  # a _Place, or a weak reference to one
        self.keeps: Tensor | None = None  # the parent's tensor, whose memory this one shares
        self.version = 0  # for a root: the number of writes
        self.current: Tensor | None = None  # its latest value; None for that of the tensor itself
        self.seen = 0  # the version of the root at that value
        self.frame: Frame | None = None
        self.inside: Frame | None = None

    def above(self) -> _Place | None:
        return self.parent() if isinstance(self.parent, weakref.ref) else self.parent

    def top(self) -> _Place:
        place = self
        while (parent := place.above()) is not None:
            place = parent
        return place


class Aliases:
    """The places of one pass.

    ``run``, an argument of its methods, runs :func:`region` or :func:`overwritten` and notes facts about the result.
    """

    def __init__(self) -> None:
        self.places: Notes[_Place] = Notes()
        self._renamed: Notes[Tensor] = Notes()
        self.written = False
        """Whether anything was written so far; until then tensors are unchanged."""

    def view(self, child: Tensor, parent: Tensor) -> None:
        """Note that a tensor is a view of another."""
        above = self._place(parent)
        place = _Place(above)
        place.keeps, place.seen = parent, above.top().version
        self.places[child] = place

    def shares(self, t: Tensor) -> bool:
        """Whether a tensor has known views."""
        return t in self.places

    def top_of(self, t: Tensor) -> Tensor:
        """The tensor whose memory ``t`` shares."""
        place = self.places.get(t)
        while place is not None and place.keeps is not None:
            t = place.keeps
            place = place.above()
        return t

    def write(self, run: Run, t: Tensor, new: Tensor) -> Tensor:
        """Replace ``t`` by ``new`` from here on, and accordingly all tensors that share its memory."""
        self._write(run, self._place(t), t, new)
        self.written = True
        return new

    def concern(self, given: Iterable[Tensor]) -> bool:
        """Whether any of these tensors may have been replaced."""
        places, renamed = self.places, self._renamed
        return any(t in places or t in renamed for t in given)

    def latest(self, run: Run, t: Tensor) -> Tensor:
        """The value of ``t`` after all writes to its memory."""
        while (new := self._renamed.get(t)) is not None:
            t = new
        place = self.places.get(t)
        return t if place is None else self._latest(run, place, t)

    def rename(self, t: Tensor, new: Tensor) -> Tensor:
        """Replace ``t`` by ``new``, which has other dimensions in the same memory."""
        self._renamed[t] = new
        self.written = True
        return new

    def _place(self, t: Tensor) -> _Place:
        place = self.places.get(t)
        if place is None:
            place = self.places[t] = _Place()
        return place

    def _latest(self, run: Run, place: _Place, t: Tensor) -> Tensor:
        top = place.top()
        if place.seen == top.version:
            return t if place.current is None else place.current
        parent = place.above()
        if parent is None or place.keeps is None:
            current = place.current if parent is None else self._latest(run, parent, t)
        else:
            frame, inside = self._frames(place, t)
            whole = self._latest(run, parent, place.keeps)
            current = whole if frame == inside else run(region, whole, frame, inside)
        self._stands_for(place, current)
        return t if current is None else current

    def _write(self, run: Run, place: _Place, t: Tensor, new: Tensor) -> None:
        parent = place.above()
        if parent is None:
            place.version += 1
        elif place.keeps is None:  # t was written to its parent's tensor, so it has the same place
            self._write(run, parent, t, new)
        else:
            frame, inside = self._frames(place, t)
            whole = new
            if frame != inside:
                whole = run(overwritten, self._attached(run, parent, place.keeps), frame, inside, new)
            self._write(run, parent, place.keeps, whole)
        self._stands_for(place, new)

    def _attached(self, run: Run, place: _Place, t: Tensor) -> Tensor:
        """The value at a place, from its root; a detached tensor is a constant although it shares memory with a signal."""
        parent = place.above()
        if parent is None or place.keeps is None:
            return self._latest(run, place, t) if parent is None else self._attached(run, parent, t)
        frame, inside = self._frames(place, t)
        whole = self._attached(run, parent, place.keeps)
        return whole if frame == inside else run(region, whole, frame, inside)

    def _stands_for(self, place: _Place, current: Tensor | None) -> None:
        """Note the latest value at a place, and that writes to that value are writes to the place."""
        place.current, place.seen = current, place.top().version
        if current is not None and current not in self.places:  # nearest to the root first
            image = _Place(weakref.ref(place))
            image.seen = place.seen
            self.places[current] = image

    def _frames(self, place: _Place, t: Tensor) -> tuple[Frame, Frame]:
        if place.frame is None or place.inside is None:
            assert place.keeps is not None
            place.frame, place.inside = Frame.of(place.keeps), Frame.of(t)
        return place.frame, place.inside


def region(whole: Tensor, frame: Frame, inside: Frame) -> Tensor:
    """The part ``inside`` of a tensor with the layout ``frame``."""
    start = inside.offset - frame.offset
    if whole.size() == frame.size and whole.stride() == frame.stride:
        return whole.as_strided(inside.size, inside.stride, whole.storage_offset() + start)
    return _laid_out(whole, frame).as_strided(inside.size, inside.stride, start)


def overwritten(whole: Tensor, frame: Frame, inside: Frame, new: Tensor) -> Tensor:
    """A copy of a tensor with the layout ``frame``, with ``new`` in the part ``inside``."""
    y = _laid_out(whole, frame)
    y.as_strided(inside.size, inside.stride, inside.offset - frame.offset).copy_(new)
    return y


def _laid_out(whole: Tensor, frame: Frame) -> Tensor:
    return torch.empty_strided(frame.size, frame.stride, dtype=whole.dtype, device=whole.device).copy_(whole)

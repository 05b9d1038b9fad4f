"""What was written in place, as every view of that memory has to see it.

In-place operators run out of place: a network's values stay what autograd saved. So a tensor that was written to stands for
a new one from then on, and so do all that share its memory. Tensors are places in a chain of views; what is at the root of a
chain has a state, its latest value and how often it was written. A tensor that is read later is taken from that anew.
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
    """Where a tensor lies in its memory."""

    size: torch.Size
    stride: tuple[int, ...]
    offset: int

    @staticmethod
    def of(t: Tensor) -> Frame:
        return Frame(t.size(), t.stride(), int(t.storage_offset()))


class _Place:
    """A tensor's place: in that of its ``parent``, all of it or the part that ``inside`` is of its ``frame``."""

    __slots__ = ("__weakref__", "current", "frame", "inside", "keeps", "parent", "root", "seen", "version")

    def __init__(self, parent: Any = None) -> None:
        self.parent: Any = parent  # a _Place, or a weak reference to one
        self.keeps: Tensor | None = None  # the parent's tensor, whose memory this one lies in
        self.version = 0  # of a root: how often it was written
        self.current: Tensor | None = None  # its latest value, None for that of the tensor itself
        self.seen = 0  # at which version of the root that was
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

    ``run``, which its methods take, gives the result of :func:`region` or :func:`overwritten`, with what is known of it.
    """

    def __init__(self) -> None:
        self.places: Notes[_Place] = Notes()
        self._renamed: Notes[Tensor] = Notes()
        self.written = False
        """Whether anything was written so far; until then every tensor is as it is."""

    def view(self, child: Tensor, parent: Tensor) -> None:
        """Note that a tensor lies in the memory of another."""
        above = self._place(parent)
        place = _Place(above)
        place.keeps, place.seen = parent, above.top().version
        self.places[child] = place

    def shares(self, t: Tensor) -> bool:
        """Whether anything is known to lie in the memory of a tensor."""
        return t in self.places

    def top_of(self, t: Tensor) -> Tensor:
        """The tensor in whose memory ``t`` lies."""
        place = self.places.get(t)
        while place is not None and place.keeps is not None:
            t = place.keeps
            place = place.above()
        return t

    def write(self, run: Run, t: Tensor, new: Tensor) -> Tensor:
        """From here on ``t`` stands for ``new``, and so does what shares its memory."""
        self._write(run, self._place(t), t, new)
        self.written = True
        return new

    def concern(self, given: Iterable[Tensor]) -> bool:
        """Whether any of these tensors may be another by now."""
        places, renamed = self.places, self._renamed
        return any(t in places or t in renamed for t in given)

    def latest(self, run: Run, t: Tensor) -> Tensor:
        """What ``t`` is after all that was written to its memory."""
        while (new := self._renamed.get(t)) is not None:
            t = new
        place = self.places.get(t)
        return t if place is None else self._latest(run, place, t)

    def rename(self, t: Tensor, new: Tensor) -> Tensor:
        """From here on ``t`` is ``new``, other dimensions of the same memory."""
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
        elif place.keeps is None:  # t is what was written to its parent's tensor: the same place
            self._write(run, parent, t, new)
        else:
            frame, inside = self._frames(place, t)
            whole = new
            if frame != inside:
                whole = run(overwritten, self._attached(run, parent, place.keeps), frame, inside, new)
            self._write(run, parent, place.keeps, whole)
        self._stands_for(place, new)

    def _attached(self, run: Run, place: _Place, t: Tensor) -> Tensor:
        """What is at a place, taken from its root: what detach gives is a constant, but not the memory that it lies in."""
        parent = place.above()
        if parent is None or place.keeps is None:
            return self._latest(run, place, t) if parent is None else self._attached(run, parent, t)
        frame, inside = self._frames(place, t)
        whole = self._attached(run, parent, place.keeps)
        return whole if frame == inside else run(region, whole, frame, inside)

    def _stands_for(self, place: _Place, current: Tensor | None) -> None:
        """Note the latest value at a place, and that what is done to that value is done to the place."""
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
    """The part ``inside`` of a tensor that is laid out as ``frame``."""
    start = inside.offset - frame.offset
    if whole.size() == frame.size and whole.stride() == frame.stride:
        return whole.as_strided(inside.size, inside.stride, whole.storage_offset() + start)
    return _laid_out(whole, frame).as_strided(inside.size, inside.stride, start)


def overwritten(whole: Tensor, frame: Frame, inside: Frame, new: Tensor) -> Tensor:
    """A copy of a tensor that is laid out as ``frame``, with ``new`` in the part ``inside``."""
    y = _laid_out(whole, frame)
    y.as_strided(inside.size, inside.stride, inside.offset - frame.offset).copy_(new)
    return y


def _laid_out(whole: Tensor, frame: Frame) -> Tensor:
    return torch.empty_strided(frame.size, frame.stride, dtype=whole.dtype, device=whole.device).copy_(whole)

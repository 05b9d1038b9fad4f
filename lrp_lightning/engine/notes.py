"""Notes about tensors, by identity, which are removed with the tensors."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from torch import Tensor

from lrp_lightning.compat import revived

__all__ = ["Notes", "Ref"]

T = TypeVar("T")


class Ref(weakref.ref):
    """A weak reference that still knows the tensor's identity after its end."""

    __slots__ = ("key",)
    key: int

    @staticmethod
    def to(t: Tensor) -> Ref:
        ref = Ref(t)
        ref.key = id(t)
        return ref

    def tensor(self) -> Tensor | None:
        t = self()
        return None if t is None else revived(t)


class Notes(Generic[T]):
    """Like ``torch.utils.weak.WeakIdKeyDictionary``, but only for tensors and several times as fast.

    Speed matters, because every operator of a forward pass reads notes.
    """

    def __init__(self) -> None:
        self._of: dict[int, tuple[Ref, T]] = {}

    def __setitem__(self, t: Tensor, note: T) -> None:
        ref = Ref(t, self._gone)
        ref.key = id(t)
        self._of[ref.key] = (ref, note)

    def _gone(self, ref: Any) -> None:
        found = self._of.get(ref.key)
        if found is not None and found[0] is ref:  # and not another tensor with the same id
            del self._of[ref.key]

    def __contains__(self, t: Tensor) -> bool:
        found = self._of.get(id(t))
        return found is not None and found[0]() is t

    def __getitem__(self, t: Tensor) -> T:
        ref, note = self._of[id(t)]
        if ref() is not t:
            raise KeyError(id(t))
        return note

    def get(self, t: Tensor) -> T | None:
        found = self._of.get(id(t))
        return found[1] if found is not None and found[0]() is t else None

    def __bool__(self) -> bool:
        return bool(self._of)

    def __iter__(self) -> Iterator[Tensor]:
        for ref, _ in list(self._of.values()):
            t = ref.tensor()
            if t is not None:
                yield t

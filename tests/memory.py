"""What a process holds: tensors, objects, bytes."""

from __future__ import annotations

import ctypes
import gc
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

_STATUS = Path("/proc/self/statm")
_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None) if _STATUS.exists() else lambda _: None
"""Gives memory that was freed back to the system, where the C library is glibc. What it keeps for later comes and goes by
tens of megabytes after large tests, without anything being held."""


@dataclass(frozen=True)
class Held:
    """Attributes:
    tensors: how many are alive.
    objects: how many the garbage collector knows.
    resident: bytes of memory in use, of the whole process, without freed memory and without files (such as libraries, whose
        pages the kernel reads and drops as it likes); 0 where the system does not tell.
    """

    tensors: int
    objects: int
    resident: int


def held() -> Held:
    """What is held now, garbage collected."""
    gc.collect()
    _TRIM(0)
    resident, of_files = map(int, _STATUS.read_text().split()[1:3]) if _STATUS.exists() else (0, 0)
    objects = gc.get_objects()  # a list of megabytes itself
    tensors = sum(issubclass(type(o), Tensor) for o in objects)
    return Held(tensors, len(objects), (resident - of_files) * mmap.PAGESIZE)


@contextmanager
def of_now() -> Iterator[None]:
    """While this lasts, what was there before is not weighed: with the objects of a long test run, that takes a second."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def least(seen: list[Held]) -> Held:
    """The least of each, as pictures and the like come and go."""
    return Held(*(min(getattr(h, name) for h in seen) for name in ("tensors", "objects", "resident")))

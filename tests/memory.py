"""What a process holds: tensors, objects, bytes."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

_STATUS = Path("/proc/self/statm")


@dataclass(frozen=True)
class Held:
    """Attributes:
    tensors: how many are alive.
    objects: how many the garbage collector knows.
    resident: bytes of memory in use, of the whole process; 0 where the system does not tell.
    """

    tensors: int
    objects: int
    resident: int


def held() -> Held:
    """What is held now, garbage collected."""
    gc.collect()
    objects = gc.get_objects()
    resident = int(_STATUS.read_text().split()[1]) * 4096 if _STATUS.exists() else 0
    return Held(sum(issubclass(type(o), Tensor) for o in objects), len(objects), resident)


def least(seen: list[Held]) -> Held:
    """The least of each, as pictures and the like come and go."""
    return Held(*(min(getattr(h, name) for h in seen) for name in ("tensors", "objects", "resident")))

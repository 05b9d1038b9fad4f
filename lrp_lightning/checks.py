"""What arguments may be: one wording of what many functions ask of theirs."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral, Real
from typing import SupportsFloat

from torch import Tensor

from lrp_lightning.errors import InputError

__all__ = ["as_number", "check_batches", "check_tensors", "is_number", "is_whole"]


def is_whole(value: object) -> bool:
    """Whether it is a whole number, Python's or NumPy's; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether it is a real number, Python's or NumPy's; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def as_number(value: object) -> float:
    """A number, or a tensor or array of one, as a float; NaN, which every range refuses, for what is none."""
    try:
        return float(value) if isinstance(value, SupportsFloat) else float("nan")
    except (TypeError, ValueError, RuntimeError):
        return float("nan")


def check_tensors(**given: object) -> None:
    """Refuse what is no tensor.

    Raises:
        InputError: naming the argument.
    """
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise InputError(f"{name} must be a tensor, got {type(value).__name__}")


def check_batches(loader: object) -> None:
    """Refuse what gives no batches; one batch, taken for many, would be read sample by sample.

    Raises:
        InputError: saying what to give.
    """
    if isinstance(loader, Tensor) or not (isinstance(loader, Iterable) or hasattr(loader, "__getitem__")):
        raise InputError(
            f"the loader must give batches, such as a DataLoader, got {type(loader).__name__}; for one batch give [batch]"
        )

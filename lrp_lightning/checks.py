"""What arguments may be: one wording of what many functions ask of theirs."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral, Real
from typing import SupportsFloat

from torch import Tensor

from lrp_lightning.errors import InputError

__all__ = ["as_number", "check_batches", "check_tensors", "inputs_of", "is_number", "is_whole", "labelled"]


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
    if callable(getattr(loader, "batches", None)):
        raise InputError(
            f"the loader must give batches; a {type(loader).__name__} gives samples, and this takes what it does not hold, "
            "such as edges or activations. Where the inputs were kept, give store.batches(64), and passes run anew"
        )
    if isinstance(loader, Tensor) or not (isinstance(loader, Iterable) or hasattr(loader, "__getitem__")):
        raise InputError(
            f"the loader must give batches, such as a DataLoader, got {type(loader).__name__}; for one batch give [batch]"
        )


def inputs_of(batch: object) -> Tensor:
    """The inputs of a batch, ``(inputs, ...)`` or inputs alone.

    Raises:
        InputError: if it is neither.
    """
    x = batch[0] if isinstance(batch, list | tuple) and batch else batch
    if not isinstance(x, Tensor):
        raise InputError(f"a batch must be (inputs, labels) or inputs, got {type(batch).__name__}")
    return x


def labelled(batch: object) -> tuple[Tensor, Tensor | None]:
    """The inputs of a batch and their labels, ``(N,)`` whole numbers; None if it has none.

    Raises:
        InputError: if it is neither ``(inputs, labels)`` nor inputs, or labels are not one class a sample.
    """
    x = inputs_of(batch)
    labels = batch[1] if isinstance(batch, list | tuple) and len(batch) > 1 else None
    if labels is None:
        return x, None
    if not isinstance(labels, Tensor):
        raise InputError(f"a batch must be (inputs, labels) or inputs, got labels of {type(labels).__name__}")
    if labels.shape != x.shape[:1] or labels.is_floating_point():
        raise InputError(
            f"labels must be one class number a sample, ({len(x)},) of integers; got {tuple(labels.shape)} of {labels.dtype}"
        )
    return x, labels

"""Checks of arguments, and how errors name what was given: one wording for all functions."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection, Iterable
from numbers import Integral, Real
from typing import SupportsFloat

from torch import Tensor
from torch.utils.data import DataLoader

from lrp_lightning.errors import InputError

__all__ = ["as_number", "check_batches", "check_tensors", "got", "inputs_of", "is_number", "is_whole", "labelled", "meant"]

_LISTED = 8
"""The number of names that a message lists."""


def got(value: object) -> str:
    """Describes a wrong argument in a message: its type and, if that is clear, what to do.

    Example:
        >>> from lrp_lightning.checks import got
        >>> got("cat"), got(dict)
        ('str', 'the class dict; make an instance of it: dict(...)')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}; make an instance of it: {value.__name__}(...)"
    if inspect.isroutine(value):
        return f"a function; call it: {value.__name__}(...)" if value.__name__ != "<lambda>" else "a function"
    if isinstance(value, DataLoader):
        return "DataLoader; give one of its batches, such as next(iter(loader))[0]"
    if isinstance(value, list):
        return "list; join its tensors with torch.stack(...)"
    kind, package = type(value).__name__, type(value).__module__.partition(".")[0]
    if package == "numpy":
        return f"{kind}; convert it with torch.from_numpy(...)"
    if package == "PIL":
        return f"{kind}; convert it with torchvision.transforms.functional.to_tensor(image)[None]"
    return kind


def meant(name: object, known: Collection[str], of: str = "layers") -> str:
    """Suggestions for an unknown name, for a message: similar names and the first few known names.

    Example:
        >>> from lrp_lightning.checks import meant
        >>> meant("fc11", ["conv1", "fc1"])
        "did you mean 'fc1'? layers are 'conv1', 'fc1'"
        >>> meant("x", [])
        'there are no layers'
    """
    if not known:
        return f"there are no {of}"
    close = ", ".join(map(repr, difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)))
    first = ", ".join(map(repr, list(known)[:_LISTED])) + (f", ... ({len(known)} in all)" if len(known) > _LISTED else "")
    return (f"did you mean {close}? " if close else "") + f"{of} are {first}"


def is_whole(value: object) -> bool:
    """Whether it is a whole number, Python's or NumPy's; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether it is a real number, Python's or NumPy's; True and False are not."""
    return isinstance(value, Real) and not isinstance(value, bool)


def as_number(value: object) -> float:
    """A number, or a tensor or array with one element, as a float; anything else becomes NaN, which every range refuses."""
    try:
        return float(value) if isinstance(value, SupportsFloat) else float("nan")
    except (TypeError, ValueError, RuntimeError):
        return float("nan")


def check_tensors(**given: object) -> None:
    """Raise an error unless the argument is a tensor.

    Raises:
        InputError: naming the argument.
    """
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise InputError(f"{name} must be a tensor, got {got(value)}")


def check_batches(loader: object) -> None:
    """Raise an error unless the argument yields batches; a single batch given as loader would be read sample by sample.

    Raises:
        InputError: saying what to give.
    """
    if callable(getattr(loader, "batches", None)):
        raise InputError(
            f"the loader must give batches; a {type(loader).__name__} gives samples, and this takes what it does not hold, "
            "such as edges or activations. Where the inputs were kept, give store.batches(64), and passes run anew"
        )
    if isinstance(loader, tuple | list) and len(loader) == 2 and _is_batch(*loader):
        raise InputError("the loader must give batches, got a single batch (inputs, labels); pass it as [batch]")
    if isinstance(loader, Tensor) or not (isinstance(loader, Iterable) or hasattr(loader, "__getitem__")):
        raise InputError(
            f"the loader must give batches, such as a DataLoader, got {type(loader).__name__}; pass a single batch as "
            "[batch]"
        )


def _is_batch(inputs: object, labels: object) -> bool:
    """Whether these are the inputs and the labels of one batch rather than two batches."""
    if not isinstance(inputs, Tensor) or not isinstance(labels, Tensor):
        return False
    return inputs.ndim > 1 and labels.shape == inputs.shape[:1] and not labels.is_floating_point()


def inputs_of(batch: object) -> Tensor:
    """The inputs of a batch, ``(inputs, ...)`` or inputs alone.

    Raises:
        InputError: if it is neither.
    """
    x = batch[0] if isinstance(batch, list | tuple) and batch else batch
    if not isinstance(x, Tensor):
        raise InputError(f"a batch must be (inputs, labels) or inputs, tensors of samples, got {got(x)}")
    return x


def labelled(batch: object) -> tuple[Tensor, Tensor | None]:
    """The inputs of a batch and their labels, ``(N,)`` integers; None without labels.

    Raises:
        InputError: if it is neither ``(inputs, labels)`` nor inputs, or labels are not one class per sample.
    """
    x = inputs_of(batch)
    labels = batch[1] if isinstance(batch, list | tuple) and len(batch) > 1 else None
    if labels is None:
        return x, None
    if not isinstance(labels, Tensor):
        raise InputError(f"a batch must be (inputs, labels) or inputs, got labels of {type(labels).__name__}")
    if labels.shape != x.shape[:1] or labels.is_floating_point():
        raise InputError(
            f"labels must be one class number per sample, ({len(x)},) of integers; got {tuple(labels.shape)} of "
            f"{labels.dtype}"
        )
    return x, labels

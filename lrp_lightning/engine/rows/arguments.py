"""Reading an operator's arguments as the operator itself would, and its in-place forms."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Row", "is_in_place", "named", "only_input", "out_of_place", "signal_and_in_place", "without_in_place"]

Row = Callable[[Any, Callable, tuple, dict[str, Any]], Any]
"""``(mode, func, args, kwargs) -> result``, called when an argument of ``func`` carries relevance."""

_AT_INPLACE = {
    f: list(parameters).index("inplace")
    for f in vars(F).values()
    if inspect.isfunction(f) and "inplace" in (parameters := inspect.signature(f).parameters)
}
"""At which place functions that take ``inplace`` take it."""


def is_in_place(func: Callable) -> bool:
    """Whether the operator itself, without an argument that says so, changes its input."""
    name = getattr(func, "__name__", "")
    if name.startswith("__"):
        return name == "__setitem__" or (name.startswith("__i") and name not in ("__invert__", "__index__", "__int__"))
    return name.endswith("_")


def out_of_place(func: Callable) -> Callable:
    """The same operator in the form that leaves its input as it is."""
    if not is_in_place(func):
        return func
    name = func.__name__.removeprefix("__i").strip("_")
    for owner in (torch, Tensor, F):
        if hasattr(owner, name):
            return getattr(owner, name)
    raise AssertionError(f"no out-of-place form of {func}")


def signal_and_in_place(func: Callable, args: tuple, kwargs: dict[str, Any]) -> tuple[Tensor, bool]:
    """The first argument of an operator, and whether it is to be changed in place."""
    x = args[0] if args else kwargs["input"]
    asked = kwargs.get("inplace", False)
    if not asked and func in _AT_INPLACE:
        asked = len(args) > _AT_INPLACE[func] and args[_AT_INPLACE[func]]
    return x, bool(asked) or is_in_place(func)


def without_in_place(func: Callable, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """The arguments after the first, with nothing that asks for in-place."""
    rest = args[1:]
    if func in _AT_INPLACE:
        position = _AT_INPLACE[func]
        rest = args[1:position] + (False,) * (len(args) > position) + args[position + 1 :]
    return rest, {k: v for k, v in kwargs.items() if k not in ("inplace", "input")}


def only_input(mode: Any, func: Callable, a: Tensor, *parameters: Any) -> None:
    """Refuse an operator whose parameters carry relevance: that is a product of two signals."""
    if not mode.known(a) or any(mode.known(p) for p in parameters):
        raise mode.unsupported(func, "its weight depends on the input, so it is a product of two signals without a rule")


def named(row: Row, names: str) -> dict[str, Row]:
    """The same row for several operators, their names separated by spaces."""
    return dict.fromkeys(names.split(), row)

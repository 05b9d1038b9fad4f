"""Reading a call: which operator it is in any spelling, and what it changes in place.

``x.add_(1)``, ``x += 1``, ``torch.add(x, 1, out=x)`` and ``torch.add(input=x, other=1)`` are one operator, ``add``, with one
row. A row's parameters have the names that torch's schemas give them, the first always ``input``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import resolve_name

from lrp_lightning.compat import c_functions, pytree, variable_functions

__all__ = ["Call", "Operator", "named", "operator_name", "spellings", "tensors_in", "without_in_place"]

OWNERS = (torch, Tensor, F, c_functions, torch.linalg, torch.special, variable_functions)

_AT_INPLACE: dict[Callable, int] = {
    f: list(parameters).index("inplace")
    for f in vars(F).values()
    if inspect.isfunction(f) and "inplace" in (parameters := inspect.signature(f).parameters)
}
"""The position of the argument ``inplace`` of functions that have it."""

_SAME = {
    "axis": "dim",
    "keepdims": "keepdim",
    "x": "input",
    "self": "input",
    "data": "input",
    "obj": "input",
    "mat_a": "input",
    "mat_b": "mat2",
}
"""NumPy's names of parameters, which torch also accepts, and other names of the first parameter."""


_ATTRIBUTES = (
    "shape ndim dtype device requires_grad grad_fn is_cuda layout is_sparse is_leaf is_quantized is_nested is_meta itemsize"
)
_METHODS = "size dim numel nelement __len__ stride storage_offset is_contiguous is_floating_point is_complex get_device"
READS = frozenset(
    [getattr(Tensor, name).__get__ for name in _ATTRIBUTES.split() if hasattr(Tensor, name)]
    + [getattr(Tensor, name) for name in _METHODS.split()]
)
"""Attributes and methods that return only metadata of a tensor."""


@dataclass(frozen=True, eq=False)
class Operator:
    """One spelling of an operator, with the row that all spellings share."""

    name: str
    """The name of the out-of-place form, without an owner: ``add``."""
    func: Callable
    """The out-of-place form."""
    row: Callable | None
    in_place: bool = False
    inplace_at: int | None = None
    views: bool = False
    """Whether its result may share the memory of its input."""
    lends_shape: bool = False
    """Whether its result depends only on the shape of its input."""

    def asks_in_place(self, args: tuple, kwargs: dict[str, Any]) -> bool:
        if self.in_place or kwargs.get("inplace", False) or kwargs.get("out") is not None:
            return True
        return self.inplace_at is not None and len(args) > self.inplace_at and bool(args[self.inplace_at])


class Call:
    """A call of an operator, out of place, with the given arguments.

    Args:
        operator: the operator.
        args, kwargs: its arguments.
        in_place: whether the model wants the result in the memory of the first argument.
    """

    __slots__ = ("args", "func", "in_place", "kwargs", "name", "operator")

    def __init__(self, operator: Operator, args: tuple, kwargs: dict[str, Any], in_place: bool = False) -> None:
        self.operator, self.args, self.kwargs, self.in_place = operator, args, kwargs, in_place
        self.name, self.func = operator.name, operator.func

    def __call__(self) -> Any:
        """Run it with its own gradient."""
        return self.func(*self.args, **self.kwargs)

    def values(self) -> Any:
        """Run it without a gradient."""
        with torch.no_grad():
            return self.func(*self.args, **self.kwargs)

    def map(self, change: Callable[[Tensor], Any]) -> Call:
        """The same call with other tensors."""
        args, kwargs = pytree.tree_map_only(Tensor, change, (self.args, self.kwargs))
        return Call(self.operator, args, kwargs)

    @property
    def tensors(self) -> list[Tensor]:
        return tensors_in(self.args, self.kwargs)


def tensors_in(args: Any, kwargs: dict[str, Any] | None = None) -> list[Tensor]:
    """All tensors among an operator's arguments or results, including nested ones."""
    found: list[Tensor] = []
    _collect(args, found)
    if kwargs:
        _collect(kwargs.values(), found)
    return found


_HOLD_NONE = frozenset([int, float, bool, str, type(None)])
_SEQUENCES = (list, tuple)  # used several times per call, so the union is made only once


def _collect(values: Iterable[Any], found: list[Tensor]) -> None:
    for value in values:
        if type(value) in _HOLD_NONE:  # most arguments of a convolution
            continue
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, _SEQUENCES):
            _collect(value, found)
        elif isinstance(value, dict):
            _collect(value.values(), found)
        elif isinstance(value, slice):
            _collect((value.start, value.stop, value.step), found)


def named(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments with the names that rows use."""
    return {_SAME.get(name, name): value for name, value in kwargs.items()}


def spellings(name: str) -> Iterator[tuple[Callable, Callable, bool]]:
    """All functions by which an operator is called, each with its out-of-place form, and whether it changes its input.

    Args:
        name: ``"add"``; with an owner, ``"torch.batch_norm"``, if forms differ in the order of their arguments; for an
            attribute ``"T.__get__"``; for a reversed form of Python ``"__rsub__"``.
    """
    owner, _, attribute = name.rpartition(".")
    if attribute == "__get__":
        read = getattr(Tensor, owner).__get__
        yield read, read, False
        return
    owners = {"torch": (torch,), "F": (F,), "fft": (torch.fft,)}.get(owner, OWNERS)
    plain = next((func for o in owners if callable(func := getattr(o, attribute, None))), None)
    if plain is None:
        return
    forms = [(attribute, False), (f"__{attribute}__", False), (f"{attribute}_", True), (f"__i{attribute}__", True)]
    if attribute in ("float", "complex"):  # float(x) returns Python's float, not a tensor
        forms = forms[:1]
    for spelt, in_place in forms if not attribute.startswith("__") else forms[:1]:
        for o in owners:
            func = getattr(o, spelt, None)
            if callable(func) and not (spelt.startswith("__i") and spelt.strip("_") in ("index", "invert", "int")):
                yield func, plain if in_place or spelt.startswith("__") else func, in_place


def inplace_at(func: Callable) -> int | None:
    """The position of a function's argument ``inplace``; None without this argument."""
    return _AT_INPLACE.get(func)


def name_of(func: Callable) -> str:
    """The name of an operator without a row, in place or not: ``T`` for the attribute."""
    name = getattr(func, "__name__", "")
    return getattr(getattr(func, "__self__", None), "__name__", name) if name == "__get__" else name


def changes_input(func: Callable) -> bool:
    """Whether an operator without a row changes its input, according to its name."""
    name = name_of(func)
    if name.startswith("__"):
        return name == "__setitem__" or (name.startswith("__i") and name not in ("__invert__", "__index__", "__int__"))
    return name.endswith("_")


def without_in_place(operator: Operator, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """The arguments without those that request in-place operation."""
    at = operator.inplace_at
    if at is not None and len(args) > at:
        args = (*args[:at], False, *args[at + 1 :])
    return args, {name: value for name, value in kwargs.items() if name not in ("inplace", "out")}


def operator_name(func: Callable) -> str:
    """The name in messages: ``torch.Tensor.cumsum``."""
    return resolve_name(func) or getattr(func, "__qualname__", None) or repr(func)

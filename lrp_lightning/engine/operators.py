"""The table of operators: function -> its row, which says what its backward is; and how to add to it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function, is_tensor_method_or_property, resolve_name

from lrp_lightning.engine.mode import tensors_in
from lrp_lightning.engine.rows import affine, attention, elementwise, movement, normalisations, products
from lrp_lightning.engine.rows.arguments import Row
from lrp_lightning.errors import RuleError

__all__ = ["TABLE", "register_operator", "table_of"]


def _forms(name: str) -> list[Callable]:
    """Every form in which an operator of this name is called.

    ``torch.f`` and ``F.f`` are that form only, where forms differ in the order of their arguments; ``T.__get__`` is reading
    the attribute ``T``.
    """
    owner, _, attribute = name.rpartition(".")
    if attribute == "__get__":
        return [getattr(Tensor, owner).__get__]
    owners = {"torch": (torch,), "F": (F,)}.get(owner, (torch, Tensor, F, torch._C._nn, torch.linalg))
    return [func for owner in owners if callable(func := getattr(owner, attribute, None))]


def table_of(*rows: Mapping[str, Row]) -> dict[Callable, Row]:
    """Rows by the functions that their names stand for; of several for one function the last counts."""
    return {func: row for group in rows for name, row in group.items() for func in _forms(name)}


TABLE = table_of(*(rows.ROWS for rows in (affine, elementwise, movement, products, normalisations, attention)))

_KINDS: dict[str, Row] = {
    "activation": elementwise.ROWS["logsigmoid"],
    "gate": elementwise.ROWS["sigmoid"],
    "movement": movement.movement,
    "linear": movement.linear_without_bias,
    "product": products.ROWS["bmm"],
}


def register_operator(
    func: Callable, kind: Literal["activation", "gate", "movement", "linear", "product"] | Row
) -> Callable:
    """Tell how relevance passes an operator that has no rule: one of torch's, or a function of your own.

    ======================= ===============================================================================================
    ``"activation"``        each value depends on one value of the first argument: relevance passes unchanged
    ``"gate"``              the same, and in a product with a signal its values are constants
    ``"movement"``          values move and are not mixed: relevance moves back with them
    ``"linear"``            linear in all that carries relevance, without a bias: the gradient is the rule
    ``"product"``           linear in each of several signals: each gets an equal share; gates among them are constants
    ======================= ===============================================================================================

    Args:
        func: the operator. A function of your own, such as one that calls a ``torch.autograd.Function``, becomes an
            operator: use what is returned in its place.
        kind: one of these, or a row of the engine's table, ``(mode, func, args, kwargs) -> result``.

    Returns:
        ``func``, or the operator that it became.

    Raises:
        RuleError: if ``func`` cannot be called, or ``kind`` is none of these.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP, register_operator
        >>> class Square(torch.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         ctx.save_for_backward(x)
        ...         return x * x
        ...     @staticmethod
        ...     def backward(ctx, g):
        ...         return 2 * ctx.saved_tensors[0] * g
        >>> square = register_operator(Square.apply, "activation")
        >>> class Model(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.below, self.above = torch.nn.Linear(4, 8), torch.nn.Linear(8, 3)
        ...     def forward(self, x):
        ...         return self.above(square(self.below(x)))
        >>> trace = SelectiveLRP(Model()).trace(torch.randn(5, 4), target=0)
        >>> bool((trace.conservation_error < 1e-3).all())
        True
    """
    if not callable(func):
        raise RuleError(f"func must be the operator itself, such as torch.cumsum, got {func!r}")
    row = _KINDS.get(kind) if isinstance(kind, str) else kind
    if row is None or not callable(row):
        raise RuleError(f"kind must be one of {', '.join(map(repr, _KINDS))}, or a row, got {kind!r}")
    if is_tensor_method_or_property(func) or resolve_name(func) is not None:
        TABLE[func] = row
        return func

    @functools.wraps(func, assigned=("__module__", "__name__", "__qualname__", "__doc__"), updated=())
    def operator(*args: Any, **kwargs: Any) -> Any:
        tensors = tuple(tensors_in((args, kwargs.values())))
        if has_torch_function(tensors):
            return handle_torch_function(operator, tensors, *args, **kwargs)
        return func(*args, **kwargs)

    TABLE[operator] = row
    return operator

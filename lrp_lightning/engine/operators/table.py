"""The table of operators: all functions that call an operator, with their common row; and how to add to it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function, is_tensor_method_or_property, resolve_name

from lrp_lightning.engine.calls import Call, Operator, inplace_at, operator_name, spellings, tensors_in
from lrp_lightning.engine.following import moved
from lrp_lightning.engine.operators import (
    activations,
    affine,
    attention,
    complex_numbers,
    contractions,
    embeddings,
    moves,
    normalisations,
    pooling,
    products,
    recurrent,
    reductions,
    scatters,
    sums,
    writes,
)
from lrp_lightning.errors import RuleError

__all__ = ["TABLE", "register_operator", "registered_operator", "table_of", "unregister_operator"]

Row = Callable[..., Any]

_OWNED = ("F.", "torch.", "fft.")


def table_of(*rows: Mapping[str, Row]) -> dict[Callable | str, Operator]:
    """Rows by the functions that call their operators; if there are several for one function, the last one is used."""
    table: dict[Callable | str, Operator] = {}
    for group in rows:
        for name, row in sorted(group.items(), key=lambda item: item[0].startswith(_OWNED)):
            shown = name if name.startswith(_OWNED) else name.removesuffix(".__get__")
            for func, plain, in_place in spellings(name):
                views = row in (moves.movement, writes.ROWS["detach"], activations.ROWS["dropout"])
                lends = name in writes.FACTORIES
                table[func] = Operator(shown, plain, row, in_place, inplace_at(func), views, lends)
    return table


TABLE = table_of(
    affine.ROWS, activations.ROWS, moves.ROWS, writes.ROWS, scatters.ROWS, reductions.ROWS, pooling.ROWS, sums.ROWS,
    products.ROWS, contractions.ROWS, normalisations.ROWS, attention.ROWS, recurrent.ROWS, embeddings.ROWS,
    complex_numbers.ROWS,
)  # fmt: skip
for _name, _function in (
    ("__setitem__", writes.set_item),
    ("copy_", writes.copied),
    ("fill_", writes.filled),
    ("zero_", writes.zeroed),
):
    TABLE[getattr(Tensor, _name)] = Operator(_name.strip("_"), _function, writes.FUNCTIONS[_function], in_place=True)
for _function, _row in {**writes.FUNCTIONS, **scatters.FUNCTIONS, **activations.FUNCTIONS}.items():
    TABLE[_function] = Operator(_function.__name__, _function, _row)
for _shown, _row in pooling.BY_NAME.items():
    TABLE[_shown] = Operator(_shown, Call.__call__, _row)  # its function is known when it is called


def _movement(run: Any, call: Call, *args: Any, **kwargs: Any) -> Any:
    y = call()
    [x, *_] = run.signals(call.tensors)
    made = tensors_in((y,))
    facts = [moved(run, call, x, t, None) for t in made]
    return y, facts[0] if isinstance(y, Tensor) else facts


class _Checked(Call):
    """A call whose result is checked whenever it runs, so that the operator does not run only for the check."""

    __slots__ = ("check",)

    def __init__(self, call: Call, check: Callable[[Call, Any], Any]) -> None:
        super().__init__(call.operator, call.args, call.kwargs, call.in_place)
        self.check = check

    def __call__(self) -> Any:
        return self.check(self, super().__call__())

    def values(self) -> Any:
        return self.check(self, super().values())

    def map(self, change: Callable[[Tensor], Any]) -> Call:
        return _Checked(super().map(change), self.check)


def _one_for_each(row: Row) -> Row:
    """A row for operators that return one value for each value of their first argument."""
    expected = "an activation or a gate", "one value for each of its first argument's"

    def checked(run: Any, call: Call, *args: Any, **kwargs: Any) -> Any:
        def check(made_by: Call, made: Any) -> Any:
            if not isinstance(made, Tensor) or made.shape != made_by.tensors[0].shape:
                raise _no_such_kind(run, call, made, *expected)
            return made

        if not run.known(call.tensors[0]):
            raise _no_such_kind(run, call, call.values(), *expected)
        return row(run, _Checked(call, check), *args, **kwargs)

    return checked


def _one_tensor(row: Row) -> Row:
    """A row for operators that return one tensor."""

    def checked(run: Any, call: Call, *args: Any, **kwargs: Any) -> Any:
        def check(made_by: Call, made: Any) -> Any:
            if not isinstance(made, Tensor):
                raise _no_such_kind(run, call, made, "a product", "one tensor")
            return made

        return row(run, _Checked(call, check), *args, **kwargs)

    return checked


def _no_such_kind(run: Any, call: Call, made: Any, kind: str, gives: str) -> RuleError:
    given = [tuple(t.shape) for t in run.signals(call.tensors)]
    found = f"shape {tuple(made.shape)}" if isinstance(made, Tensor) else f"a {type(made).__name__}"
    return RuleError(
        f"{operator_name(call.func)} in {run.where()} is registered as {kind}, which returns {gives}; of signals of shape "
        f"{', '.join(map(str, given))} it gives {found}. Register it as another kind, with a row of your own, or not "
        'at all and use its plain gradient with on_unsupported="gradient"'
    )


_KINDS: dict[str, Row] = {
    "activation": _one_for_each(functools.partial(activations.activation, keeps_sign=False)),
    "gate": _one_for_each(activations.ROWS["sigmoid"]),
    "movement": _movement,
    "linear": reductions.linear,
    "product": _one_tensor(contractions.product),
}


def register_operator(
    func: Callable, kind: Literal["activation", "gate", "movement", "linear", "product"] | Row
) -> Callable:
    """Define how relevance propagates through an operator without a rule: one of torch's, or your own function.

    ======================= ===============================================================================================
    ``"activation"``        each value depends on one value of the first argument: relevance passes unchanged
    ``"gate"``              the same, and in a product with a signal its values are constants
    ``"movement"``          values are moved and not mixed: relevance is moved back
    ``"linear"``            linear in all arguments that carry relevance, without a bias: the gradient is the rule
    ``"product"``           linear in each of several signals: they get equal shares; gates among them are constants
    ======================= ===============================================================================================

    For an operator of torch, every spelling is registered: function, method, and in-place form.
    :func:`unregister_operator` undoes it; :func:`registered_operator` registers for the time of a ``with`` statement.

    Args:
        func: the operator. Your own function, such as one that calls a ``torch.autograd.Function``, becomes an operator: use
            the returned function instead.
        kind: one of these, or a row of the engine's table, ``(run, call, *args, **kwargs) -> (result, facts)``.

    Returns:
        ``func``, or the operator that it became.

    Raises:
        RuleError: if ``func`` cannot be called, or ``kind`` is not one of these.

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
        for spelt, plain, in_place in _spelt(func):
            _before.setdefault(spelt, TABLE.get(spelt))
            TABLE[spelt] = Operator(plain.__name__.strip("_"), plain, row, in_place, inplace_at(spelt), row is _movement)
        return func

    @functools.wraps(func, assigned=("__module__", "__name__", "__qualname__", "__doc__"), updated=())
    def operator(*args: Any, **kwargs: Any) -> Any:
        tensors = tuple(tensors_in(args, kwargs))
        if has_torch_function(tensors):
            return handle_torch_function(operator, tensors, *args, **kwargs)
        return func(*args, **kwargs)

    _before[operator] = None
    name = getattr(func, "__name__", "operator")
    TABLE[operator] = Operator(name, operator, row, views=row is _movement)
    return operator


_before: dict[Callable, Operator | None] = {}
"""The rows of the table before an operator was registered."""


def _spelt(func: Callable) -> list[tuple[Callable, Callable, bool]]:
    """All spellings of an operator of torch, given any of them."""
    name = getattr(func, "__name__", "")
    if name == "__get__":
        name = f"{func.__self__.__name__}.__get__"  # type: ignore[attr-defined]
    bare = (
        name
        if name.endswith(".__get__")
        else name.strip("_").removeprefix("i")
        if name.startswith("__i")
        else name.rstrip("_")
    )
    found = list(spellings(bare))
    return found if any(spelt is func or spelt == func for spelt, *_ in found) else [(func, func, False)]


def unregister_operator(func: Callable) -> None:
    """Undo :func:`register_operator`: the operator gets its previous rule, if it had one.

    Args:
        func: the registered operator, or the result of :func:`register_operator`.

    Raises:
        RuleError: if it was not registered.

    Example:
        >>> import torch
        >>> from lrp_lightning import register_operator, unregister_operator
        >>> _ = register_operator(torch.lgamma, "activation")
        >>> unregister_operator(torch.lgamma)
    """
    ours = [spelt for spelt in dict.fromkeys([func, *(spelt for spelt, *_ in _spelt(func))]) if spelt in _before]
    if not ours:
        raise RuleError(f"{func!r} is not registered; give what register_operator was given, or what it returned")
    for spelt in ours:
        before = _before.pop(spelt)
        if before is None:
            TABLE.pop(spelt, None)
        else:
            TABLE[spelt] = before


@contextmanager
def registered_operator(
    func: Callable, kind: Literal["activation", "gate", "movement", "linear", "product"] | Row
) -> Iterator[Callable]:
    """:func:`register_operator` for the time of a ``with`` statement.

    Args:
        func, kind: as in :func:`register_operator`.

    Raises:
        RuleError: as in :func:`register_operator`.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP, registered_operator
        >>> class Model(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.below, self.above = torch.nn.Linear(4, 8), torch.nn.Linear(8, 3)
        ...     def forward(self, x):
        ...         return self.above(torch.i0(self.below(x)))
        >>> with registered_operator(torch.i0, "activation"):
        ...     SelectiveLRP(Model()).attribute(torch.randn(5, 4), target=0).shape
        torch.Size([5, 4])
    """
    operator = register_operator(func, kind)
    try:
        yield operator
    finally:
        unregister_operator(operator)

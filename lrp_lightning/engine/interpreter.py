"""The interpreter: it watches one ordinary forward of an untouched model, operator by operator.

Each call that reads a tensor which depends on the input takes three steps:

1. read       ``calls.py``: which operator it is, in any spelling; ``aliases.py``: the current values of its arguments
2. row        ``operators/``: the result and facts about it, ``(result, facts)``
3. note       the facts of the result, and whose memory it shares

Rows leave the treatment of values to a visitor. There are three: relevance, gradients, and neurons switched off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lrp_lightning.axes import Axis
from lrp_lightning.compat import base_of, set_grad_enabled, share_memory, variable_functions
from lrp_lightning.engine.aliases import Aliases, Frame, region
from lrp_lightning.engine.calls import (
    READS,
    Call,
    Operator,
    changes_input,
    inplace_at,
    name_of,
    named,
    operator_name,
    tensors_in,
    without_in_place,
)
from lrp_lightning.engine.facts import Facts
from lrp_lightning.engine.layers import Layer
from lrp_lightning.engine.notes import Notes
from lrp_lightning.engine.tokens import LookedUp, Tokens, followed, is_lookup
from lrp_lightning.engine.visitor import Visitor
from lrp_lightning.errors import UnsupportedOperatorError
from lrp_lightning.layers import LayerNames, input_neuron_dim

__all__ = ["Interpreter"]


class Interpreter(TorchFunctionMode):
    """Watches one forward.

    Args:
        names: names of the model's layers.
        table: operators by the functions that call them, or by their full names.
        visitor: the treatment of values.
        samples: number of samples.
    """

    def __init__(self, names: LayerNames, table: dict[Callable | str, Operator], visitor: Visitor, samples: int) -> None:
        super().__init__()
        self.names, self.table, self.visitor, self.samples = names, table, visitor, samples
        self.facts: Notes[Facts] = Notes()
        self.weights: Notes[bool] = Notes()
        """Constants that were computed from a parameter."""
        self.aliases = Aliases()
        self.tokens: Notes[Tokens | None] = Notes()
        """Integers that were computed from token numbers; None if it is unknown from which."""
        self.looked_up: list[LookedUp] = []
        self.inputs: list[Layer | None] = []
        """The layer of each input; None for token numbers."""
        self._found: dict[Callable, Operator] = {}  # operators without a row

    def begin(self, x: Tensor, model: nn.Module, nonnegative: bool = False) -> None:
        """Note an input, samples first, before the forward that reads it.

        The dimension of its neurons is :func:`~lrp_lightning.layers.input_neuron_dim`.
        """
        if not x.is_floating_point():
            self.tokens[x] = Tokens.of_input(len(self.inputs), x)
            self.inputs.append(None)
            return
        samples = Axis.along(x.shape, 0)
        layer = self.visitor.layers.add("input", "input", x, input_neuron_dim(model, x), samples, first=True)
        self.facts[x] = Facts(samples, layer.axis(x.shape), nonnegative, near_input=True)
        self.inputs.append(layer)

    def look_up(self, call: Call, tokens: Tokens) -> tuple[Tensor, Facts]:
        """Rows of an embedding, where relevance ends."""
        rows = call.values()
        if self.visitor.differentiates:
            rows = rows.detach().requires_grad_()
        samples = tokens.samples()
        lost = (
            "" if samples is not None else f"{operator_name(call.func)} in {self.where()} looks up tokens of several samples"
        )
        samples = None if samples is None else samples.insert(rows.ndim - 1, rows.shape[-1])
        layer = self.visitor.layers.add("input", "input", rows, rows.ndim - 1, samples, lost)
        self.looked_up.append(LookedUp(rows, tokens, layer))
        return rows, Facts(samples, layer.axis(rows.shape), lost=lost)

    # for rows

    def known(self, t: Any) -> bool:
        """Whether ``t`` is a tensor that depends on the input: a signal."""
        return isinstance(t, Tensor) and t in self.facts

    def of(self, t: Tensor) -> Facts:
        return self.facts[t]

    def signals(self, given: Iterable[Any]) -> list[Tensor]:
        return [t for t in given if isinstance(t, Tensor) and t in self.facts]

    def dispatch(self, func: Callable, *args: Any, **kwargs: Any) -> Any:
        """Run an operator as if the model had called it."""
        return self.__torch_function__(func, (), args, kwargs)

    def latest(self, t: Any) -> Any:
        """The value of ``t`` after in-place operators."""
        return self.aliases.latest(self.dispatch, t) if isinstance(t, Tensor) else t

    def is_weight(self, t: Any) -> bool:
        """Whether a constant is a parameter or was computed from one."""
        return isinstance(t, Tensor) and (
            isinstance(t, nn.Parameter) or t in self.weights or isinstance(base_of(t), nn.Parameter)
        )

    def unsupported(self, func: Callable, why: str) -> UnsupportedOperatorError:
        return UnsupportedOperatorError(f"{operator_name(func)} in {self.where()}: {why}")

    def where(self) -> str:
        module = self.names.executing()
        return f"module {module!r}" if module else "the model's own forward"

    # one call

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func is set_grad_enabled:
            return None  # a frozen part of the model, run under no_grad, carries relevance like any other
        if func in READS:
            return (
                func(self.latest(args[0]), *args[1:], **kwargs or {})
                if self.aliases.written
                else func(*args, **kwargs or {})
            )
        kwargs = kwargs or {}
        operator = self.table.get(func) or self._unlisted(func)
        given = tensors_in(args, kwargs)
        if not given:
            return func(*args, **kwargs)
        try:
            if operator.asks_in_place(args, kwargs):
                return self._write(func, operator, args, kwargs, given)
            if self.aliases.written and self.aliases.concern(given):
                args, kwargs, given = self._current(args, kwargs, given)
            return self._run(operator, args, kwargs, given)
        except RuntimeError as error:
            self.names.note(error)
            raise

    def _run(
        self, operator: Operator, args: tuple, kwargs: dict[str, Any], given: list[Tensor], in_place: bool = False
    ) -> Any:
        facts = self.facts
        signals = [t for t in given if t in facts]
        if not signals:
            return self._constant(operator, args, kwargs, given)
        visitor = self.visitor
        if visitor.differentiates:
            if torch.is_inference_mode_enabled():
                raise self.unsupported(
                    operator.func, "runs in inference mode, where there is no backward; use no_grad to freeze a part"
                )
            if not torch.is_grad_enabled():  # in the forward of a custom autograd.Function, which has its own backward
                result = operator.func(*args, **kwargs)
                if operator.name == "view_as" and args[0] is args[1]:  # arguments that it returns unchanged
                    facts[result] = facts[args[0]]
                return result
        visitor.read(self, operator, signals)
        return self._row_of(Call(operator, args, kwargs, in_place), given)

    def _row_of(self, call: Call, given: list[Tensor]) -> Any:
        """The result of a call, after noting the facts of its row."""
        facts, operator, args, kwargs = self.facts, call.operator, call.args, call.kwargs
        device = given[0].device.type
        if torch.is_autocast_enabled(device):  # the model's own no_grad; a model is explained with gradients
            with torch.autocast(device, enabled=False):
                result, known = self._row(call, args, kwargs)
        else:
            result, known = self._row(call, args, kwargs)
        if known is not None:
            if isinstance(result, Tensor):
                if result.is_floating_point() or result.is_complex():  # integers carry no relevance
                    facts[result] = known  # type: ignore[assignment]
            else:
                several = known if isinstance(known, list) else None
                for i, t in enumerate(tensors_in((result,))):
                    about = several[i] if several is not None else known
                    if about is not None and (t.is_floating_point() or t.is_complex()):
                        facts[t] = about  # type: ignore[assignment]
        if operator.views:
            self._note_views(result, given)
        return result

    def _row(self, call: Call, args: tuple, kwargs: dict[str, Any]) -> tuple[Any, Facts | list[Facts | None] | None]:
        row = call.operator.row
        if row is None:
            return self.visitor.unlisted(self, call)
        return row(self, call, *args, **(named(kwargs) if kwargs else kwargs))

    def _note_views(self, result: Any, given: list[Tensor]) -> None:
        for t in (result,) if isinstance(result, Tensor) else tensors_in((result,)):
            for parent in given:
                if t is not parent and share_memory(t, parent):
                    self.aliases.view(t, parent)
                    break

    def _constant(self, operator: Operator, args: tuple, kwargs: dict[str, Any], given: list[Tensor]) -> Any:
        """An operator without signals among its arguments: its result is a constant, or rows looked up for tokens."""
        if self.tokens and is_lookup(operator) and any(t in self.tokens for t in given):
            return self._row_of(Call(operator, args, kwargs), given)
        if self.visitor.differentiates:
            for t in given:
                if t.grad_fn is not None and not isinstance(t, nn.Parameter):
                    self.visitor.foreign(self, operator, t)
                    return self._run(operator, args, kwargs, given)
        with torch.no_grad():
            result = operator.func(*args, **kwargs)
        made = tensors_in((result,))
        if made:
            if self.tokens:
                self._note_tokens(Call(operator, args, kwargs), made)
            if any(self.is_weight(t) for t in given):
                for t in made:
                    self.weights[t] = True
            self._note_views(result, given)
        return result

    def _note_tokens(self, call: Call, made: list[Tensor]) -> None:
        """Facts about integers that an operator computed from token numbers, or wrote to."""
        given = [t for t in call.tensors if t in self.tokens]
        made = [t for t in made if not (t.is_floating_point() or t.dtype == torch.bool)]
        if not given or not made or call.operator.lends_shape:
            return
        whole = all(self.tokens[t] is not None for t in given)
        for t, tokens in zip(made, followed(call, made, self.tokens.get) if whole else [None] * len(made), strict=True):
            self.tokens[t] = tokens

    def _current(
        self, args: tuple, kwargs: dict[str, Any], given: list[Tensor]
    ) -> tuple[tuple, dict[str, Any], list[Tensor]]:
        """The current values of the arguments."""
        latest = [self.aliases.latest(self.dispatch, t) for t in given]
        if all(t is new for t, new in zip(given, latest, strict=True)):
            return args, kwargs, given
        by_id = {id(t): new for t, new in zip(given, latest, strict=True)}
        call = Call(_ANY, args, kwargs).map(lambda t: by_id.get(id(t), t))
        return call.args, call.kwargs, latest

    def _write(self, func: Callable, operator: Operator, args: tuple, kwargs: dict[str, Any], given: list[Tensor]) -> Any:
        """An operator that changes a tensor, run out of place."""
        out = kwargs.get("out")
        targets = tensors_in((out,)) if out is not None else given[:1]
        plain_args, plain_kwargs = without_in_place(operator, args, kwargs)
        read = tensors_in(plain_args, plain_kwargs)
        if self.aliases.written and self.aliases.concern(read):
            plain_args, plain_kwargs, read = self._current(plain_args, plain_kwargs, read)
        tops = [self.latest(self.aliases.top_of(t)) for t in targets]
        if out is None and tops[0] in self.facts and read and read[0] not in self.facts:
            # a constant that shares memory with a signal, as after detach: values that are not written stay a signal
            top, place = self.aliases.top_of(targets[0]), targets[0]
            signal = self.dispatch(region, tops[0], Frame.of(top), Frame.of(place))
            constant, read = read[0], [signal, *read[1:]]
            changed = Call(_ANY, plain_args, plain_kwargs).map(lambda t: signal if t is constant else t)
            plain_args, plain_kwargs = changed.args, changed.kwargs
        if not any(t in self.facts for t in (*read, *tops)):
            if self.visitor.differentiates and any(t.grad_fn is not None for t in read):
                self._constant(operator, plain_args, plain_kwargs, read)  # raises torch's error
            with torch.no_grad():
                changed = func(*args, **kwargs)
            if self.tokens:
                self._note_tokens(Call(operator, plain_args, plain_kwargs), targets)
            return changed
        result = self._run(operator, plain_args, plain_kwargs, read, in_place=True)
        made = tensors_in((result,))
        if operator.in_place and operator.name in _DIMENSIONS_ONLY:
            return self.aliases.rename(targets[0], made[0])
        if len(made) == 1 and made[0] is read[0]:  # it is unchanged
            return made[0]
        written = [self._write_to(target, new) for target, new in zip(targets, made, strict=False)]
        return written[0] if isinstance(result, Tensor) else type(result)(written)

    def _write_to(self, target: Tensor, new: Tensor) -> Tensor:
        if new.dtype != target.dtype:
            new = self.dispatch(Tensor.to, new, target.dtype)
        if new.shape != target.shape and target.numel() != 0:
            new = self.dispatch(torch.broadcast_to, new, target.shape)
        if new is target or new in self.aliases.places:  # a view of another tensor, which is not written to
            new = self.dispatch(torch.clone, new)
        return self.aliases.write(self.dispatch, target, new)

    def _unlisted(self, func: Callable) -> Operator:
        """An operator without a row."""
        known = self._found.get(func)
        if known is not None:
            return known
        of_library = self.table.get(str(func))
        if of_library is not None:
            self._found[func] = replace(of_library, func=func)
            return self._found[func]
        in_place = changes_input(func)
        name = name_of(func)
        if isinstance(func, FunctionType):  # another library may have replaced one of torch's functions by it
            replaced = next((n for n in dir(variable_functions) if getattr(torch, n, None) is func), "")
            original = self.table.get(getattr(variable_functions, replaced, None))  # type: ignore[arg-type]
            if original is not None:
                self._found[func] = original
                return original
        plain = func
        if in_place and name != "__setitem__":
            bare = name.removeprefix("__i").strip("_")
            found = next((f for owner in (torch, Tensor, torch.nn.functional) if (f := getattr(owner, bare, None))), None)
            plain = found if found is not None else func
            name = bare
        found = self._found[func] = Operator(name, plain, None, in_place, inplace_at(func), views=True)
        return found


_ANY = Operator("", lambda *_: None, None)
_DIMENSIONS_ONLY = ("squeeze", "unsqueeze", "transpose", "swapaxes", "swapdims", "t")

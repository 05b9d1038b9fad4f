"""The mode that watches one ordinary forward of an untouched model and puts LRP's backwards in place.

``operators.py`` says what each operator's backward is; this module says what the operators may know and do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils.weak import WeakIdKeyDictionary

from lrp_lightning.engine.affine import AffineMap, away_from_zero, hand_down
from lrp_lightning.engine.recording import Layer, Recording
from lrp_lightning.errors import UnsupportedOperatorError
from lrp_lightning.layers import neuron_dim, over_space

__all__ = ["Facts", "MadeBy", "RelevanceMode", "tensors_in"]


@dataclass(frozen=True)
class MadeBy:
    """The affine map whose output a tensor is, for a normalisation to fold into."""

    op: AffineMap
    a: Tensor
    w: Tensor
    b: Tensor | None
    layer: Layer


@dataclass(frozen=True)
class Facts:
    """What is known, beside its values and without looking at them, about a tensor that carries relevance."""

    nonnegative: bool = False
    near_input: bool = False
    """Reached from the input through data movement and normalisation only."""
    dim: int | None = None
    """Which dimension holds the neurons, where that is known."""
    ids: Tensor | None = None
    """Which neuron each value came from: broadcasts over the tensor. Only where edges are wanted."""
    made_by: MadeBy | None = None


def tensors_in(values: Any) -> Iterator[Tensor]:
    """The tensors among an operator's arguments or results, lists and tuples looked into."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)


class RelevanceMode(TorchFunctionMode):
    """Intercepts every operator of the forward pass that touches a tensor which carries relevance."""

    def __init__(self, recording: Recording, table: dict[Callable, Callable]) -> None:
        super().__init__()
        self.recording = recording
        self.table = table
        self.facts = WeakIdKeyDictionary()
        self.changed = WeakIdKeyDictionary()  # tensor changed in place -> what it is now, None if not known

    # what operators ask

    def known(self, t: Any) -> bool:
        """Whether ``t`` is a tensor that carries relevance."""
        return isinstance(t, Tensor) and t in self.facts

    def of(self, t: Tensor) -> Facts:
        return self.facts[t]

    def learn(self, t: Tensor, facts: Facts) -> Tensor:
        """Note that ``t`` carries relevance, and what is known of it."""
        self.facts[t] = facts
        return t

    def now(self, t: Tensor, new: Tensor) -> Tensor:
        """From here on ``t`` stands for ``new``: an in-place operator, run out of place."""
        if t is not new:
            self.changed[t] = new
            if t._base is not None and t._base in self.facts:
                self.changed[t._base] = None
        return new

    def unsupported(self, func: Callable, why: str) -> UnsupportedOperatorError:
        module = self.recording.names.executing()
        where = f"module {module!r}" if module else "the model's own forward"
        return UnsupportedOperatorError(f"{operator_name(func)} in {where}: {why}")

    # affine maps

    def unit_layer(
        self, op: AffineMap, a: Tensor, w: Tensor, b: Tensor | None, y: Tensor, name: str, into: Layer | None = None
    ) -> Tensor:
        """Make ``y = w a + b`` the output of a unit layer; ``into`` is the layer that a normalisation was folded into."""
        facts = self.of(a)
        w, b = w.detach(), None if b is None else b.detach()
        dim = neuron_dim(y, op.kind)
        layer = self.recording.layer(name, op.kind, y, dim, first=facts.near_input)
        if into is not None:
            self.recording.fold(into, layer)
        ids = feature_ids(facts.ids, a, neuron_dim(a, op.kind)) if self.recording.want_edges else None
        out = _Affine.apply(a, y, w, b, op, layer, facts.nonnegative, ids, self.recording)
        return self.learn(
            out,
            Facts(
                near_input=facts.near_input and op.kind == "normalisation",
                dim=dim,
                ids=layer.ids(y.ndim) if self.recording.want_edges else None,
                made_by=MadeBy(op, a, w, b, layer),
            ),
        )

    # sums

    def junction(self, y: Tensor, parts: list[tuple[Tensor, float]], nonnegative: bool) -> Tensor:
        """Note that ``y`` adds several tensors that carry relevance, each with its factor; autograd splits it by value."""
        recording = self.recording
        all_ids = [self.of(t).ids for t, _ in parts]
        known_dims = [f.dim for f in map(self.of, (t for t, _ in parts)) if f.dim is not None]
        dim = known_dims[0] if known_dims else (y.ndim - 1 if y.ndim == 3 else 1)
        base = recording.names.executing()
        layer = recording.layer(f"{base}.add" if base else "add", "junction", y, dim)
        value = y.detach()
        addends = [(t.detach(), factor) for t, factor in parts] if recording.want_edges else []
        ids = [feature_ids(i, t, dim - y.ndim + t.ndim) for i, (t, _) in zip(all_ids, parts, strict=True)]

        def arrive(g: Tensor) -> None:
            recording.arrive(layer, value, g)
            for part_ids, (addend, factor) in zip(ids, addends, strict=False):
                r = over_space(addend.expand(g.shape) * g * factor, dim).sum(0)
                recording.connect_junction(part_ids, layer, r)

        y.register_hook(arrive)
        return self.learn(y, Facts(nonnegative, dim=dim, ids=layer.ids(y.ndim) if recording.want_edges else None))

    def constant_added(self, y: Tensor, t: Tensor, constant: Tensor | float, factor: float) -> Tensor:
        """Note that ``y`` is ``t`` and a constant; what relevance the constant takes is counted."""
        recording, names, facts = self.recording, self.recording.names, self.of(t)
        owner = names.of_parameter.get(id(constant))
        where = owner or f"{names.executing()}.constant".removeprefix(".")
        value = constant.detach() if isinstance(constant, Tensor) else constant

        def absorb(g: Tensor) -> None:
            recording.absorb(where, (g * value * factor).flatten(1).sum(1))

        y.register_hook(absorb)
        return self.learn(y, replace(facts, nonnegative=False, made_by=None))

    # the mode itself

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if self.changed:
            args, kwargs = self._current(func, args), {k: self._current(func, (v,))[0] for k, v in kwargs.items()}
        if func is torch._C._set_grad_enabled:
            return None  # a frozen part of the model, run under no_grad, carries relevance like any other
        given = list(tensors_in((args, tuple(kwargs.values()))))
        if not any(t in self.facts for t in given):
            return self._constant(func, given, args, kwargs)
        row = self.table.get(func)
        if row is not None:
            return row(self, func, args, kwargs)
        return self._unlisted(func, args, kwargs)

    def _current(self, func: Callable, values: tuple) -> tuple:
        """The arguments as they are now, tensors that were changed in place replaced."""

        def current(value: Any) -> Any:
            if isinstance(value, list | tuple) and any(True for _ in tensors_in(value)):
                return type(value)(current(v) for v in value) if type(value) in (list, tuple) else value
            if not isinstance(value, Tensor):
                return value
            while value in self.changed:
                value = self.changed[value]
                if value is None:
                    break
            if value is None or (value._base is not None and value._base in self.changed and value not in self.facts):
                raise self.unsupported(func, "reads a tensor whose values were changed through a view of it")
            return value

        return tuple(current(value) for value in values)

    def _constant(self, func: Callable, given: list[Tensor], args: tuple, kwargs: dict[str, Any]) -> Any:
        """An operator on nothing that carries relevance: its result is a constant."""
        for t in given:
            if t.grad_fn is not None and not isinstance(t, nn.Parameter):
                made_by = t.grad_fn.name()
                raise self.unsupported(
                    func,
                    f"reads a tensor made by {made_by}, which did not go through torch's overridable operators (a custom "
                    "autograd.Function?), so relevance cannot follow it",
                )
        if not given:
            return func(*args, **kwargs)
        with torch.no_grad():
            return func(*args, **kwargs)

    def _unlisted(self, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        """An operator that is in no row: harmless if its result carries no relevance (a size, a comparison)."""
        name = getattr(func, "__name__", "")
        result = None
        if not (name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))):
            result = func(*args, **kwargs)
            if not any(t.requires_grad for t in tensors_in((result,))):
                return result
        raise self.unsupported(func, "mixes values and has no rule, so relevance cannot pass through it")


def operator_name(func: Callable) -> str:
    """A name to show: ``torch.Tensor.cumsum``."""
    return resolve_name(func) or getattr(func, "__qualname__", None) or repr(func)


def feature_ids(ids: Tensor | None, t: Tensor, dim: int) -> Tensor | None:
    """One neuron number for each index of ``dim``, or None if that does not tell them apart."""
    if ids is None or ids.ndim != t.ndim or ids.numel() not in (ids.shape[dim], 1):
        return None
    return ids.flatten().expand(t.shape[dim])


class _Affine(torch.autograd.Function):
    """A unit layer: gives the ``y`` it is handed, and hands relevance down in its backward."""

    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        y: Tensor,
        w: Tensor,
        b: Tensor | None,
        op: AffineMap,
        layer: Layer,
        nonnegative: bool,
        ids: Tensor | None,
        recording: Recording,
    ) -> Tensor:
        ctx.save_for_backward(a, y, w, b)
        ctx.op, ctx.layer, ctx.nonnegative, ctx.ids, ctx.recording = op, layer, nonnegative, ids, recording
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        a, y, w, b = ctx.saved_tensors
        recording: Recording = ctx.recording
        layer: Layer = ctx.layer.folded_into or ctx.layer
        r = recording.arrive(layer, y, grad[0])
        assert layer.rule is not None
        try:
            down = hand_down(ctx.op, layer.rule, a, y, w, b, r, ctx.nonnegative, recording.want_edges)
        except Exception as error:
            error.add_note(f"in layer {layer.name!r}") if hasattr(error, "add_note") else None
            raise
        if b is not None:
            recording.absorb(f"{layer.name}.bias", down.bias)
        recording.absorb(f"{layer.name}.stabiliser", down.stabiliser)
        if down.edges is not None:
            recording.connect(ctx.ids, layer, down.edges)
        return down.g, *[None] * 8


class Activation(torch.autograd.Function):
    """An element-wise non-linearity: relevance passes unchanged, ``g_x = g_y y / x``; 0 where ``x`` is 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, proportional: bool) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.proportional = proportional
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        if ctx.proportional:
            return torch.where(x == 0, 0, grad[0] * y / x), None, None
        return grad[0] * away_from_zero(y) / away_from_zero(x), None, None


def affine_layers_below(output: Tensor) -> list[Layer]:
    """The unit layers whose output reaches ``output`` without another unit layer between."""
    found: list[Layer] = []
    todo: list[Any] = [output.grad_fn]
    seen = set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        layer = getattr(node, "layer", None)  # what _Affine.forward kept, on autograd's node
        if isinstance(layer, Layer):
            found.append(layer.folded_into or layer)
        else:
            todo.extend(below for below, _ in node.next_functions)
    return found

"""The mode that watches one ordinary forward of an untouched model and puts LRP's backwards in place.

``operators.py`` says what each operator's backward is; this module says what the operators may know and do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.nn.modules._functions import BackwardHookFunction
from torch.overrides import TorchFunctionMode, resolve_name

from lrp_lightning.engine.affine import AffineMap, Linear, UnitMap, away_from_zero, hand_down, mean_magnitude
from lrp_lightning.engine.dimensions import moved
from lrp_lightning.engine.notes import Notes
from lrp_lightning.engine.origins import feature_ids, run_of
from lrp_lightning.engine.recording import Layer, Recording
from lrp_lightning.errors import RuleError, UnsupportedOperatorError
from lrp_lightning.layers import LayerNames, neuron_dim, per_neuron

__all__ = ["Facts", "Kept", "MadeBy", "RelevanceMode", "likely_dim", "tensors_in"]


@dataclass(frozen=True)
class MadeBy:
    """The affine map whose output a tensor is, for a normalisation to fold into."""

    op: AffineMap
    a: Tensor
    w: Tensor
    b: Tensor | None
    layer: Layer


@dataclass(eq=False)
class Kept:
    """The output of a unit layer or a junction as its backward will want it.

    Where a rectifier is its only reader, no relevance comes to what is not positive. So what the rectifier gives is kept in
    its place, which the next layer keeps anyway, and the output itself is let go.
    """

    value: Tensor
    layer: Layer
    rectified: bool = False
    mean: Tensor | None = None
    """Mean of the output's ``|y|`` in each sample, where what is kept is rectified and that is asked for."""
    readers: int = 0

    def rectify(self, rectified: Tensor, mean: Tensor | None) -> None:
        self.value, self.rectified, self.mean = rectified, True, mean

    def read(self, t: Tensor) -> None:
        """Note that an operator reads the output ``t``; if it is not the first, all of it is wanted again."""
        self.readers += 1
        if self.readers > 1 and self.rectified:
            self.value, self.rectified, self.mean = t.detach(), False, None


@dataclass(frozen=True)
class Facts:
    """What is known, beside its values and without looking at them, about a tensor that carries relevance."""

    nonnegative: bool = False
    near_input: bool = False
    """Reached from the input through data movement and normalisation only."""
    gate: bool = False
    """Made to weigh another signal (a sigmoid, a softmax, a deviation): a constant in a product with one."""
    dim: int | None = None
    """Which dimension holds the neurons, where that is known."""
    ids: Tensor | None = None
    """Which neuron each value came from: broadcasts over the tensor. Only where that is to be known; None if it is not."""
    made_by: MadeBy | None = None
    samples: int | None = 0
    """Which dimension holds the samples, None if they are lost; windows or patches of one sample may lie together in it."""


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
        self.facts: Notes[Facts] = Notes()
        self.kept: Notes[Kept] = Notes()  # output of a layer -> what its backward keeps of it
        self._running: tuple | None = None  # the operator that a row is at work for: func, args, kwargs, its first signal
        self.changed: Notes[Tensor | None] = Notes()  # tensor changed in place -> what it is now, None if not known

    # what operators ask

    @property
    def names(self) -> LayerNames:
        return self.recording.names

    def known(self, t: Any) -> bool:
        """Whether ``t`` is a tensor that carries relevance."""
        return isinstance(t, Tensor) and t in self.facts

    def of(self, t: Tensor) -> Facts:
        return self.facts[t]

    def learn(self, t: Tensor, facts: Facts) -> Tensor:
        """Note that ``t``, made by the running operator, carries relevance, and what else is known of it."""
        samples, dim = facts.samples, facts.dim
        if self._running is not None:
            samples = self.samples_in(t)
            dim = self._neurons_in(t) if dim is None else dim
        same = samples == facts.samples and dim == facts.dim
        self.facts[t] = facts if same else replace(facts, samples=samples, dim=dim)
        return t

    def samples_in(self, y: Tensor) -> int | None:
        """Which dimension of ``y``, made by the running operator, holds the samples."""
        assert self._running is not None
        if self.recording.samples == 1:
            return 0
        func, args, kwargs, t = self._running
        was = self.of(t).samples
        return None if was is None else moved(func, args, kwargs, t, was, y, self.recording.samples)

    def _neurons_in(self, y: Tensor) -> int | None:
        func, args, kwargs, t = self._running  # type: ignore[misc]
        was = self.of(t).dim
        now = None if was is None else moved(func, args, kwargs, t, was, y)
        return now if now is not None and y.shape[now] == t.shape[was] else None

    def sources(self, values: Any) -> list[Tensor]:
        """The tensors among an operator's arguments that carry relevance."""
        return [t for t in tensors_in(values) if t in self.facts]

    def dispatch(self, func: Callable, *args: Any, **kwargs: Any) -> Any:
        """Run an operator as if the model had called it."""
        return self.__torch_function__(func, (), args, kwargs)

    def now(self, t: Tensor, new: Tensor) -> Tensor:
        """From here on ``t`` stands for ``new``: an in-place operator, run out of place."""
        if t is not new:
            for other in [o for o in self.facts if o is not t and o is not new and o not in self.changed]:
                if share_memory(other, t):
                    self.changed[other] = None
            self.changed[t] = new
        return new

    def latest(self, t: Any, reader: Callable) -> Any:
        """What ``t``, which ``reader`` reads, is after all that was done to it in place."""
        while isinstance(t, Tensor) and t in self.changed:
            t = self.changed[t]
            if t is None:
                raise self.unsupported(reader, "reads a tensor whose values were changed through a view of it")
        return t

    def unsupported(self, func: Callable, why: str) -> UnsupportedOperatorError:
        module = self.names.executing()
        where = f"module {module!r}" if module else "the model's own forward"
        return UnsupportedOperatorError(f"{operator_name(func)} in {where}: {why}")

    # affine maps

    def unit_layer(
        self, op: AffineMap, a: Tensor, w: Tensor, b: Tensor | None, y: Tensor, name: str, into: Layer | None = None
    ) -> Tensor:
        """Make ``y = w a + b`` the output of a unit layer; ``into`` is the layer that a normalisation was folded into."""
        a = self.relay(a, neuron_dim(a, op.kind))
        facts = self.of(a)
        w, b = w.detach(), None if b is None else b.detach()
        dim = neuron_dim(y, op.kind)
        layer = self.recording.layer(name, op.kind, y, dim, facts.near_input, facts.samples)
        if into is not None:
            self.recording.fold(into, layer)
        ids = feature_ids(facts.ids, a, neuron_dim(a, op.kind))
        kept = Kept(y, layer)
        out = _Affine.apply(a, kept, w, b, op, layer, facts.nonnegative, ids, self.recording, facts.samples)
        self.kept[out] = kept
        return self.learn(
            out,
            Facts(
                near_input=facts.near_input and op.kind == "normalisation",
                dim=dim,
                ids=layer.ids(y.ndim) if self.recording.follows else None,
                made_by=MadeBy(op, a, w, b, layer),
            ),
        )

    def rectified(self, x: Tensor, in_place: bool) -> Tensor:
        """``x`` with what is negative at zero, which is also what its layer's backward keeps if nobody else reads ``x``."""
        kept, recording = self.kept.get(x), self.recording
        if kept is None or kept.readers > 1:
            return torch.relu(x)
        layer = kept.layer
        with torch.no_grad():
            if recording.want_edges:
                recording.activate(layer, x.detach())
            mean = mean_magnitude(x, layer.samples, recording.samples) if recording.needs_scale(layer) else None
            # in memory of x where the model wants that; not noticed by autograd, which would mind: nothing but the layer's
            # backward kept it
            y = kept.value.data.relu_() if in_place else torch.relu(x.detach())
        kept.rectify(y, mean)
        return _Rectified.apply(x, y, kept)

    def projection(self, a: Tensor, w: Tensor, b: Tensor | None, y: Tensor, name: str) -> Tensor:
        """A linear layer of a part of a parameter; a constant projects to a constant."""
        if a not in self.facts:
            return y
        outer, self._running = self._running, (F.linear, (a,), {}, a)
        try:
            return self.unit_layer(Linear(), a, w, b, y, name)
        finally:
            self._running = outer

    def values(self) -> AbstractContextManager:
        return torch.no_grad()

    # sums

    def junction(self, y: Tensor, parts: list[tuple[Tensor, float]], nonnegative: bool) -> Tensor:
        """Note that ``y`` adds several tensors that carry relevance, each with its factor; autograd splits it by value."""
        known_dims = [f.dim for f in map(self.of, (t for t, _ in parts)) if f.dim is not None]
        dim = known_dims[0] if known_dims else likely_dim(y)
        layer = self.recording.layer(self.names.here("add"), "junction", y, dim, samples=self.samples_in(y))
        self.kept[y] = self._collect(layer, y, parts)
        gate = all(self.of(t).gate for t, _ in parts)
        own_ids = layer.ids(y.ndim) if self.recording.follows else None
        return self.learn(y, Facts(nonnegative, gate=gate, dim=dim, ids=own_ids))

    def shared(self, y: Tensor, signals: list[Tensor], what: str) -> Tensor:
        """Where edges are wanted, a node over ``y``, a product whose relevance its signals get in equal shares."""
        facts, recording = self.of(y), self.recording
        if not recording.follows or facts.samples is None or any(self.of(t).ids is None for t in signals):
            return y
        node = y.view_as(y)  # what arrives there is still whole
        dim = facts.dim if facts.dim is not None else likely_dim(y)
        layer = recording.layer(self.names.here(what), "junction", node, dim, samples=facts.samples)
        self._collect(layer, node, [(t, 1 / len(signals)) for t in signals], node.detach())
        self.facts[node] = replace(facts, dim=dim, ids=layer.ids(y.ndim))
        return node

    def _collect(self, layer: Layer, y: Tensor, parts: list[tuple[Tensor, float]], whole: Tensor | None = None) -> Kept:
        """Note what relevance arrives at ``y``, a node without weights, and what it hands to each of the tensors in it.

        Each gets what its own value, or with ``whole`` that, times its factor makes of ``g``.
        """
        recording, kept = self.recording, Kept(y.detach(), layer)
        from_where = [] if not recording.want_edges else [
            (t.detach() if whole is None else whole, factor, self.of(t).ids) for t, factor in parts
        ]  # fmt: skip

        def arrive(g: Tensor) -> None:
            recording.arrive(layer, kept.value, g)
            for part, factor, ids in from_where:
                recording.connect_values(ids, layer, recording.relevance_of(part.expand(g.shape), g, layer.first) * factor)

        y.register_hook(arrive)
        if recording.along is not None:
            for t, _ in parts:
                self._keep_to_paths(layer, t)
        return kept

    def _keep_to_paths(self, layer: Layer, t: Tensor) -> None:
        """Let the relevance that ``layer`` hands to ``t``, which nothing else reads, run along the paths only."""
        recording, facts = self.recording, self.of(t)
        assert facts.samples is not None
        at = facts.samples
        t.register_hook(lambda g: g * recording.onward(layer, facts.ids, g, at))

    def apart(self, t: Any) -> Any:
        """A tensor of the same values that one node alone reads, so that what is handed to it there can be chosen."""
        if self.recording.along is None or not self.known(t):
            return t
        view = t.view_as(t)
        self.facts[view] = self.facts[t]
        return view

    def relay(self, t: Tensor, dim: int) -> Tensor:
        """``t``, whose values along ``dim`` each come from one neuron: where several meet in one, a node of its own."""
        facts = self.of(t)
        if facts.ids is None or facts.samples is None or feature_ids(facts.ids, t, dim) is not None:
            return t
        part = self.apart(t)
        y = part.view_as(part)
        layer = self.recording.layer(self.names.here("values"), "junction", y, dim, facts.near_input, facts.samples)
        self._collect(layer, y, [(part, 1.0)])
        self.facts[y] = replace(facts, dim=dim, ids=layer.ids(y.ndim), made_by=None)
        return y

    def constant_added(
        self, y: Tensor, t: Tensor, constant: Tensor | float, factor: float, factor_of_t: float = 1.0
    ) -> Tensor:
        """Note that ``y`` is ``t`` and a constant, each with its factor; what relevance the constant takes is counted."""
        names = self.recording.names
        value = constant.detach() if isinstance(constant, Tensor) else constant
        facts = self.of(t)
        self.learn(y, replace(facts, nonnegative=False, made_by=None))
        if isinstance(value, Tensor) or value != 0:
            where = names.of_parameter.get(id(constant)) or names.here("constant")
            self.count(y, value * factor, where)
            self._keeps(y, t, factor_of_t, value * factor, where)
        return y

    def _keeps(self, y: Tensor, t: Tensor, factor: float, part: Tensor | float, where: str) -> None:
        """Where edges are wanted, make ``y``, a sum of ``t`` and a constant ``part``, a node that keeps some relevance."""
        facts, recording = self.of(t), self.recording
        if not recording.follows or facts.ids is None or facts.gate or self.of(y).samples is None:
            return
        dim = facts.dim + y.ndim - t.ndim if facts.dim is not None else likely_dim(y)
        layer = recording.layer(where, "junction", y, dim, facts.near_input, self.of(y).samples)
        self._collect(layer, y, [(t, factor)])
        if recording.want_edges:

            def stay(g: Tensor) -> None:
                kept = torch.where(g == 0, 0, g * part)  # part may be infinite
                recording.stay(layer, per_neuron(kept, dim, layer.samples))

            y.register_hook(stay)
        self.facts[y] = replace(self.of(y), dim=dim, ids=layer.ids(y.ndim))

    # what does not reach the input

    def count(self, y: Tensor, part: Tensor | float, where: str) -> None:
        """Count the relevance of ``part``, a constant that ``y`` is a sum of, or is in some places."""
        recording, samples = self.recording, self.samples_in(y)
        if not y.requires_grad:
            return
        y.register_hook(lambda g: recording.absorb(where, torch.where(g == 0, 0, g * part), samples))  # part may be infinite

    def with_account(self, func: Callable, args: tuple, kwargs: dict[str, Any], what: str) -> Any:
        """Run an operator with its plain gradient, and count what relevance comes to it and is not handed on by it."""
        recording = self.recording
        where = recording.names.here(what)

        def watched(value: Any) -> Any:
            if isinstance(value, list | tuple):
                return type(value)(map(watched, value)) if any(True for _ in tensors_in(value)) else value
            if not self.known(value):
                return value
            t, samples = value.view_as(value), self.of(value).samples
            t.register_hook(lambda g: recording.absorb(where, -g * value.detach(), samples))
            return t

        result = func(*watched(args), **{k: watched(v) for k, v in kwargs.items()})
        for t in tensors_in((result,)):
            if t.requires_grad:
                self.count(t, t.detach(), where)
        return result

    def valued(self, gradient_of: Tensor, value: Tensor) -> Tensor:
        """A tensor of this value with the gradient of another."""
        return _Valued.apply(gradient_of, value)

    def weighed(self, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
        """A product: gates in it are constants beside a signal, and of several signals each takes an equal share."""
        known = self.sources((args, kwargs.values()))
        signals = [t for t in known if not self.of(t).gate] or known
        if len(signals) < len(known):
            constant = {id(t) for t in known} - {id(t) for t in signals}

            def weigh(value: Any) -> Any:
                if isinstance(value, list | tuple):
                    return type(value)(map(weigh, value)) if any(True for _ in tensors_in(value)) else value
                return value.detach() if id(value) in constant else value

            args, kwargs = weigh(args), {k: weigh(v) for k, v in kwargs.items()}
        y = func(*args, **kwargs)
        if len(signals) > 1:
            y.register_hook(lambda g: g / len(signals))
        return y

    # the mode itself

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if self.changed:
            args, kwargs = self._current(func, args), {k: self._current(func, (v,))[0] for k, v in kwargs.items()}
        if func is torch._C._set_grad_enabled:
            return None  # a frozen part of the model, run under no_grad, carries relevance like any other
        given = [*tensors_in(args), *tensors_in(kwargs.values())] if kwargs else list(tensors_in(args))
        first = next((t for t in given if t in self.facts), None)
        if first is None:
            return self._constant(func, given, args, kwargs)
        row = self.table.get(func) or self._unlisted
        self._check(func, given)
        for t in given:
            kept = self.kept.get(t)
            if kept is not None:
                kept.read(t)
        outer, self._running = self._running, (func, args, kwargs, first)
        try:
            device = given[0].device.type
            if not torch.is_autocast_enabled(device):
                return row(self, func, args, kwargs)
            with torch.autocast(device, enabled=False):  # the model's own; a model is explained without
                return row(self, func, args, kwargs)
        except RuntimeError as error:
            self.names.note(error)
            raise
        finally:
            self._running = outer

    def _check(self, func: Callable, given: list[Tensor]) -> None:
        """Refuse what cannot be differentiated, or would be by a backward that is not LRP's."""
        if torch.is_inference_mode_enabled():
            raise self.unsupported(func, "runs in inference mode, where there is no backward; use no_grad to freeze a part")
        for t in given:
            if t in self.facts and is_custom(t.grad_fn):
                where = f"{t.grad_fn.name()} in {self.names.executing() or 'the model'}"  # type: ignore[union-attr]
                if self.recording.on_unsupported != "gradient":
                    raise self.unsupported(
                        func, f"reads a tensor made by {where}, a custom autograd.Function whose backward is not LRP's"
                    )
                if where not in self.recording.unsupported:
                    self.recording.unsupported.append(where)

    def _current(self, func: Callable, values: tuple) -> tuple:
        """The arguments as they are now, tensors that were changed in place replaced."""

        def current(value: Any) -> Any:
            if isinstance(value, list | tuple) and any(True for _ in tensors_in(value)):
                return type(value)(current(v) for v in value) if type(value) in (list, tuple) else value
            return self.latest(value, func)

        return tuple(current(value) for value in values)

    def _constant(self, func: Callable, given: list[Tensor], args: tuple, kwargs: dict[str, Any]) -> Any:
        """An operator on nothing that carries relevance: its result is a constant."""
        for t in given:
            if t.grad_fn is not None and not isinstance(t, nn.Parameter):
                made_by = t.grad_fn.name()
                if self.recording.on_unsupported == "gradient":
                    self.recording.unsupported.append(f"{made_by} in {self.names.executing() or 'the model'}")
                    self.learn(t, Facts())
                    return self.__torch_function__(func, (), args, kwargs)
                raise self.unsupported(
                    func,
                    f"reads a tensor made by {made_by}, which did not go through torch's overridable operators (a custom "
                    "autograd.Function?), so relevance cannot follow it",
                )
        if not given:
            return func(*args, **kwargs)
        with torch.no_grad():
            return func(*args, **kwargs)

    @staticmethod
    def _unlisted(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        """An operator that is in no row: harmless if its result carries no relevance (a size, a comparison)."""
        name = getattr(func, "__name__", "")
        in_place = kwargs.get("inplace", False) or kwargs.get("out") is not None
        if not (in_place or name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))):
            result = func(*args, **kwargs)
            if not any(t.requires_grad for t in tensors_in((result,))):
                return result
            if mode.recording.on_unsupported == "gradient":
                return mode.by_gradient(func, args, kwargs)
        raise mode.unsupported(
            func,
            "mixes values and has no rule, so relevance cannot pass through it. Give it one with "
            'lrp_lightning.register_operator, or use its plain gradient with on_unsupported="gradient"',
        )

    def by_gradient(self, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Run an operator that has no rule with its plain gradient, and say so."""
        where = f"{operator_name(func)} in {self.names.executing() or 'the model'}"
        if where not in self.recording.unsupported:
            self.recording.unsupported.append(where)
        result = self.with_account(func, args, kwargs, getattr(func, "__name__", "operator"))
        for t in tensors_in((result,)):
            if t.requires_grad:
                self.learn(t, Facts())
        return result


def is_custom(node: Any) -> bool:
    """Whether a node of autograd's graph is of a Function of the model's own, whatever operators its forward is made of."""
    ours_or_harmless = (_Affine, _Rectified, _Valued, Activation, BackwardHookFunction)
    return isinstance(node, BackwardCFunction) and not issubclass(node._forward_cls, ours_or_harmless)  # type: ignore[attr-defined]


def share_memory(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have a value in common."""
    aliases = torch._C._is_alias_of(one, other)  # type: ignore[attr-defined]
    if not aliases or one.dtype != other.dtype:
        return False
    values = torch.zeros(one.untyped_storage().nbytes() // one.element_size(), dtype=torch.bool)  # a map of the memory
    values.as_strided(one.shape, one.stride(), one.storage_offset()).fill_(True)
    return bool(values.as_strided(other.shape, other.stride(), other.storage_offset()).any())


def operator_name(func: Callable) -> str:
    """A name to show: ``torch.Tensor.cumsum``."""
    return resolve_name(func) or getattr(func, "__qualname__", None) or repr(func)


def likely_dim(y: Tensor) -> int:
    """Which dimension holds the neurons, where nothing tells: the last of tokens, 1 of all else."""
    return y.ndim - 1 if y.ndim == 3 else 1


class _Affine(torch.autograd.Function):
    """A unit layer: gives the ``y`` it is handed, and hands relevance down in its backward."""

    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        kept: Kept,
        w: Tensor,
        b: Tensor | None,
        op: AffineMap,
        layer: Layer,
        nonnegative: bool,
        ids: Tensor | None,
        recording: Recording,
        samples: int | None,
    ) -> Tensor:
        ctx.save_for_backward(a, w, b)
        ctx.op, ctx.kept, ctx.layer, ctx.nonnegative, ctx.ids, ctx.recording = op, kept, layer, nonnegative, ids, recording
        ctx.samples = samples
        return kept.value.view_as(kept.value)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        a, w, b = ctx.saved_tensors
        kept, ctx.kept = ctx.kept, None  # let go here, as autograd lets go of what it saved
        recording: Recording = ctx.recording
        layer: Layer = ctx.layer.folded_into or ctx.layer
        assert layer.rule is not None
        run = run_of(ctx.ids) if ctx.op.kind == "linear" and recording.want_edges else 1
        unit = UnitMap(
            ctx.op, layer.rule, w, b, layer.samples, ctx.nonnegative, kept.rectified,
            recording.proportional_below(layer.first), recording.want_edges, recording.per_sample, run,
        )  # fmt: skip
        try:
            select = recording.selecting(layer, kept.value, grad[0])
            down = hand_down(unit, a, kept.value, grad[0], recording.samples, select, kept.mean)
        except RuleError as error:
            raise RuleError(f"layer {layer.name!r} with {layer.rule}: {error}") from error
        except Exception as error:
            error.add_note(f"in layer {layer.name!r}") if hasattr(error, "add_note") else None
            raise
        if layer.first and layer.rule.box is not None:
            recording.outside[layer] = layer.rule.leaves_box(a)
        recording.arrived(layer, kept.value, down.arrived)
        stays = {"bias": down.bias, "stabiliser": down.stabiliser} if b is not None else {"stabiliser": down.stabiliser}
        for what, by_neuron in stays.items():
            recording.absorb(f"{layer.name}.{what}", by_neuron.sum(1))
        if down.edges is not None:
            recording.stay(layer, sum(stays.values(), torch.zeros_like(down.bias)))
            recording.connect(None if ctx.ids is None else ctx.ids[::run], layer, down.edges)
        g = down.g
        if recording.along is not None:
            dim = neuron_dim(a, ctx.op.kind)
            ids = None if ctx.ids is None else ctx.ids.view([-1 if d == dim else 1 for d in range(a.ndim)])
            g = g * recording.onward(layer, ids, g, ctx.samples)
        return g, *[None] * 9


class _Rectified(torch.autograd.Function):
    """A rectifier: gives the ``y`` it is handed.

    Where its layer keeps that ``y``, everything is let through: relevance, the product of both, is 0 where ``y`` is.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, kept: Kept) -> Tensor:
        ctx.save_for_backward(y)
        ctx.kept = kept
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.kept.rectified and ctx.kept.layer.kind != "junction":  # which hands g on as it is
            return grad[0], None, None
        return torch.ops.aten.threshold_backward(grad[0], ctx.saved_tensors[0], 0), None, None


class Activation(torch.autograd.Function):
    """An element-wise non-linearity: relevance passes unchanged, ``g_x = g_y y / x``; where ``x`` is 0 it is absorbed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, proportional: bool, absorb: Callable[[Tensor], None] | None) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.proportional, ctx.absorb = proportional, absorb
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        if not ctx.proportional:
            return grad[0] * away_from_zero(y) / away_from_zero(x), None, None, None
        if ctx.absorb is None:
            return torch.where(x == 0, 0, grad[0] * (y / x)), None, None, None
        at_zero = x.abs() < torch.finfo(x.dtype).tiny ** 0.5
        r = grad[0] * y
        ctx.absorb(torch.where(at_zero, r, 0))
        return torch.where(at_zero, 0, r / torch.where(at_zero, 1, x)), None, None, None


class _Valued(torch.autograd.Function):
    """The value of one tensor with the gradient of another."""

    @staticmethod
    def forward(ctx: Any, gradient_of: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad[0], None


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

"""The visitor that installs LRP's backwards, and their treatment of relevance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lrp_lightning.axes import Axis
from lrp_lightning.composites import Composite
from lrp_lightning.engine.affine import UnitMap, by_samples, counted, hand_down, sums
from lrp_lightning.engine.along import AlongPaths
from lrp_lightning.engine.by_sample import by_sample, per_neuron
from lrp_lightning.engine.calls import Call, Operator, operator_name
from lrp_lightning.engine.edges import Edges, features_of
from lrp_lightning.engine.facts import Facts
from lrp_lightning.engine.following import assumed
from lrp_lightning.engine.functions import Activation, Affine, Kept, Rectified, Valued, Watched, is_foreign
from lrp_lightning.engine.interpreter import Interpreter
from lrp_lightning.engine.layers import Layer, Layers
from lrp_lightning.engine.ledger import Ledger
from lrp_lightning.engine.neuron_numbers import run_of
from lrp_lightning.engine.notes import Notes
from lrp_lightning.engine.selecting import Selecting
from lrp_lightning.engine.unlisted import as_it_is
from lrp_lightning.engine.visitor import Known, Part, Unit, Visitor
from lrp_lightning.errors import RuleError, UnsupportedOperatorError

__all__ = ["CHECKPOINTS", "Relevance"]

CHECKPOINTS = (
    "activation checkpointing (torch.utils.checkpoint) cannot be followed. Switch it off while you explain, as by "
    "model.gradient_checkpointing_disable(), or by model.eval() where it belongs to training"
)
"""The error message for models that recompute parts in the backward pass."""


class Relevance(Visitor):
    """One pass of relevance.

    Args:
        layers: the layers of the forward.
        composite: the rules of layers.
        ledger: the records of relevance.
        selecting: the selection.
        edges: the records of edges; None if not requested.
        along: the only paths along which relevance may propagate; None for everywhere.
        on_unsupported: what to do at an operator without a rule.
    """

    def __init__(
        self,
        layers: Layers,
        composite: Composite,
        ledger: Ledger,
        selecting: Selecting,
        edges: Edges | None,
        along: AlongPaths | None,
        on_unsupported: str,
    ) -> None:
        super().__init__(layers)
        self.composite, self.ledger, self.selecting, self.edges, self.along = composite, ledger, selecting, edges, along
        self.on_unsupported = on_unsupported
        self.attention = composite.attention
        self.follows = edges is not None or along is not None
        self.unsupported: list[str] = []
        self.refusals: dict[str, UnsupportedOperatorError] = {}
        self.kept: Notes[Kept] = Notes()  # output of a layer -> the data kept for its backward
        self.passages: Notes[_Passage] = Notes()

    def values(self) -> AbstractContextManager:
        return torch.no_grad()

    # what is read

    def read(self, run: Interpreter, operator: Operator, signals: list[Tensor]) -> None:
        for t in signals:
            kept = self.kept.get(t)
            if kept is not None:
                kept.read(t)
            if is_foreign(t.grad_fn):
                self.foreign(run, operator, t)

    def foreign(self, run: Interpreter, operator: Operator, t: Tensor) -> None:
        made_by = t.grad_fn.name()  # type: ignore[union-attr]
        where = f"{made_by} in {run.names.executing() or 'the model'}"
        if self.on_unsupported != "gradient":
            if made_by.startswith("CheckpointFunction"):  # of use_reentrant=True
                raise run.unsupported(operator.func, CHECKPOINTS)
            raise run.unsupported(
                operator.func,
                f"reads a tensor made by {made_by}, a custom autograd.Function that did not go through torch's overridable "
                "operators and whose backward is not LRP's. Give it a rule with "
                'lrp_lightning.register_operator, or use its plain gradient with on_unsupported="gradient"',
            )
        if where not in self.unsupported:
            self.unsupported.append(where)
        if not run.known(t):
            run.facts[t] = Facts(
                assumed(run, t), lost=f"{where} may mix samples, so relevance cannot be assigned to samples"
            )

    def unlisted(self, run: Interpreter, call: Call) -> tuple[Any, Known]:
        """No error if the result carries no relevance (a size, a comparison); an error if relevance arrives at it."""
        name = operator_name(call.func)
        result, facts = as_it_is(run, call)
        if facts is None:
            return result, None
        if self.on_unsupported == "gradient":
            where = f"{name} in {run.names.executing() or 'the model'}"
            if where not in self.unsupported:
                self.unsupported.append(where)
            return self.accounted(run, call, call.name or "operator", Call.__call__, lambda _: facts)
        below = next((f.lost for t in run.signals(call.tensors) if (f := run.of(t)).lost in self.refusals), None)
        refusal = self.refusals[below] if below is not None else run.unsupported(
            call.func,
            "mixes values and has no rule, so relevance cannot pass through it. Give it one with "
            'lrp_lightning.register_operator, or use its plain gradient with on_unsupported="gradient"',
        )  # fmt: skip
        self.refusals[str(refusal)] = refusal
        refused = _Refused(refusal)

        def watched(t: Tensor) -> Tensor:
            return Watched.apply(t, refused) if t.requires_grad else t

        if isinstance(result, Tensor):
            result = watched(result)
        elif isinstance(result, list | tuple):
            result = type(result)([watched(t) if isinstance(t, Tensor) else t for t in result])
        return result, Facts(lost=str(refusal))

    # layers

    def layer(self, run: Interpreter, unit: Unit) -> Tensor:
        kept = Kept(unit.y, unit.layer)
        down = _Down(self, unit)
        out = Affine.apply(unit.a, unit.w.detach(), None if unit.b is None else unit.b.detach(), kept, down)
        self.kept[out] = kept
        return out

    def silent_at_zero(self, near_input: bool) -> bool:
        return self.ledger.proportional_below(near_input)

    def _needs_scale(self, layer: Layer) -> bool:
        """Whether the rule of a layer, which may not be known yet, may need the scale of its output."""
        if layer.kind not in ("convolution", "linear", "normalisation"):
            return False
        own, composite = self.layers.names.rule_of(layer.base_name), self.composite
        if own is not None:
            return own.needs_scale
        kinds = (layer.kind, "linear") if layer.kind == "convolution" else (layer.kind,)
        rules = [composite.rule_for("", kind, layer.first) for kind in kinds]  # type: ignore[arg-type]
        return any(rule.needs_scale for rule in (*rules, *composite.layers.values()))

    def rectifier(self, run: Interpreter, call: Call, x: Tensor) -> Tensor:
        if not self.ledger.proportional:
            return Activation.apply(x, call.values(), False, True, None)
        kept = self.kept.get(x)
        if kept is None or kept.readers > 1 or kept.layer.rows is None:
            return torch.relu(x)  # autograd's backward is the rule: y / x is its derivative
        layer = kept.layer
        with torch.no_grad():
            if self.edges is not None:
                self.edges.ledger.activate(layer, x.detach())
            rows = layer.by_sample()
            before = sums(x.detach(), rows) if self._needs_scale(layer) else None
            # in memory of x where the model wants that; not noticed by autograd, which would mind: nothing but the layer's
            # backward kept it
            in_place = call.in_place and not run.aliases.shares(x)
            y = kept.value.data.relu_() if in_place else torch.relu(x.detach())
            after = None if before is None else sums(y, rows)
            # |x| sums to the positive values plus the removed negative ones: two sums, and no memory
            size = None if before is None or after is None else by_samples(after - before + after, y, rows)
        kept.rectify(y, size)
        return Rectified.apply(x, y, kept)

    def activation(self, run: Interpreter, call: Call, x: Tensor, keeps_sign: bool) -> Tensor:
        y = call.values()
        y = y.clone() if y is x else y
        absorb, ledger = None, self.ledger
        facts = run.of(x)
        if not (keeps_sign or ledger.ignores(facts.samples)):
            where = run.names.here("activation")

            def absorb(r: Tensor) -> None:
                ledger.absorb_values(where, r, facts.samples, facts.lost)

        return Activation.apply(x, y, ledger.proportional, keeps_sign, absorb)

    def one_activation(self, run: Interpreter, call: Call, root: Tensor) -> Tensor:
        return self.activation(run, call, root, keeps_sign=True)

    def taken_apart(self, t: Tensor, value: Tensor) -> Tensor:
        return Valued.apply(t, value)

    def valued(self, gradient_of: Callable[[], Tensor], value: Callable[[], Tensor]) -> Tensor:
        with torch.no_grad():
            y = value()
        return Valued.apply(gradient_of(), y)

    # sums and products

    def apart(self, run: Interpreter, t: Any) -> Any:
        """A tensor of the same values for one node only, so that its share of relevance can be set."""
        if self.along is None or not run.known(t):
            return t
        passage = _Passage(self.along, run.of(t))
        view = Watched.apply(t, passage)
        run.facts[view] = run.of(t)
        self.passages[view] = passage
        return view

    def node(self, run: Interpreter, layer: Layer, y: Tensor, parts: Sequence[Part], stays: Any = None) -> Tensor:
        kept = Kept(y.detach(), layer, has_weights=False)
        handed = []
        for t, factor, whole, by_value in parts:
            passage = self.passages.get(t)
            if passage is not None:
                passage.layer = layer
            if self.edges is not None and by_value:
                handed.append(((t if whole is None else whole).detach(), factor, run.of(t).neurons))
        out = Watched.apply(y, _Node(self, kept, handed, stays))
        self.kept[out] = kept
        return out

    def constant(
        self, run: Interpreter, y: Tensor, part: Tensor | float, samples: Axis | None, where: str, lost: str
    ) -> Tensor:
        if not y.requires_grad or self.ledger.ignores(samples):
            return y
        return Watched.apply(y, _Taken(self.ledger, where, part, samples, lost))

    def detached(self, t: Tensor) -> Tensor:
        return t.detach()

    def shared(self, y: Tensor, signals: Sequence[Tensor]) -> Tensor:
        return Watched.apply(y, _Scaled(1 / len(signals))) if len(signals) > 1 and y.requires_grad else y

    def accounted(
        self, run: Interpreter, call: Call, what: str, run_it: Callable[[Call], Any], facts_of: Callable[[Any], Known]
    ) -> tuple[Any, Known]:
        """Run an operator with its plain gradient; relevance that arrives and is not propagated is counted as absorbed."""
        ledger, where = self.ledger, run.names.here(what)

        def watched(t: Tensor) -> Tensor:
            if not run.known(t):
                return t
            about = run.of(t)
            if ledger.ignores(about.samples):
                return t
            return Watched.apply(t, _Taken(ledger, where, -t.detach(), about.samples, about.lost))

        result = run_it(call.map(watched))
        known = facts_of(result)

        def taken(t: Tensor, about: Facts | None) -> Tensor:
            if not t.requires_grad or about is None or ledger.ignores(about.samples):
                return t
            return Watched.apply(t, _Taken(ledger, where, t.detach(), about.samples, about.lost))

        if isinstance(result, Tensor):
            return taken(result, known), known  # type: ignore[arg-type]
        facts = known if isinstance(known, list) else [known] * len(result)
        return type(result)([taken(t, f) for t, f in zip(result, facts, strict=True)]), known


@dataclass(eq=False)
class _Down:
    """The backward of a unit layer."""

    by: Relevance
    unit: Unit

    def __post_init__(self) -> None:
        unit = self.unit  # without its large tensors, which autograd keeps
        self.op, self.facts, self.layer, self.scale = unit.op, unit.facts, unit.layer, unit.scale
        self.neurons, self.shape = unit.facts.neurons if self.by.follows else None, unit.a.shape
        self.unit = None  # type: ignore[assignment]

    def __call__(self, kept: Kept, a: Tensor, w: Tensor, b: Tensor | None, g: Tensor) -> Tensor:
        by, layer, y = self.by, self.layer.standing, kept.value
        assert layer.rule is not None
        ledger, edges = by.ledger, by.edges
        rows = layer.by_sample()
        dim = self.op.neurons(a.ndim)
        features = features_of(self.neurons, a.shape, dim) if by.follows else None
        run = run_of(features) if self.op.kind == "linear" and edges is not None else 1
        unit = UnitMap(
            self.op, layer.rule, w, b, rows, self.facts.nonnegative, kept.rectified, ledger.proportional_below(layer.first),
            edges is not None, edges is not None and edges.per_sample, ledger.accounts, run,
        ).folded(self.scale, y)  # fmt: skip
        try:
            ledger.keep(layer, y, g, kept.rectified)
            down = hand_down(unit, a, y, g, by.selecting.at(layer, y, g), kept.size)
        except RuleError as error:
            raise RuleError(f"layer {layer.name!r} with {layer.rule}: {error}") from error
        except Exception as error:
            error.add_note(f"in layer {layer.name!r}") if hasattr(error, "add_note") else None
            raise
        if layer.first and layer.rule.box is not None:
            ledger.outside[layer] = layer.rule.leaves_box(a)
        ledger.hand_down(layer, y, down, b is not None)
        if edges is not None and down.edges is not None:
            edges.stay(layer, rows.sum(counted(down.bias) + counted(down.stabiliser)))
            edges.connect(None if features is None else features[::run], layer, down.edges)
        if by.along is None:
            return down.g
        numbers = None if features is None else (features + 1).double().view([-1 if d == dim else 1 for d in range(a.ndim)])
        return down.g * by.along.below(layer, numbers, down.g, rows)


@dataclass(eq=False)
class _Node:
    """The backward of a node without weights: it notes the relevance that arrives, and each part gets its own share."""

    by: Relevance
    kept: Kept
    parts: list[tuple[Tensor, float, Any]]
    stays: Any

    def back(self, g: Tensor) -> Tensor:
        by, y, layer = self.by, self.kept.value, self.kept.layer
        ledger = by.ledger
        carried = None
        select = by.selecting.at(layer, y, g)
        if select is not None:
            rows = layer.by_sample()
            carried = select(per_neuron(ledger.relevance_of(y, g, layer.first), layer.dim, rows.dim))
        ledger.arrive(layer, y, g)
        if carried is not None:
            g = g * carried
        for part, factor, neurons in self.parts:
            handed = ledger.relevance_of(part.expand(g.shape), g, layer.first) * factor
            by.edges.connect_values(neurons, layer, handed)  # type: ignore[union-attr]
        if by.edges is not None and self.stays is not None:
            self.stays(layer, g)
        return g


@dataclass(eq=False)
class _Taken:
    """Counts the relevance of a constant ``part`` that was added to a tensor or fills some of its places."""

    ledger: Ledger
    where: str
    part: Tensor | float
    samples: Axis | None
    lost: str

    def back(self, g: Tensor) -> Tensor:
        r = torch.where(g == 0, 0, g.conj() * self.part).real  # part may be infinite
        self.ledger.absorb_values(self.where, r, self.samples, self.lost)
        return g


@dataclass(eq=False)
class _Scaled:
    """Propagates a share."""

    share: float

    def back(self, g: Tensor) -> Tensor:
        return g * self.share


@dataclass(eq=False)
class _Refused:
    """Propagates nothing, and raises an error with the reason."""

    error: UnsupportedOperatorError

    def back(self, g: Tensor) -> Tensor:
        raise self.error


@dataclass(eq=False)
class _Passage:
    """Restricts the relevance that a node propagates to one of its parts to the paths."""

    along: AlongPaths
    facts: Facts
    layer: Layer | None = None

    def back(self, g: Tensor) -> Tensor:
        if self.layer is None:
            return g
        samples = self.facts.samples
        assert samples is not None
        rows = by_sample(samples, self.along.samples, None)
        if rows is None:
            raise UnsupportedOperatorError(self.layer.lost)
        return g * self.along.below(self.layer, self.facts.neurons, g, rows)

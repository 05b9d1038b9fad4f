"""The treatment of values in a forward: the interface of the interpreter's three visitors.

In this base class, every operator runs unchanged, with its own gradient, and layers are counted. ``relevance.py`` installs
LRP's backwards, ``gradients.py`` those of reconstruction, ``masked.py`` switches neurons off. All see the same calls and
give layers the same names.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from lrp_lightning.axes import Axis
from lrp_lightning.engine.facts import Facts
from lrp_lightning.engine.layers import Layer, Layers
from lrp_lightning.engine.unlisted import as_it_is

if TYPE_CHECKING:
    from collections.abc import Callable

    from lrp_lightning.engine.affine import AffineMap
    from lrp_lightning.engine.calls import Call, Operator
    from lrp_lightning.engine.interpreter import Interpreter

__all__ = ["Known", "Part", "Unit", "Visitor"]


Known = Facts | list[Facts | None] | None
"""The facts that a row returns: for one tensor, for each of several, or None if the result depends on no input."""


class Unit(NamedTuple):
    """A call of a unit layer: ``y = w a + b``."""

    op: AffineMap
    a: Tensor
    w: Tensor
    b: Tensor | None
    y: Tensor
    facts: Facts
    """The facts of ``a``."""
    layer: Layer
    scale: Tensor | None = None
    """The factor of each neuron's weights by a normalisation that was folded in."""

    @property
    def weight(self) -> Tensor:
        """``w`` multiplied by it."""
        return self.w if self.scale is None else self.op.scaled(self.w, self.scale)


class Part(NamedTuple):
    """A signal in a sum, and its factor."""

    t: Tensor
    factor: float = 1.0
    whole: Tensor | None = None
    """The value to distribute, if it is not the signal's own value: a product."""
    by_value: bool = True
    """Whether the signal gets its own share of each value."""


class Visitor:
    """Runs every operator unchanged. ``layers`` are the layers so far."""

    differentiates = True
    """Whether gradients will be taken, so that they must exist."""
    follows = False
    """Whether the neuron of every value must be known."""
    attention = "values"
    """The targets of relevance in attention, as in ``Composite.attention``."""

    def __init__(self, layers: Layers) -> None:
        self.layers = layers

    def values(self) -> AbstractContextManager:
        """A context in which a row computes values that get a backward of their own."""
        return nullcontext()

    def read(self, run: Interpreter, operator: Operator, signals: list[Tensor]) -> None:
        """Called before an operator reads these among its arguments."""

    def foreign(self, run: Interpreter, operator: Operator, t: Tensor) -> None:
        """Called before an operator reads a tensor that no observed operator created."""
        run.facts[t] = Facts(
            lost=run.unsupported(operator.func, "reads a tensor made by a custom autograd.Function").args[0]
        )

    def unlisted(self, run: Interpreter, call: Call) -> tuple[Any, Known]:
        """An operator without a row."""
        return as_it_is(run, call)

    # called by rows

    def layer(self, run: Interpreter, unit: Unit) -> Tensor:
        """The output of a unit layer."""
        return unit.y

    def whole(self, t: Tensor) -> Tensor:
        """The output of a layer, as a normalisation reads it."""
        return t

    def apart(self, run: Interpreter, t: Any) -> Any:
        """A tensor of the same values for one node only, if its share of relevance must be set."""
        return t

    def node(self, run: Interpreter, layer: Layer, y: Tensor, parts: Sequence[Part], stays: Any = None) -> Tensor:
        """The value of a sum of signals; ``stays`` is its constant part."""
        return y

    def silent_at_zero(self, near_input: bool) -> bool:
        """Whether an input of zero gets no relevance; ``near_input`` if a first layer may read it."""
        return True

    def rectifier(self, run: Interpreter, call: Call, x: Tensor) -> Tensor:
        """``relu(x)``."""
        return call()

    def activation(self, run: Interpreter, call: Call, x: Tensor, keeps_sign: bool) -> Tensor:
        """An element-wise function of ``x``."""
        return call()

    def pooled(self, run: Interpreter, call: Call, x: Tensor) -> Any:
        """A pooling of ``x``."""
        return call()

    def constant(
        self, run: Interpreter, y: Tensor, part: Tensor | float, samples: Axis | None, where: str, lost: str
    ) -> Tensor:
        """``y``, a sum of signals and of the constant ``part``."""
        return y

    def detached(self, t: Tensor) -> Tensor:
        """A gate that weighs a signal."""
        return t

    def shared(self, y: Tensor, signals: Sequence[Tensor]) -> Tensor:
        """``y``, a product of several signals."""
        return y

    def shared_parts(self, y: Tensor, signals: Sequence[Tensor]) -> list[Part]:
        """The shares of several signals in a product ``y``."""
        return [Part(t, 1 / len(signals), y) for t in signals]

    def one_activation(self, run: Interpreter, call: Call, root: Tensor) -> Tensor:
        """An element-wise function of ``root`` that is written as a product of others."""
        return call()

    def accounted(
        self, run: Interpreter, call: Call, what: str, run_it: Callable[[Call], Any], facts_of: Callable[[Any], Known]
    ) -> tuple[Any, Known]:
        """The result and facts of an operator that absorbs some of the relevance that arrives at it."""
        result = run_it(call)
        return result, facts_of(result)

    def taken_apart(self, t: Tensor, value: Tensor) -> Tensor:
        """The result of an operator that contains layers: ``t`` from its parts, ``value`` from the operator itself."""
        return t

    def valued(self, gradient_of: Callable[[], Tensor], value: Callable[[], Tensor]) -> Tensor:
        """A tensor with one value, and the gradient of another way to compute it."""
        return value()

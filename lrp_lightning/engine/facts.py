"""What is known, beside its values and without looking at them, about a tensor that carries relevance."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from lrp_lightning.axes import Axis
from lrp_lightning.engine.notes import Ref

if TYPE_CHECKING:
    from lrp_lightning.engine.affine import AffineMap
    from lrp_lightning.engine.layers import Layer

__all__ = ["Below", "Facts", "Gate", "MadeBy", "Written"]


class Gate(IntEnum):
    """Whether a tensor was made to weigh another signal: then it is a constant in a product with one."""

    NO = 0
    THROUGH_LAYER = 1
    """Made so, and then mixed by a linear map, as talking heads do; the next activation makes a signal of it."""
    YES = 2
    """A sigmoid, a softmax, a deviation."""


class MadeBy(NamedTuple):
    """The affine map whose output a tensor is, for a normalisation to fold into."""

    op: AffineMap
    a: Tensor
    w: Tensor
    b: Tensor | None
    layer: Layer
    scale: Tensor | None = None
    """What each neuron's weights are to be multiplied by."""


class Written(NamedTuple):
    """How a tensor was written out, where several operators together are a function that has one name."""

    root: Ref | None = None
    """It is an element-wise function of this tensor, of its own shape."""
    exp_of: Tensor | None = None
    """It is the exponential of this."""
    sum_of: tuple[Ref, tuple[int, ...], Tensor | None] | None = None
    """It is the sum of this over these dimensions, and what that is the exponential of."""
    less: tuple[Tensor, Tensor] | None = None
    """It is the first of these less the second."""


class Below(NamedTuple):
    """Logits below a monotone map, found only where they are asked for."""

    map: str
    """The operator that maps them: ``softmax``."""
    logits: Callable[[], tuple[Tensor, Facts]]
    """Gives them, and what is known of them."""


class Facts(NamedTuple):
    """What a row says of its result. What it does not say is not known."""

    samples: Axis | None = None
    """Which sample each value is of."""
    neurons: Axis | Tensor | None = None
    """Which neuron each value came from, by a number that is unique over the pass; as a tensor of numbers where it is no sum
    over dimensions, and only where that is asked for."""
    nonnegative: bool = False
    near_input: bool = False
    """Reached from the input through data movement and normalisation only."""
    gate: Gate = Gate.NO
    lost: str = ""
    """Where ``samples`` is not known: the operator after which it is not, and why."""
    made_by: MadeBy | None = None
    written: Written = Written()
    below: Below | None = None
    """What this is a monotone map of, that turns signs round: the logits that a softmax reads."""

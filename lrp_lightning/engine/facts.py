"""Facts about a tensor that carries relevance, which are known without reading its values."""

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
    """Whether a tensor is a gate, which weighs another signal: it is a constant in a product with a signal."""

    NO = 0
    THROUGH_LAYER = 1
    """A gate that was mixed by a linear map, as in talking heads; the next activation makes it a signal."""
    YES = 2
    """A sigmoid, a softmax, a deviation."""


class MadeBy(NamedTuple):
    """The affine map whose output a tensor is, into which a normalisation can fold."""

    op: AffineMap
    a: Tensor
    w: Tensor
    b: Tensor | None
    layer: Layer
    scale: Tensor | None = None
    """The factor of each neuron's weights."""


class Written(NamedTuple):
    """How a tensor was computed, to recognise functions that are written out as several operators."""

    root: Ref | None = None
    """It is an element-wise function of this tensor, which has the same shape."""
    exp_of: Tensor | None = None
    """It is the exponential of this."""
    sum_of: tuple[Ref, tuple[int, ...], Tensor | None] | None = None
    """It is the sum of this over these dimensions, and what that is the exponential of."""
    less: tuple[Tensor, Tensor] | None = None
    """It is the first of these minus the second."""


class Below(NamedTuple):
    """Logits below a monotone map, computed only on demand."""

    map: str
    """The operator that maps them: ``softmax``."""
    logits: Callable[[], tuple[Tensor, Facts]]
    """Returns the logits and facts about them."""


class Facts(NamedTuple):
    """The facts that a row returns about its result. Facts that it does not state are unknown."""

    samples: Axis | None = None
    """The sample of each value."""
    neurons: Axis | Tensor | None = None
    """The neuron that each value came from, by a number that is unique in the pass; a tensor of numbers if it is not a sum
    over dimensions, and only on demand."""
    nonnegative: bool = False
    near_input: bool = False
    """Reached from the input through data movement and normalisation only."""
    gate: Gate = Gate.NO
    lost: str = ""
    """If ``samples`` is unknown: the operator that made it unknown, and the reason."""
    made_by: MadeBy | None = None
    written: Written = Written()
    below: Below | None = None
    """The logits of which this is a monotone map that changes signs, such as the input of a softmax."""

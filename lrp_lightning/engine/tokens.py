"""Token numbers: integers of the input that are looked up in an embedding, where relevance ends.

They carry none themselves, so they are no signals. What is known of an integer tensor that was made of them is of which
place of the input each value is; so what a looked-up row gets is written to the token that it was looked up for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lrp_lightning.axes import Axis
from lrp_lightning.engine.calls import Call, Operator
from lrp_lightning.engine.layers import Layer
from lrp_lightning.engine.neuron_numbers import axis_of

__all__ = ["LookedUp", "Tokens", "followed", "is_lookup"]

_SIDE_BY_SIDE = ("cat", "concat", "concatenate", "stack", "hstack", "vstack")


class Tokens(NamedTuple):
    """Of an integer tensor, from which place of its input, flattened, each value is."""

    input: int
    shape: tuple[int, ...]
    """Of the input."""
    places: Tensor
    """Shaped like the tensor, -1 for what is of none."""

    @staticmethod
    def of_input(number: int, x: Tensor) -> Tokens:
        return Tokens(number, tuple(x.shape), torch.arange(x.numel()).view(x.shape))

    def samples(self) -> Axis | None:
        """The sample of each value; what is of no place belongs to the sample beside it."""
        each = max(math.prod(self.shape[1:]), 1)
        numbers = torch.where(self.places < 0, 0, self.places.div(each, rounding_mode="floor") + 1)
        return axis_of(numbers.double(), filled=True)


class LookedUp(NamedTuple):
    """Rows of an embedding, the tokens that they were looked up for, and the layer that stands for them."""

    rows: Tensor
    tokens: Tokens
    layer: Layer


def followed(call: Call, result: Tensor, source: Tokens, known: Callable[[Tensor], Tokens | None]) -> Tokens | None:
    """What is known of an integer tensor that an operator made of tokens; None where it is none of these moves.

    Args:
        call: the operator.
        result: what it made.
        source: the tokens that it read.
        known: those that a tensor holds.
    """

    def places(t: Tensor) -> Tensor:
        tokens = known(t)
        if tokens is not None:
            return tokens.places
        return torch.full(t.shape, -1) if call.name in _SIDE_BY_SIDE else t.cpu()

    if call.operator.views or call.name in _SIDE_BY_SIDE:
        moved = call.map(places)
        try:
            found = moved.func(*moved.args, **{k: v for k, v in moved.kwargs.items() if k not in ("dtype", "device")})
        except Exception:  # it does not take them
            return None
        if isinstance(found, Tensor) and found.shape == result.shape and found.dtype == torch.long:
            return Tokens(source.input, source.shape, found)
    return source if result.shape == source.places.shape else None


def is_lookup(operator: Operator) -> bool:
    """Whether it is an operator that looks rows up for tokens."""
    return operator.name in ("F.embedding", "F.embedding_bag", "torch.embedding")

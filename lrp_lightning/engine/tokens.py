"""Token numbers: integer inputs that are looked up in an embedding, where relevance ends.

They carry no relevance, so they are not signals. For an integer tensor that was computed from them, the place in the input
of each value is known, so that the relevance of a row is assigned to the token that it was looked up for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lrp_lightning.axes import Axis
from lrp_lightning.engine.calls import Call, Operator, tensors_in
from lrp_lightning.engine.layers import Layer
from lrp_lightning.engine.neuron_numbers import axis_of

__all__ = ["LookedUp", "Tokens", "followed", "is_lookup"]

_VALUE_BY_VALUE = (
    "add",
    "sub",
    "mul",
    "clamp",
    "clip",
    "clamp_min",
    "clamp_max",
    "remainder",
    "fmod",
    "where",
    "masked_fill",
)
_SIDE_BY_SIDE = ("cat", "concat", "concatenate", "stack", "hstack", "vstack")


class Tokens(NamedTuple):
    """For an integer tensor, the place in the flattened input that each value comes from."""

    input: int
    shape: tuple[int, ...]
    """The shape of the input."""
    places: Tensor
    """Shaped like the tensor; -1 for values from no place."""

    @staticmethod
    def of_input(number: int, x: Tensor) -> Tokens:
        return Tokens(number, tuple(x.shape), torch.arange(x.numel()).view(x.shape))

    def samples(self) -> Axis | None:
        """The sample of each value; values from no place belong to the sample of their neighbours."""
        each = max(math.prod(self.shape[1:]), 1)
        numbers = torch.where(self.places < 0, 0, self.places.div(each, rounding_mode="floor") + 1)
        return axis_of(numbers.double(), filled=True)


class LookedUp(NamedTuple):
    """Rows of an embedding, the tokens that they were looked up for, and their layer."""

    rows: Tensor
    tokens: Tokens
    layer: Layer


def followed(call: Call, made: list[Tensor], known: Callable[[Tensor], Tokens | None]) -> list[Tokens | None]:
    """Facts about integer tensors that an operator computed from tokens; None if unknown.

    Args:
        call: the operator.
        made: its result, or the tensor that it wrote to.
        known: returns the facts about a tensor.
    """
    source = next(tokens for t in call.tensors if (tokens := known(t)) is not None)
    moves, joins = call.operator.views, call.name in (*_SIDE_BY_SIDE, "setitem")

    def places(t: Tensor) -> Tensor:
        tokens = known(t)
        if tokens is not None:
            return tokens.places
        return torch.full(t.shape, -1) if joins else t.cpu()

    if not (moves or joins):
        alike = [call.name in _VALUE_BY_VALUE and t.shape == source.places.shape for t in made]
        return [source if same else None for same in alike]
    if call.name == "setitem":
        target, index, value = call.args
        instead = Call(call.operator, (places(target), index, places(value) if isinstance(value, Tensor) else -1), {})
    else:
        instead = call.map(places)
    try:
        kwargs = {name: value for name, value in instead.kwargs.items() if name not in ("dtype", "device")}
        found = tensors_in((instead.func(*instead.args, **kwargs),))
    except Exception:  # it does not accept them
        return [None for _ in made]
    return [
        Tokens(source.input, source.shape, at) if at.shape == t.shape and at.dtype == torch.long else None
        for at, t in zip(found, made, strict=True)
    ]


def is_lookup(operator: Operator) -> bool:
    """Whether an operator looks rows up for tokens."""
    return operator.name in ("F.embedding", "F.embedding_bag", "torch.embedding")

"""The errors of this library. Every message says what was wrong, where, and what to do."""

__all__ = [
    "GraphError",
    "InputError",
    "LRPError",
    "LayerError",
    "ModelError",
    "NotFiniteError",
    "RecordError",
    "RuleError",
    "SelectionError",
    "StoreError",
    "TargetError",
    "UnsupportedOperatorError",
]


class LRPError(Exception):
    """Base class of all errors of this library."""


class ModelError(LRPError, TypeError):
    """The model cannot be explained: it is not a module, or its output is not a tensor."""


class NotFiniteError(ModelError):
    """The model's output is NaN or infinite: its training has diverged, or its weights are not finite."""


class InputError(LRPError, ValueError):
    """The inputs cannot be explained: not a tensor, wrong dtype, NaN or infinite, or without samples."""


class TargetError(LRPError, AssertionError, ValueError):
    """The target is missing or does not fit the output.

    It is also an ``AssertionError``, because Captum raises that and its users catch it.
    """


class RuleError(LRPError, ValueError):
    """A rule or composite has a parameter out of range, or cannot be applied to a layer."""


class SelectionError(LRPError, ValueError):
    """A selection has a parameter out of range, or masks do not fit the model."""


class LayerError(LRPError, KeyError):
    """A layer was named that the model does not have, or that the pass did not reach."""

    def __str__(self) -> str:  # KeyError would show the message in quotes
        return str(self.args[0]) if self.args else ""


class GraphError(LRPError, ValueError):
    """A relevance graph cannot be built, or lacks what was requested."""


class RecordError(LRPError, ValueError):
    """A step's record in TensorBoard's log cannot be written or read."""


class StoreError(LRPError, ValueError):
    """A store of relevance cannot be written or read, belongs to another model, or lacks what was requested."""


class UnsupportedOperatorError(LRPError, NotImplementedError):
    """An operator mixes values and has no rule, so relevance cannot pass through it."""

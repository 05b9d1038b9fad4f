"""What can go wrong, by name. Every error says what was wrong, where, and what to do."""

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
    """Anything that this library refuses to do. Every error below is one."""


class ModelError(LRPError, TypeError):
    """The model is not what can be explained: not a module, or its output is no tensor."""


class NotFiniteError(ModelError):
    """The model's output is NaN or infinite: its training has diverged, or its weights are."""


class InputError(LRPError, ValueError):
    """The inputs cannot be explained: no tensor, wrong dtype, NaN or infinite, no samples."""


class TargetError(LRPError, AssertionError, ValueError):
    """The target is missing or does not fit the output.

    An ``AssertionError`` too, since that is what Captum raises and its users catch.
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
    """A relevance graph cannot be built, or does not have what was asked of it."""


class RecordError(LRPError, ValueError):
    """What a step leaves in the log for TensorBoard cannot be written, or cannot be read."""


class StoreError(LRPError, ValueError):
    """A store of relevance cannot be written or read, is of something else, or does not hold what was asked of it."""


class UnsupportedOperatorError(LRPError, NotImplementedError):
    """An operator mixes values and has no rule, so relevance cannot pass through it."""

"""A selection for each layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lrp_lightning.errors import SelectionError
from lrp_lightning.selection.protocol import Search, Selection

__all__ = ["PerLayer"]


@dataclass(frozen=True)
class PerLayer:
    """A selection for each layer, by name pattern.

    Args:
        default: for layers that match no pattern; None selects nothing in them, so that all their neurons are kept.
        layers: ``{pattern: selection}``, shell patterns on layer names such as ``"features.*"``; the first match decides.
        exclude: patterns of layers in which all neurons are kept; they take precedence over ``layers``.

    Raises:
        SelectionError: if something given as a selection is not one.
        LayerError: in the pass, if a pattern matches no hidden layer.

    Example:
        >>> from lrp_lightning import PerLayer, TopK
        >>> budgets = PerLayer(TopK(0.1), layers={"classifier.*": TopK(0.3)}, exclude=("features.0",))
        >>> budgets.in_layer("classifier.3"), budgets.in_layer("features.7"), budgets.in_layer("features.0")
        (TopK(keep=0.3, by='magnitude'), TopK(keep=0.1, by='magnitude'), None)
    """

    default: Selection | None
    layers: Mapping[str, Selection] = field(default_factory=dict, hash=False)
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        exclude = (self.exclude,) if isinstance(self.exclude, str) else tuple(self.exclude)
        object.__setattr__(self, "exclude", exclude)
        if not isinstance(self.layers, Mapping):
            raise SelectionError(f"PerLayer: layers must be {{pattern: selection}}, got {type(self.layers).__name__}")
        given = [] if self.default is None else [("default", self.default)]
        for name, selection in (*given, *self.layers.items()):
            if isinstance(selection, type) or not isinstance(selection, Selection):
                raise SelectionError(f"PerLayer: {name} must be a selection such as TopK(0.1), got {selection!r}")

    @property
    def patterns(self) -> Iterator[str | nn.Module]:
        """Patterns that must match a layer."""
        yield from self.exclude
        yield from self.layers
        for selection in (self.default, *self.layers.values()):
            yield from getattr(selection, "patterns", ())

    def in_layer(self, layer: str) -> Selection | None:
        """The selection of one layer; None if all its neurons are kept.

        Args:
            layer: the layer's name.
        """
        if any(fnmatchcase(layer, pattern) for pattern in self.exclude):
            return None
        pattern = next((pattern for pattern in self.layers if fnmatchcase(layer, pattern)), None)
        return self.default if pattern is None else self.layers[pattern]

    def replaced(self, change: Callable[[Selection], Selection]) -> PerLayer:
        """A copy with other selections.

        Args:
            change: a function that returns the replacement of each selection.
        """
        default = None if self.default is None else change(self.default)
        return PerLayer(default, {pattern: change(s) for pattern, s in self.layers.items()}, self.exclude)

    def search(
        self,
        model: nn.Module,
        inputs: Tensor | tuple[Tensor, ...],
        target: Any,
        additional_forward_args: Any,
        composite: Any,
        on_unsupported: Literal["raise", "gradient"] = "raise",
    ) -> tuple[Selection, Tensor | None]:
        """Run the searches of its selections, each in its own layers; see :meth:`Search.search`.

        The history is that of the search; several histories are concatenated.
        """
        found: dict[int, Selection] = {}
        histories: list[Tensor] = []

        def searched(selection: Selection) -> Selection:
            if not isinstance(selection, Search):
                return selection
            if id(selection) not in found:
                within = getattr(selection, "within", None)
                own = selection if within is None else within(lambda layer: self.in_layer(layer) is selection)
                given = model, inputs, target, additional_forward_args, composite, on_unsupported
                found[id(selection)], history = own.search(*given)
                histories.extend([] if history is None else [history])
            return found[id(selection)]

        return self.replaced(searched), torch.cat(histories) if histories else None

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor | None:
        """See :meth:`Selection.select`."""
        selection = self.in_layer(layer)
        return None if selection is None else selection.select(relevance, layer=layer, output=output)

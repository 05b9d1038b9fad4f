"""Another selection in each layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import Tensor

from lrp_lightning.errors import SelectionError
from lrp_lightning.selection.protocol import Selection

__all__ = ["PerLayer"]


@dataclass(frozen=True)
class PerLayer:
    """Another selection in each layer, by name pattern.

    Args:
        default: for layers that no pattern fits; None leaves them whole.
        layers: ``{pattern: selection}``, shell patterns on layer names such as ``"features.*"``; the first match decides.
        exclude: patterns of layers left whole; they go before ``layers``.

    Raises:
        SelectionError: if something given as a selection is none.
        LayerError: in the pass, if a pattern fits no hidden layer.

    Example:
        >>> from lrp_lightning import PerLayer, TopK
        >>> budgets = PerLayer(TopK(0.1), layers={"classifier.*": TopK(0.3)}, exclude=("features.0",))
        >>> budgets.in_layer("classifier.3"), budgets.in_layer("features.7"), budgets.in_layer("features.0")
        (TopK(keep=0.3, by='relevance'), TopK(keep=0.1, by='relevance'), None)
    """

    default: Selection | None
    layers: Mapping[str, Selection] = field(default_factory=dict, hash=False)
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        exclude = (self.exclude,) if isinstance(self.exclude, str) else tuple(self.exclude)
        object.__setattr__(self, "exclude", exclude)
        if not isinstance(self.layers, Mapping):
            raise SelectionError(f"PerLayer: layers must be {{pattern: selection}}, got {type(self.layers).__name__}")
        for name, selection in {"default": self.default, **self.layers}.items():
            if isinstance(selection, type) or not (
                isinstance(selection, Selection) or (selection is None and name == "default")
            ):
                raise SelectionError(f"PerLayer: {name} must be a selection such as TopK(0.1), got {selection!r}")

    @property
    def patterns(self) -> Iterator[str]:
        """The layers that must be there."""
        yield from self.exclude
        yield from self.layers

    def in_layer(self, layer: str) -> Selection | None:
        """The selection of one layer, None where it is left whole.

        Args:
            layer: the layer's name.
        """
        if any(fnmatchcase(layer, pattern) for pattern in self.exclude):
            return None
        pattern = next((pattern for pattern in self.layers if fnmatchcase(layer, pattern)), None)
        return self.default if pattern is None else self.layers[pattern]

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor | None:
        """See :meth:`Selection.select`."""
        selection = self.in_layer(layer)
        return None if selection is None else selection.select(relevance, layer=layer, output=output)

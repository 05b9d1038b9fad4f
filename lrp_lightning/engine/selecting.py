"""Applying a selection: which part of the relevance that arrived at a layer is propagated."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from lrp_lightning.engine.by_sample import BySample, per_neuron
from lrp_lightning.engine.edges import Edges
from lrp_lightning.engine.layers import Layer
from lrp_lightning.engine.ledger import Ledger
from lrp_lightning.errors import SelectionError
from lrp_lightning.layers import LayerNames
from lrp_lightning.selection import Fixed, PerLayer, Selection

__all__ = ["Selecting"]


class Selecting:
    """Calls the selection of one pass, and notes its masks."""

    def __init__(self, selection: Selection | None, names: LayerNames, ledger: Ledger, edges: Edges | None) -> None:
        self.selection, self.ledger, self.edges = selection and _by_name(selection, names), ledger, edges
        self.masks: dict[Layer, Tensor] = {}
        self.explained: Tensor | None = None

    @property
    def patterns(self) -> list[str]:
        """Patterns that must match a layer."""
        return list(getattr(self.selection, "patterns", ()))

    def at(self, layer: Layer, y: Tensor, g: Tensor) -> Callable[[Tensor], Tensor | None] | None:
        """A function that determines the part of a layer's relevance ``y g`` to propagate; None for all of it.

        It takes the relevance by row and neuron, and returns a factor that broadcasts over ``y``.
        """
        if self.selection is None or not layer.selectable:
            return None
        decides: Selection | None = self.selection
        while isinstance(decides, PerLayer):
            decides = decides.in_layer(layer.name)
        return None if decides is None else partial(self._select, decides, layer, y, g)

    def _select(self, decides: Selection, layer: Layer, y: Tensor, g: Tensor, by_row: Tensor) -> Tensor | None:
        rows = layer.by_sample()
        arrived = rows.sum(by_row)

        def elements() -> Tensor:
            return rows.first(self.ledger.relevance_of(y, g, layer.first))

        units = elements() if getattr(decides, "unit", "channel") == "element" else arrived
        kept = decides.select(units, layer=layer.name, output=self.explained)  # type: ignore[arg-type]
        if kept is None:
            return None
        fits = isinstance(kept, Tensor) and kept.dtype == torch.bool
        if not (fits and (kept.shape == units.shape or (rows.even and kept.shape == rows.first(y).shape))):
            given = f"{kept.dtype} {tuple(kept.shape)}" if isinstance(kept, Tensor) else type(kept).__name__
            raise SelectionError(
                f"{decides!r} gave {given} for layer {layer.name!r}; it must give torch.bool {tuple(units.shape)}"
            )
        self.masks[layer] = kept | self.masks[layer] if layer in self.masks else kept
        if kept.shape != units.shape:
            units = elements()

        def of(on: Tensor) -> Tensor:
            return (units * on).flatten(1).sum(1)

        carried = kept
        if getattr(decides, "rescale", False):
            part, rest = of(kept), of(~kept)
            factor = torch.where(part == 0, 1, (part + rest) / torch.where(part == 0, 1, part))
            carried = kept * factor.view(-1, *[1] * (kept.ndim - 1))
            self.ledger.absorb(f"{layer.name}.unselected", lambda: rest + part * (1 - factor))
        else:
            self.ledger.absorb(f"{layer.name}.unselected", lambda: of(~kept))
        spread = _over(carried.to(y.dtype), y, layer, rows)  # products with booleans are not vectorised
        if self.edges is not None and kept.shape == arrived.shape:
            self.edges.stay(layer, arrived - arrived * carried)
        elif self.edges is not None:
            r = self.ledger.relevance_of(y, g, layer.first) * spread
            self.edges.stay(layer, arrived - rows.sum(per_neuron(r, layer.dim, rows.dim)))
        return spread


def _over(mask: Tensor, y: Tensor, layer: Layer, rows: BySample) -> Tensor:
    """A mask of channels, ``(N, C)``, or of single values, shaped to broadcast over ``y``."""
    return rows.as_first(mask, y) if mask.ndim > 2 else rows.over(mask, y, layer.dim)


def _by_name(selection: Selection, names: LayerNames) -> Selection:
    """A selection with layers given by name instead of as modules."""
    if isinstance(selection, PerLayer):
        return selection.replaced(lambda part: _by_name(part, names))
    if isinstance(selection, Fixed):
        return Fixed({names.name_of(layer): neurons for layer, neurons in selection.layers.items()})
    return selection

"""What the engine asks of a selection, and of one that searches before the pass."""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

__all__ = ["Search", "Selection"]


@runtime_checkable
class Selection(Protocol):
    """What the engine asks of a selection.

    A selection may have two attributes beside the method. ``unit = "element"``: it chooses among the single values of the
    layer's output, not among its channels. ``rescale = True``: what is kept is multiplied so that it conserves the whole.

    Example:
        >>> from dataclasses import dataclass
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP
        >>> @dataclass(frozen=True)
        ... class AboveMean:
        ...     def select(self, relevance, *, layer, output):
        ...         return relevance > relevance.mean(1, keepdim=True)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> SelectiveLRP(model, selection=AboveMean()).trace(torch.randn(5, 4), target=1).masks["0"].shape
        torch.Size([5, 8])
    """

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor | None:
        """Choose the neurons that may carry relevance on.

        Args:
            relevance: ``(N, C)``, the relevance that arrived at each neuron, summed over space; with ``unit = "element"``
                ``(N, ...)``, shaped like the layer's output.
            layer: the layer's name.
            output: ``(N,)``, the output that is explained.

        Returns:
            Boolean, shaped like ``relevance``, True for what is critical; None to leave the layer whole. No host-device
            sync, no loop over samples.
        """
        ...


@runtime_checkable
class Search(Protocol):
    """A selection that runs the network before the pass, and does not only see the relevance that arrives.

    A search may have another method, ``within(layers) -> Search``: the same search in the layers alone for whose name the
    function ``layers`` is true. :class:`PerLayer` asks for it; without it a search is made in the whole network.
    """

    def search(
        self,
        model: nn.Module,
        inputs: Tensor | tuple[Tensor, ...],
        target: Any,
        additional_forward_args: Any,
        composite: Any,
        on_unsupported: Literal["raise", "gradient"],
    ) -> tuple[Selection, Tensor | None]:
        """Find the selection that the pass is to use, and what ``Trace.history`` is to say of how it was found.

        Args:
            model, inputs, target, additional_forward_args, composite, on_unsupported: those of the pass.
        """
        ...

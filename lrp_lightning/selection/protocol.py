"""The interface of a selection, and of one that searches before the pass."""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

__all__ = ["Search", "Selection"]


@runtime_checkable
class Selection(Protocol):
    """The interface of a selection.

    A selection may have two attributes beside the method. ``unit = "element"``: it selects single values of the layer's
    output instead of channels. ``rescale = True``: the kept relevance is scaled so that the layer's sum is conserved.

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
        """Choose the neurons that may propagate relevance.

        Args:
            relevance: ``(N, C)``, the relevance that arrived at each neuron, summed over space; with ``unit = "element"``
                ``(N, ...)``, shaped like the layer's output.
            layer: the layer's name.
            output: ``(N,)``, the output that is explained.

        Returns:
            Boolean, shaped like ``relevance``, True for critical neurons; None to keep the whole layer. Avoid
            synchronisation with the host and loops over samples.
        """
        ...


@runtime_checkable
class Search(Protocol):
    """A selection that runs the network before the pass, instead of using only the relevance that arrives.

    A search may have another method, ``within(layers) -> Search``, which restricts it to the layers for whose name the
    function ``layers`` returns True. :class:`PerLayer` uses it; without it, the search runs in the whole network.
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
        """Find the selection to use in the pass, and the history of the search for ``Trace.history``.

        Args:
            model, inputs, target, additional_forward_args, composite, on_unsupported: as in the pass.
        """
        ...

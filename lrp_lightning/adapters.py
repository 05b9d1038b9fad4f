"""Wrappers for models whose forward does not take a batch as its first argument: inputs by keyword, and graphs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from lrp_lightning.errors import InputError, ModelError

__all__ = ["ByGraph", "ByKeyword", "View"]


class View(nn.Module):
    """A module that wraps another one; layers keep their names, and parameters are shared."""

    model: nn.Module

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise ModelError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        super().__init__()
        object.__setattr__(self, "model", model)  # kept out of nn.Module's registry, which would put its name before all

    def named_modules(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Module]]:
        """The parameters of the model."""
        return self.model.named_modules(*args, **kwargs)

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """The model, so that moving or converting the wrapper does the same to it."""
        yield "model", self.model

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.model).__name__}{self._what()})"

    def _what(self) -> str:
        return ""


class ByKeyword(View):
    """Wraps a model whose forward takes its inputs by keyword; the wrapper takes them in order.

    The first argument of models of transformers is ``input_ids``; the order of the others varies. Images and embeddings are
    passed as ``pixel_values=`` and ``inputs_embeds=``.

    Args:
        model: the model to explain. Its layers keep their names.
        names: the keywords of the inputs, then those of ``additional_forward_args``, in their order.
        constants: keyword arguments that are passed in every call.

    Raises:
        ModelError: if ``model`` is not a ``torch.nn.Module``.
        InputError: if no names are given; when called, if it gets more tensors than there are names.

    Example:
        >>> import torch
        >>> from lrp_lightning import ByKeyword, SelectiveLRP
        >>> class Model(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.head = torch.nn.Linear(4, 3)
        ...     def forward(self, *, inputs_embeds, attention_mask=None):
        ...         return self.head((inputs_embeds * attention_mask.unsqueeze(-1)).sum(1))
        >>> lrp = SelectiveLRP(ByKeyword(Model(), "inputs_embeds", "attention_mask"))
        >>> embeds, mask = torch.randn(2, 5, 4), torch.ones(2, 5)
        >>> lrp.attribute(embeds, target=1, additional_forward_args=mask).shape
        torch.Size([2, 5, 4])
    """

    def __init__(self, model: nn.Module, *names: str, **constants: Any) -> None:
        super().__init__(model)
        if not names or not all(isinstance(name, str) for name in names):
            raise InputError(f"name the keywords of the inputs, such as 'pixel_values', got {names!r}")
        self.names: tuple[str, ...] = names
        self.constants: dict[str, Any] = constants

    def forward(self, *inputs: Any) -> Any:
        """The output of the model.

        Args:
            inputs: one for each of the first keywords.

        Raises:
            InputError: if there are more of them than names.
        """
        if len(inputs) > len(self.names):
            raise InputError(f"{len(inputs)} inputs were given for the keywords {', '.join(self.names)}")
        return self.model(**dict(zip(self.names, inputs, strict=False)), **self.constants)

    def _what(self) -> str:
        return f", {', '.join(self.names)}"


class ByGraph(View):
    """Wraps a graph network, whose input concatenates the nodes of all graphs; the samples of the wrapper are graphs.

    Its inputs are what PyTorch Geometric's ``to_dense_batch(x, batch)`` returns: ``nodes`` ``(N, most, F)``, each graph
    padded with zeros, and ``there`` ``(N, most)``, True for nodes that exist. The model receives the existing nodes and all
    other arguments unchanged. Relevance is shaped like ``nodes`` and is 0 at the padding.

    Args:
        model: its forward takes ``(x, edge_index, batch, ...)``, with ``x`` ``(nodes, F)``, and returns one row per graph.

    Raises:
        ModelError: if ``model`` is not a ``torch.nn.Module``.

    Example:
        >>> import torch
        >>> from lrp_lightning import ByGraph, SelectiveLRP
        >>> class Model(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.message, self.head = torch.nn.Linear(4, 8), torch.nn.Linear(8, 3)
        ...     def forward(self, x, edge_index, batch):
        ...         h = self.message(x)[edge_index[0]]
        ...         h = h.new_zeros(len(x), 8).index_add(0, edge_index[1], h).relu()
        ...         return self.head(h.new_zeros(int(batch.max()) + 1, 8).index_add(0, batch, h))
        >>> nodes, there = torch.randn(2, 3, 4), torch.tensor([[True, True, True], [True, True, False]])
        >>> edge_index, batch = torch.tensor([[0, 1, 2, 3], [1, 2, 0, 4]]), torch.tensor([0, 0, 0, 1, 1])
        >>> lrp = SelectiveLRP(ByGraph(Model()))
        >>> relevance = lrp.attribute(nodes, target=1, additional_forward_args=(there, edge_index, batch))
        >>> relevance.shape, bool(relevance[1, 2].any())
        (torch.Size([2, 3, 4]), False)
    """

    input_neurons = 2
    """The neurons of the input are features, not nodes."""

    def forward(self, nodes: Tensor, there: Tensor, *rest: Any) -> Any:
        """The output of the model.

        Args:
            nodes: ``(N, most, F)``.
            there: ``(N, most)``, bool.
            rest: ``edge_index, batch``, and further arguments of the model.
        """
        return self.model(nodes[there], *rest)

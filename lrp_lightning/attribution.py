"""Captum's interface: the attribution class that stands wherever ``captum.attr.LRP`` stands."""

from __future__ import annotations

from typing import Any

from captum.attr._utils.attribution import GradientAttribution
from captum.log import log_usage
from torch import Tensor, nn

from lrp_lightning.composites import Composite, EpsilonPlus, as_composite
from lrp_lightning.engine import propagate
from lrp_lightning.errors import ModelError, SelectionError
from lrp_lightning.rules import Rule
from lrp_lightning.selection import Selection
from lrp_lightning.trace import Trace

__all__ = ["SelectiveLRP"]


class SelectiveLRP(GradientAttribution):
    """Layer-wise relevance propagation that selects neurons during the backward pass.

    Takes the place of ``captum.attr.LRP``: same calls, same meanings of ``target``. It differs where Captum is wrong:
    functional operators, in-place operators, reused modules and residual additions are followed, batch norm is folded into
    the layer before it, and the model is never changed, not even for the time of the call. A model in train mode is
    explained as in eval.

    Args:
        model: the classifier; its forward gives one tensor, samples first.
        composite: which rule each layer gets: a composite, a rule for all layers, or a name such as ``"epsilon_plus"``.
        selection: which neurons of each hidden layer may carry relevance on; None for all.

    Raises:
        ModelError: if ``model`` is no ``torch.nn.Module``.
        RuleError: if ``composite`` is none.
        SelectionError: if ``selection`` is none.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP, TopK
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> lrp = SelectiveLRP(model, selection=TopK(2))
        >>> x = torch.randn(5, 4)
        >>> lrp.attribute(x, target=1).shape
        torch.Size([5, 4])
        >>> lrp.trace(x, target=1).masks["0"].sum(1)
        tensor([2, 2, 2, 2, 2])
    """

    def __init__(
        self,
        model: nn.Module,
        composite: Composite | Rule | str = EpsilonPlus(),  # noqa: B008  (a frozen value)
        selection: Selection | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ModelError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        if selection is not None and (isinstance(selection, type) or not isinstance(selection, Selection)):
            raise SelectionError(f"selection must be a selection such as TopK(0.1), got {selection!r}")
        GradientAttribution.__init__(self, model)
        self.model = model
        self.composite = as_composite(composite)
        self.selection = selection

    @property
    def multiplies_by_inputs(self) -> bool:
        return True

    def has_convergence_delta(self) -> bool:
        return True

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        verbose: bool = False,
    ) -> Any:
        """Relevance of the inputs.

        Args:
            inputs: one tensor, or a tuple of them, samples first.
            target: the output to explain, with Captum's meaning: None, an int, a tuple, a tensor, or a list of either.
            additional_forward_args: given to the model after ``inputs``; gets no relevance.
            return_convergence_delta: whether to give the delta as well.
            verbose: print each layer with its kind and the relevance that reached it.

        Returns:
            Relevance shaped like ``inputs``, in the unit of the output: summed, it is the output less what was absorbed.
            With ``return_convergence_delta`` a pair of it and ``(N,)``, output less relevance of the inputs.

        Raises:
            InputError, TargetError, ModelError, UnsupportedOperatorError: see :func:`lrp_lightning.engine.propagate`.
        """
        trace = self.trace(inputs, target, additional_forward_args)
        if verbose:
            print(trace)
        if not return_convergence_delta:
            return trace.inputs
        return trace.inputs, self.compute_convergence_delta(trace.inputs, trace.explained)

    def trace(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Any = None,
        additional_forward_args: Any = None,
        edges: bool = False,
    ) -> Trace:
        """Relevance at every layer, the critical neurons, and, with ``edges``, the relevance between any two neurons.

        Args:
            inputs: one tensor, or a tuple of them, samples first.
            target: the output to explain, as in :meth:`attribute`; or a function that gives one class a sample from the
                output, ``(N, classes) -> (N,)``, such as ``lambda logits: logits.argmax(1)``.
            additional_forward_args: as in :meth:`attribute`.
            edges: whether to compute the relevance between neurons too; costs one weight gradient.

        Raises:
            InputError, TargetError, ModelError, UnsupportedOperatorError: see :func:`lrp_lightning.engine.propagate`.
        """
        return propagate(self.model, inputs, target, additional_forward_args, self.composite, self.selection, edges)

    def compute_convergence_delta(self, attributions: Tensor | tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Output less the relevance of the inputs, ``(N,)``; what biases, stabilisers and the selection took.

        Args:
            attributions: relevance of the inputs.
            output: the output explained, ``(N,)``.
        """
        parts = attributions if isinstance(attributions, tuple) else (attributions,)
        return output.flatten() - sum(part.flatten(1).sum(1) for part in parts)

    def __repr__(self) -> str:
        return f"SelectiveLRP({type(self.model).__name__}, {self.composite!r}, selection={self.selection!r})"

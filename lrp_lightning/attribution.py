"""Captum's interface: attribution classes that replace ``captum.attr.LRP`` and ``LayerLRP``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from torch import Tensor, nn

from lrp_lightning.captum_names import GradientAttribution, LayerAttribution, log_usage
from lrp_lightning.capture import Captured
from lrp_lightning.capture.program import capture
from lrp_lightning.checks import got
from lrp_lightning.composites import Composite, EpsilonPlus, as_composite
from lrp_lightning.engine.propagate import propagate
from lrp_lightning.errors import InputError, ModelError, RuleError, SelectionError
from lrp_lightning.layers import LayerNames, check_shows_operators, modules_of
from lrp_lightning.rules import Rule, rule_on
from lrp_lightning.selection import Search, Selection
from lrp_lightning.trace import Trace

__all__ = ["LayerSelectiveLRP", "SelectiveLRP"]


class SelectiveLRP(GradientAttribution):
    """Layer-wise relevance propagation that selects neurons during the backward pass.

    A replacement for ``captum.attr.LRP`` with the same calls and the same meanings of ``target``. It differs where Captum is
    wrong: functional operators, in-place operators, reused modules and residual additions are followed, batch norm is folded
    into the layer before it, and the model is never changed, not even during the call. A model in train mode is explained as
    in eval mode. Captum's default rule is ``Epsilon()``; here it is ``"epsilon_plus"``, with z+ in convolutions.

    Args:
        model: the classifier; its forward returns one tensor, samples first, or an object with one named ``logits``, as in
            transformers, or ``out``, as in torchvision's segmentation.
        composite: which rule each layer gets: a composite, a rule for all layers, or a name such as ``"epsilon_plus"``.
        selection: which neurons of each hidden layer propagate relevance; None for all.
        on_unsupported: what to do at an operator without a rule: ``"raise"``, or use its plain ``"gradient"``, warn and list
            it in ``Trace.unsupported``. To give it a rule see :func:`lrp_lightning.register_operator`.
        multiply_by_inputs: whether :meth:`attribute` returns relevance; if False, it returns the factor that is multiplied
            by the input, as Captum's classes do: ``x * map`` is the relevance. Where ``x`` is 0, the map is the relevance
            per unit of input for a small input, with all denominators unchanged. With epsilon in a network of ReLUs it is
            the gradient, up to the stabiliser. ``ZBox``, ``WSquare``, ``Flat`` and ``Pass`` give relevance to an input of 0,
            so they have no such map. Other methods, such as :meth:`trace`, return relevance either way.

    A rule of this library or of Captum, set on a module as ``module.rule``, overrides the composite's.

    Raises:
        ModelError: if ``model`` is not a ``torch.nn.Module``.
        RuleError: if ``composite`` or a ``module.rule`` is not a rule, or ``on_unsupported`` is neither of these.
        SelectionError: if ``selection`` is not a selection.

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
        >>> map = SelectiveLRP(model, selection=TopK(2), multiply_by_inputs=False).attribute(x, target=1)
        >>> torch.allclose(x * map, lrp.attribute(x, target=1))
        True
    """

    def __init__(
        self,
        model: nn.Module,
        composite: Composite | Rule | str = EpsilonPlus(),  # noqa: B008  (a frozen value)
        selection: Selection | None = None,
        on_unsupported: Literal["raise", "gradient"] = "raise",
        multiply_by_inputs: bool = True,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ModelError(f"model must be a torch.nn.Module, got {got(model)}")
        check_shows_operators(model)
        if on_unsupported not in ("raise", "gradient"):
            raise RuleError(f"on_unsupported must be 'raise' or 'gradient', got {on_unsupported!r}")
        if selection is not None and (isinstance(selection, type) or not isinstance(selection, Selection)):
            instead = "; that is a composite, give it as composite=" if isinstance(selection, Composite | Rule) else ""
            given = got(selection) if isinstance(selection, type) else repr(selection)
            raise SelectionError(f"selection must be a selection such as TopK(0.1), got {given}{instead}")
        for _, module in modules_of(model):
            rule_on(module)
        GradientAttribution.__init__(self, model)
        self.model = model
        self.composite: Composite = as_composite(composite)
        self.selection = selection
        self.on_unsupported = on_unsupported
        self._multiply_by_inputs = bool(multiply_by_inputs)

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether :meth:`attribute` returns shares of the output rather than its sensitivities; read by Captum."""
        return self._multiply_by_inputs

    def has_convergence_delta(self) -> bool:
        """Whether :meth:`attribute` can return the delta: if it multiplies by the inputs. Part of Captum's interface."""
        return self.multiplies_by_inputs

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
            target: the output to explain, with Captum's meaning: None, an int, a tuple, a tensor, or a list of either. An
                int is an index into dimension 1. For an output ``(N, classes)`` a pair ``(a, b)`` explains the difference
                of two classes. A function of the output returns one class per sample, such as ``lambda y: y.argmax(1)``, or
                the value to explain for each sample: ``lambda y: y[:, 3].mean((1, 2))`` for class 3 of a segmentation.
            additional_forward_args: passed to the model after ``inputs``; get no relevance.
            return_convergence_delta: whether to return the delta as well.
            verbose: print each layer with its kind and the relevance that reached it.

        Returns:
            Relevance shaped like ``inputs``, in the unit of the output; its sum is the output minus what was absorbed.
            Without ``multiply_by_inputs``, relevance divided by ``inputs``: output per unit of the input. With
            ``return_convergence_delta``, a pair of that and ``(N,)``, the output minus the relevance of the inputs.

        Raises:
            InputError, TargetError, ModelError, UnsupportedOperatorError: see :func:`lrp_lightning.engine.propagate`.
            InputError: if ``return_convergence_delta`` is set without ``multiply_by_inputs``, or, without it, an input holds
                token numbers.
            RuleError: if, without ``multiply_by_inputs``, a rule gives relevance to an input of 0.
        """
        self._check_delta(return_convergence_delta)
        trace, _ = self._pass(
            inputs, target, additional_forward_args, accounts=verbose, multiply_by_inputs=self.multiplies_by_inputs
        )
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
        per_sample: bool = False,
        by_place: Mapping[str, Sequence[int]] | None = None,
    ) -> Trace:
        """Relevance at every layer, the critical neurons, and, with ``edges``, the relevance between any two neurons.

        Args:
            inputs: one tensor, or a tuple of them, samples first.
            target: the output to explain, as in :meth:`attribute`.
            additional_forward_args: as in :meth:`attribute`.
            edges: whether to compute the relevance between neurons too; takes one weight gradient more.
            per_sample: whether to keep the edges of each sample separately. They then take ``N`` times the memory, and
                while a layer is processed ``N`` times that of its weight: for VGG16 90 MB per sample, 400 MB at its first
                linear layer.
            by_place: ``{layer: neurons}`` whose activation and relevance are also kept for each place, as
                ``Trace.by_place``; residual sums included.

        Raises:
            InputError, TargetError, ModelError, UnsupportedOperatorError: see :func:`lrp_lightning.engine.propagate`.
        """
        if per_sample and not edges:
            raise InputError("per_sample=True keeps the edges of each sample apart; ask for edges=True too")
        return self._pass(inputs, target, additional_forward_args, edges=edges, per_sample=per_sample, by_place=by_place)[0]

    def capture(
        self,
        images: Tensor | tuple[Tensor, ...],
        target: Any = None,
        additional_forward_args: Any = None,
        dynamic_batch: bool = False,
        freeze: bool = True,
    ) -> Captured:
        """Record a pass as a module of plain tensor operators, to compile, export and ship without this library.

        The module takes images of the recorded shape and returns output, relevance and masks, equal to those of
        :meth:`trace` within rounding. It contains no Python code of this library: ``torch.compile`` it, save it with
        ``torch.export``, or write it as ONNX with :func:`lrp_lightning.capture.save_onnx`. It does not compute the rest of a
        trace, such as edges and the relevance of each layer.

        Args:
            images: an example, samples first. Only its shape, precision and device matter.
            target: as in :meth:`attribute`. A function such as ``lambda y: y.argmax(1)`` is recorded and explains the
                predicted class of each sample. A tensor of classes, ``(N,)``, becomes an input of the module, after the
                images.
            additional_forward_args: as in :meth:`attribute`; recorded as constants.
            dynamic_batch: whether the module takes any number of samples. It is recorded for several numbers of them.
            freeze: whether values that depend on weights alone, such as folded batch norms and positive parts of weights,
                are computed once and kept in buffers. If not, the module shares the model's parameters, under their names
                with ``__`` for dots, and explains the model with its current weights, also during training.

        Returns:
            The module. ``.to`` moves and converts it like any other module, except to float16.

        Raises:
            SelectionError: if the selection searches, as :class:`MinError` does.
            UnsupportedOperatorError: if the model's forward reads the value of a tensor, as data-dependent branches and
                shapes do; if an operator has no rule; or if one was propagated by ``on_unsupported="gradient"``.
            InputError, TargetError, ModelError: as :meth:`attribute`.

        Example:
            >>> import torch
            >>> from lrp_lightning import SelectiveLRP, TopK
            >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
            >>> explain = SelectiveLRP(model, selection=TopK(2)).capture(torch.rand(5, 4), target=lambda y: y.argmax(1))
            >>> output, relevance, masks = explain(torch.rand(5, 4))
            >>> output.shape, relevance.shape, masks["0"].sum(1)
            (torch.Size([5, 3]), torch.Size([5, 4]), tensor([2, 2, 2, 2, 2]))
        """
        return capture(
            self.model, images, target, additional_forward_args, self.composite, self.selection, self.on_unsupported,
            dynamic_batch, freeze,
        )  # fmt: skip

    def _pass(self, inputs: Any, target: Any, additional_forward_args: Any, **asked: Any) -> tuple[Trace, list]:
        given = self.model, inputs, target, additional_forward_args, self.composite
        selection, history = self.selection, None
        if isinstance(selection, Search):
            selection, history = selection.search(*given, self.on_unsupported)
        trace, found = propagate(*given, selection, on_unsupported=self.on_unsupported, **asked)
        return (trace if history is None else replace(trace, history=history)), found

    def _check_delta(self, asked: bool) -> None:
        if asked and not self.has_convergence_delta():
            raise InputError(
                "return_convergence_delta: the delta is the output minus relevance, and without multiply_by_inputs what is "
                "given is not relevance; multiply it by the input and call compute_convergence_delta"
            )

    def attribute_future(self) -> None:
        """Not available, as in Captum's LRP.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("attribute_future is not implemented for LRP; call attribute")

    def compute_convergence_delta(self, attributions: Tensor | tuple[Tensor, ...], output: Tensor) -> Tensor:
        """The output minus the relevance of the inputs, ``(N,)``: what biases, stabilisers and the selection absorbed.

        Args:
            attributions: relevance of the inputs, multiplied by them.
            output: the explained output, ``(N,)``.
        """
        parts = attributions if isinstance(attributions, tuple) else (attributions,)
        return output.flatten() - sum(part.flatten(1).sum(1) for part in parts)

    def __repr__(self) -> str:
        unlike = "" if self.multiplies_by_inputs else ", multiply_by_inputs=False"
        return f"{type(self).__name__}({self._what()}, {self.composite!r}, selection={self.selection!r}{unlike})"

    def _what(self) -> str:
        return type(self.model).__name__


class LayerSelectiveLRP(SelectiveLRP, LayerAttribution):
    """Relevance of a layer's output or input, value by value.

    A replacement for ``captum.attr.LayerLRP``. It also handles layers that are used in several places, that have no
    parameters, or that are not modules.

    Args:
        model: as in :class:`SelectiveLRP`.
        layer: a module; or the name of a module, of one of several calls (``"conv#2"``), or of a residual sum
            (``"layer1.0.add"``); or a list of these. None for every layer of ``Trace.relevance`` except the input.
        composite, selection, on_unsupported: as in :class:`SelectiveLRP`.
        multiply_by_inputs: as in :class:`SelectiveLRP`, applied to the layer's values: if False, relevance is returned
            before it is multiplied by the layer's output (or input).

    Raises:
        ModelError, RuleError, SelectionError: as :class:`SelectiveLRP`.

    Example:
        >>> import torch
        >>> from lrp_lightning import LayerSelectiveLRP
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> LayerSelectiveLRP(model, model[1]).attribute(torch.randn(5, 4), target=1).shape
        torch.Size([5, 8])
        >>> LayerSelectiveLRP(model, "0").attribute(torch.randn(5, 4), target=1, attribute_to_layer_input=True).shape
        torch.Size([5, 4])
    """

    def __init__(
        self,
        model: nn.Module,
        layer: nn.Module | str | Sequence[nn.Module | str] | None = None,
        composite: Composite | Rule | str = EpsilonPlus(),  # noqa: B008  (a frozen value)
        selection: Selection | None = None,
        on_unsupported: Literal["raise", "gradient"] = "raise",
        multiply_by_inputs: bool = True,
    ) -> None:
        SelectiveLRP.__init__(self, model, composite, selection, on_unsupported, multiply_by_inputs)
        LayerAttribution.__init__(self, model, layer)

    def capture(self, *args: Any, **kwargs: Any) -> Captured:
        """Not available: a captured pass returns the relevance of the inputs only.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("capture gives the relevance of inputs; call it of SelectiveLRP(model)")

    def _what(self) -> str:
        names = LayerNames(self.model).of_module
        several = isinstance(self.layer, list | tuple)
        layers = [names.get(id(layer), layer) for layer in (self.layer if several else [self.layer])]
        return f"{super()._what()}, layer={layers if several else layers[0]!r}"

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        attribute_to_layer_input: bool = False,
        verbose: bool = False,
    ) -> Any:
        """Relevance at the layer.

        Args:
            inputs, target, additional_forward_args: as in :meth:`SelectiveLRP.attribute`. Inputs may be integers, such as
                token numbers, if the layer, or one below it, is an embedding.
            return_convergence_delta: whether to return the delta as well.
            attribute_to_layer_input: whether to return the relevance of the layer's input instead of its output.
            verbose: print each layer with its kind and the relevance that reached it.

        Returns:
            Relevance shaped like the layer's output (or input), a tuple if it has several; a list of these for a list of
            layers. With ``return_convergence_delta``, a pair of that and the output minus its sum, ``(N,)``, or a list of
            such pairs.

        Raises:
            LayerError: if there is no such layer, it does not run, or runs more than once.
            InputError, TargetError, ModelError, RuleError, UnsupportedOperatorError: as :meth:`SelectiveLRP.attribute`.
        """
        self._check_delta(return_convergence_delta)
        several = self.layer is None or isinstance(self.layer, list | tuple)
        layers: Any = self.layer if several else [self.layer]
        if layers is None:
            trace = self.trace(inputs, target, additional_forward_args)
            layers = [name for name in trace.relevance if trace.kinds[name] != "input"]
        trace, found = self._pass(
            inputs, target, additional_forward_args, layers=list(layers), of_layer_input=attribute_to_layer_input,
            accounts=verbose, multiply_by_inputs=self.multiplies_by_inputs,
        )  # fmt: skip
        if verbose:
            print(trace)
        if not return_convergence_delta:
            return found if several else found[0]
        deltas = [self.compute_convergence_delta(relevance, trace.explained) for relevance in found]
        return (found, deltas) if several else (found[0], deltas[0])

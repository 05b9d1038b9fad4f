"""Recording a pass: the module that ``SelectiveLRP.capture`` returns, and its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from lrp_lightning.capture.any_batch import SIZES, for_any_batch
from lrp_lightning.capture.folding import drop_unread, fold_constants, without_dead_code
from lrp_lightning.compat import is_aten, is_exporting
from lrp_lightning.composites import Composite
from lrp_lightning.engine.propagate import check_inputs, propagate
from lrp_lightning.errors import LRPError, ModelError, SelectionError, TargetError, UnsupportedOperatorError
from lrp_lightning.layers import unwrapped
from lrp_lightning.selection import PerLayer, Search, Selection
from lrp_lightning.trace import Trace

__all__ = ["Captured", "Explanation", "capture"]

_ROUNDING = 1e-2
"""Tolerance, relative to the largest value. Errors are of the size of the value; rounding is smaller than this."""


class _Kind(NamedTuple):
    """The device and dtype of a program's tensors."""

    device: torch.device
    dtype: torch.dtype


class Explanation(NamedTuple):
    """The result of a captured pass.

    Attributes:
        output: the model's output, ``(N, classes)``.
        relevance: of the input, shaped like it; a tuple for several inputs.
        masks: ``{layer: (N, C) bool}``, the critical neurons of each hidden layer; empty without a selection.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP, TopK
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> found = SelectiveLRP(model, selection=TopK(2)).capture(torch.rand(5, 4), target=1)(torch.rand(5, 4))
        >>> found.relevance.shape, found.masks["0"].sum(1)
        (torch.Size([5, 4]), tensor([2, 2, 2, 2, 2]))
    """

    output: Tensor
    relevance: Tensor | tuple[Tensor, ...]
    masks: dict[str, Tensor]


class Captured(nn.Module):
    """A recorded pass, from :meth:`lrp_lightning.SelectiveLRP.capture`: a module of plain tensor operators.

    Attributes:
        program: the recorded graph, whose operators are ATen's and whose buffers are the model's weights.
        inputs: number of input tensors that it explains.
        shapes: their shapes and, if the target was a tensor, that of the classes after them, ``(N,)``.
        layers: the layers of the masks, in the order in which the program returns them.
        dynamic_batch: whether it takes any number of samples.

    Args:
        program, inputs, layers, dynamic_batch: as above.
        example: the recorded tensors; their shapes, device and precision are kept.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> captured = SelectiveLRP(model).capture(torch.rand(1, 4), target=1, dynamic_batch=True)
        >>> captured.shapes, captured(torch.rand(7, 4)).relevance.shape
        ((torch.Size([1, 4]),), torch.Size([7, 4]))
    """

    def __init__(
        self,
        program: fx.GraphModule,
        example: Sequence[Tensor],
        inputs: int,
        layers: Sequence[str],
        dynamic_batch: bool,
    ) -> None:
        super().__init__()
        self.program = program
        self.inputs: int = inputs
        self.layers: tuple[str, ...] = tuple(layers)
        self.dynamic_batch: bool = dynamic_batch
        self.shapes: tuple[torch.Size, ...] = tuple(t.shape for t in example)
        self._kind = _Kind(example[0].device, example[0].dtype)

    def forward(self, *images: Tensor) -> Explanation:
        """Explain images of the recorded shape.

        Args:
            images: the input tensors, samples first, and, if the target was a tensor, one class per sample, ``(N,)``.

        Returns:
            The explanation; while ``torch.export`` records the call, a plain tuple of its three parts, so that the exported
            program does not need this library.
        """
        output, *rest = self.program(*images)
        relevance, masks = rest[: self.inputs], dict(zip(self.layers, rest[self.inputs :], strict=True))
        found = relevance[0] if self.inputs == 1 else tuple(relevance)
        if is_exporting():
            return output, found, masks  # type: ignore[return-value]
        return Explanation(output, found, masks)

    def _apply(self, fn: Callable, recurse: bool = True) -> Captured:
        """Move or convert the weights and the tensors that the program creates."""
        was, is_now = self._kind, _moved(self._kind, fn)
        if is_now.dtype == torch.float16 and was.dtype != torch.float16:
            raise ModelError(
                "a captured pass cannot be converted to float16, because its stabilisers would become zero: convert the "
                "model, then capture it"
            )
        super()._apply(fn, recurse)
        for node in self.program.graph.nodes:
            node.args, node.kwargs = _in_kind((node.args, node.kwargs), was, is_now)
        self.program.recompile()
        self._kind = is_now
        return self

    def example(self) -> tuple[Tensor, ...]:
        """Example inputs, all zero, as ``torch.export.export`` needs them."""
        device, dtype = self._kind
        samples = max(2, self.shapes[0][0]) if self.dynamic_batch else self.shapes[0][0]  # 1 is never dynamic
        shapes = [(samples, *shape[1:]) for shape in self.shapes]
        kinds = [dtype] * self.inputs + [torch.long]
        return tuple(torch.zeros(shape, dtype=kind, device=device) for shape, kind in zip(shapes, kinds, strict=False))

    def __repr__(self) -> str:
        nodes = sum(node.op == "call_function" for node in self.program.graph.nodes)
        return f"Captured({nodes} operators, {len(self.layers)} masks)"


def capture(
    model: nn.Module,
    images: Tensor | tuple[Tensor, ...],
    target: Any,
    additional_forward_args: Any,
    composite: Composite,
    selection: Selection | None,
    on_unsupported: Literal["raise", "gradient"],
    dynamic_batch: bool,
    freeze: bool,
) -> Captured:
    """Record a pass; see :meth:`lrp_lightning.SelectiveLRP.capture`."""
    if (search := _search_in(selection)) is not None:
        raise SelectionError(
            f"{type(search).__name__} searches with many passes, so it cannot be captured. Search once, then capture the "
            "pass with the neurons that were found: selection=Fixed({layer: neurons})"
        )
    model = unwrapped(model)
    given = images if isinstance(images, tuple) else (images,)
    check_inputs(model, given, values=False, tokens=False)
    takes_target = isinstance(target, Tensor)
    if takes_target and (target.shape != (len(given[0]),) or target.is_floating_point() or target.dtype == torch.bool):
        raise TargetError(
            f"a target that becomes an input must be one class per sample, integers ({len(given[0])},), got {target.dtype} "
            f"{tuple(target.shape)}; give a class by its number"
        )

    def trace_of(*tensors: Tensor, **how: Any) -> Trace:
        xs, classes = tensors[: len(given)], tensors[len(given) :]
        chosen = (lambda _: classes[0]) if takes_target else target
        inputs = xs if isinstance(images, tuple) else xs[0]
        return propagate(model, inputs, chosen, additional_forward_args, composite, selection, accounts=False, **how)[0]

    def explain(*tensors: Tensor) -> list[Tensor]:
        return _returned(trace_of(*tensors, values=False))

    tensors = (*given, *([target.to(given[0].device)] if takes_target else []))
    # an ordinary pass reports errors in the model or the target, and also checks values
    trace = trace_of(*tensors, on_unsupported=on_unsupported)
    if trace.unsupported:
        raise UnsupportedOperatorError(
            f"relevance passes {', '.join(trace.unsupported)} by plain gradient, which cannot be captured. Give the "
            "operator a rule with lrp_lightning.register_operator"
        )
    try:
        if dynamic_batch:
            program = for_any_batch([_recorded(model, explain, [_repeated(t, n) for t in tensors]) for n in SIZES])
        else:
            program = _recorded(model, explain, tensors)
    except LRPError:
        raise
    except Exception as error:
        raise UnsupportedOperatorError(
            f"{type(model).__name__} cannot be captured: its forward, or a rule or selection of your own, asks for the "
            f"value of a tensor, as branches and shapes that depend on data do, or leaves torch's operators ({error})"
        ) from error
    if freeze:
        fold_constants(program)
    _check_same(program(*tensors), _returned(trace), len(given))
    return Captured(program, tensors, len(given), list(trace.masks), dynamic_batch)


def _returned(trace: Trace) -> list[Tensor]:
    """The results of a pass that a program returns: the output, the relevance of each input, and the mask of each layer."""
    relevance = trace.inputs if isinstance(trace.inputs, tuple) else (trace.inputs,)
    return [trace.output, *relevance, *trace.masks.values()]


def _check_same(found: Sequence[Tensor], expected: Sequence[Tensor], inputs: int) -> None:
    """Raise an error if a program does not reproduce the pass on the recorded images.

    Raises:
        UnsupportedOperatorError: if outputs, or relevance through the same neurons, differ beyond rounding.
    """
    output, *rest = zip(found, expected, strict=True)
    relevance, masks = rest[:inputs], rest[inputs:]
    for one, other in [output, *(relevance if all(torch.equal(*mask) for mask in masks) else [])]:
        if not (one - other).abs().max() <= _ROUNDING * other.abs().max():
            raise UnsupportedOperatorError(
                "the recorded pass gives other results than the pass itself for these images, so it cannot be captured; "
                "does the model's forward keep a state or draw random numbers?"
            )


def _search_in(selection: Selection | None) -> Selection | None:
    """The selection, or one of its layers' selections, that makes passes of its own."""
    if isinstance(selection, PerLayer):
        return next(filter(None, map(_search_in, (selection.default, *selection.layers.values()))), None)
    return selection if isinstance(selection, Search) else None


def _recorded(model: nn.Module, explain: Callable[..., list[Tensor]], tensors: Sequence[Tensor]) -> fx.GraphModule:
    """The graph of a function of tensors, functional and without dead code; weights have their names in the model."""
    plain = make_fx(explain)(*tensors)
    weights = _lift_weights(plain)
    program = make_fx(functionalize(plain, remove="mutations"))(*weights, *tensors)
    _lower_weights(program, weights, model)
    if any(node.op == "call_function" and _writes(node.target) for node in program.graph.nodes):
        raise UnsupportedOperatorError("the forward writes to a buffer of the model, so a pass of it cannot be captured")
    without_dead_code(program.graph)
    drop_unread(program)
    program.recompile()
    return program


def _writes(function: Any) -> bool:
    return is_aten(function) and function._schema.is_mutable


def _lift_weights(module: fx.GraphModule) -> list[Tensor]:
    """Turn a graph's weights and constants into its first inputs, because it may write to values computed from them."""
    reads: dict[str, list[fx.Node]] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            reads.setdefault(node.target, []).append(node)
    first = next(iter(module.graph.nodes))
    for n, nodes in enumerate(reads.values()):
        with module.graph.inserting_before(first):
            lifted = module.graph.placeholder(f"weight_{n}")
        for node in nodes:
            node.replace_all_uses_with(lifted)
            module.graph.erase_node(node)
    module.recompile()
    return [getattr(module, name) for name in reads]


def _lower_weights(module: fx.GraphModule, weights: Sequence[Tensor], model: nn.Module) -> None:
    """Turn the first inputs of a graph into attributes of its module, named as in the model; constants are numbered."""
    names = {id(t): name for name, t in (*model.named_parameters(), *model.named_buffers())}
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    for n, (node, weight) in enumerate(zip(placeholders, weights, strict=False)):
        name = names.get(id(weight), f"weight_{n}").replace(".", "__")
        if isinstance(weight, nn.Parameter):
            module.register_parameter(name, weight)
        else:
            module.register_buffer(name, weight)
        with module.graph.inserting_before(node):
            node.replace_all_uses_with(module.graph.get_attr(name))
        module.graph.erase_node(node)


def _repeated(t: Tensor, samples: int) -> Tensor:
    return t[torch.arange(samples, device=t.device) % len(t)]


def _moved(kind: _Kind, fn: Callable[[Tensor], Tensor]) -> _Kind:
    moved = fn(torch.empty(0, device=kind.device, dtype=kind.dtype))
    return _Kind(moved.device, moved.dtype)


def _in_kind(given: Any, was: _Kind, is_now: _Kind) -> Any:
    """Arguments with the devices and dtypes of moved tensors."""
    change = {was.device: is_now.device, was.dtype: is_now.dtype}

    def changed(value: Any) -> Any:
        return change.get(value, value) if isinstance(value, torch.device | torch.dtype) else value

    return fx.node.map_aggregate(given, changed)

"""The visitor for reconstruction from a layer's neurons: every operator has its own gradient, except rectifiers.

``"deconvnet"`` and ``"guided"`` are treatments of rectifiers. ``"receptive_field"`` only determines which inputs can reach a
neuron: activations and pooling pass everything, and an affine map propagates 1 wherever it propagates anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrp_lightning.engine.affine import AffineMap
from lrp_lightning.engine.calls import Call, Operator
from lrp_lightning.engine.facts import Facts
from lrp_lightning.engine.following import assumed
from lrp_lightning.engine.functions import Valued
from lrp_lightning.engine.interpreter import Interpreter
from lrp_lightning.engine.layers import Layer, Layers
from lrp_lightning.engine.operators.activations import RECTIFIERS
from lrp_lightning.engine.operators.nodes import neuron_dim_of
from lrp_lightning.engine.operators.table import TABLE
from lrp_lightning.engine.visitor import Part, Unit, Visitor
from lrp_lightning.errors import LayerError
from lrp_lightning.layers import LayerNames, unknown_layer

__all__ = ["METHODS", "Gradients", "Method", "activation_of"]

Method = Literal["deconvnet", "guided", "receptive_field"]

METHODS = ("deconvnet", "guided")
"""The methods of reconstruction."""


class Gradients(Visitor):
    """Notes the output of every layer, with its gradient, under the names of a relevance pass.

    Args:
        layers: the layers of the forward.
        method: the kind of backward.
    """

    def __init__(self, layers: Layers, method: Method) -> None:
        super().__init__(layers)
        self.method = method
        self.counts = method == "receptive_field"
        self.outputs: dict[Layer, Tensor] = {}

    def foreign(self, run: Interpreter, operator: Operator, t: Tensor) -> None:
        samples = assumed(run, t)
        run.facts[t] = Facts(samples, lost=f"{t.grad_fn.name()} may mix samples")  # type: ignore[union-attr]

    def layer(self, run: Interpreter, unit: Unit) -> Tensor:
        with torch.no_grad():
            w = unit.weight.detach()
        out = _Affine.apply(unit.a, unit.y.detach(), w, unit.op, self.counts)
        self.outputs[unit.layer] = out
        return out

    def node(self, run: Interpreter, layer: Layer, y: Tensor, parts: Sequence[Part], stays: Any = None) -> Tensor:
        self.outputs[layer] = y
        return y

    def rectifier(self, run: Interpreter, call: Call, x: Tensor) -> Tensor:
        return self._cut(call, x)

    def activation(self, run: Interpreter, call: Call, x: Tensor, keeps_sign: bool) -> Tensor:
        if self.counts:
            if "softmax" in call.name:
                return call()
            y = call.values()
            return Valued.apply(x.expand_as(y), y)
        return self._cut(call, x) if call.name in RECTIFIERS and _cuts_at_zero(call) else call()

    def one_activation(self, run: Interpreter, call: Call, root: Tensor) -> Tensor:
        return call()

    def _cut(self, call: Call, x: Tensor) -> Tensor:
        """A rectifier that also rectifies the gradient (Zeiler & Fergus 2014); guided, only where the signal passed."""
        y = call.values()
        y = y.clone() if y is x else y
        if self.counts:
            return Valued.apply(x, y)
        return _Rectified.apply(x, y, (y == x) & (y > 0) if self.method == "guided" else None)

    def pooled(self, run: Interpreter, call: Call, x: Tensor) -> Any:
        if not self.counts or "max_pool" not in call.name:
            return call()
        result = call.values()
        first = result[0] if isinstance(result, tuple) else result  # some also return indices
        n = int(next(c for c in call.name if c.isdigit()))
        reach = _mean_of_regions if call.name.startswith("adaptive") else _sum_of_windows
        y = Valued.apply(reach(n, x, first, *call.args[1:], **{k: v for k, v in call.kwargs.items() if k != "input"}), first)
        return (y, *result[1:]) if isinstance(result, tuple) else y


def activation_of(model: nn.Module, inputs: Tensor, extra: tuple, layer: nn.Module | str, method: Method) -> Tensor:
    """Run a model and return the neurons of a layer, ``(N, C, places)``, with their gradient.

    Args:
        model: in the state in which it is explained.
        inputs: requires gradients.
        extra: passed to the model after the inputs.
        layer: a unit layer, a residual sum, one of several calls, or any module whose output is a tensor.
        method: the kind of backward.

    Raises:
        LayerError: if there is no such layer, it does not run, or it runs more than once.
    """
    names = LayerNames(model)
    layers = Layers(names, len(inputs))
    visitor = Gradients(layers, method)
    run = Interpreter(names, TABLE, visitor, len(inputs))
    run.begin(inputs, model)
    if isinstance(layer, nn.Module) and id(layer) not in names.of_module:
        raise LayerError(f"{type(layer).__name__} is not a module of the model")
    name = layer if isinstance(layer, str) else names.of_module[id(layer)]
    module = names.modules.get(name)
    given: list[Any] = []
    handle = None if module is None else module.register_forward_hook(lambda m, a, output: given.append(run.latest(output)))
    try:
        with run:
            model(inputs, *extra)
    finally:
        if handle is not None:
            handle.remove()
    by_name = layers.named()
    if name in by_name and name != "input":
        noted = by_name[name]
        t, standing = visitor.outputs[noted], noted
    elif module is None:
        raise unknown_layer(name, [known for known in by_name if known != "input"])
    elif len(given) != 1:
        raise LayerError(
            f"layer {name!r} runs {len(given)} times; name one: {name}#1, {name}#2, ..."
            if given
            else f"layer {name!r} does not run in this forward"
        )
    else:
        [t] = given
        if not run.known(t):
            raise LayerError(f"the output of layer {name!r} must be a tensor that depends on the input")
        facts = run.of(t)
        if facts.samples is None:
            raise LayerError(f"layer {name!r} has samples mixed with other dimensions: {facts.lost}")
        standing = layers.add(name, "module", t, neuron_dim_of(facts, t), facts.samples)
    if standing.rows is None:
        raise LayerError(standing.lost)
    return standing.by_place(t)


def _sum_of_windows(n: int, x: Tensor, y: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
                    dilation: Any = 1, *_: Any, **__: Any) -> Tensor:  # fmt: skip
    """The windows that a max pooling reads, cropped or padded on the right to give the same number."""
    size, step, before, apart = (
        tuple(v) if isinstance(v, tuple | list) else (v,) * n
        for v in (kernel_size, stride or kernel_size, padding, dilation)
    )
    lacks = [
        (windows - 1) * s + d * (k - 1) + 1 - 2 * p - had
        for windows, had, k, s, p, d in zip(y.shape[2:], x.shape[2:], size, step, before, apart, strict=True)
    ]
    filled = F.pad(x, [zeros for more in reversed(lacks) for zeros in (0, max(more, 0))])
    convolve: Callable = (F.conv1d, F.conv2d, F.conv3d)[n - 1]
    return convolve(filled, x.new_ones(x.shape[1], 1, *size), None, step, before, apart, x.shape[1])


def _mean_of_regions(n: int, x: Tensor, y: Tensor, *_: Any, **__: Any) -> Tensor:
    return (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[n - 1](x, y.shape[2:])  # type: ignore[arg-type]


def _cuts_at_zero(call: Call) -> bool:
    """Whether values below zero become zero; for a clamp, depending on its lower bound."""
    if "relu" in call.name:
        return True
    rest, named = call.args[1:], call.kwargs
    lower = rest[0] if rest else next((named[n] for n in ("min", "min_val", "threshold") if n in named), None)
    value = rest[1] if call.name == "threshold" and len(rest) > 1 else named.get("value", 0)
    return isinstance(lower, int | float) and lower == 0 and value == 0


class _Affine(torch.autograd.Function):
    """Returns the given ``y = w a + b``; its backward is the gradient, or 1 wherever anything can be propagated."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, y: Tensor, w: Tensor, op: AffineMap, counts: bool) -> Tensor:
        ctx.save_for_backward(a, torch.ones_like(w) if counts else w)
        ctx.op, ctx.counts = op, counts
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        a, w = ctx.saved_tensors
        if ctx.counts:
            g = ctx.op.pull_back((grad[0] != 0).to(w.dtype), a, w, False)[0]
            return (g > 0.5).to(w.dtype), None, None, None, None  # counts, integers up to rounding
        return ctx.op.pull_back(grad[0], a, w, False)[0], None, None, None, None


class _Rectified(torch.autograd.Function):
    """A rectifier whose backward is also a rectifier; ``open``, if given, says where the forward passed values."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, open: Tensor | None) -> Tensor:
        ctx.save_for_backward(open)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        (open,) = ctx.saved_tensors
        g = torch.relu(grad[0])
        return (g if open is None else torch.where(open, g, 0)), None, None

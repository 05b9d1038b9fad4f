"""The mode in which every operator has its own gradient but rectifiers, for reconstruction from a layer's neurons.

``"deconvnet"`` and ``"guided"`` say what rectifiers do. ``"receptive_field"`` asks only which inputs can reach a neuron:
activations and pooling let everything through, and of what an affine map hands down it counts only whether there is any.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrp_lightning.composites import Composite
from lrp_lightning.engine.affine import AffineMap
from lrp_lightning.engine.mode import Facts, MadeBy, RelevanceMode, likely_dim, tensors_in
from lrp_lightning.engine.operators import table_of
from lrp_lightning.engine.recording import Layer, Recording
from lrp_lightning.engine.rows import affine, attention, elementwise, movement, products
from lrp_lightning.engine.rows.arguments import Row, out_of_place, signal_and_in_place, without_in_place
from lrp_lightning.errors import LayerError
from lrp_lightning.layers import LayerNames, neuron_dim, numbered, unknown_layer
from lrp_lightning.rules import Epsilon

__all__ = ["GradientMode", "Method"]

Method = Literal["deconvnet", "guided", "receptive_field"]
_QUOTIENTS = "div div_ divide divide_ true_divide true_divide_ __div__ __truediv__ __itruediv__ __rdiv__ __rtruediv__"


def own_gradient(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """An operator with its own gradient; in-place ones run out of place."""
    if kwargs.get("out") is not None:
        raise mode.unsupported(func, "writes to a tensor given as out, which cannot be followed")
    if args or "input" in kwargs:
        x, in_place = signal_and_in_place(func, args, kwargs)
        if in_place:
            rest, named = without_in_place(func, args, kwargs)
            return mode.now(x, own_gradient(mode, out_of_place(func), (x, *rest), named))
    result = func(*args, **kwargs)
    for t in tensors_in((result,)):
        if t.requires_grad and not mode.known(t):
            mode.learn(t, Facts())
    return result


def _with_gradient_of(other: Callable, mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """An operator's values, with the gradient of another operator on the same input."""
    x, in_place = signal_and_in_place(func, args, kwargs)
    rest, named = without_in_place(func, args, kwargs)
    with torch.no_grad():
        result = out_of_place(func)(x, *rest, **named)
    first = result[0] if isinstance(result, tuple) else result  # some poolings give where they found their values too
    y = mode.learn(mode.valued(other(x, first, *rest, **named), first), Facts(dim=mode.of(x).dim))
    if isinstance(result, tuple):
        return (y, *result[1:])
    return mode.now(x, y) if in_place else y


def _identity(x: Tensor, y: Tensor, *_: Any, **__: Any) -> Tensor:
    return x.expand_as(y)


def _sum_of_windows(n: int, x: Tensor, y: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
                    dilation: Any = 1, *_: Any, **__: Any) -> Tensor:  # fmt: skip
    """Of the windows that a max pooling reads, cut or filled on the right to give as many."""
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


_RECEPTIVE_FIELD: dict[str, Row] = {
    **{
        name: partial(_with_gradient_of, _identity)
        for name in elementwise.ROWS
        if "softmax" not in name and "dropout" not in name
    },
    **{
        f"{form}max_pool{n}d{more}": partial(_with_gradient_of, partial(mean, n))
        for n in (1, 2, 3)
        for form, mean in (("", _sum_of_windows), ("adaptive_", _mean_of_regions))
        for more in ("", "_with_indices")
    },
}

_TABLES: dict[str, dict[Callable, Row]] = {
    method: table_of(
        affine.ROWS,
        movement.ROWS,
        products.ROWS,
        dict.fromkeys(_QUOTIENTS.split(), own_gradient),
        {name: row for name, row in attention.ROWS.items() if row is attention.multi_head},
        rows,
    )
    for method, rows in {**elementwise.RECTIFIERS, "receptive_field": _RECEPTIVE_FIELD}.items()
}


class GradientMode(RelevanceMode):
    """Notes the output of every layer, by the names that a pass of relevance gives them, with its gradient.

    Args:
        names: of the model's layers.
        samples: how many there are.
        method: what the backward is.
    """

    def __init__(self, names: LayerNames, samples: int, method: Method) -> None:
        composite = Composite(Epsilon())  # its rules are not asked for
        super().__init__(Recording(names, composite, None, False, samples, on_unsupported="gradient"), _TABLES[method])
        self.counts = method == "receptive_field"
        self.outputs: dict[Layer, Tensor] = {}

    def activation_of(self, model: nn.Module, inputs: Tensor, extra: tuple, layer: nn.Module | str) -> Tensor:
        """Run the model, and give the neurons of a layer: ``(N, C, places)``, with their gradient.

        Args:
            model: in the state in which it is explained.
            inputs: requires gradients.
            extra: given to the model after them.
            layer: a unit layer, a junction, one call of several, or any module whose output is a tensor.

        Raises:
            LayerError: if there is none, it does not run, or it runs more than once.
        """
        self.learn(inputs, Facts(dim=neuron_dim(inputs, "input")))
        if isinstance(layer, nn.Module) and id(layer) not in self.names.of_module:
            raise LayerError(f"{type(layer).__name__} is no module of the model")
        name = layer if isinstance(layer, str) else self.names.of_module[id(layer)]
        module = self.names.modules.get(name)
        given: list[Any] = []

        def note(module: nn.Module, _: Any, output: Any) -> None:
            given.append(self.latest(output, module.forward))

        handle = None if module is None else module.register_forward_hook(note)
        try:
            with self:
                model(inputs, *extra)
        finally:
            if handle is not None:
                handle.remove()
        by_name = dict(
            zip(numbered([noted.base_name for noted in self.recording.layers]), self.recording.layers, strict=True)
        )
        if name in by_name:
            noted = by_name[name]
            t, dim = self.outputs[noted], noted.dim
            samples: int | None = noted.samples
        elif module is None:
            raise unknown_layer(name, list(by_name))
        elif len(given) != 1:
            raise LayerError(
                f"layer {name!r} runs {len(given)} times; name one: {name}#1, {name}#2, ..."
                if given
                else f"layer {name!r} does not run in this forward"
            )
        else:
            [t] = given
            if not self.known(t):
                raise LayerError(f"the output of layer {name!r} is no tensor that depends on the input")
            told, samples = self.of(t).dim, self.of(t).samples
            dim = told if told is not None else likely_dim(t)
        if samples is None:
            raise LayerError(f"layer {name!r} has samples mixed with other dimensions")
        t = t.movedim((samples, dim), (0, 1)).flatten(2) if t.ndim > 2 else t.movedim(samples, 0)[..., None]
        return t.unflatten(0, (len(inputs), -1)).transpose(1, 2).flatten(2)

    def unit_layer(
        self, op: AffineMap, a: Tensor, w: Tensor, b: Tensor | None, y: Tensor, name: str, into: Layer | None = None
    ) -> Tensor:
        w, b = w.detach(), None if b is None else b.detach()
        dim = neuron_dim(y, op.kind)
        layer = self.recording.layer(name, op.kind, y, dim, samples=self.of(a).samples)
        if into is not None:
            self.recording.fold(into, layer)
        self.outputs[layer] = out = _Affine.apply(a, y, w, op, self.counts)
        return self.learn(out, Facts(dim=dim, made_by=MadeBy(op, a, w, b, layer)))

    def junction(self, y: Tensor, parts: list[tuple[Tensor, float]], nonnegative: bool) -> Tensor:
        dims = [dim for t, _ in parts if (dim := self.of(t).dim) is not None]
        dim = dims[0] if dims else likely_dim(y)
        base = self.names.executing()
        layer = self.recording.layer(f"{base}.add" if base else "add", "junction", y, dim, samples=self.samples_in(y))
        self.outputs[layer] = y
        return self.learn(y, Facts(dim=dim))

    def constant_added(
        self, y: Tensor, t: Tensor, constant: Tensor | float, factor: float, factor_of_t: float = 1.0
    ) -> Tensor:
        return self.learn(y, Facts(dim=self.of(t).dim))

    def count(self, y: Tensor, part: Tensor | float, where: str) -> None:
        """Nothing is counted: a gradient is not conserved."""

    def with_account(self, func: Callable, args: tuple, kwargs: dict[str, Any], what: str) -> Any:
        return func(*args, **kwargs)

    def weighed(self, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
        return func(*args, **kwargs)

    _unlisted = staticmethod(own_gradient)


class _Affine(torch.autograd.Function):
    """Gives the ``y = w a + b`` that it is handed, with its gradient; or with 1 where any of it can be handed down."""

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
            return (g > 0.5).to(w.dtype), None, None, None, None  # counts, whole but for rounding
        return ctx.op.pull_back(grad[0], a, w, False)[0], None, None, None, None

"""Pooling and resampling: they mix or choose values of one channel, but not channels or samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from lrp_lightning.axes import Axis
from lrp_lightning.engine.calls import Call, tensors_in
from lrp_lightning.engine.facts import Facts
from lrp_lightning.engine.following import samples_after
from lrp_lightning.engine.interpreter import Interpreter
from lrp_lightning.engine.neuron_numbers import values_of
from lrp_lightning.engine.operators.nodes import relayed

__all__ = ["BY_NAME", "POOLINGS", "ROWS"]


def _channelwise(run: Interpreter, call: Call, input: Tensor, *rest: Any, **named: Any) -> tuple[Any, Any]:
    spatial = next((int(c) for c in call.name if c.isdigit()), input.ndim - 2)
    first = input.ndim - spatial  # the first spatial dimension
    x = relayed(run, input, first - 1) if first >= 1 else input
    result = run.visitor.pooled(run, call if x is input else call.map(lambda t: x if t is input else t), x)
    facts = run.of(x)
    found = []
    for y in tensors_in((result,)):
        sizes = {d: y.shape[d] for d in range(first, y.ndim)}
        samples, lost = samples_after(run, call, facts, lambda axis, sizes=sizes: axis.resize(sizes))  # type: ignore[misc]
        neurons = facts.neurons.resize(sizes) if isinstance(facts.neurons, Axis) else None
        if isinstance(facts.neurons, Tensor) and all(facts.neurons.shape[d] == 1 for d in sizes):
            neurons = facts.neurons  # type: ignore[assignment]
        found.append(Facts(samples, neurons, facts.nonnegative, gate=facts.gate, lost=lost))
    return result, found[0] if isinstance(result, Tensor) else found


def _sampled(run: Interpreter, call: Call, input: Tensor, grid: Tensor, *how: Any, **named: Any) -> tuple[Any, Any]:
    """Values interpolated at places; places that depend on the input are constants."""
    if not run.known(input):
        return call().detach(), None
    return _channelwise(run, call.map(lambda t: run.visitor.detached(t) if t is grid else t), input)


def _of_boxes(run: Interpreter, call: Call, input: Tensor, rois: Tensor, *how: Any, **named: Any) -> tuple[Any, Any]:
    """Values of ``(N, C, H, W)`` in boxes, which are constants; the first column of ``rois`` is the image's number."""
    if not run.known(input):
        return call.values(), None
    x = relayed(run, input, 1)
    result = run.visitor.pooled(run, call.map(lambda t: x if t is input else run.visitor.detached(t)), x)
    facts, first = run.of(x), tensors_in((result,))[0]
    y = run.visitor.valued(lambda: first, first.detach)  # torchvision's own Function would look like the model's
    space = {2: y.shape[2], 3: y.shape[3]}

    def move(axis: Axis) -> Axis | None:  # boxes are read only if needed
        of = range(len(rois)) if axis.terms[0] is None else [int(image) for image in values_of(rois[:, 0])]
        return axis.take(0, of).resize(space)

    samples, lost = samples_after(run, call, facts, move)
    neurons = move(facts.neurons) if isinstance(facts.neurons, Axis) else None
    found = Facts(samples, neurons, facts.nonnegative, gate=facts.gate, lost=lost)
    return (y, found) if isinstance(result, Tensor) else ((y, *result[1:]), [found, None])


_KINDS = ("max_pool{}d", "max_pool{}d_with_indices", "adaptive_max_pool{}d", "adaptive_max_pool{}d_with_indices",
          "avg_pool{}d", "adaptive_avg_pool{}d", "max_unpool{}d")  # fmt: skip
POOLINGS = tuple(kind.format(n) for kind in _KINDS for n in (1, 2, 3))

ROWS: dict[str, Callable] = {
    **dict.fromkeys((*POOLINGS, "interpolate", "upsample", "upsample_nearest", "upsample_bilinear"), _channelwise),
    "grid_sample": _sampled,
}

BY_NAME: dict[str, Callable] = dict.fromkeys(("torchvision.roi_align", "torchvision.roi_pool"), _of_boxes)
"""An operator of a library that may not be imported."""

"""Complex numbers: Fourier transforms, and real and imaginary parts. They are linear over the reals, so autograd's backward
is the rule; the relevance of a value ``a`` is the real part of ``a`` times the conjugate of its gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lrp_lightning.axes import Axis
from lrp_lightning.engine.calls import Call
from lrp_lightning.engine.facts import Facts
from lrp_lightning.engine.following import joined, moved, samples_after
from lrp_lightning.engine.interpreter import Interpreter
from lrp_lightning.engine.operators.reductions import dims_of, resized

__all__ = ["ROWS"]


def _transform(default: tuple[int, ...] | None) -> Callable:
    def row(
        run: Interpreter, call: Call, input: Tensor, n: Any = None, dim: Any = default, norm: Any = None, **named: Any
    ) -> tuple[Tensor, Facts]:
        y, sizes = call(), named.get("s", n)
        if dim is None and isinstance(sizes, list | tuple):  # the last dimensions, one for each size
            dim = tuple(range(-len(sizes), 0))
        facts = resized(run, call, input, y, dims_of(input, dim))
        return y, Facts(facts.samples, facts.neurons, lost=facts.lost)

    return row


def _shifted(run: Interpreter, call: Call, input: Tensor, dim: Any = None) -> tuple[Tensor, Facts]:
    dims = dims_of(input, dim)
    by = [input.shape[d] // 2 if call.name.endswith("fft.fftshift") else (input.shape[d] + 1) // 2 for d in dims]
    y = run.dispatch(torch.roll, input, by, dims)
    return y, run.of(y)


def _short_time(run: Interpreter, call: Call, input: Tensor, *rest: Any, **named: Any) -> tuple[Tensor, Facts]:
    """``stft`` and its inverse: the first dimension, if there is one besides time, holds separate series."""
    y, was, batched = call(), run.of(input), input.ndim - (1 if call.name == "stft" else 2)

    def through(axis: Axis) -> Axis | None:
        if axis.alike_along(range(batched, input.ndim)) is None:
            return None
        return Axis(tuple(y.shape), (*axis.terms[:batched], *(None,) * (y.ndim - batched)), axis.base)

    samples, lost = samples_after(run, call, was, through)
    return y, Facts(samples, through(was.neurons) if isinstance(was.neurons, Axis) else None, lost=lost)


def _part(run: Interpreter, call: Call, input: Tensor) -> tuple[Tensor, Facts]:
    """``real``, ``imag``, ``conj``, with the sample and neuron of the complex value."""
    y = call()
    return y, run.of(input) if y is input else moved(run, call, input, y, lambda axis: axis)


def _as_real(run: Interpreter, call: Call, input: Tensor) -> tuple[Tensor, Facts]:
    y = call()
    return y, moved(run, call, input, y, lambda axis: axis.insert(input.ndim, 2))


def _as_complex(run: Interpreter, call: Call, input: Tensor) -> tuple[Tensor, Facts]:
    y = call()
    return y, moved(run, call, input, y, lambda axis: axis.drop([input.ndim - 1]))


def _of_two(run: Interpreter, call: Call, real: Any, imag: Any) -> tuple[Tensor, Facts]:
    y = call()
    return y, joined(run, call, y, run.signals((real, imag)))


def _angle(run: Interpreter, call: Call, input: Any, *rest: Any) -> Any:
    raise run.unsupported(
        call.func,
        "an angle has no rule, since it does not depend on the magnitude; explain a function of real and imaginary parts "
        "or take its plain gradient with lrp_lightning.register_operator(torch.angle, 'linear')",
    )


_TRANSFORMS = ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")

ROWS: dict[str, Callable] = {
    **dict.fromkeys((f"fft.{kind}" for kind in _TRANSFORMS), _transform((-1,))),
    **dict.fromkeys((f"fft.{kind}2" for kind in _TRANSFORMS), _transform((-2, -1))),
    **dict.fromkeys((f"fft.{kind}n" for kind in _TRANSFORMS), _transform(None)),
    **dict.fromkeys(("fft.fftshift", "fft.ifftshift"), _shifted),
    **dict.fromkeys(("stft", "istft"), _short_time),
    **dict.fromkeys(("real", "real.__get__", "imag", "imag.__get__", "conj", "conj_physical"), _part),
    "view_as_real": _as_real,
    "view_as_complex": _as_complex,
    "complex": _of_two,
    "angle": _angle,
}

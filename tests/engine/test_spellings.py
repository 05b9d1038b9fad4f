"""Every spelling of an operator is one row: positional, keyword, function, method, operator, in place, ``out=``."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from small_networks import Between
from torch import Tensor, nn

from lrp_lightning import Epsilon, SelectiveLRP
from lrp_lightning.engine.calls import named
from lrp_lightning.engine.operators.table import TABLE

Form = Callable[[Tensor], Tensor]


def in_place(change: Callable[[Tensor], object]) -> Form:
    def form(h: Tensor) -> Tensor:
        z = h.clone()
        change(z)
        return z

    return form


def into(operator: Callable[[Tensor, Tensor], object]) -> Form:
    def form(h: Tensor) -> Tensor:
        out = torch.empty(h.shape)
        operator(h, out)
        return out

    return form


def added(z: Tensor) -> None:
    z += z.flip(2)


def multiplied(z: Tensor) -> None:
    z *= 2.0


SPELT: dict[str, list[Form]] = {
    "relu": [
        torch.relu,
        F.relu,
        Tensor.relu,
        lambda h: h.relu(),
        lambda h: F.relu(input=h),
        lambda h: F.relu(h, inplace=True),
        in_place(lambda z: z.relu_()),
        in_place(torch.relu_),
        in_place(lambda z: F.relu(z, True)),
        in_place(lambda z: F.relu(input=z, inplace=True)),
        nn.ReLU(),
        nn.ReLU(inplace=True),
    ],
    "add": [
        lambda h: h + h.flip(2),
        lambda h: torch.add(h, h.flip(2)),
        lambda h: torch.add(input=h, other=h.flip(2)),
        lambda h: h.add(h.flip(2)),
        lambda h: h.add(other=h.flip(2), alpha=1),
        in_place(lambda z: z.add_(z.flip(2))),
        in_place(added),
        into(lambda h, out: torch.add(h, h.flip(2), out=out)),
        lambda h: h.__add__(h.flip(2)),
    ],
    "add a number": [
        lambda h: h + 1.0,
        lambda h: 1.0 + h,
        lambda h: torch.add(h, 1.0),
        lambda h: h.add(1.0),
        in_place(lambda z: z.add_(1.0)),
        lambda h: h.__radd__(1.0),
        into(lambda h, out: torch.add(h, 1.0, out=out)),
    ],
    "sub": [
        lambda h: h - h.flip(2),
        lambda h: torch.sub(h, h.flip(2)),
        lambda h: torch.subtract(other=h.flip(2), input=h),
        in_place(lambda z: z.sub_(z.flip(2))),
        lambda h: torch.rsub(h.flip(2), h),
        lambda h: h.sub(h.flip(2)),
    ],
    "number less it": [lambda h: 1.0 - h, lambda h: torch.rsub(h, 1.0), lambda h: torch.sub(torch.ones(()), h)],
    "mul": [
        lambda h: h * 2.0,
        lambda h: 2.0 * h,
        lambda h: torch.mul(h, 2.0),
        lambda h: torch.multiply(input=h, other=2.0),
        in_place(lambda z: z.mul_(2.0)),
        in_place(multiplied),
        into(lambda h, out: torch.mul(h, 2.0, out=out)),
    ],
    "div": [
        lambda h: h / 4.0,
        lambda h: torch.div(h, 4.0),
        lambda h: h.true_divide(4.0),
        lambda h: torch.divide(input=h, other=4.0),
        in_place(lambda z: z.div_(4.0)),
        lambda h: h.__truediv__(4.0),
    ],
    "scale": [
        lambda h: 1.0 / (h.abs() + 1),
        lambda h: (h.abs() + 1).reciprocal() * torch.ones(()),
        lambda h: torch.div(1.0, h.abs() + 1),
    ],
    "neg": [lambda h: -h, torch.neg, lambda h: torch.negative(input=h), in_place(lambda z: z.neg_()), lambda h: h.__neg__()],
    "softmax": [
        lambda h: h.softmax(1),
        lambda h: torch.softmax(h, 1),
        lambda h: F.softmax(h, dim=1),
        lambda h: F.softmax(input=h, dim=1),
        nn.Softmax(1),
        lambda h: torch.softmax(dim=1, input=h),
    ],
    "clamp": [
        lambda h: h.clamp(min=0),
        lambda h: torch.clamp(h, 0),
        lambda h: torch.clip(h, min=0),
        in_place(lambda z: z.clamp_(min=0)),
        lambda h: torch.clamp_min(h, 0),
        in_place(lambda z: z.clamp_min_(0)),
    ],
    "mean": [
        lambda h: h.mean(1, True).expand(-1, 5, -1),
        lambda h: torch.mean(h, dim=1, keepdim=True).expand(3, 5, 8),
        lambda h: torch.mean(input=h, axis=1, keepdims=True).expand(-1, 5, -1),
        lambda h: (h.sum(1) / 5)[:, None].expand(-1, 5, -1),
    ],
    "max": [
        lambda h: h.max(1, True).values.expand(-1, 5, -1),
        lambda h: torch.max(h, dim=1, keepdim=True)[0].expand(-1, 5, -1),
        lambda h: h.amax(1, True).expand(-1, 5, -1),
        lambda h: torch.amax(input=h, dim=(1,), keepdim=True).expand(-1, 5, -1),
    ],
    "linear": [nn.Linear(8, 8), None, None, None],
    "layer_norm": [
        lambda h: F.layer_norm(h, (8,)),
        lambda h: F.layer_norm(input=h, normalized_shape=[8]),
        lambda h: torch.layer_norm(h, [8]),
        nn.LayerNorm(8, elementwise_affine=False),
    ],
    "interpolate": [
        lambda h: F.interpolate(h, 16).flatten(2)[..., ::2],
        lambda h: F.interpolate(input=h, size=16)[..., ::2],
        lambda h: F.interpolate(h, scale_factor=2)[..., ::2],
    ],
    "pool": [
        lambda h: F.avg_pool1d(h, 2).repeat(1, 1, 2),
        lambda h: F.avg_pool1d(input=h, kernel_size=2).repeat(1, 1, 2),
        lambda h: torch.avg_pool1d(h, 2, 2).repeat(1, 1, 2),
    ],
    "bmm": [
        lambda h: torch.bmm(h, h.transpose(1, 2)) @ h,
        lambda h: torch.bmm(h, mat2=h.transpose(1, 2)) @ h,
        lambda h: h @ h.mT @ h,
        lambda h: torch.matmul(torch.matmul(input=h, other=h.mT), h),
        lambda h: torch.einsum("nij,nkj->nik", h, h) @ h,
        lambda h: h.matmul(h.transpose(-1, -2)).bmm(h),
    ],
    "baddbmm": [
        lambda h: torch.zeros(3, 5, 5).baddbmm(h, h.mT) @ h,
        lambda h: torch.baddbmm(torch.zeros(3, 5, 5), h, h.mT) @ h,
        lambda h: torch.zeros(3, 5, 5).baddbmm(batch1=h, batch2=h.mT) @ h,
        lambda h: torch.baddbmm(batch2=h.mT, batch1=h, input=torch.zeros(3, 5, 5)) @ h,
    ],
    "addcmul": [
        lambda h: h + 2 * h.flip(2) * h.flip(1),
        lambda h: torch.addcmul(h, h.flip(2), h.flip(1), value=2),
        lambda h: h.addcmul(tensor1=h.flip(2), tensor2=h.flip(1), value=2),
    ],
    "lerp": [
        lambda h: torch.lerp(h, h.flip(2), 0.25),
        lambda h: h.lerp(end=h.flip(2), weight=0.25),
        lambda h: h + 0.25 * (h.flip(2) - h),
    ],
    "cat": [
        lambda h: torch.cat([h, h * 2], 1)[:, :5] * 1,
        lambda h: torch.cat(tensors=[h, h * 2], dim=1)[:, :5] * 1,
        lambda h: torch.concat((h, h * 2), 1)[:, :5] * 1,
        lambda h: torch.concatenate([h, h * 2], axis=1)[:, :5] * 1,
    ],
    "where": [
        lambda h: torch.where(h > 0, h, 0.0),
        lambda h: h.where(h > 0, torch.zeros(())),
        lambda h: torch.where(condition=h > 0, input=h, other=0.0),
        lambda h: h.masked_fill(h <= 0, 0.0),
        in_place(lambda z: z.masked_fill_(z <= 0, 0.0)),
    ],
    "sigmoid gate": [
        lambda h: h * torch.sigmoid(h.flip(2)),
        lambda h: h.mul(other=h.flip(2).sigmoid()),
        lambda h: torch.special.expit(h.flip(2)) * h,
        lambda h: F.glu(torch.cat([h, h.flip(2)], -1), -1),
        lambda h: F.glu(input=torch.cat([h, h.flip(2)], -1)),
    ],
    "attention": [
        lambda h: F.scaled_dot_product_attention(h, h, h),
        lambda h: F.scaled_dot_product_attention(query=h, key=h, value=h),
        lambda h: F.scaled_dot_product_attention(h, h, value=h, attn_mask=None),
    ],
}

_LINEAR = SPELT["linear"][0]
SPELT["linear"] = [
    _LINEAR,
    lambda h: F.linear(h, _LINEAR.weight, _LINEAR.bias),
    lambda h: F.linear(bias=_LINEAR.bias, weight=_LINEAR.weight, input=h),
    lambda h: F.linear(h, bias=_LINEAR.bias, weight=_LINEAR.weight),
]


@pytest.mark.parametrize("name", SPELT)
def test_all_spellings_are_one(name: str) -> None:
    x = torch.rand(3, 5, 8, generator=torch.Generator().manual_seed(0))
    first, *others = (SelectiveLRP(Between(form), Epsilon()).trace(x, 1) for form in SPELT[name])
    assert first.inputs.any()
    for other in others:
        torch.testing.assert_close(other.output, first.output)
        torch.testing.assert_close(other.inputs, first.inputs, rtol=1e-3, atol=1e-5)


OWN = {"F.batch_norm", "F.instance_norm", "atleast_1d", "atleast_2d", "atleast_3d", "broadcast_tensors", "einsum"}
OWN |= {"meshgrid", "tensordot", "F.embedding", "F.embedding_bag", "torch.embedding"}
"""Functions in Python, with parameters of their own."""


def schemas() -> list[tuple[str, list[str]]]:
    """Names of torch's operators that have a row, and those of the parameters of each of their overloads."""
    found = []
    for name in sorted({operator.name for operator in TABLE.values()}):
        for schema in torch._C._jit_get_schemas_for_operator(f"aten::{name.rpartition('.')[2]}"):
            names, first = [argument.name for argument in schema.arguments], schema.arguments[0]
            if name in OWN or names == ["repeats", "output_size"] or (first.name == "self" and str(first.type) != "Tensor"):
                continue
            if not any("Tensor" in str(argument.type) for argument in schema.arguments):
                continue  # of Python's numbers
            if (
                schema.overload_name.endswith(("out", "names_dim", "dimname"))
                or "Dimname" in str(schema)
                or "Stream" in str(schema)
            ):
                continue
            found.append((name, names))
    return found


@pytest.mark.parametrize(("name", "parameters"), schemas())
def test_rows_take_the_parameters_of_torchs_schemas(name: str, parameters: list[str]) -> None:
    row = next(operator.row for func, operator in TABLE.items() if operator.name == name)
    given = named(dict.fromkeys(parameters))
    inspect.signature(row).bind(None, None, **given)


def test_pythons_numbers_are_no_spelling_of_a_conversion() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.head(x)
            times = float(torch.tensor(3.0)) + float(h.detach().mean()) + int(torch.tensor(2))
            return h * (times + complex(torch.tensor(1.0)).real)

    model, x = Scaled(), torch.randn(2, 4)
    trace = SelectiveLRP(model, Epsilon()).trace(x, 1)
    torch.testing.assert_close(trace.output, model(x).detach())
    assert trace.conservation_error.max() < 1e-5

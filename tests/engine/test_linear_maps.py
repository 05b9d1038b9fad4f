"""Every linear map by a weight is a layer, whichever way it is written: its rule, its masks, its edges are F.linear's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrp_lightning import Epsilon, SelectiveLRP, TopK, ZPlus, masked_forward

Map = Callable[[Tensor, Tensor], Tensor]

MAPS: dict[str, Map] = {
    "linear": F.linear,
    "matmul": lambda x, w: x @ w.T,
    "mm": lambda x, w: torch.mm(x, w.t()),
    "weight first": lambda x, w: (w @ x[..., None])[..., 0],
    "of the transposed": lambda x, w: (w @ x.T).T,
    "mm of the transposed": lambda x, w: torch.mm(w, x.t()).t(),
    "einsum": lambda x, w: torch.einsum("ni,oi->no", x, w),
    "einsum, weight first": lambda x, w: torch.einsum("oi,...i->...o", w, x),
    "einsum with spaces": lambda x, w: torch.einsum("n i, o i -> n o", [x, w]),
    "einsum without an arrow": lambda x, w: torch.einsum("bi,oi", x, w),
    "bmm": lambda x, w: torch.bmm(x[:, None], w.T.expand(len(x), -1, -1))[:, 0],
    "bmm, weight first": lambda x, w: torch.bmm(w.expand(len(x), -1, -1), x[:, :, None])[..., 0],
    "tensordot": lambda x, w: torch.tensordot(x, w, ([1], [1])),
    "tensordot by number": lambda x, w: torch.tensordot(x, w.T, 1),
    "inner": lambda x, w: torch.inner(x, w),
    "matmul by keyword": lambda x, w: torch.matmul(input=x, other=w.T),
    "mv a sample": lambda x, w: torch.stack([w.mv(row) for row in x]),
    "rmatmul": lambda x, w: w.T.__rmatmul__(x),
    "addmm": lambda x, w: torch.addmm(torch.zeros(len(w), dtype=w.dtype), x, w.T),
}


class Net(nn.Module):
    def __init__(self, form: Map) -> None:
        super().__init__()
        torch.manual_seed(1)
        object.__setattr__(self, "form", form)
        self.one, self.two = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(3, 6))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.form(self.form(x, self.one).relu(), self.two)


X = torch.randn(4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("rule", [Epsilon(), ZPlus()], ids=["epsilon", "zplus"])
@pytest.mark.parametrize("name", MAPS)
def test_it_is_as_linear(name: str, rule) -> None:
    wanted, found = (SelectiveLRP(Net(MAPS[n]), rule).trace(X, 1, edges=True) for n in ("linear", name))
    torch.testing.assert_close(found.inputs, wanted.inputs, rtol=1e-6, atol=1e-9)
    if "sample" in name:
        return  # a call for each sample
    assert found.kinds == wanted.kinds
    for pair, edges in wanted.edges.items():
        torch.testing.assert_close(found.edges[pair], edges, rtol=1e-6, atol=1e-9)
    selected, by = (SelectiveLRP(Net(MAPS[n]), rule, TopK(2)).trace(X, 1) for n in ("linear", name))
    assert torch.equal(by.masks["one"], selected.masks["one"])
    torch.testing.assert_close(by.inputs, selected.inputs, rtol=1e-6, atol=1e-9)
    masked = [masked_forward(Net(MAPS[n]), X, selected.masks) for n in ("linear", name)]
    torch.testing.assert_close(*masked)


def test_a_weight_that_was_computed_is_one_too() -> None:
    def form(x: Tensor, w: Tensor) -> Tensor:
        return torch.einsum("ni,oi->no", x, w / w.norm(dim=1, keepdim=True))

    def linear(x: Tensor, w: Tensor) -> Tensor:
        return F.linear(x, w / w.norm(dim=1, keepdim=True))

    found, wanted = (SelectiveLRP(Net(f), ZPlus()).attribute(X, 1) for f in (form, linear))
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "form",
    [
        lambda x, w: torch.einsum("ngi,goi->ngo", x, w),
        lambda x, w: torch.bmm(x.transpose(0, 1), w.transpose(1, 2)).transpose(0, 1),
        lambda x, w: (w @ x[..., None])[..., 0],
    ],
    ids=["einsum", "bmm", "matmul"],
)
@pytest.mark.parametrize("rule", [Epsilon(), ZPlus()], ids=["epsilon", "zplus"])
def test_groups_with_a_weight_each_are_layers_side_by_side(form: Map, rule) -> None:
    class Groups(nn.Module):
        def __init__(self, form: Map) -> None:
            super().__init__()
            torch.manual_seed(0)
            object.__setattr__(self, "form", form)
            self.below, self.w, self.head = nn.Linear(8, 8), nn.Parameter(torch.randn(2, 3, 4)), nn.Linear(6, 3)
            self.double()

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.form(self.below(x).view(len(x), 2, 4), self.w).relu().flatten(1))

    def apart(x: Tensor, w: Tensor) -> Tensor:
        return torch.stack([F.linear(x[:, g], w[g]) for g in range(2)], 1)

    found, wanted = (SelectiveLRP(Groups(f), rule).trace(X, 1, edges=True) for f in (form, apart))
    torch.testing.assert_close(found.inputs, wanted.inputs, rtol=1e-5, atol=1e-8)
    assert found.relevance["w"].shape == (4, 6)
    torch.testing.assert_close(found.relevance["w"], torch.cat([wanted.relevance[f"w#{i}"] for i in (1, 2)], 1)) if (
        "w#1" in wanted.relevance
    ) else None
    selected = SelectiveLRP(Groups(form), rule, TopK(2)).trace(X, 1)
    assert selected.masks["w"].shape == (4, 6)
    masked_forward(Groups(form), X, selected.masks)


@pytest.mark.parametrize("layer", ["0", "1"])
@pytest.mark.parametrize("selection", [None, TopK(2)])
def test_relevance_at_a_layer_before_a_batch_norm_is_the_traces(layer: str, selection) -> None:
    from lrp_lightning import LayerSelectiveLRP

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    x = torch.rand(2, 1, 8, 8)
    wanted = SelectiveLRP(model, Epsilon(), selection).trace(x, 1).relevance["0"]
    found = LayerSelectiveLRP(model, layer, Epsilon(), selection).attribute(x, 1)
    torch.testing.assert_close(found.sum((2, 3)), wanted, rtol=1e-4, atol=1e-6)


def test_a_bilinear_layer_is_a_product_of_three() -> None:
    class Both(nn.Module):
        def __init__(self, by_torch: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.one, self.other, self.mix, self.head = (
                nn.Linear(4, 5),
                nn.Linear(4, 6),
                nn.Bilinear(5, 6, 7),
                nn.Linear(7, 3),
            )
            self.by_torch = by_torch

        def forward(self, x: Tensor) -> Tensor:
            a, b = self.one(x), self.other(x)
            if self.by_torch:
                return self.head(self.mix(a, b))
            return self.head(torch.einsum("ni,kij,nj->nk", a, self.mix.weight, b) + self.mix.bias)

    x = torch.randn(3, 4, dtype=torch.float64)
    one, other = (SelectiveLRP(Both(by_torch).double()).trace(x, 1) for by_torch in (True, False))
    torch.testing.assert_close(one.inputs, other.inputs)
    assert one.conservation_error.max() < 1e-9

"""Values added up, or chosen from, at places that an index names, against gradient x input and each sample alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from flow import flow_error
from oracles import input_times_gradient
from small_networks import Between
from torch import Tensor

from lrp_lightning import Epsilon, SelectiveLRP, TopK, masked_forward
from lrp_lightning.errors import UnsupportedOperatorError

WIDTH, ROWS = 8, 5
TO = torch.tensor([0, 1, 1, 3, 0])


def to(h: Tensor) -> Tensor:
    return TO.view(1, ROWS, 1).expand(h.shape)


def zeros(h: Tensor) -> Tensor:
    return torch.zeros(len(h), 4, WIDTH, dtype=h.dtype)


def in_place(h: Tensor) -> Tensor:
    y = h.new_zeros(len(h), 4, WIDTH)
    y.index_add_(1, TO, h)
    return y


def of_experts(h: Tensor) -> Tensor:
    """As a mixture of experts: rows of all samples together, each expert's added where they came from."""
    rows = h.flatten(0, 1)
    y = torch.zeros_like(rows)
    for first in range(3):
        chosen = torch.arange(first, len(rows), 3)
        y.index_add_(0, chosen, rows[chosen] * (first + 1))
    return y.view(h.shape)


LINEAR: dict[str, Callable[[Tensor], Tensor]] = {
    "scatter_add": lambda h: zeros(h).scatter_add(1, to(h), h),
    "scatter_add into a signal": lambda h: h[:, :4].scatter_add(1, to(h), h),
    "a constant into a signal": lambda h: h.index_add(1, TO, torch.zeros_like(h)),
    "scatter_reduce": lambda h: zeros(h).scatter_reduce(1, to(h), h, "sum"),
    "mean": lambda h: zeros(h).scatter_reduce(dim=1, index=to(h), src=h, reduce="mean", include_self=False),
    "index_add": lambda h: torch.index_add(zeros(h), 1, TO, h, alpha=2),
    "index_add in place": in_place,
    "index_reduce": lambda h: zeros(h).index_reduce(1, TO, h, "mean"),
    "index_put": lambda h: zeros(h).index_put((torch.arange(len(h))[:, None], TO[None]), h, accumulate=True),
    "along neurons": lambda h: torch.zeros(h.shape, dtype=h.dtype).index_add(2, torch.arange(WIDTH).flip(0), h),
    "rows of all samples": of_experts,
}
CHOICES: dict[str, Callable[[Tensor], Tensor]] = {
    "amax": lambda h: zeros(h).scatter_reduce(1, to(h), h, "amax", include_self=False),
    "amin": lambda h: (zeros(h) + 9).index_reduce(1, TO, h, "amin"),
    "segment_reduce": lambda h: torch.segment_reduce(
        h.transpose(0, 1).contiguous(), "max", lengths=torch.tensor([2, 3]), axis=0
    ).transpose(0, 1),
    "segments' mean": lambda h: torch.segment_reduce(h, "mean", lengths=torch.tensor([[2, 3]] * len(h)), axis=1),
}


def between(form: Callable[[Tensor], Tensor]) -> Between:
    return Between(lambda h: form(h.relu()), 6, WIDTH, bias=False).double()


def inputs() -> Tensor:
    return torch.randn(3, ROWS, 6, generator=torch.Generator().manual_seed(1), dtype=torch.double)


@pytest.mark.parametrize("name", [*LINEAR, *CHOICES])
def test_gradient_times_input(name: str) -> None:
    model, x = between({**LINEAR, **CHOICES}[name]), inputs()
    trace = SelectiveLRP(model, Epsilon(1e-12), TopK(1.0)).trace(x, 1)
    output = model(x).detach()
    torch.testing.assert_close(trace.output, output)
    torch.testing.assert_close(trace.inputs, input_times_gradient(model, x), rtol=1e-6, atol=1e-8)
    assert trace.conservation_error.max() < 1e-9
    torch.testing.assert_close(masked_forward(model, x, trace.masks), output)


@pytest.mark.parametrize("name", [*LINEAR, *CHOICES])
def test_a_batch_is_its_samples(name: str) -> None:
    model, x = between({**LINEAR, **CHOICES}[name]), inputs()
    lrp = SelectiveLRP(model, Epsilon(), TopK(0.3))
    if name == "rows of all samples":  # which expert a row goes to depends on the others
        return
    whole = lrp.trace(x, 1)
    for i in range(len(x)):
        alone = lrp.trace(x[i : i + 1], 1)
        torch.testing.assert_close(whole.inputs[i : i + 1], alone.inputs)
        for layer, mask in alone.masks.items():
            assert torch.equal(whole.masks[layer][i : i + 1], mask)


@pytest.mark.parametrize("name", [*LINEAR, *CHOICES])
def test_edges(name: str) -> None:
    trace = SelectiveLRP(between({**LINEAR, **CHOICES}[name]), Epsilon()).trace(inputs(), 1, edges=True)
    assert flow_error(trace) < 1e-6


@pytest.mark.filterwarnings("ignore:The reduce argument of torch.scatter")
def test_scatter_with_reduce() -> None:  # torch itself has no gradient of it
    of, by_name = (
        SelectiveLRP(between(function)).attribute(inputs(), 1)
        for function in (lambda h: zeros(h).scatter(1, to(h), h, reduce="add"), LINEAR["scatter_add"])
    )
    torch.testing.assert_close(of, by_name)


def test_samples_that_meet_are_refused() -> None:
    model = between(lambda h: h.flatten(0, 1).index_add(0, torch.arange(15).roll(5), h.flatten(0, 1)).view(h.shape))
    with pytest.raises(UnsupportedOperatorError, match="keep samples in a dimension of their own"):
        SelectiveLRP(model).attribute(inputs(), 1)


def test_products_are_refused() -> None:
    model = between(lambda h: zeros(h).scatter_reduce(1, to(h), h, "prod"))
    with pytest.raises(UnsupportedOperatorError, match=r'scatter_reduce in .*with reduce="prod".*multiply them along'):
        SelectiveLRP(model).attribute(inputs(), 1)

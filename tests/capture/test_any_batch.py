"""One captured pass for any number of samples, and what is refused because it depends on their number."""

from __future__ import annotations

import pytest
import torch
from small_networks import cnn
from torch import Tensor, fx, nn

from lrp_lightning import SelectiveLRP, TopK
from lrp_lightning.capture.any_batch import SIZES, for_any_batch
from lrp_lightning.errors import UnsupportedOperatorError


def predicted(y: Tensor) -> Tensor:
    return y.argmax(1)


@pytest.mark.parametrize("freeze", [True, False])
def test_any_number_of_samples(freeze: bool) -> None:
    lrp = SelectiveLRP(cnn(), selection=TopK(0.3))
    captured = lrp.capture(torch.randn(1, 1, 8, 8), predicted, dynamic_batch=True, freeze=freeze)
    for samples in (1, 2, 3, 4, 7):
        x = torch.randn(samples, 1, 8, 8)
        trace = lrp.trace(x, predicted)
        output, relevance, masks = captured(x)
        torch.testing.assert_close(output, trace.output)
        torch.testing.assert_close(relevance, trace.inputs)
        assert all(torch.equal(masks[layer], trace.masks[layer]) for layer in trace.masks)


def test_classes_of_any_number_of_samples() -> None:
    lrp = SelectiveLRP(cnn())
    captured = lrp.capture(torch.randn(2, 1, 8, 8), torch.tensor([0, 1]), dynamic_batch=True)
    x, classes = torch.randn(4, 1, 8, 8), torch.tensor([3, 0, 2, 4])
    torch.testing.assert_close(captured(x, classes).relevance, lrp.attribute(x, classes))


def test_a_model_that_calls_operators_for_each_sample_is_refused() -> None:
    class OneByOne(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.head(row) for row in x])

    lrp, x = SelectiveLRP(OneByOne()), torch.randn(2, 4)
    torch.testing.assert_close(lrp.capture(x, 1)(x).relevance, lrp.attribute(x, 1))
    with pytest.raises(
        UnsupportedOperatorError, match=r"different numbers of operators\. Capture it for the number of samples"
    ):
        lrp.capture(x, 1, dynamic_batch=True)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x: x * (2.0 if len(x) > 2 else 3.0), "is called with"),
        (lambda x: x * float(len(x)) ** 2, "is called with"),
        (lambda x: x.reshape(len(x) ** 2 // len(x), -1)[: max(len(x) // 2, 1)].sum(0), "is called with"),
        (lambda x: x.sin() if len(x) > 2 else x.cos(), "is aten"),
        (lambda x: torch.cat([x, x.new_zeros(len(x) ** 2, 4)]), "is called with"),
        (lambda x: (x, x.sin())[len(x) > 2] * x, None),
    ],
)
def test_what_depends_on_the_number_of_samples_otherwise_is_refused(function: object, why: str | None) -> None:
    recorded = [fx.experimental.proxy_tensor.make_fx(function)(torch.randn(n, 4)) for n in SIZES]
    with pytest.raises(UnsupportedOperatorError, match=why):
        for_any_batch(recorded)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.reshape(-1).view(2, len(x), 2).sum(0),
        lambda x: torch.cat([x, x.new_ones(3 * len(x) + 2, 4)]),
        lambda x: x.new_zeros(5) + len(x) * 0,
    ],
)
def test_sizes_follow_the_number_of_samples(function: object) -> None:
    program = for_any_batch([fx.experimental.proxy_tensor.make_fx(function)(torch.randn(n, 4)) for n in SIZES])
    for samples in (1, 2, 4, 9):
        x = torch.randn(samples, 4)
        assert torch.equal(program(x), function(x))

"""Operators without a rule: refused where relevance arrives; given one in all their spellings, and taken back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lrp_lightning import (
    Epsilon,
    SelectiveLRP,
    TopK,
    masked_forward,
    register_operator,
    registered_operator,
    unregister_operator,
)
from lrp_lightning.engine.operators.table import TABLE
from lrp_lightning.errors import RuleError, UnsupportedOperatorError

X = torch.rand(4, 8, generator=torch.Generator().manual_seed(0)) + 0.5


class Net(nn.Module):
    def __init__(self, form: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.below, self.above = nn.Linear(8, 8), nn.Linear(8, 3)
        object.__setattr__(self, "form", form)

    def forward(self, x: Tensor) -> Tensor:
        return self.above(self.form(self.below(x)))


SPELT = [torch.lgamma, Tensor.lgamma, lambda h: h.lgamma(), lambda h: torch.lgamma(input=h), lambda h: h.clone().lgamma_()]


@pytest.mark.parametrize("form", SPELT)
def test_every_spelling_is_refused_and_registered(form: Callable[[Tensor], Tensor]) -> None:
    lrp = SelectiveLRP(Net(form))
    with pytest.raises(UnsupportedOperatorError, match=r"lgamma in the model's own forward.*register_operator"):
        lrp.attribute(X, 1)
    table = dict(TABLE)
    with registered_operator(torch.lgamma, "activation") as operator:
        assert operator is torch.lgamma
        assert lrp.trace(X, 1).conservation_error.max() < 1e-3
    assert table == TABLE
    with pytest.raises(UnsupportedOperatorError):
        lrp.attribute(X, 1)


def test_a_registered_operator_can_be_any_spelling_and_is_taken_back() -> None:
    lrp = SelectiveLRP(Net(torch.lgamma))
    register_operator(Tensor.lgamma_, "activation")
    lrp.attribute(X, 1)
    unregister_operator(Tensor.lgamma)
    with pytest.raises(UnsupportedOperatorError):
        lrp.attribute(X, 1)
    with pytest.raises(RuleError, match="is not registered"):
        unregister_operator(torch.lgamma)


def test_what_had_a_row_has_it_again() -> None:
    before = TABLE[torch.relu]
    with registered_operator(torch.relu, "gate"):
        assert TABLE[torch.relu] is not before
    assert TABLE[torch.relu] is before


def test_after_an_exception_too() -> None:
    table = dict(TABLE)
    with pytest.raises(ZeroDivisionError), registered_operator(torch.lgamma, "activation"):
        raise ZeroDivisionError
    assert table == TABLE


def test_a_function_of_ones_own() -> None:
    def odd(h: Tensor) -> Tensor:
        return torch.lgamma(h)

    with registered_operator(odd, "activation") as operator:
        assert SelectiveLRP(Net(operator)).trace(X, 1).conservation_error.max() < 1e-3
    with pytest.raises(UnsupportedOperatorError):
        SelectiveLRP(Net(operator)).attribute(X, 1)


@pytest.mark.parametrize(
    "beside",
    [lambda h: torch.lgamma(h.abs() + 1).sum(), lambda h: h.cumprod(1).mean(0), lambda h: torch.digamma(h.abs() + 1).sum()],
)
def test_beside_the_explained_path_nothing_is_refused(beside: Callable[[Tensor], Tensor]) -> None:
    losses = []

    def form(h: Tensor) -> Tensor:
        losses.append(beside(h))
        return h

    trace = SelectiveLRP(Net(form), Epsilon(), TopK(3)).trace(X, 1)
    torch.testing.assert_close(trace.inputs, SelectiveLRP(Net(lambda h: h), Epsilon(), TopK(3)).attribute(X, 1))
    masked_forward(Net(form), X, trace.masks)
    assert len(losses) == 2


def test_the_error_names_the_first_operator_that_has_no_rule() -> None:
    form = lambda h: torch.lgamma(torch.digamma(h.abs() + 1).abs() + 1)  # noqa: E731
    with pytest.raises(UnsupportedOperatorError, match=r"torch\.digamma in the model's own forward"):
        SelectiveLRP(Net(form)).attribute(X, 1)


def test_a_row_of_ones_own_gives_result_and_facts() -> None:
    def row(run, call, input):
        facts = run.of(input)
        return run.visitor.activation(run, call, input, keeps_sign=False), facts._replace(nonnegative=False)

    with registered_operator(torch.lgamma, row):
        assert SelectiveLRP(Net(torch.lgamma)).trace(X, 1).conservation_error.max() < 1e-3


def test_by_plain_gradient_samples_are_where_a_trial_finds_them() -> None:
    with pytest.warns(UserWarning, match="plain gradient"):
        trace = SelectiveLRP(Net(lambda h: h.cumprod(1)), on_unsupported="gradient").trace(X, 1)
    assert trace.conservation_error.max() < 1e-3
    with pytest.raises(UnsupportedOperatorError, match=r"cumprod.*may mix samples"):
        SelectiveLRP(Net(lambda h: h.cumprod(0)), on_unsupported="gradient").attribute(X, 1)

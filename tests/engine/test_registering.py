"""Operators without a rule: refused where relevance arrives; given one in all their spellings, and taken back."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from small_networks import Between
from torch import Tensor, nn
from torch.overrides import get_overridable_functions

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
from lrp_lightning.errors import ModelError, RuleError, UnsupportedOperatorError

X = torch.rand(4, 8, generator=torch.Generator().manual_seed(0)) + 0.5


SPELT = [torch.lgamma, Tensor.lgamma, lambda h: h.lgamma(), lambda h: torch.lgamma(input=h), lambda h: h.clone().lgamma_()]


@pytest.mark.parametrize("form", SPELT)
def test_every_spelling_is_refused_and_registered(form: Callable[[Tensor], Tensor]) -> None:
    lrp = SelectiveLRP(Between(form))
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
    lrp = SelectiveLRP(Between(torch.lgamma))
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
        assert SelectiveLRP(Between(operator)).trace(X, 1).conservation_error.max() < 1e-3
    with pytest.raises(UnsupportedOperatorError):
        SelectiveLRP(Between(operator)).attribute(X, 1)


@pytest.mark.parametrize(
    "beside",
    [lambda h: torch.lgamma(h.abs() + 1).sum(), lambda h: h.cumprod(1).mean(0), lambda h: torch.digamma(h.abs() + 1).sum()],
)
def test_beside_the_explained_path_nothing_is_refused(beside: Callable[[Tensor], Tensor]) -> None:
    losses = []

    def form(h: Tensor) -> Tensor:
        losses.append(beside(h))
        return h

    trace = SelectiveLRP(Between(form), Epsilon(), TopK(3)).trace(X, 1)
    torch.testing.assert_close(trace.inputs, SelectiveLRP(Between(lambda h: h), Epsilon(), TopK(3)).attribute(X, 1))
    masked_forward(Between(form), X, trace.masks)
    assert len(losses) == 2


def test_the_error_names_the_first_operator_that_has_no_rule() -> None:
    form = lambda h: torch.lgamma(torch.digamma(h.abs() + 1).abs() + 1)  # noqa: E731
    with pytest.raises(UnsupportedOperatorError, match=r"torch\.digamma in the model's own forward"):
        SelectiveLRP(Between(form)).attribute(X, 1)


def test_a_row_of_ones_own_gives_result_and_facts() -> None:
    def row(run, call, input):
        facts = run.of(input)
        return run.visitor.activation(run, call, input, keeps_sign=False), facts._replace(nonnegative=False)

    with registered_operator(torch.lgamma, row):
        assert SelectiveLRP(Between(torch.lgamma)).trace(X, 1).conservation_error.max() < 1e-3


@pytest.mark.parametrize("kind", ["activation", "gate"])
def test_an_operator_that_is_checked_runs_once(kind: str) -> None:
    ran = []

    def odd(h: Tensor) -> Tensor:
        ran.append(len(h))
        return torch.lgamma(h)

    with registered_operator(odd, kind) as operator:  # type: ignore[arg-type]
        SelectiveLRP(Between(operator), Epsilon()).attribute(X, 1)
    assert ran == [4]


def test_by_plain_gradient_samples_are_where_a_trial_finds_them() -> None:
    with pytest.warns(UserWarning, match="plain gradient"):
        trace = SelectiveLRP(Between(lambda h: h.cumprod(1)), on_unsupported="gradient").trace(X, 1)
    assert trace.conservation_error.max() < 1e-3
    with pytest.raises(UnsupportedOperatorError, match=r"cumprod.*may mix samples"):
        SelectiveLRP(Between(lambda h: h.cumprod(0)), on_unsupported="gradient").attribute(X, 1)


WITHOUT_ROW = [
    func
    for functions in get_overridable_functions().values()
    for func in functions
    if func not in TABLE and not getattr(func, "__name__", "_").endswith("_")
]


def arguments(h: Tensor) -> list[tuple]:
    """What operators take, of which any fits: values, matrices of each sample, an axis, constants, an index."""
    generator = torch.Generator().manual_seed(0)
    square = h.unsqueeze(-1) * torch.eye(8) + torch.eye(8)
    of_class, matrix = torch.rand(8, generator=generator) + 0.5, torch.rand(8, 8, generator=generator)
    return [
        (h,), (h, 1), (h, of_class), (h, 0.5), (h, 2, 1), (square,), (square, matrix), (h, 0.1, 0.9),
        (h, of_class, of_class), (h, 1, torch.zeros(4, 8, dtype=torch.long)), (h.unsqueeze(1), 2), (h.unsqueeze(1), 2, 2),
        (h, 2, 1, 2),
    ]  # fmt: skip


def networks_with(func: Callable) -> Iterator[Between]:
    """Small networks in which it works, one value a sample and feature, with a gradient."""
    for i in range(13):

        def form(h: Tensor, i: int = i) -> Tensor:
            y = func(*arguments(h)[i])
            y = y if isinstance(y, Tensor) else next(t for t in y if isinstance(t, Tensor) and t.is_floating_point())
            if y.is_complex() or y.grad_fn is None:
                raise ValueError
            y = y.reshape(4, -1)
            return nn.functional.pad(y, (0, max(0, 8 - y.shape[1])))[:, :8]

        model, x = Between(form), X.clone().requires_grad_()
        try:
            (gradient,) = torch.autograd.grad(model(x)[:, 1].sum(), x)
        except Exception:
            continue
        if gradient.isfinite().all() and gradient.abs().max() > 1e-6:
            yield model
            return


@pytest.mark.slow
def test_the_way_out_of_every_refusal_works() -> None:
    """Of all of torch's overridable functions: refused by name; by plain gradient right; by a kind right or told why not."""
    refused, wrong = 0, []
    warnings.simplefilter("ignore")
    for func in WITHOUT_ROW:
        for model in networks_with(func):
            try:
                SelectiveLRP(model, Epsilon()).attribute(X, 1)
                continue
            except UnsupportedOperatorError as error:
                if "register_operator" not in str(error):
                    continue
            except ModelError:
                continue
            refused += 1
            by_gradient, told = SelectiveLRP(model, Epsilon(), on_unsupported="gradient"), 0.0
            try:
                told = by_gradient.trace(X, 1).conservation_error.max().item()
            except UnsupportedOperatorError as error:
                told = 0.0 if "samples" in str(error) else 1.0
            if not told < 1e-2:
                wrong.append((func, "gradient", told))
            for kind in ("activation", "gate", "movement", "linear", "product"):
                try:
                    with registered_operator(func, kind):
                        SelectiveLRP(model, Epsilon()).trace(X, 1)
                except (RuleError, UnsupportedOperatorError, ModelError):
                    continue
                except Exception as error:
                    wrong.append((func, kind, error))
    assert refused > 100
    assert not wrong, wrong

"""A captured pass is the pass: on other inputs, of any family, rule, selection and target, and nothing else is touched."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_networks import TwoInputs, cnn, mlp
from torch import Tensor, nn
from trainings import random_states, same

from lrp_lightning import (
    AlphaBeta,
    Composite,
    Coverage,
    Epsilon,
    EpsilonAlpha2Beta1,
    EpsilonGammaBox,
    Fixed,
    Gamma,
    LayerSelectiveLRP,
    MinError,
    PerLayer,
    SelectiveLRP,
    Threshold,
    TopK,
    ZBox,
)
from lrp_lightning.capture import Captured
from lrp_lightning.errors import InputError, ModelError, SelectionError, TargetError, UnsupportedOperatorError


def predicted(y: Tensor) -> Tensor:
    return y.argmax(1)


def assert_same(lrp: SelectiveLRP, captured: Captured, *given: Tensor, target: Any) -> None:
    """What the module returns is what the pass finds."""
    inputs = given[: captured.inputs]
    trace = lrp.trace(inputs if captured.inputs > 1 else inputs[0], target)
    output, relevance, masks = captured(*given)
    torch.testing.assert_close(output, trace.output)
    whole = trace.inputs if isinstance(trace.inputs, tuple) else (trace.inputs,)
    for one, other in zip((relevance,) if captured.inputs == 1 else relevance, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * other.abs().max().item())
    assert list(masks) == list(trace.masks)
    assert all(torch.equal(masks[layer], trace.masks[layer]) for layer in masks)


@pytest.mark.parametrize(
    "composite", [Epsilon(), Gamma(0.3), AlphaBeta(2, 1), EpsilonAlpha2Beta1(), EpsilonGammaBox(-3, 3), ZBox(-4, 4),
                  Composite(Epsilon(), convolution=Gamma(0.1))], ids=repr)  # fmt: skip
def test_rules(composite: Any) -> None:
    model, x = cnn(), torch.rand(2, 1, 8, 8)
    lrp = SelectiveLRP(model, composite)
    assert_same(lrp, lrp.capture(x, 1), torch.rand_like(x) * 4 - 2, target=1)


@pytest.mark.parametrize(
    "selection", [TopK(3), TopK(0.3, unit="element"), TopK(0.3, rescale=True), Threshold(0.05), Coverage(0.8),
                  Fixed({"0": [0, 2]}), PerLayer(TopK(2), {"4": TopK(0.5)})], ids=repr)  # fmt: skip
def test_selections(selection: Any) -> None:
    model, x = cnn(), torch.rand(2, 1, 8, 8)
    lrp = SelectiveLRP(model, selection=selection)
    assert_same(lrp, lrp.capture(x, predicted), torch.randn_like(x), target=predicted)


@pytest.mark.parametrize(
    "target", [1, -1, (0, 2), [0, 2], [(0, 1), (2, 1)], predicted, lambda y: y[:, 0] - y[:, 1:].mean(1)]
)
def test_targets(target: Any) -> None:
    model, x = mlp(4, 8, 3), torch.randn(2, 4)
    lrp = SelectiveLRP(model, selection=TopK(2))
    assert_same(lrp, lrp.capture(x, target), torch.randn_like(x), target=target)


def test_a_tensor_of_classes_becomes_an_input() -> None:
    model, x = mlp(4, 8, 3), torch.randn(5, 4)
    lrp = SelectiveLRP(model)
    captured = lrp.capture(x, torch.tensor([0, 1, 2, 0, 1]))
    for classes in (torch.tensor([2, 2, 1, 0, 0]), torch.tensor([0, 1, 2, 2, 1])):
        assert_same(lrp, captured, torch.randn_like(x), classes, target=classes)


def test_several_inputs() -> None:
    lrp = SelectiveLRP(TwoInputs(4, 5), selection=TopK(2))
    captured = lrp.capture((torch.randn(2, 4), torch.randn(2, 5)), 0)
    assert_same(lrp, captured, torch.randn(2, 4), torch.randn(2, 5), target=0)


def test_recorded_of_images_without_negative_values_it_is_right_for_others() -> None:
    lrp = SelectiveLRP(cnn())
    captured = lrp.capture(torch.rand(2, 1, 8, 8), 0)
    assert_same(lrp, captured, -torch.rand(2, 1, 8, 8), target=0)


def test_only_torchs_operators_are_in_it() -> None:
    captured = SelectiveLRP(cnn(), selection=TopK(2)).capture(torch.rand(2, 1, 8, 8), 0)
    called = [node.target for node in captured.program.graph.nodes if node.op == "call_function"]
    assert called
    assert {target.__module__ for target in called} <= {"torch._ops.aten", "_operator"}
    assert {node.op for node in captured.program.graph.nodes} == {"placeholder", "get_attr", "call_function", "output"}
    assert not any(str(target).endswith("_.default") for target in called)  # nothing is written in place


def test_nothing_that_nobody_reads_is_in_it() -> None:
    graph = SelectiveLRP(cnn(), selection=TopK(2)).capture(torch.rand(2, 1, 8, 8), 0).program.graph
    assert all(node.users for node in graph.nodes if node.op != "output")


# weights


def test_frozen_weights_stay_and_shared_ones_follow_training() -> None:
    model, x = cnn(), torch.randn(2, 1, 8, 8)
    lrp = SelectiveLRP(model)
    frozen, shared = lrp.capture(x, 0), lrp.capture(x, 0, freeze=False)
    before = frozen(x).relevance
    assert not list(frozen.parameters())
    assert {id(p) for p in shared.parameters()} == {id(p) for p in model.parameters()}
    assert {name.removeprefix("program.").replace("__", ".") for name, _ in shared.named_parameters()} == {
        name for name, _ in model.named_parameters()
    }
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1)
    assert torch.equal(frozen(x).relevance, before)
    assert_same(lrp, shared, x, target=0)
    assert not torch.allclose(shared(x).relevance, before)


def test_frozen_has_fewer_operators() -> None:
    lrp, x = SelectiveLRP(cnn()), torch.randn(2, 1, 8, 8)
    frozen, shared = lrp.capture(x, 0), lrp.capture(x, 0, freeze=False)
    assert len(frozen.program.graph.nodes) < len(shared.program.graph.nodes)


def test_it_is_converted_as_a_module_is() -> None:
    model, x = cnn(), torch.randn(2, 1, 8, 8)
    captured = SelectiveLRP(model, selection=TopK(2)).capture(x, 0).to(torch.double)
    double = SelectiveLRP(model.double(), selection=TopK(2))
    assert_same(double, captured, x.double(), target=0)
    assert captured(x.double()).relevance.dtype == torch.double
    with pytest.raises(ModelError, match="cannot be converted to float16"):
        captured.half()


def test_it_is_moved_as_a_module_is() -> None:
    captured = SelectiveLRP(cnn(), selection=TopK(2)).capture(torch.randn(2, 1, 8, 8), 0).to("meta")
    found = captured(torch.empty(2, 1, 8, 8, device="meta"))
    assert found.relevance.device.type == found.masks["0"].device.type == "meta"


def test_it_can_be_copied_and_its_weights_saved() -> None:
    x = torch.randn(2, 1, 8, 8)
    captured = SelectiveLRP(cnn()).capture(x, 0)
    again = copy.deepcopy(captured)
    again.load_state_dict(captured.state_dict())
    assert torch.equal(again(x).relevance, captured(x).relevance)


# what must not change


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(fails: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn, self.head = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu_(self.bn(self.conv(x))).mean((2, 3))
            return self.head(x) if not fails or x.sum() > -1e9 else x

    model = Net().train()
    model.conv.weight.grad = torch.ones_like(model.conv.weight)
    model.head.bias.requires_grad_(False)
    x = torch.randn(2, 1, 8, 8)

    def state() -> dict:
        return {
            "weights": {name: t.clone() for name, t in model.state_dict().items()},
            "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
            "requires_grad": [p.requires_grad for p in model.parameters()],
            "modes": [m.training for m in model.modules()],
            "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
            "attributes": [sorted(vars(m)) for m in model.modules()],
            "random": random_states(),
            "x": x.clone(),
            "grad mode": torch.is_grad_enabled(),
        }

    before = state()
    if fails:
        with pytest.raises(UnsupportedOperatorError, match="Net cannot be captured: its forward"):
            SelectiveLRP(model).capture(x, 0)
    else:
        SelectiveLRP(model).capture(x, 0)
    assert same(before, state())


# what is refused


def test_a_search_is_refused() -> None:
    for selection in (MinError(), PerLayer(TopK(2), {"0": MinError()})):
        with pytest.raises(SelectionError, match="MinError searches with many passes"):
            SelectiveLRP(mlp(4, 8, 3), selection=selection).capture(torch.randn(2, 4), 0)


def test_relevance_of_layers_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="relevance of inputs"):
        LayerSelectiveLRP(mlp(4, 8, 3), "0").capture(torch.rand(2, 4), 0)


def test_operators_by_gradient_are_refused() -> None:
    class Sorts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.special.i0(x))

    with (
        pytest.warns(UserWarning, match="plain gradient"),
        pytest.raises(UnsupportedOperatorError, match="by plain gradient, which cannot be captured"),
    ):
        SelectiveLRP(Sorts(), on_unsupported="gradient").capture(torch.rand(2, 4), 0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda lrp: lrp.capture(torch.zeros(2, 4, dtype=torch.long), 0), InputError, "must be a floating-point tensor"),
        (lambda lrp: lrp.capture(torch.rand(2, 4), torch.tensor([0, 1, 2])), TargetError, r"integers \(2,\)"),
        (lambda lrp: lrp.capture(torch.rand(2, 4), torch.tensor([0.0, 1.0])), TargetError, "float32"),
        (lambda lrp: lrp.capture(torch.rand(2, 4), 3), TargetError, "classes are 0 to 2"),
        (lambda lrp: lrp.capture(torch.rand(2, 4)), TargetError, "target is missing"),
        (lambda lrp: lrp.capture(torch.full((2, 4), torch.nan), 0), InputError, "NaN"),
    ],
)
def test_what_cannot_be_explained_is_refused_as_in_attribute(
    call: Callable[[SelectiveLRP], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(SelectiveLRP(mlp(4, 8, 3)))


def test_a_forward_that_writes_to_a_buffer_is_refused() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.head(x)

    with pytest.raises(UnsupportedOperatorError, match="writes to a buffer of the model"):
        SelectiveLRP(Counts()).capture(torch.rand(2, 4), 0)


def test_a_forward_that_draws_random_numbers_is_refused() -> None:
    class Draws(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x) * (torch.rand(1) + 0.1)

    with pytest.raises(UnsupportedOperatorError, match="gives other results than the pass itself"):
        SelectiveLRP(Draws()).capture(torch.rand(2, 4), 0)


def test_where_values_go_must_not_depend_on_the_input() -> None:
    class Ranks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.low, self.head = nn.Linear(4, 6), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.low(x).relu()
            return self.head(h[:, h[0].argsort()[:3]])

    SelectiveLRP(Ranks()).trace(torch.rand(2, 4), 0)
    with pytest.raises(UnsupportedOperatorError, match="where values go depends on the input"):
        SelectiveLRP(Ranks()).capture(torch.rand(2, 4), 0)


def test_constants_that_are_written_in_place_are_followed() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)
            self.bias = nn.Parameter(torch.randn(4))

        def forward(self, x: Tensor) -> Tensor:
            where = x.new_zeros(4)
            where[1:3] = 1
            learnt = torch.relu_(self.bias * 2)
            return self.head(x * where + learnt)

    lrp, x = SelectiveLRP(Masked()), torch.rand(2, 4)
    for freeze in (True, False):
        assert_same(lrp, lrp.capture(x, 0, freeze=freeze), torch.randn(2, 4), target=0)

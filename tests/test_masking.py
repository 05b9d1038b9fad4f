"""masked_forward against forward hooks that zero the same channels; and what it must not change."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from small_networks import Tokens
from torch import Tensor, nn
from torchvision.models import resnet18

from lrp_lightning import SelectiveLRP, TopK, masked_forward
from lrp_lightning.errors import LayerError, LRPError, ModelError, SelectionError
from lrp_lightning.masking import soft_forward


def seeded(model: Callable[[], nn.Module]) -> nn.Module:
    """A model in eval whose batch norms have statistics, scales and shifts worth the name."""
    torch.manual_seed(0)
    built = model()
    for module in built.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for t in (module.running_mean, module.weight, module.bias):
                nn.init.normal_(t)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    return built.eval()


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(36, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 7), nn.Tanh(), nn.Linear(7, 3))


def cnn(inplace: bool = False) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.ReLU(inplace), nn.Conv2d(5, 12, 2), nn.ReLU(inplace), nn.Flatten(),
        nn.Linear(108, 16), nn.ReLU(inplace), nn.Linear(16, 3),
    )  # fmt: skip


class Twice(nn.Module):
    """One convolution used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(36, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(self.conv(x).relu()).relu().flatten(1))


# where a neuron is off, as (the layer's name, the module after which it is zero, the dimension of its neurons)
PLACES = [
    pytest.param(cnn, [("0", "1", 1)], id="convolution with batch norm"),
    pytest.param(cnn, [("3", "3", 1)], id="convolution"),
    pytest.param(cnn, [("6", "6", 1)], id="linear"),
    pytest.param(cnn, [("0", "1", 1), ("3", "3", 1), ("6", "6", 1), ("8", "8", 1)], id="all layers"),
    pytest.param(lambda: cnn(inplace=True), [("0", "1", 1), ("3", "3", 1), ("6", "6", 1)], id="in place"),
    pytest.param(mlp, [("0", "1", 1), ("3", "3", 1)], id="linear with batch norm"),
    pytest.param(Tokens, [("embed", "embed", 2)], id="sequence"),
]


def neurons(model: nn.Module, layer: str) -> int:
    return len(model.get_parameter(f"{layer}.weight"))


def zeroed_by_hooks(model: nn.Module, x: Tensor, on: dict[str, tuple[Tensor, int]]) -> Tensor:
    """The oracle: the same model, a hook after each module sets the channels that are off to zero."""
    model = copy.deepcopy(model).eval()

    def zero(keep: Tensor, dim: int) -> Callable:
        def hook(module: nn.Module, args: object, y: Tensor) -> Tensor:
            shape = [len(y) if keep.ndim == 2 else 1] + [1] * (y.ndim - 1)
            shape[dim] = keep.shape[-1]
            return y * keep.view(shape)

        return hook

    for name, (keep, dim) in on.items():
        model.get_submodule(name).register_forward_hook(zero(keep, dim))
    with torch.no_grad():
        return model(x)


@pytest.mark.parametrize("keep", [True, False], ids=["keep", "drop"])
@pytest.mark.parametrize("per_sample", [True, False], ids=["(N, C)", "(C,)"])
@pytest.mark.parametrize(("model", "places"), PLACES)
def test_off_is_zero_after_batch_norm(
    model: Callable[[], nn.Module], places: list[tuple[str, str, int]], per_sample: bool, keep: bool
) -> None:
    net, x = seeded(model), torch.rand(4, 1, 6, 6)
    x = x.flatten(1) if model is mlp else x
    masks = {name: torch.rand((4, neurons(net, name)) if per_sample else neurons(net, name)) < 0.5 for name, _, _ in places}
    on = {at: (masks[name] if keep else ~masks[name], dim) for name, at, dim in places}
    masked = masked_forward(net, x, masks, keep=keep)
    torch.testing.assert_close(masked, zeroed_by_hooks(net, x, on))
    assert not torch.allclose(masked, net(x))
    # keep and drop are one another's complement
    assert torch.equal(masked, masked_forward(net, x, {name: ~mask for name, mask in masks.items()}, keep=not keep))


@pytest.mark.parametrize(("model", "places"), PLACES)
def test_all_on_is_the_forward_bit_by_bit(model: Callable[[], nn.Module], places: list[tuple[str, str, int]]) -> None:
    net, x = seeded(model), torch.rand(4, 1, 6, 6)
    x = x.flatten(1) if model is mlp else x
    everything = {name: torch.ones(neurons(net, name), dtype=torch.bool) for name, _, _ in places}
    output = masked_forward(net, x, everything)
    assert torch.equal(output, net(x))
    assert torch.equal(masked_forward(net, x, {}), net(x))
    assert not output.requires_grad


def test_samples_do_not_meet() -> None:
    net, x = seeded(cnn), torch.rand(4, 1, 6, 6)
    masks = {"0": torch.rand(4, 5) < 0.5, "3": torch.rand(4, 12) < 0.5}
    one_by_one = [masked_forward(net, x[i : i + 1], {name: m[i] for name, m in masks.items()}) for i in range(4)]
    torch.testing.assert_close(masked_forward(net, x, masks), torch.cat(one_by_one))


def test_off_is_zero_even_where_the_activation_is_infinite() -> None:
    net, x = seeded(cnn), torch.rand(1, 1, 6, 6)
    net[3].bias.data[2] = torch.inf  # type: ignore[index, union-attr, operator]
    assert not net(x).isfinite().all()
    assert masked_forward(net, x, {"3": torch.arange(12) != 2}).isfinite().all()


def test_a_layer_used_twice_takes_a_mask_for_each_use() -> None:
    net, x = seeded(Twice), torch.rand(2, 1, 6, 6)
    off, on = torch.zeros(1, dtype=torch.bool), torch.ones(1, dtype=torch.bool)
    with torch.no_grad():
        bias_only = net.head(net.conv(torch.zeros_like(x)).relu().flatten(1))
        nothing = net.head(torch.zeros(2, 36))
    torch.testing.assert_close(masked_forward(net, x, {"conv#1": off}), bias_only)
    torch.testing.assert_close(masked_forward(net, x, {"conv#2": off}), nothing)
    assert torch.equal(masked_forward(net, x, {"conv#1": on, "conv#2": on}), net(x))
    with pytest.raises(SelectionError, match="'conv' ran 2 times; give masks for conv#1, conv#2"):
        masked_forward(net, x, {"conv": on})
    # the names are those of a trace
    trace = SelectiveLRP(net, selection=TopK(1)).trace(x, target=0)
    assert list(trace.masks) == ["conv#1", "conv#2"]
    assert torch.equal(masked_forward(net, x, trace.masks), net(x))


def test_residual_networks_are_masked_before_the_addition() -> None:
    net, x = seeded(lambda: resnet18(num_classes=4)), torch.rand(2, 3, 32, 32)
    masks = SelectiveLRP(net, selection=TopK(0.3)).trace(x, target=lambda logits: logits.argmax(1)).masks
    after = {name: name.replace("conv", "bn").replace("downsample.0", "downsample.1") for name in masks}
    assert len(masks) == 20
    assert after["layer2.0.downsample.0"] == "layer2.0.downsample.1"
    on = {after[name]: (mask, 1) for name, mask in masks.items()}
    torch.testing.assert_close(masked_forward(net, x, masks), zeroed_by_hooks(net, x, on))
    everything = {name: torch.ones_like(mask) for name, mask in masks.items()}
    assert torch.equal(masked_forward(net, x, everything), net(x))


def test_inputs_in_a_tuple_and_further_arguments() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(3, 5), nn.Linear(4, 5)

        def forward(self, a: Tensor, b: Tensor, factor: float, shift: float = 0.0) -> Tensor:
            return self.left(a).relu() + factor * self.right(b).relu() + shift

    net, a, b = seeded(Sum), torch.rand(2, 3), torch.rand(2, 4)
    off = {"right": torch.zeros(5, dtype=torch.bool)}
    torch.testing.assert_close(masked_forward(net, (a, b), off, additional_forward_args=(2.0, 1.0)), net.left(a).relu() + 1)
    assert torch.equal(masked_forward(net, (a, b), {}, additional_forward_args=2.0), net(a, b, 2.0))


# Errors


@pytest.mark.parametrize(
    ("masks", "error", "message"),
    [
        ({"0": torch.ones(5)}, SelectionError, r"'0' must be a torch.bool tensor, got torch.float32"),
        ({"0": [True] * 5}, SelectionError, r"'0' must be a torch.bool tensor, got list"),
        ({"0": torch.ones(6, dtype=torch.bool)}, SelectionError, r"shape \(6,\).*must be \(2, 5\) or \(5,\)"),
        ({"0": torch.ones(3, 5, dtype=torch.bool)}, SelectionError, r"shape \(3, 5\).*must be \(2, 5\) or \(5,\)"),
        ({"0": torch.ones(2, 5, 1, dtype=torch.bool)}, SelectionError, r"shape \(2, 5, 1\)"),
        ({"0": torch.ones(5, dtype=torch.bool, device="meta")}, SelectionError, "is on meta, its output on cpu"),
        ({"features.0": torch.ones(5, dtype=torch.bool)}, LayerError, r"no layer 'features.0'"),
        ({"00": torch.ones(5, dtype=torch.bool)}, LayerError, r"no layer '00'.*did you mean '0'"),
        ({"2": torch.ones(5, dtype=torch.bool)}, LayerError, r"no layer '2'"),  # a ReLU has no neurons of its own
    ],
)
def test_masks_that_do_not_fit(masks: dict[str, Tensor], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        masked_forward(seeded(cnn), torch.rand(2, 1, 6, 6), masks)


def test_a_model_is_a_module() -> None:
    with pytest.raises(ModelError, match="got a function"):
        masked_forward(lambda x: x, torch.rand(2, 3), {})  # type: ignore[arg-type]


# What must not change


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("on purpose")


def snapshot(model: nn.Module) -> dict[str, object]:
    return {
        "state": {name: t.clone() for name, t in model.state_dict().items()},
        "training": [module.training for module in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grad": [p.grad for p in model.parameters()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()],
        "forward": ["forward" in vars(module) for module in model.modules()],
        "random": torch.get_rng_state(),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
    }


def assert_same(before: dict[str, object], after: dict[str, object]) -> None:
    torch.testing.assert_close(after.pop("state"), before.pop("state"), rtol=0, atol=0)
    assert torch.equal(after.pop("random"), before.pop("random"))  # type: ignore[arg-type]
    assert after == before


@pytest.mark.parametrize("fails", [False, True], ids=["success", "failure"])
def test_a_model_in_train_mode_is_left_as_it_was(fails: bool) -> None:
    net = seeded(lambda: nn.Sequential(*cnn(), nn.Dropout(0.5), *([Fails()] if fails else [])))  # type: ignore[misc]
    reference = copy.deepcopy(net)
    net.train()
    net[1].eval()  # a frozen batch norm among layers that train
    net[0].weight.requires_grad_(False)
    net[3].weight.grad = torch.ones_like(net[3].weight)
    x, masks = torch.rand(2, 1, 6, 6), {"0": torch.arange(5) < 3}
    before = snapshot(net)
    if fails:
        with pytest.raises(RuntimeError, match="on purpose"):
            masked_forward(net, x, masks)
    else:
        assert torch.equal(masked_forward(net, x, masks), masked_forward(reference, x, masks))
    assert_same(before, snapshot(net))


def test_after_an_error_operators_are_torchs_own_again() -> None:
    net, x = seeded(cnn), torch.rand(2, 1, 6, 6)
    plain = net(x)
    with pytest.raises(SelectionError):
        masked_forward(net, x, {"0": torch.zeros(99, dtype=torch.bool)})
    assert torch.equal(net(x), plain)
    assert plain.requires_grad


def test_under_inference_mode() -> None:
    net = seeded(lambda: nn.Sequential(nn.ReLU(inplace=True), *cnn(inplace=True)))  # type: ignore[misc]
    masks = {"1": torch.arange(5) < 3}
    with torch.inference_mode():
        x = torch.rand(2, 1, 6, 6) - 0.5
        before = x.clone()
        output = masked_forward(net, x, masks)
    assert x.is_inference()
    assert not output.is_inference()  # metrics may be updated with it later
    assert torch.equal(x, before)
    assert torch.equal(output, masked_forward(net, x.clone(), masks))


def test_under_autocast_the_model_runs_in_its_own_precision() -> None:
    net, x, masks = seeded(cnn), torch.rand(2, 1, 6, 6), {"0": torch.arange(5) < 3}
    with torch.autocast("cpu", torch.bfloat16):
        inside = masked_forward(net, x, masks)
    assert torch.equal(inside, masked_forward(net, x, masks))


class Normalised(nn.Module):
    """Batch norm after an activation: not folded, whether the activation runs in place or not."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.conv, self.relu, self.norm = nn.Conv2d(1, 5, 3), nn.ReLU(inplace), nn.BatchNorm2d(5)
        self.head = nn.Linear(80, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.relu(self.conv(x))).flatten(1))


def test_batch_norm_after_an_activation_in_place() -> None:
    in_place, plain = seeded(lambda: Normalised(True)), seeded(lambda: Normalised(False))
    x, masks = torch.rand(2, 1, 6, 6), {"conv": torch.tensor([True, False, True, True, False])}
    assert torch.equal(masked_forward(in_place, x, {"conv": torch.ones(5, dtype=torch.bool)}), in_place(x))
    assert torch.equal(masked_forward(in_place, x, masks), masked_forward(plain, x, masks))
    on = zeroed_by_hooks(plain, x, {"conv": (masks["conv"].expand(2, 5), 1)})
    assert torch.equal(masked_forward(plain, x, masks), on)


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm])
def test_weights_that_are_computed(norm: Callable) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(norm(nn.Linear(4, 8)), nn.ReLU(), norm(nn.Linear(8, 3))).eval()
    x = torch.rand(5, 4)
    masks = SelectiveLRP(model, selection=TopK(3)).trace(x, target=0).masks
    assert set(masks) == {"0"}
    expected = model[2](torch.where(masks["0"], model[0](x), 0).relu())
    assert torch.equal(masked_forward(model, x, masks), expected)


def test_a_layer_also_run_on_a_constant() -> None:
    class Siamese(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c, self.head = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor, reference: Tensor) -> Tensor:
            return self.head(self.c(x).relu() - self.c(reference).relu())

    model, x, reference = seeded(Siamese), torch.rand(5, 4), torch.rand(5, 4)
    masks = SelectiveLRP(model, selection=TopK(3)).trace(x, 0, reference).masks
    expected = model.head(torch.where(masks["c"], model.c(x), 0).relu() - model.c(reference).relu())
    assert torch.equal(masked_forward(model, x, masks, additional_forward_args=reference), expected)


def test_a_model_that_changes_its_input() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.mul_(2))

    x = torch.ones(2, 4)
    masked_forward(InPlace(), x, {})
    assert torch.equal(x, torch.ones(2, 4))


@pytest.mark.parametrize(("inputs", "masks"), [([1.0], {}), (torch.rand(2, 1, 6, 6), None), ((), {})])
def test_arguments_of_another_type(inputs: object, masks: object) -> None:
    with pytest.raises(LRPError):
        masked_forward(seeded(cnn), inputs, masks)  # type: ignore[arg-type]


# Single values, layers as modules, means, gradients


@pytest.mark.parametrize("keep", [True, False])
def test_single_values_are_switched_off(keep: bool) -> None:
    net, x = seeded(cnn), torch.rand(4, 1, 6, 6)
    mask = torch.rand(4, 12, 3, 3) < 0.5
    with torch.no_grad():
        z = net[:4](x) * (mask if keep else ~mask)  # type: ignore[index, operator]
        expected = net[4:](z)  # type: ignore[index, operator]
    assert torch.equal(masked_forward(net, x, {"3": mask}, keep=keep), expected)
    tokens = seeded(Tokens)
    mask = torch.rand(4, 6, 9) < 0.5
    with torch.no_grad():
        hidden = tokens.embed(x.flatten(1).view(-1, 6, 6)) * (mask if keep else ~mask)  # type: ignore[operator]
        expected = tokens.head(hidden.relu().mean(1))  # type: ignore[operator]
    torch.testing.assert_close(masked_forward(tokens, x, {"embed": mask}, keep=keep), expected)


def test_masks_of_a_trace_of_single_values() -> None:
    net, x = seeded(cnn), torch.rand(4, 1, 6, 6)
    trace = SelectiveLRP(net, selection=TopK(0.5, unit="element")).trace(x, target=1)
    assert {name: mask.ndim for name, mask in trace.masks.items()} == {"0": 4, "3": 4, "6": 2}
    everything = {name: torch.ones_like(mask) for name, mask in trace.masks.items()}
    assert not torch.equal(masked_forward(net, x, trace.masks), net(x))
    assert torch.equal(masked_forward(net, x, everything), net(x))


def test_a_layer_given_as_module() -> None:
    net, x, mask = seeded(cnn), torch.rand(2, 1, 6, 6), torch.arange(12) < 5
    assert torch.equal(masked_forward(net, x, {net[3]: mask}), masked_forward(net, x, {"3": mask}))
    with pytest.raises(LayerError, match="Linear is neither a module of the model nor"):
        masked_forward(net, x, {nn.Linear(1, 1): mask})


@pytest.mark.parametrize(("model", "places"), PLACES)
def test_mean_replacement(model: Callable[[], nn.Module], places: list[tuple[str, str, int]]) -> None:
    """Against hooks that put in the batch's mean of a clean run, value by value."""
    net, x = seeded(model), torch.rand(4, 1, 6, 6)
    x = x.flatten(1) if model is mlp else x
    masks = {name: torch.rand(4, neurons(net, name)) < 0.5 for name, _, _ in places}
    clean: dict[str, Tensor] = {}
    handles = [
        net.get_submodule(at).register_forward_hook(lambda m, a, y, at=at: clean.update({at: y.mean(0)}))  # type: ignore[misc]
        for _, at, _ in places
    ]
    plain_relu = copy.deepcopy(net)
    with torch.no_grad():
        net(x)
    for handle in handles:
        handle.remove()
    for name, at, dim in places:

        def replace(m: nn.Module, a: object, y: Tensor, keep: Tensor = masks[name], dim: int = dim, at: str = at) -> Tensor:
            shape = [len(y)] + [1] * (y.ndim - 1)
            shape[dim] = keep.shape[-1]
            return torch.where(keep.view(shape), y, clean[at])

        plain_relu.get_submodule(at)._forward_hooks.clear()
        plain_relu.get_submodule(at).register_forward_hook(replace)
    with torch.no_grad():
        expected = plain_relu(x)
    masked = masked_forward(net, x, masks, replacement="mean")
    torch.testing.assert_close(masked, expected)
    assert not torch.allclose(masked, masked_forward(net, x, masks))
    everything = {name: torch.ones_like(mask) for name, mask in masks.items()}
    assert torch.equal(masked_forward(net, x, everything, replacement="mean"), net(x))
    # of one sample the mean is its own, so nothing is switched off
    one = {name: mask[:1] for name, mask in masks.items()}
    torch.testing.assert_close(masked_forward(net, x[:1], one, replacement="mean"), net(x[:1]))


def test_what_is_no_replacement() -> None:
    with pytest.raises(SelectionError, match="replacement must be 'zero' or 'mean', got 'noise'"):
        masked_forward(seeded(cnn), torch.rand(2, 1, 6, 6), {}, replacement="noise")  # type: ignore[arg-type]


def test_soft_forward_is_the_masked_forward_and_has_its_gradient() -> None:
    """The gradient at a neuron that is off is that of switching it on: a ReLU after it must not hide it."""
    net, x = seeded(cnn).double(), torch.rand(3, 1, 6, 6, dtype=torch.double)
    hard = {"0": torch.rand(3, 5) < 0.5, "3": torch.rand(3, 12) < 0.5, "6": torch.rand(3, 16) < 0.5}
    soft = {name: mask.double().requires_grad_() for name, mask in hard.items()}
    before = snapshot(net)
    output = soft_forward(net, x, soft)
    torch.testing.assert_close(output.detach(), masked_forward(net, x, hard))
    gradients = torch.autograd.grad(output[:, 1].sum(), list(soft.values()))
    assert_same(before, snapshot(net))
    for (name, mask), gradient in zip(soft.items(), gradients, strict=True):
        for neuron in range(mask.shape[1]):
            on = hard[name][1, neuron]
            step = torch.zeros_like(mask)
            step[1, neuron] = -1e-6 if on else 1e-6  # off and on again: a forward and a backward difference
            there = soft_forward(net, x, {**soft, name: mask.detach() + step})[1, 1]
            difference = (there - output[1, 1]) / step[1, neuron]
            torch.testing.assert_close(gradient[1, neuron], difference.detach(), atol=1e-6, rtol=1e-4)
    assert any(bool((g[~hard[name]] != 0).any()) for name, g in zip(hard, gradients, strict=True))


class Excited(nn.Module):
    """A squeeze-and-excitation gate beside its signal."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.down, self.up = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        gate = self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return self.head((x * gate).mean((2, 3)))


def test_gates_are_no_neurons_but_can_be_named() -> None:
    net, x = seeded(Excited), torch.rand(4, 1, 6, 6)
    trace = SelectiveLRP(net, selection=TopK(3)).trace(x, target=1)
    assert list(trace.masks) == ["conv"]
    gates_off = masked_forward(net, x, {"up": torch.zeros(8, dtype=torch.bool)})
    with torch.no_grad():
        expected = net.head((net.conv(x).relu() * 0.5).mean((2, 3)))  # type: ignore[operator]
    torch.testing.assert_close(gates_off, expected)


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attention = nn.Linear(6, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.flatten(1).view(-1, 6, 6))
        return self.head(self.norm(x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


def test_attention_has_its_values_and_output_as_neurons() -> None:
    net, x = seeded(Attends), torch.rand(4, 1, 6, 6)
    trace = SelectiveLRP(net, selection=TopK(0.5)).trace(x, target=1)
    assert set(trace.masks) == {"embed", "attention.v_proj", "attention.out_proj"}
    everything = {name: torch.ones_like(mask) for name, mask in trace.masks.items()}
    assert torch.equal(masked_forward(net, x, everything), trace.output)
    out_off = masked_forward(net, x, {"attention.out_proj": torch.zeros(8, dtype=torch.bool)})
    with torch.no_grad():
        expected = net.head(net.norm(net.embed(x.flatten(1).view(-1, 6, 6))).mean(1))  # type: ignore[operator]
    torch.testing.assert_close(out_off, expected)


def _connected(model: nn.Module, x: Tensor, masks: dict[str, Tensor], means: dict[str, Tensor] | None) -> Tensor:
    """By hooks: each layer reads the mean through its whole weight, and what is beside the mean through a masked one."""

    def of(layer: nn.Module, name: str):
        def hook(_: nn.Module, read: tuple[Tensor], given: Tensor) -> Tensor:
            mask = masks[name].to(given)[(...,) + (None,) * (layer.weight.ndim - 2)]
            mean = torch.zeros_like(read[0][:1]) if means is None else means[name]
            if isinstance(layer, nn.Conv2d):
                run = partial(F.conv2d, stride=layer.stride, padding=layer.padding, groups=layer.groups)
            else:
                run = F.linear
            return run(read[0] - mean, layer.weight * mask) + run(mean, layer.weight, layer.bias)

        return hook

    modules = dict(model.named_modules())
    handles = [modules[name].register_forward_hook(of(modules[name], name)) for name in masks]
    try:
        with torch.no_grad():
            return model(x)
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("replacement", ["zero", "mean", "given"])
def test_edges_off(replacement: str) -> None:
    """With a batch norm that folds in, groups, a residual sum and a linear layer over space; against hooks."""
    torch.manual_seed(0)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.norm(self.conv(x)).relu()

    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), Block(), nn.Flatten(), nn.Linear(36, 5)).double().eval()
    model[2].norm.running_mean += 0.3
    x, shapes = torch.randn(6, 1, 5, 5).double(), {"0": (4, 1), "2.conv": (4, 2), "4": (5, 36)}
    masks = {name: torch.rand(shape) < 0.5 for name, shape in shapes.items()}
    reads = {name: torch.zeros(0) for name in shapes}
    handles = [
        dict(model.named_modules())[name].register_forward_hook(
            lambda _, read, __, name=name: reads.update({name: read[0].mean(0, keepdim=True)})
        )
        for name in shapes
    ]
    with torch.no_grad():
        whole = model(x)
    for handle in handles:
        handle.remove()
    given = {name: torch.randn_like(mean) for name, mean in reads.items()}
    means = {"zero": None, "mean": reads, "given": given}[replacement]
    expected = _connected(model, x, masks, means)
    found = masked_forward(model, x, masks, of="edges", replacement=given if replacement == "given" else replacement)  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected)
    off = {name: ~mask for name, mask in masks.items()}
    torch.testing.assert_close(
        masked_forward(model, x, off, False, None, "zero", "edges"), _connected(model, x, masks, None)
    )
    everything = {name: torch.ones_like(mask) for name, mask in masks.items()}
    torch.testing.assert_close(masked_forward(model, x, everything, of="edges"), whole)


def test_bad_edges() -> None:
    model, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(5, 4)
    with pytest.raises(SelectionError, match=r"shape \(8,\); its connections are \(8, 4\)"):
        masked_forward(model, x, {"0": torch.ones(8, dtype=torch.bool)}, of="edges")
    with pytest.raises(SelectionError, match="of must be 'neurons' or 'edges', got 'weights'"):
        masked_forward(model, x, {"0": torch.ones(8, dtype=torch.bool)}, of="weights")  # type: ignore[arg-type]
    with pytest.raises(LayerError):
        masked_forward(model, x, {"7": torch.ones(8, 4, dtype=torch.bool)}, of="edges")

"""The circumstances in which a pass is made: threads, devices, precisions, compiled and training modules."""

from __future__ import annotations

import re
import sys
import threading
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from lightning.pytorch import LightningModule
from small_networks import mlp
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchmetrics.classification import MulticlassAccuracy

from lrp_lightning import Epsilon, SelectiveLRP, TopK, masked_forward
from lrp_lightning.errors import InputError, LRPError, ModelError, UnsupportedOperatorError

PASS = sys.modules["lrp_lightning.engine.propagate"]


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.GELU(),
        nn.Flatten(), nn.Linear(32, 5),
    ).eval()  # fmt: skip


@pytest.fixture
def x() -> Tensor:
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


# threads


def test_two_threads_with_two_models_do_not_disturb_each_other(x: Tensor) -> None:
    models = [net(0).train(), net(1)]
    alone = [SelectiveLRP(model, selection=TopK(2)).trace(x, target=1) for model in models]
    found: list[list[Any]] = [[], []]
    start = threading.Barrier(2)

    def explain(i: int) -> None:
        start.wait()
        for _ in range(20):
            found[i].append(SelectiveLRP(models[i], selection=TopK(2)).trace(x, target=1))

    threads = [threading.Thread(target=explain, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(2):
        assert len(found[i]) == 20
        assert all(torch.equal(trace.inputs, alone[i].inputs) for trace in found[i])
    assert all(module.training for module in models[0].modules())
    assert not any(module.training for module in models[1].modules())


def test_an_attribution_inside_an_attribution_is_refused(x: Tensor) -> None:
    inner = net()

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x * SelectiveLRP(inner).attribute(x.detach(), target=1))

    with pytest.raises(LRPError, match="inside the forward of a model that is being explained"):
        SelectiveLRP(Outer()).attribute(x, target=1)
    assert SelectiveLRP(inner).attribute(x, target=1).any()  # and nothing of it stays


# precisions and layouts


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_models_of_other_precisions(x: Tensor, dtype: torch.dtype) -> None:
    expected = SelectiveLRP(net(), Epsilon(1e-4)).attribute(x, target=1)
    trace = SelectiveLRP(net().to(dtype), Epsilon(1e-4)).trace(x.to(dtype), target=1)
    assert trace.inputs.dtype == dtype
    likeness = F.cosine_similarity(trace.inputs.float().flatten(), expected.flatten(), dim=0)
    assert likeness > (0.9999 if dtype == torch.float64 else 0.98)


@pytest.mark.parametrize("composite", ["epsilon", "epsilon_plus"])
def test_half_precision_holds_the_scale_of_large_layers(composite: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 16, 1), nn.ReLU(), nn.Conv2d(16, 32, 1), nn.Flatten(2), nn.Linear(64 * 64, 1)).eval()
    x = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        model[2].bias += 1.0
        assert model[:3](x).abs().sum() > torch.finfo(torch.float16).max
    expected = SelectiveLRP(model, composite).attribute(x, target=(3, 0))
    relevance = SelectiveLRP(model.half(), composite).attribute(x.half(), target=(3, 0))
    assert F.cosine_similarity(relevance.float().flatten(), expected.flatten(), dim=0) > 0.99


def test_autocast_is_computed_in_float32(x: Tensor) -> None:
    expected = SelectiveLRP(net()).attribute(x, target=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for given in (x, x.bfloat16()):
            relevance = SelectiveLRP(net()).attribute(given, target=1)
            assert relevance.dtype == torch.float32
        assert torch.equal(SelectiveLRP(net()).attribute(x, target=1), expected)


def test_channels_last(x: Tensor) -> None:
    expected = SelectiveLRP(net()).attribute(x, target=1)
    model = net().to(memory_format=torch.channels_last)
    relevance = SelectiveLRP(model).attribute(x.to(memory_format=torch.channels_last), target=1)
    torch.testing.assert_close(relevance, expected)


def test_deterministic_algorithms_stay_as_they_were(x: Tensor) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (SelectiveLRP(net(), selection=TopK(3)).trace(x, target=1, edges=True) for _ in range(2))
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(first.inputs, second.inputs)
    for pair, edges in first.edges.items():
        assert torch.equal(edges, second.edges[pair])


# modules of many kinds


def test_a_compiled_module_is_explained_as_what_it_was_made_from(x: Tensor) -> None:
    expected = SelectiveLRP(net()).trace(x, target=1)
    compiled = torch.compile(net(), backend="eager")
    compiled(x)
    trace = SelectiveLRP(compiled).trace(x, target=1)
    assert torch.equal(trace.inputs, expected.inputs)
    assert list(trace.relevance) == list(expected.relevance)
    compiled(x)  # and it still runs


def test_a_part_that_is_compiled(x: Tensor) -> None:
    expected = SelectiveLRP(net()).trace(x, target=1)
    model = net()
    model[4] = torch.compile(model[4], backend="eager")
    model(x)
    trace = SelectiveLRP(model).trace(x, target=1)
    assert torch.equal(trace.inputs, expected.inputs)
    assert list(trace.relevance) == list(expected.relevance)


class Classifier(LightningModule):
    """A LightningModule with its loss and metrics as children."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.loss, self.accuracy = net(), nn.CrossEntropyLoss(), MulticlassAccuracy(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def test_a_lightning_module_with_losses_and_metrics(x: Tensor) -> None:
    model = Classifier().train()
    model.accuracy.update(torch.tensor([1, 2]), torch.tensor([1, 1]))
    before = model.accuracy.compute()
    assert torch.equal(SelectiveLRP(model).attribute(x, target=1), SelectiveLRP(net()).attribute(x, target=1))
    assert torch.equal(model.accuracy.compute(), before)
    assert model.loss.training


# devices


@pytest.mark.parametrize("name", ["vgg11_bn", "resnet18", "mobilenet_v3_small", "vit_b_32"])
def test_no_device_is_mixed_and_the_host_waits_for_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device, whose tensors have no values: reading one raises, and so does mixing it with another device."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)  # which does not know this device
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(PASS, "check_inputs", lambda model, inputs, *_: [False] * len(inputs))  # the looks before
    monkeypatch.setattr(PASS, "_check_finite", lambda explained, outside, stray: [])  # and after
    monkeypatch.setattr(sys.modules["lrp_lightning.masking"], "check_inputs", lambda *_, **__: [])
    with torch.device("meta"):
        model, x = torchvision.models.get_model(name, weights=None).eval(), torch.rand(2, 3, 224, 224)
    trace = SelectiveLRP(model, selection=TopK(0.1)).trace(x, target=1)
    logits = masked_forward(model, x, trace.masks)
    found = [trace.inputs, logits, *trace.relevance.values(), *trace.masks.values(), *trace.absorbed.values()]
    assert {t.device.type for t in found} == {"meta"}


def test_on_the_meta_device_a_look_at_values_raises() -> None:
    with torch.device("meta"):
        model, x = net(), torch.rand(2, 3, 8, 8)
    with pytest.raises((RuntimeError, NotImplementedError)):
        PASS._check_finite(x, {})
    for run in (lambda: SelectiveLRP(model).trace(x, target=1), lambda: masked_forward(model, x, {})):
        with pytest.raises(InputError, match="the input is on the meta device"):
            run()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["vgg11_bn", "resnet18", "vit_b_32"])
def test_on_a_gpu(name: str) -> None:
    torch.manual_seed(0)
    model, x = torchvision.models.get_model(name, weights=None).eval(), torch.rand(2, 3, 224, 224)
    expected = SelectiveLRP(model, Epsilon(1e-3)).trace(x, target=1)
    trace = SelectiveLRP(model.cuda(), Epsilon(1e-3)).trace(x.cuda(), target=1)
    assert trace.inputs.is_cuda
    assert trace.conservation_error.max() < 1e-3
    assert F.cosine_similarity(trace.inputs.cpu().flatten(), expected.inputs.flatten(), dim=0) > 0.99


def test_threads_that_share_a_model_in_train_mode_both_see_it_in_eval() -> None:
    model, seen, both = net().train(), [], threading.Barrier(2, timeout=30)

    class Meeting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            both.wait()
            seen.append(model[1].training)
            both.wait()
            return x

    whole = nn.Sequential(model, Meeting()).train()
    x = torch.rand(2, 3, 8, 8)
    before = {name: t.clone() for name, t in whole.state_dict().items()}
    threads = [threading.Thread(target=lambda: SelectiveLRP(whole).attribute(x, 1)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == [False, False]
    assert all(module.training for module in whole.modules())
    assert all(torch.equal(t, before[name]) for name, t in whole.state_dict().items())


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return mlp(4, 8, 3)


def vmapped() -> nn.Module:
    class Vmapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small()

        def forward(self, x: Tensor) -> Tensor:
            return torch.vmap(self.inner)(x)

    return Vmapped()


@pytest.mark.filterwarnings("ignore")  # of torch, which deprecates what is made here
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.jit.script(small()), "the model is scripted or traced, which hides its operators"),
        (lambda: nn.Sequential(torch.jit.script(small()[:2]), small()[2]), "module '0' is scripted or traced"),
        (lambda: torch.ao.quantization.quantize_dynamic(small(), {nn.Linear}), "module '0' is quantised"),
        (lambda: torch.export.export(small(), (torch.randn(2, 4),)).module(), "the model was exported"),
        (vmapped, "operators inside torch.func's transforms, such as vmap, cannot be seen"),
    ],
    ids=["scripted", "scripted part", "quantised", "exported", "vmap"],
)
def test_a_model_that_does_not_show_its_operators_says_what_it_is(make: Any, message: str) -> None:
    with pytest.raises(ModelError, match=re.escape(message)):
        SelectiveLRP(make()).attribute(torch.randn(2, 4), 1)


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_is_refused_with_the_way_out(reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(checkpoint(lambda y: self.a(y).relu(), x, use_reentrant=reentrant))

    with pytest.raises(UnsupportedOperatorError, match=r"activation checkpointing .* Switch it off while you explain"):
        SelectiveLRP(Checkpointed()).attribute(torch.rand(2, 4), target=1)

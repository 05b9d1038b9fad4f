"""Torchvision's classification models, its segmentation and detection backbones, and families of timm conserve."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torchvision
import zoo
from flow import flow_error
from torch import Tensor, nn
from torchvision.models import detection, segmentation

from lrp_lightning import Epsilon, EpsilonPlus, SelectiveLRP, TopK, masked_forward

pytestmark = pytest.mark.slow


def state(model: nn.Module) -> list[Any]:
    """All that a pass could change, by identity and version where values are many."""
    tensors = [*model.parameters(), *model.buffers()]
    return [
        [(name, id(t)) for name, t in [*model.named_parameters(), *model.named_buffers()]],
        [(t._version, t.data_ptr(), t.requires_grad, t.grad is None) for t in tensors],
        [(m.training, sorted(vars(m)), len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
    ]


ONE_OF_EACH = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3",
    "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf",
    "resnet18", "resnet50", "resnext50_32x4d", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "squeezenet1_0", "squeezenet1_1",
    "swin_t", "swin_v2_t", "vgg11", "vgg16_bn", "vit_b_16", "wide_resnet50_2",
]  # fmt: skip
"""Of each architecture the smallest; the others repeat its blocks, and ``benchmarks/zoo.py`` measures all."""


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_conserves(name: str) -> None:
    model, x = zoo.build(name)
    with torch.no_grad():
        logits = model(x)
    before, rng = state(model), torch.get_rng_state()
    for rule, edges in ((Epsilon(), False), (EpsilonPlus(), True)):
        trace = SelectiveLRP(model, rule, TopK(1.0)).trace(x, target=lambda logits: logits.argmax(1), edges=edges)
        torch.testing.assert_close(trace.output, logits, rtol=1e-4, atol=1e-4)
        assert trace.conservation_error.max() <= 1e-3
        assert trace.inputs.isfinite().all()
        assert trace.inputs.any()
        assert not edges or flow_error(trace) < 1e-4
    assert torch.equal(masked_forward(model, x, trace.masks), trace.output)  # all neurons on: the same bits
    assert state(model) == before
    assert torch.equal(torch.get_rng_state(), rng)


TIMM = [
    "resnetv2_50", "seresnet50", "res2net50_14w_8s", "dla34", "hrnet_w18_small", "tf_efficientnet_lite0",
    "mobilenetv4_conv_small", "repvgg_a0", "ghostnet_100", "nf_resnet26", "convnextv2_atto", "vit_tiny_patch16_224",
    "cait_xxs24_224", "eva02_tiny_patch14_224", "swinv2_tiny_window8_256", "mixer_s16_224", "poolformer_s12", "pvt_v2_b0",
    "levit_128s", "mobilevit_xxs", "tnt_s_patch16_224", "hiera_tiny_224", "halonet26t", "botnet26t_256", "fastvit_t8",
]  # fmt: skip


@pytest.mark.parametrize("name", TIMM)
def test_families_of_timm(name: str) -> None:
    torch.manual_seed(0)
    model = zoo.with_biases(timm.create_model(name, pretrained=False).eval()).double()
    x = torch.rand(2, *model.default_cfg["input_size"]).double()
    with torch.no_grad():
        logits = model(x)
    trace = SelectiveLRP(model).trace(x, target=1)
    torch.testing.assert_close(trace.output, logits)
    assert trace.conservation_error.max() <= 1e-9
    alone = SelectiveLRP(model).trace(x[1:], target=1)  # whatever dimensions samples went through, they are told apart
    torch.testing.assert_close(trace.inputs[1:], alone.inputs, rtol=1e-6, atol=1e-8 * alone.inputs.abs().max().item())
    for layer, relevance in alone.relevance.items():
        atol = 1e-8 * relevance.abs().max().item()
        torch.testing.assert_close(trace.relevance[layer][1:], relevance, rtol=1e-6, atol=atol)


class Pooled(nn.Module):
    """The mean over space of all maps of features that a model gives."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([features.mean((2, 3)) for features in self.model(x).values()], 1)


NOT_FOR_CLASSES = {
    "fcn_resnet50": segmentation.fcn_resnet50,
    "deeplabv3_mobilenet": segmentation.deeplabv3_mobilenet_v3_large,
    "lraspp_mobilenet": segmentation.lraspp_mobilenet_v3_large,
    "fasterrcnn_fpn": lambda **how: detection.fasterrcnn_resnet50_fpn(**how).backbone,
    "retinanet_fpn_v2": lambda **how: detection.retinanet_resnet50_fpn_v2(**how).backbone,
    "ssd_vgg16": lambda **how: detection.ssd300_vgg16(**how).backbone,
    "ssdlite": lambda **how: detection.ssdlite320_mobilenet_v3_large(**how).backbone,
}


@pytest.mark.parametrize("name", NOT_FOR_CLASSES)
def test_segmentation_and_detection_backbones(name: str) -> None:
    torch.manual_seed(0)
    model = zoo.with_biases(Pooled(NOT_FOR_CLASSES[name](weights=None, weights_backbone=None)).eval())
    trace = SelectiveLRP(model).trace(torch.rand(1, 3, 300, 300), target=1)
    assert trace.conservation_error.max() <= 1e-3


def test_there_is_one_of_each() -> None:
    def modules(names: list[str]) -> set[str]:
        return {torchvision.models.get_model_builder(name).__module__ for name in names}

    assert modules(ONE_OF_EACH) == modules(zoo.NAMES)
    assert len(zoo.NAMES) >= 80

"""Captured passes of families of networks, for the number of samples that was recorded and for any."""

from __future__ import annotations

import pytest
import torch
from families import built
from zoo import build

from lrp_lightning import SelectiveLRP, TopK
from lrp_lightning.capture import Captured

pytestmark = pytest.mark.slow

OF_IMAGES = ["VGG", "ResNet", "EfficientNetV2", "ViT", "SigLIP", "Wav2Vec2", "Whisper's encoder"]


def assert_same(lrp: SelectiveLRP, captured: Captured, x: torch.Tensor, target: object) -> None:
    trace = lrp.trace(x, target)
    output, relevance, masks = captured(x)
    torch.testing.assert_close(output, trace.output)
    torch.testing.assert_close(relevance, trace.inputs, rtol=1e-4, atol=1e-5 * trace.inputs.abs().max().item())
    assert all(torch.equal(masks[layer], trace.masks[layer]) for layer in trace.masks)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_families_whose_weights_stay_weights(name: str) -> None:
    model, (x, *_), target = built(name)
    lrp = SelectiveLRP(model, selection=TopK(0.2))
    assert_same(lrp, lrp.capture(x, target, freeze=False), torch.randn_like(x), target)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_families_for_any_number_of_samples(name: str) -> None:
    model, (x, *_), target = built(name)
    lrp = SelectiveLRP(model, selection=TopK(0.2))
    captured = lrp.capture(x[:1], target, dynamic_batch=True)
    for samples in (1, 4):
        assert_same(lrp, captured, torch.randn(samples, *x.shape[1:], dtype=x.dtype), target)


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "googlenet", "swin_v2_t", "convnext_tiny", "regnet_y_400mf"])
def test_classifiers_of_torchvision(name: str) -> None:
    model, x = build(name)
    lrp = SelectiveLRP(model, selection=TopK(0.2))
    assert_same(lrp, lrp.capture(x, 1), torch.randn_like(x), 1)

"""torchvision's classification models, made small, with nothing at zero that training would not leave at zero."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn

NAMES = torchvision.models.list_models(module=torchvision.models)


def build(name: str) -> tuple[nn.Module, Tensor]:
    """The model with random parameters, in eval, and two images for it."""
    torch.manual_seed(0)
    side, more = 64, {}
    if name.startswith("vit"):
        side = more["image_size"] = 64 if "16" in name else 56 if "14" in name else 96
    elif name == "maxvit_t":
        side = 224
    elif name == "inception_v3":
        side, more = 96, {"init_weights": False}
    elif name == "googlenet":
        more = {"init_weights": False}
    model = torchvision.models.get_model(name, weights=None, **more).eval()
    return with_biases(model), torch.rand(2, 3, side, side)


def with_biases(model: nn.Module) -> nn.Module:
    """The model with no bias, and no parameter, all zero."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or not parameter.any():
                parameter.normal_(0, 0.02)
    return model

"""The models of the benchmarks: torchvision's, untrained, and such that correct relevance gives the input the logit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torchvision
from torch import Tensor, nn

MODELS = ("vgg16", "vgg16_bn", "resnet50", "efficientnet_b0", "convnext_tiny", "vit_b_16")


@dataclass(frozen=True, eq=False)
class Subject:
    """A model, ``(N, 3, side, side)`` images in [0, 1] and the class that it predicts for each."""

    name: str
    model: nn.Module
    x: Tensor
    target: Tensor


@lru_cache(maxsize=2)
def subject(name: str, side: int, batch: int, device: str = "cpu") -> Subject:
    """Only the input can receive relevance: biases, class token and positions are zero, and batch norms have no mean.

    Their variances are those of the images, and layer scales are 1, as after training. Otherwise logits would be too small
    for absolute stabilisers, and blocks that are explained wrongly would have no effect.
    """
    torch.manual_seed(0)
    more = {"image_size": side} if name.startswith("vit") else {}
    model = torchvision.models.get_model(name, weights=None, **more).eval()
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if path.endswith(("bias", "class_token", "pos_embedding")):
                parameter.zero_()
            elif path.endswith("layer_scale"):
                parameter.fill_(1)
            elif not parameter.any():  # the head of torchvision's ViT
                parameter.normal_(0, 0.02)
        x = torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(1))
        _fit_batch_norms(model, x[:2])
        target = model(x[:1]).argmax(1).repeat(batch)  # the same for every batch, and for one image at a time
    return Subject(name, model.to(device), x.to(device), target.to(device))


def _fit_batch_norms(model: nn.Module, x: Tensor) -> None:
    def fit(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        assert norm.running_var is not None
        norm.running_var.copy_(inputs[0].square().mean((0, 2, 3)))

    handles = [m.register_forward_pre_hook(fit) for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    model(x)
    for handle in handles:
        handle.remove()


def gradient_x_input(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    x = x.detach().clone().requires_grad_()
    [g] = torch.autograd.grad(model(x).gather(1, target[:, None]).sum(), x)
    return x.detach() * g

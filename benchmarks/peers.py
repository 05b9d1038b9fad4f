"""The peers, called in the same way by every benchmark.

Each takes a model, images ``(N, C, H, W)`` and classes ``(N,)``, and gives relevance of the images' shape.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from models import gradient_x_input
from torch import Tensor, nn

ZENNIT = ("epsilon", "EpsilonPlus", "EpsilonGammaBox", "EpsilonAlpha2Beta1")
AUTOLRP = ("epsilon", "EpsilonPlus", "EpsilonAlpha2Beta1")
"""Their rules that this library has too."""


def captum(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    from captum.attr import LRP
    from captum.attr._utils.lrp_rules import EpsilonRule

    for module in model.modules():  # Captum has no rule for these by itself; with one it runs
        if isinstance(module, nn.BatchNorm2d | nn.AdaptiveAvgPool2d | nn.Conv2d | nn.Linear):
            module.rule = EpsilonRule()
    try:
        return LRP(model).attribute(x, target=target).detach()
    finally:
        for module in model.modules():
            module.__dict__.pop("rule", None)


def canonizers(model: nn.Module) -> list:
    """The right ones of zennit for the model: of ResNets their own; else batch norms are merged, where there are any.

    zennit has none that fits EfficientNet-Lite, so they are made here.
    """
    from zennit.canonizers import SequentialMergeBatchNorm
    from zennit.torchvision import ResNetCanonizer

    if type(model).__module__.startswith("efficientnet_lite"):
        return _canonizers_of_lite(model)
    return [ResNetCanonizer() if type(model).__name__ == "ResNet" else SequentialMergeBatchNorm()]


def _canonizers_of_lite(model: nn.Module) -> list:
    """To merge batch norms, by name because convolutions that hold their padding are not leaves, and for residual sums."""
    from zennit.canonizers import AttributeCanonizer, NamedMergeBatchNorm
    from zennit.layer import Sum

    merged, convolution = [], ""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            convolution = name
        elif isinstance(module, nn.BatchNorm2d):
            merged.append(([convolution], name))

    def with_sum(name: str, module: nn.Module) -> dict[str, Any] | None:
        block = type(module).__name__ == "MBConvBlock"
        return {"forward": partial(_block_of_lite, module), "residual": Sum()} if block else None

    return [NamedMergeBatchNorm(merged), AttributeCanonizer(with_sum)]


def _block_of_lite(block: Any, x: Tensor, drop_connect_rate: float | None = None) -> Tensor:
    """The forward of a block in eval mode, with a module for its sum."""
    of, y = block._block_args, x
    if of.expand_ratio != 1:
        y = block._swish(block._bn0(block._expand_conv(y)))
    y = block._swish(block._bn1(block._depthwise_conv(y)))
    y = block._bn2(block._project_conv(y))
    if block.id_skip and of.stride == 1 and of.input_filters == of.output_filters:
        y = block.residual(torch.stack([y, x], -1))
    return y


def zennit(
    rule: str,
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    canonized: bool = True,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """By a rule of ``ZENNIT``; ``bounds`` are the least and the greatest value of a pixel, for the box."""
    from zennit import composites, rules, types
    from zennit.attribution import Gradient

    given = {"canonizers": canonizers(model) if canonized else []}
    if rule == "epsilon":
        of = [(types.Convolution, rules.Epsilon()), (types.Linear, rules.Epsilon())]
        composite = composites.LayerMapComposite([*composites.layer_map_base(), *of], **given)
    elif rule == "EpsilonGammaBox":
        composite = composites.EpsilonGammaBox(*(torch.full_like(x, bound) for bound in bounds), **given)
    else:
        composite = getattr(composites, rule)(**given)
    logits = model(x).detach()
    seed = torch.zeros_like(logits).scatter_(1, target[:, None], logits.gather(1, target[:, None]))
    with Gradient(model=model, composite=composite) as attributor:
        return attributor(x, seed)[1].detach()


def autolrp(rule: str, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """By a rule of ``AUTOLRP``."""
    from autolrp import BASE, CPLRP, LRPConfig, tensor

    convolution = {"EpsilonPlus": "zplus", "EpsilonAlpha2Beta1": ("alpha_beta", {"alpha": 2.0, "beta": 1.0})}
    config: dict[str, Any] = {**BASE, **CPLRP}
    if rule in convolution:
        config["ConvolutionBackward"] = convolution[rule]
    wrapped = tensor(x)
    explained = model(wrapped).gather(1, target[:, None])
    explained.sum().lrp(config=LRPConfig(rule=config, eps=1e-6))  # of a relevance of 1, shared by the logits' magnitudes
    logits = explained.detach().as_subclass(Tensor)
    relevance = wrapped.relevance.as_subclass(Tensor)
    return relevance * (logits.sign() * logits.abs().sum()).view(-1, *[1] * (x.ndim - 1))


def lxt(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """Its rules of ViT with attention's weights as constants, which ours are too; patched in for the call."""
    with _patched():
        return gradient_x_input(model, x, target)


@contextmanager
def _patched() -> Iterator[None]:
    spec = find_spec("lxt")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("lxt")
    package = ModuleType("lxt.efficient")  # itself it imports language models of certain releases of transformers
    package.__path__ = [str(Path(spec.origin).with_name("efficient"))]
    sys.modules.setdefault("lxt.efficient", package)
    patches = importlib.import_module("lxt.efficient.patches")
    forwards: dict[type[nn.Module], Callable[[type], object]] = {
        nn.GELU: partial(patches.patch_method, patches.non_linear_forward, keep_original=True),
        nn.LayerNorm: partial(patches.patch_method, patches.layer_norm_forward),
        nn.MultiheadAttention: partial(patches.patch_method, patches.cp_multi_head_attention_forward, keep_original=True),
    }
    before = {module: module.forward for module in forwards}
    try:
        for module, patch in forwards.items():
            patch(module)
        yield
    finally:
        for module, forward in before.items():
            module.forward = forward
            if "original_forward" in vars(module):
                delattr(module, "original_forward")

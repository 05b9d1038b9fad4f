"""The methods that are measured, of this library and of peers, each as a user would call it for a batch."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from models import Subject, gradient_x_input
from torch import Tensor, nn

from lrp_lightning import (
    Epsilon,
    EpsilonAlpha2Beta1,
    EpsilonGammaBox,
    EpsilonPlus,
    SelectiveLRP,
    TopK,
)
from lrp_lightning.composites import Composite
from lrp_lightning.rules import Rule
from lrp_lightning.selection import Selection

Explain = Callable[[nn.Module, Tensor, Tensor], Any]


@dataclass(frozen=True)
class Method:
    """A way to explain a batch.

    Attributes:
        explain: a function of model, images and classes; returns relevance of the images, or a trace.
        rule: the oracle's rule; None if it has no such rule.
        package: the package of the method.
        over: the method that its time is compared with.
    """

    name: str
    explain: Explain
    rule: str | None = None
    package: str = "lrp_lightning"
    over: str = "gradient x input"

    def work(self, subject: Subject) -> Callable[[], Any]:
        return lambda: self.explain(subject.model, subject.x, subject.target)

    def explains(self, model: str) -> bool:
        """Whether the method supports the model: lxt patches the modules of transformers."""
        return self.package != "lxt" or model.startswith("vit")


def _ours(composite: Composite | Rule, selection: Selection | None = None, edges: bool = False) -> Explain:
    if edges:
        return lambda model, x, target: SelectiveLRP(model, composite, selection).trace(x, target, edges=True)
    return lambda model, x, target: SelectiveLRP(model, composite, selection).attribute(x, target=target)


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
    """zennit's canonizer for the model: its own for ResNets; otherwise the one that merges batch norms, if there are any."""
    from zennit.canonizers import SequentialMergeBatchNorm
    from zennit.torchvision import ResNetCanonizer

    return [ResNetCanonizer() if type(model).__name__ == "ResNet" else SequentialMergeBatchNorm()]


def zennit(rule: str, model: nn.Module, x: Tensor, target: Tensor, canonized: bool = True) -> Tensor:
    from zennit import composites, rules, types
    from zennit.attribution import Gradient

    given = {"canonizers": canonizers(model) if canonized else []}
    if rule == "epsilon":
        of = [(types.Convolution, rules.Epsilon()), (types.Linear, rules.Epsilon())]
        composite = composites.LayerMapComposite([*composites.layer_map_base(), *of], **given)
    elif rule == "EpsilonGammaBox":
        composite = composites.EpsilonGammaBox(torch.zeros_like(x), torch.ones_like(x), **given)
    else:
        composite = getattr(composites, rule)(**given)
    logits = model(x).detach()
    seed = torch.zeros_like(logits).scatter_(1, target[:, None], logits.gather(1, target[:, None]))
    with Gradient(model=model, composite=composite) as attributor:
        return attributor(x, seed)[1].detach()


def autolrp(rule: str, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    from autolrp import BASE, CPLRP, LRPConfig, tensor

    convolution = {"EpsilonPlus": "zplus", "EpsilonAlpha2Beta1": ("alpha_beta", {"alpha": 2.0, "beta": 1.0})}
    config: dict[str, Any] = {**BASE, **CPLRP}
    if rule in convolution:
        config["ConvolutionBackward"] = convolution[rule]
    wrapped = tensor(x)
    explained = model(wrapped).gather(1, target[:, None]).sum()
    explained.lrp(config=LRPConfig(rule=config, eps=1e-6))  # of a relevance of 1 in all
    return (explained.detach() * wrapped.relevance).as_subclass(Tensor)


def lxt(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """lxt's rules for ViT with attention weights as constants, as in this library; patched for the call."""
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


_PLUS, _BOX = EpsilonPlus(), EpsilonGammaBox(0.0, 1.0)
OURS = (
    Method("epsilon", _ours(Epsilon()), "epsilon"),
    Method("EpsilonPlus", _ours(_PLUS), "EpsilonPlus"),
    Method("EpsilonGammaBox", _ours(_BOX), "EpsilonGammaBox"),
    Method("EpsilonAlpha2Beta1", _ours(EpsilonAlpha2Beta1()), "EpsilonAlpha2Beta1"),
    Method("EpsilonPlus, TopK(0.1)", _ours(_PLUS, TopK(0.1))),
    Method("epsilon, all edges", _ours(Epsilon(), None, edges=True)),
    Method("EpsilonPlus, all edges", _ours(_PLUS, None, edges=True)),
    Method("EpsilonPlus, TopK(0.1), all edges", _ours(_PLUS, TopK(0.1), edges=True)),
)
SELECTING = Method("TopK(0.1), over the same without", _ours(_PLUS, TopK(0.1)), over="EpsilonPlus")
PEERS = (
    Method("Captum, epsilon", captum, "epsilon", "captum"),
    *(Method(f"zennit, {rule}", partial(zennit, rule), rule, "zennit")
      for rule in ("epsilon", "EpsilonPlus", "EpsilonGammaBox", "EpsilonAlpha2Beta1")),
    *(Method(f"autolrp, {rule}", partial(autolrp, rule), rule, "autolrp")
      for rule in ("epsilon", "EpsilonPlus", "EpsilonAlpha2Beta1")),
    Method("lxt, epsilon", lxt, "epsilon", "lxt"),
)  # fmt: skip
METHODS = {method.name: method for method in (*OURS, SELECTING, *PEERS)}
GRADIENT = Method("gradient x input", gradient_x_input)

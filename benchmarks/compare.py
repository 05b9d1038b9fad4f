"""Conservation and time beside Captum and zennit, on the same models, inputs and rule; writes ``benchmarks/RESULTS.md``.

Conservation: the epsilon rule on untrained torchvision models with their biases at zero, so that a right implementation
hands the whole logit to the input: sum of relevance / logit is 1. Time: median over interleaved repeats, each as a ratio
to gradient x input of the same batch in the same round. Run by ``make bench``; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
import torchvision
from captum.attr import LRP
from captum.attr._utils.lrp_rules import EpsilonRule
from torch import Tensor, nn
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import EpsilonPlus as ZennitEpsilonPlus
from zennit.composites import LayerMapComposite, layer_map_base
from zennit.rules import Epsilon as ZennitEpsilon
from zennit.torchvision import ResNetCanonizer
from zennit.types import Convolution, Linear

from lrp_lightning import Epsilon, EpsilonPlus, SelectiveLRP, TopK

MODELS = ("alexnet", "vgg16", "vgg16_bn", "resnet18", "resnet50")
OURS = "lrp_lightning"


def model_without_biases(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("bias"):
            nn.init.zeros_(parameter)
    return model


def captum_epsilon(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    for module in model.modules():  # Captum has no rule for these by itself; with one it runs
        if isinstance(module, nn.BatchNorm2d | nn.AdaptiveAvgPool2d | nn.Conv2d | nn.Linear):
            module.rule = EpsilonRule()  # type: ignore[assignment]
    try:
        return LRP(model).attribute(x, target=target).detach()
    finally:
        for module in model.modules():
            module.__dict__.pop("rule", None)


def zennit_epsilon(model: nn.Module, x: Tensor, target: Tensor, canonizers: list) -> Tensor:
    rules = [*layer_map_base(), (Convolution, ZennitEpsilon()), (Linear, ZennitEpsilon())]
    composite = LayerMapComposite(rules, canonizers=canonizers)
    return _zennit(model, x, target, composite)


def _zennit(model: nn.Module, x: Tensor, target: Tensor, composite) -> Tensor:  # type: ignore[no-untyped-def]
    logits = model(x).detach()
    seed = torch.zeros_like(logits).scatter_(1, target[:, None], logits.gather(1, target[:, None]))
    with Gradient(model=model, composite=composite) as attributor:
        return attributor(x, seed)[1].detach()


def right_canonizers(name: str) -> list:
    return [ResNetCanonizer()] if name.startswith("resnet") else [SequentialMergeBatchNorm()]


def gradient_x_input(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    [g] = torch.autograd.grad(model(x).gather(1, target[:, None]).sum(), x)
    return x.detach() * g


def conservation(model: nn.Module, x: Tensor, target: Tensor, attribute: Callable[..., Tensor]) -> str:
    """The smallest and largest sum of relevance / logit over the samples."""
    try:
        share = attribute(model, x, target).double().flatten(1).sum(1) / model(x).gather(1, target[:, None])[:, 0].double()
    except Exception as error:  # a peer that raises: that is its result
        return type(error).__name__
    least, most = share.min().item(), share.max().item()
    if abs(least - 1) < 1e-3 and abs(most - 1) < 1e-3:
        return "1.000"
    return f"{least:.3g} to {most:.3g}"


def conservation_table(side: int) -> list[str]:
    methods: dict[str, Callable[..., Tensor]] = {
        OURS: lambda m, x, t: SelectiveLRP(m, Epsilon()).attribute(x, target=t),
        "Captum": captum_epsilon,
        "zennit": lambda m, x, t: zennit_epsilon(m, x, t, []),
        "zennit, canonizer chosen by hand": lambda m, x, t: zennit_epsilon(m, x, t, right_canonizers(name)),
    }
    lines = [f"| | {' | '.join(methods)} |", f"|{' --- |' * (len(methods) + 1)}"]
    for name in MODELS:
        model = model_without_biases(name)
        x = torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            target = model(x).argmax(1)
        lines.append(f"| {name} | {' | '.join(conservation(model, x, target, method) for method in methods.values())} |")
    return lines


def time_table(side: int, batch: int, repeats: int) -> list[str]:
    methods: dict[str, Callable[..., object]] = {
        f"{OURS}, epsilon": lambda m, x, t: SelectiveLRP(m, Epsilon()).attribute(x, target=t),
        "Captum, epsilon": captum_epsilon,
        "zennit, epsilon": lambda m, x, t: zennit_epsilon(m, x, t, right_canonizers(name)),
        f"{OURS}, EpsilonPlus": lambda m, x, t: SelectiveLRP(m, EpsilonPlus()).attribute(x, target=t),
        "zennit, EpsilonPlus": lambda m, x, t: _zennit(m, x, t, ZennitEpsilonPlus(canonizers=right_canonizers(name))),
        f"{OURS}, EpsilonPlus, TopK(0.1)": lambda m, x, t: SelectiveLRP(m, EpsilonPlus(), TopK(0.1)).attribute(x, target=t),
        f"{OURS}, the same with all edges": lambda m, x, t: SelectiveLRP(m, EpsilonPlus(), TopK(0.1)).trace(
            x, t, edges=True
        ),
    }
    columns: list[list[str]] = []
    for name in ("vgg16_bn", "resnet50"):
        model = model_without_biases(name)
        x = torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(1))
        target = torch.zeros(batch, dtype=torch.long)
        column = []
        ratios: dict[str, list[float]] = {method: [] for method in methods}
        failed: set[str] = set()
        for _ in range(repeats + 1):
            unit = seconds(lambda model=model, x=x, target=target: gradient_x_input(model, x, target))
            for method, run in methods.items():
                try:
                    ratios[method].append(seconds(lambda m=model, x=x, t=target, run=run: run(m, x, t)) / unit)
                except Exception:
                    failed.add(method)
        for method in methods:
            column.append("raises" if method in failed else f"{statistics.median(ratios[method][1:]):.2f}")
        columns.append(column)
    lines = ["| ratio to gradient x input | vgg16_bn | resnet50 |", "| --- | --- | --- |"]
    return lines + [f"| {method} | {a} | {b} |" for method, a, b in zip(methods, *columns, strict=True)]


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=224, help="pixels of the images' sides")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("RESULTS.md"))
    options = parser.parse_args()
    packages = ", ".join(f"{package} {version(package)}" for package in ("torch", "torchvision", "captum", "zennit"))
    text = [
        "# Beside the peers",
        "",
        f"Made by `make bench` ({packages}; {torch.get_num_threads()} threads of {platform.machine()}).",
        "",
        "## Sum of relevance / logit",
        "",
        "Epsilon rule, untrained models with biases at zero, 4 images of 64 x 64 pixels, the predicted class. 1 is right;",
        "two figures are the smallest and largest over the images.",
        "",
        *conservation_table(64),
        "",
        "## Time",
        "",
        f"Batch {options.batch} at {options.side} x {options.side} pixels, median of {options.repeats} interleaved rounds.",
        "zennit has its canonizer. A time says nothing about being right: see the table above.",
        "",
        *time_table(options.side, options.batch, options.repeats),
    ]
    options.out.write_text("\n".join(text) + "\n")
    print(*text, sep="\n")


if __name__ == "__main__":
    main()

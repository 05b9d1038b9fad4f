"""The whole relevance graph of VGG16 beside one gradient and beside zennit-crp; writes ``benchmarks/graph.md``.

Ours: every edge between all neurons of all layers, in one pass. zennit-crp gives the edges into one neuron by one
conditional pass. Beside it stands the smaller graph of the ten most relevant neurons of every hidden layer; its passes are
batched by ten, and timed in four layers, since they cost the same in all. Times of ours are medians of interleaved rounds,
each a ratio to one gradient of the same images in the same round. Run by ``python benchmarks/graph.py``; nothing is
downloaded.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import vgg16

from lrp_lightning import Epsilon, EpsilonPlus, SelectiveLRP, TopK, build_graph
from lrp_lightning.trace import Trace

TOP = 10


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def gradient(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model(x).gather(1, target[:, None]).sum(), x)[0]


def ours(model: nn.Module, x: Tensor, target: Tensor, repeats: int) -> list[str]:
    ways: dict[str, Callable[[bool], Trace]] = {
        "epsilon": lambda edges: SelectiveLRP(model, Epsilon()).trace(x, target, edges=edges),
        "EpsilonPlus": lambda edges: SelectiveLRP(model, EpsilonPlus()).trace(x, target, edges=edges),
        "EpsilonPlus, TopK(0.1)": lambda edges: SelectiveLRP(model, EpsilonPlus(), TopK(0.1)).trace(x, target, edges=edges),
    }
    ratios: dict[tuple[str, bool], list[float]] = {(way, edges): [] for way in ways for edges in (False, True)}
    for _ in range(repeats + 1):  # the first is warming up
        unit = seconds(lambda: gradient(model, x, target))
        for way, edges in ratios:
            ratios[way, edges].append(seconds(lambda way=way, edges=edges: ways[way](edges)) / unit)  # type: ignore[misc]
    median = {key: statistics.median(found[1:]) for key, found in ratios.items()}
    lines = ["| ratio to one gradient | relevance alone | with every edge |", "| --- | --- | --- |"]
    return lines + [f"| {way} | {median[way, False]:.2f} | {median[way, True]:.2f} |" for way in ways]


def building(model: nn.Module, x: Tensor, target: Tensor) -> str:
    trace = SelectiveLRP(model, EpsilonPlus(), TopK(0.1)).trace(x, target, edges=True)
    found = []
    taken = min(seconds(lambda: found.append(build_graph(trace))) for _ in range(3))
    return f"`build_graph` of one image at TopK(0.1): {found[0].number_of_edges():,} edges in {taken:.2f} s, the best of 3."


def crp(model: nn.Module, x: Tensor, target: Tensor) -> list[str]:
    try:
        from crp.attribution import CondAttribution
        from zennit.composites import EpsilonPlus as ZennitEpsilonPlus
    except ImportError:
        return ["zennit-crp is not installed here."]
    lrp = SelectiveLRP(model, EpsilonPlus())
    trace = lrp.trace(x, target)
    layers = [layer for layer in trace.relevance if layer != "input"]
    attribution, composite = CondAttribution(model, no_param_grad=False), ZennitEpsilonPlus()

    def one_layer(lower: str, upper: str) -> None:
        neurons = trace.relevance[upper].sum(0).topk(TOP).indices.tolist()
        conditions = [{upper: [neuron], "y": [int(target[0])]} for neuron in neurons]
        attribution(x.clone().requires_grad_(), conditions, composite, record_layer=[lower])

    pairs = list(pairwise(layers[:-1]))
    timed = pairs[:: max(1, len(pairs) // 4)][:4]
    ratios, each = [], []
    for pair in timed:
        unit = seconds(lambda: lrp.trace(x, target, edges=True))
        each.append(seconds(lambda pair=pair: one_layer(*pair)) / TOP)  # type: ignore[misc]
        ratios.append(each[-1] / unit)
    ratio, passes = statistics.median(ratios), TOP * len(pairs)
    neurons = sum(trace.relevance[layer].shape[1] for layer in layers[:-1])
    return [
        "| one image | edges into | passes | times our whole graph |",
        "| --- | --- | --- | --- |",
        f"| lrp_lightning | all {neurons:,} neurons of {len(layers) - 1} hidden layers | 1 | 1 |",
        f"| zennit-crp | the top {TOP} neurons of {len(pairs)} hidden layers | {passes} | {ratio * passes:.0f} |",
        f"| zennit-crp | all {neurons:,} neurons | {neurons:,} | {ratio * neurons:,.0f} |",
        "",
        f"A conditional pass took {statistics.median(each):.2f} s.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("graph.md"))
    options = parser.parse_args()
    torch.manual_seed(0)
    model = vgg16(weights=None).eval()
    x = torch.rand(options.batch, 3, 224, 224)
    with torch.no_grad():
        target = model(x).argmax(1)
    versions = []
    for package in ("torch", "torchvision", "zennit", "zennit-crp"):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    text = [
        "# The relevance graph of VGG16",
        "",
        (__doc__ or "").partition("\n\n")[2].strip(),
        "",
        f"{', '.join(versions)}; {torch.get_num_threads()} threads of {platform.machine()}; random weights, "
        f"{options.batch} images of 224 x 224 pixels, {options.repeats} rounds.",
        "",
        *ours(model, x, target, options.repeats),
        "",
        building(model, x[:1], target[:1]),
        "",
        "## zennit-crp",
        "",
        *crp(model, x[:1], target[:1]),
    ]
    options.out.write_text("\n".join(text) + "\n")
    print(*text, sep="\n")


if __name__ == "__main__":
    main()

"""The accuracy of a network after channels are removed: writes ``benchmarks/pruning.md`` and its plot.

``python benchmarks/pruning.py --cache FOLDER`` trains what is not in the folder yet (the networks of ``selection.py``) and
prunes each as ``examples/prune_critical_channels.py`` does, by each criterion, at rates 0 to .95 by .05.

Each criterion uses 10 training images per class. Channels of all layers are ranked together, after the scores of each
layer are divided by their Euclidean norm. Nothing is trained or calibrated again. *Area* is the mean test accuracy over the
rates. *Half* is the highest rate at which at least half of the whole network's accuracy remains. *Relevance* is computed by
the z+ rule for the label, summed over images and space. This rule and the norm were chosen on the first narrow network;
the rows below it show other choices.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path

import torch
from torch import Tensor

from lrp_lightning import Epsilon, SelectiveLRP, ZPlus
from lrp_lightning.drawing import draw_curves

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import fashion_mnist
import prune_critical_channels as example
import selection
import small_vgg

HERE = Path(__file__).parent
WIDTHS = {"narrow": small_vgg.NARROW, "full": small_vgg.FULL}
ORDER = (
    "relevance", "relevance, layers as they are", "relevance by ε, its size", "relevance by ε, signed", "weight magnitude",
    "activation", "random",
)  # fmt: skip
SHOWN = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)


def criteria(model: torch.nn.Module, images: Tensor, labels: Tensor) -> dict[str, dict[str, Tensor]]:
    """The criteria of the example, and other variants of relevance."""
    found = example.worths(model, images, labels)
    layers = list(found["relevance"])
    first = torch.cat([(labels == c).nonzero()[:10, 0] for c in labels.unique()])
    of = {
        rule: SelectiveLRP(model, rule).trace(images[first], target=labels[first]).relevance for rule in (Epsilon(), ZPlus())
    }
    others = {
        "relevance, layers as they are": {name: of[ZPlus()][name].sum(0) for name in layers},
        "relevance by ε, its size": {name: of[Epsilon()][name].abs().sum(0) for name in layers},
        "relevance by ε, signed": {name: of[Epsilon()][name].sum(0) for name in layers},
    }
    for by in list(others)[1:]:
        others[by] = {name: worth / worth.norm() for name, worth in others[by].items()}
    return {"relevance": found.pop("relevance"), **others, **found}


def measure(width: str, seed: int, samples: int, cache: Path) -> None:
    """Accuracy and parameters at each rate by each criterion; added to the cache if they are missing."""
    file = cache / f"pruned_{width}_{seed}.json"
    result = json.loads(file.read_text()) if file.exists() else {"samples": samples, "by": {}}
    model, _ = selection.trained(f"{width} VGG", seed, cache)
    data = fashion_mnist.load(2_000, result["samples"], side=32)
    torch.manual_seed(seed)  # of the random criterion
    for by, worth in criteria(model, *data.train).items():
        if by in result["by"]:
            continue
        smaller = [example.without(model, example.stay(worth, rate)) for rate in example.RATES]
        result["by"][by] = {
            "accuracy": [small_vgg.accuracy(network, *data.test) for network in smaller],
            "parameters": [sum(p.numel() for p in network.parameters()) for network in smaller],
        }
        file.write_text(json.dumps(result))
        print(f"{width} {seed}: {by}", flush=True)


def spread(values: list[float]) -> str:
    """Mean and deviation."""
    known = torch.tensor(values)
    return f"{known.mean():.3f}" + (f" ± {known.std():.3f}" if len(known) > 1 else "")


def section(width: str, runs: list[dict]) -> list[str]:
    """Tables and plot of one width."""
    names = [by for by in ORDER if all(by in run["by"] for run in runs)]
    of = {by: [run["by"][by]["accuracy"] for run in runs] for by in names}
    parameters = {by: [run["by"][by]["parameters"] for run in runs] for by in names}
    channels = "-".join(map(str, WIDTHS[width]))
    lines = [
        f"## VGG16-BN, {channels} channels", "",
        f"{len(runs)} networks, {runs[0]['samples']} test images each; mean ± standard deviation over networks.", "",
        "| by | area under accuracy | half | " + " | ".join(f"without {rate:.0%}" for rate in SHOWN) + " |",
        "| --- |" + " ---: |" * (len(SHOWN) + 2),
    ]  # fmt: skip
    for by in names:
        areas = [torch.trapezoid(torch.tensor(each)).item() / (len(each) - 1) for each in of[by]]
        halves = [max(r for r, a in zip(example.RATES, each, strict=True) if a >= each[0] / 2) for each in of[by]]
        cells = [spread([each[example.RATES.index(rate)] for each in of[by]]) for rate in SHOWN]
        lines.append(f"| {by} | {spread(areas)} | {spread(halves)} | {' | '.join(cells)} |")
    lines += ["", "| share of parameters left, by | " + " | ".join(f"without {rate:.0%}" for rate in SHOWN) + " |"]
    lines.append("| --- |" + " ---: |" * len(SHOWN))
    for by in names:
        cells = [spread([each[example.RATES.index(rate)] / each[0] for each in parameters[by]]) for rate in SHOWN]
        lines.append(f"| {by} | {' | '.join(cells)} |")
    curves = {
        by: torch.tensor(of[by]).mean(0).tolist()
        for by in names
        if not by.startswith("relevance,") and not by.startswith("relevance by")
    }
    figure = draw_curves(
        curves, example.RATES, xlabel="share of channels taken out", ylabel="test accuracy", title=f"VGG16-BN, {width}",
        static=True,
    )  # fmt: skip
    figure.savefig(HERE / f"pruning_{width}.png")
    return [*lines, "", f"![accuracy over the share of channels taken out](pruning_{width}.png)", ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("runs/selection"), help="where networks and figures are kept")
    parser.add_argument("--width", choices=list(WIDTHS), nargs="+", default=["narrow"])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--samples", type=int, default=300, help="test images for each network")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    lines = ["# Pruning by critical channels", "", (__doc__ or "").rpartition("\n\n")[2].strip(), ""]
    made_by = "`python benchmarks/pruning.py`; the full width by `--width full --seeds 0 2 3 --samples 100`"
    lines += [f"Made by {made_by}.", ""]
    for width, seed in itertools.product(options.width, options.seeds):
        measure(width, seed, options.samples, options.cache)
    for width in WIDTHS:
        runs = [json.loads(file.read_text()) for file in sorted(options.cache.glob(f"pruned_{width}_*.json"))]
        lines += section(width, runs) if runs else []
    (HERE / "pruning.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()

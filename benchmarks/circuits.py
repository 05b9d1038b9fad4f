"""How closely class circuits follow the whole network: writes ``benchmarks/circuits.md``.

``python benchmarks/circuits.py --cache FOLDER`` trains what is not in the folder yet (the networks of ``selection.py``),
finds the circuits that are missing there, and writes the table of all that is there. ``--networks "narrow VGG" --seeds 0 1``
does a part, ``--only-table`` only the writing.

A class's circuit is one set of neurons (or edges) for all images. Each class's logit is computed with its own circuit
alone; everything outside it outputs its mean. *Agreement* is the share of held-out images for which the class with the
highest such logit is the whole network's prediction. It is measured after one scale and offset for each class, fitted on
training images, and without (*not calibrated*). *Correlation* is Pearson's correlation of a class's logit from its circuit
with that of the whole network, over held-out images of all classes; mean over classes.

Sets that are not optimised have the highest values of each layer, as means over 512 training images: *mean relevance* of
the class (by the epsilon rule; signed, on the class's own images), *mean size of relevance* (its magnitude on all images),
*activation* (on the class's own images), or *weights* (magnitude of a channel's weights).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lrp_lightning import Circuits, Epsilon, SelectiveLRP, TopK, class_circuits
from lrp_lightning.masking import activations, means_of
from lrp_lightning.metrics import circuits_agree

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import fashion_mnist
import selection

HERE = Path(__file__).parent
QUANTITIES = ("agreement", "not calibrated", "correlation")
TRAINED_ON, HELD_OUT, STEPS, BATCH = 4_000, 300, 100, 64
OPTIMISED: dict[str, dict[str, Any]] = {
    "optimised, MSE": {},
    "optimised, SMAPE": {"measure": "smape"},
    "optimised, MSE, the same share of each layer": {"per_layer": True},
    "optimised, MSE, zero instead of the mean": {"replacement": "zero"},
    "optimised, MSE, 250 steps": {"steps": 250},
    "edges, optimised, MSE": {"of": "edges"},
}


def highest(scores: dict[str, Tensor], keep: float) -> dict[str, Tensor]:
    """The neurons of each layer with the highest scores."""
    best = TopK(keep, by="relevance")
    return {layer: best.select(score[None], layer=layer, output=score[:1])[0] for layer, score in scores.items()}


def plain(model: nn.Module, x: Tensor, labels: Tensor) -> dict[str, Callable[[int], dict[str, Tensor]]]:
    """Scores of neurons for a class, by method."""
    lrp = SelectiveLRP(model, Epsilon(), TopK(1.0))
    layers = lrp.trace(x[:2], 0).masks
    generator = torch.Generator().manual_seed(0)
    active = activations(model, x, list(layers))
    modules = dict(model.named_modules())

    def relevance(c: int, of: Tensor, by_size: bool) -> dict[str, Tensor]:
        found = lrp.trace(of, c).relevance
        return {layer: (found[layer].abs() if by_size else found[layer]).mean(0) for layer in layers}

    def weights(_: int) -> dict[str, Tensor]:
        sizes = {}
        for layer, mask in layers.items():
            weight = getattr(modules.get(layer), "weight", None)
            fits = weight is not None and len(weight) == mask.shape[1]
            sizes[layer] = weight.flatten(1).norm(dim=1) if fits else torch.ones(mask.shape[1])
        return sizes

    return {
        "random": lambda c: {layer: torch.rand(mask.shape[1], generator=generator) for layer, mask in layers.items()},
        "weights": weights,
        "activation": lambda c: {layer: a[labels == c].mean(0) for layer, a in active.items()},
        "mean relevance": lambda c: relevance(c, x[labels == c], by_size=False),
        "mean size of relevance": lambda c: relevance(c, x, by_size=True),
    }


def judged(model: nn.Module, circuits: Circuits, x: Tensor) -> dict[str, float]:
    with torch.no_grad():
        whole = torch.cat([model(part) for part in x.split(100)])
    found = {}
    for name, calibrated in (("agreement", True), ("not calibrated", False)):
        own = torch.cat([circuits.logits(model, part, calibrated) for part in x.split(100)])
        found[name] = circuits_agree(own, whole).float().mean().item()
    each = [torch.corrcoef(torch.stack([own[:, c], whole[:, c]]))[0, 1].nan_to_num(0.0) for c in circuits]
    return {**found, "correlation": torch.stack(each).mean().item()}


def measure(name: str, seed: int, options: argparse.Namespace) -> None:
    """Find the circuits of one network that are not in the cache yet."""
    model, accuracy = selection.trained(name, seed, options.cache)
    data = fashion_mnist.load(TRAINED_ON, HELD_OUT, side=32)
    train, held = data.train[0][:TRAINED_ON], data.test[0][:HELD_OUT]
    file = options.cache / f"circuits of {name}_{seed}.json"
    found = json.loads(file.read_text()) if file.exists() else {"accuracy": accuracy, "ways": {}}
    with torch.no_grad():
        labels = model(train[:512]).argmax(1)
    for budget in options.budgets:
        for way, scores in plain(model, train[:512], labels).items():
            of = found["ways"].setdefault(way, {})
            if str(budget) not in of:
                sets = {c: highest(scores(c), budget) for c in range(10)}
                circuits = Circuits(sets, means_of(model, train[:512], sets[0])).calibrated(model, train[:512])
                of[str(budget)] = judged(model, circuits, held)
        for way in options.ways:
            of = found["ways"].setdefault(way, {})
            if str(budget) not in of:
                started = time.time()
                arguments = {"steps": STEPS, **OPTIMISED[way]}
                circuits = class_circuits(model, train.split(BATCH), budget, progress=False, **arguments)
                of[str(budget)] = {"seconds": time.time() - started, **judged(model, circuits, held)}
                print(f"{name} {seed}, {budget:.0%}: {way}, {of[str(budget)]}", flush=True)
            file.write_text(json.dumps(found))


def write(cache: Path) -> None:
    """Tables of the results in the cache."""
    about = (__doc__ or "").split("\n\n", 2)[2].strip()
    lines = ["# How closely class circuits follow the whole network", "", about, ""]
    lines += [
        f"Made by `python benchmarks/circuits.py`: optimised in {STEPS} steps on {BATCH} of {TRAINED_ON:,} training images "
        f"each, {HELD_OUT} held-out test images. Mean ± standard deviation over networks of different seeds.", ""
    ]  # fmt: skip
    for name in selection.NETWORKS:
        runs = [json.loads(file.read_text()) for file in sorted(cache.glob(f"circuits of {name}_*.json"))]
        if not runs:
            continue
        accuracies = ", ".join(f"{run['accuracy']:.3f}" for run in runs)
        lines += [f"## {name}", "", f"Test accuracy {accuracies}.", ""]
        ways = list(dict.fromkeys(way for run in runs for way in run["ways"]))
        budgets = sorted({budget for run in runs for way in run["ways"].values() for budget in way}, key=float)
        for budget in budgets:
            lines += [
                f"| {float(budget):.0%} kept | {' | '.join(QUANTITIES)} | networks |",
                "| --- | ---: | ---: | ---: | ---: |",
            ]
            for way in ways:
                of = [run["ways"][way][budget] for run in runs if budget in run["ways"].get(way, {})]
                if of:
                    cells = " | ".join(selection.cell([o[q] for o in of]) for q in QUANTITIES)
                    lines.append(f"| {way} | {cells} | {len(of)} |")
            lines.append("")
    (HERE / "circuits.md").write_text("\n".join(lines))


def main() -> None:
    parser = selection.parser_of(__doc__)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.05, 0.1, 0.2, 0.3])
    parser.add_argument("--ways", choices=list(OPTIMISED), nargs="+", default=list(OPTIMISED))
    selection.run(parser.parse_args(), measure, write)


if __name__ == "__main__":
    main()

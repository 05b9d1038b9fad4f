"""Which selection finds the neurons that decide: writes ``benchmarks/selection.md`` and its plots.

``python benchmarks/selection.py --cache FOLDER`` trains what is not in the folder yet (VGG16-BN for small images, at two
widths, on Fashion-MNIST), measures every way of selecting at every budget, and writes table and plots of all that is there.
It goes on where it was stopped. ``--width narrow --seeds 0 1`` does a part, ``--only-table`` nothing but the writing.
What is measured of networks trained at another rate, ``--learning-rate 0.05``, gets rows in a table of its own.

A network below 88 % test accuracy is left out. Retained: share of predictions that survive with only the selected channels,
the same share of every layer. Ablated: with all but them. The whole network's logits are what SMAPE and MSE are against.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from captum.attr import LayerConductance, LayerIntegratedGradients
from torch import Tensor, nn

from lrp_lightning import (
    Agreement,
    Coverage,
    Epsilon,
    EpsilonPlus,
    Gamma,
    MinError,
    SelectiveLRP,
    TopK,
    ZPlus,
    masked_forward,
)
from lrp_lightning.drawing import draw_curves
from lrp_lightning.masking import activations
from lrp_lightning.metrics import mse, prediction_survives, smape
from lrp_lightning.selection import Selection, random_masks

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import fashion_mnist
import small_vgg

HERE = Path(__file__).parent
BUDGETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
WIDTHS = {"narrow": small_vgg.NARROW, "full": small_vgg.FULL}
LEARNING_RATE, EPOCHS = 0.01, 2
RULES = {"ε": Epsilon(), "z+": ZPlus(), "γ": Gamma(), "z+, ε in linear layers": EpsilonPlus()}  # noqa: RUF001
SHARES = (0.3, 0.5, 0.7, 0.9)
CAPTUM_SAMPLES, CAPTUM_STEPS = 8, 8
BY_CAPTUM = {"LayerConductance": LayerConductance, "integrated gradients": LayerIntegratedGradients}
FIRST = ("random", "activation", "afterwards, ε", "inside, ε", "MinError, SMAPE", "afterwards, z+", "inside, z+")
LAST = ("MinError, MSE", *BY_CAPTUM, "PLRP-λ")  # so that what is asked for most is there first
Masks = dict[str, Tensor]


def of_rate(cache: Path, learning_rate: float) -> Path:
    """Where in the cache the networks of a learning rate are kept."""
    folder = cache / f"at_{learning_rate:g}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def network(
    width: str, seed: int, cache: Path, learning_rate: float = LEARNING_RATE, epochs: int = EPOCHS
) -> tuple[nn.Module, float]:
    """The trained network and its accuracy on 2,000 test images; trained now, if it is not in the cache."""
    torch.manual_seed(seed)
    model, file = small_vgg.small_vgg16(WIDTHS[width]), of_rate(cache, learning_rate) / f"{width}_{seed}.pt"
    if not file.exists():
        data = fashion_mnist.load(30_000, 2_000, side=32)
        small_vgg.train(model, *data.train, epochs=epochs, seed=seed, learning_rate=learning_rate)
        torch.save({"state": model.state_dict(), "accuracy": small_vgg.accuracy(model, *data.test)}, file)
    saved = torch.load(file)
    model.load_state_dict(saved["state"])
    return model.eval().requires_grad_(False), saved["accuracy"]


def predicted(logits: Tensor) -> Tensor:
    return logits.argmax(1)


def highest(scores: Masks, budget: float) -> Masks:
    """The neurons with the highest scores of each layer."""
    return {name: TopK(budget, by="relevance").select(s, layer=name, output=s[:, 0]) for name, s in scores.items()}


def highest_of_all(scores: Masks, budget: float) -> Masks:
    """The neurons with the highest scores of all layers together."""
    kept = TopK(budget, by="relevance").select(torch.cat(list(scores.values()), 1), layer="", output=torch.empty(0))
    return dict(zip(scores, kept.split([s.shape[1] for s in scores.values()], 1), strict=True))


def by_captum(kind: type, model: nn.Module, x: Tensor, target: Tensor) -> Masks:
    """Attribution at the rectifier behind each layer, summed over space."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    scores = {}
    for name in (
        SelectiveLRP(model, Epsilon(), TopK(1)).trace(x, predicted).masks
    ):  # features.N is a convolution, N + 1 its batch norm, N + 2 its rectifier
        behind = model.get_submodule(f"features.{int(name.partition('.')[2]) + 2}")
        found = kind(model, behind).attribute(x, target=target, n_steps=CAPTUM_STEPS)
        scores[name] = found.sum((2, 3)).detach()
    return scores


def ways(model: nn.Module, x: Tensor) -> dict[str, Callable[[float], Masks]]:
    """How each way selects at a budget."""
    post = {name: SelectiveLRP(model, rule, TopK(1.0)).trace(x, predicted) for name, rule in RULES.items()}
    layers = list(post["ε"].masks)
    of = {name: {layer: trace.relevance[layer] for layer in layers} for name, trace in post.items()}
    magnitude = {layer: r.abs() for layer, r in of["ε"].items()}
    forward = activations(model, x, layers)
    generator = torch.Generator().manual_seed(0)

    def inside(rule: object, selection: Selection) -> Masks:
        return SelectiveLRP(model, rule, selection).trace(x, predicted).masks  # type: ignore[arg-type]

    found: dict[str, Callable[[float], Masks]] = {
        "random": lambda b: random_masks(highest(of["ε"], b), generator),
        "activation": lambda b: highest(forward, b),
        "NeuronMCT, per layer": lambda b: highest(magnitude, b),
        "NeuronMCT, all layers": lambda b: highest_of_all(magnitude, b),
    }
    for name in RULES:
        found[f"afterwards, {name}"] = lambda b, name=name: highest(of[name], b)  # type: ignore[misc]
    for name, rule in RULES.items():
        found[f"inside, {name}"] = lambda b, rule=rule: inside(rule, TopK(b, by="relevance"))  # type: ignore[misc]
    found["inside, ε, rescaled"] = lambda b: inside(Epsilon(), TopK(b, by="relevance", rescale=True))
    found["inside, ε, by magnitude"] = lambda b: inside(Epsilon(), TopK(b))
    found["Agreement, MSE"] = lambda b: inside(Epsilon(), Agreement("mse", b))
    found["Agreement, SMAPE"] = lambda b: inside(Epsilon(), Agreement("smape", b))
    found["MinError, SMAPE"] = lambda b: inside(Epsilon(), MinError("smape", b))
    found["MinError, MSE"] = lambda b: inside(Epsilon(), MinError("mse", b))
    return found


def measured(model: nn.Module, x: Tensor, logits: Tensor, masks: Masks) -> dict[str, float]:
    kept, rest = masked_forward(model, x, masks), masked_forward(model, x, masks, keep=False)
    return {
        "retained": prediction_survives(kept, logits).float().mean().item(),
        "ablated": prediction_survives(rest, logits).float().mean().item(),
        "SMAPE": smape(kept, logits).mean().item(),
        "MSE": mse(kept, logits).mean().item(),
        "share": torch.cat([m.float() for m in masks.values()], 1).mean().item(),
    }


class Network:
    """One network, its images, and what has been measured of it so far, which is kept in the cache."""

    def __init__(self, width: str, seed: int, options: argparse.Namespace) -> None:
        self.name, self.file = f"{width} {seed}", of_rate(options.cache, options.learning_rate) / f"{width}_{seed}.json"
        self.model, self.accuracy = network(width, seed, options.cache, options.learning_rate, options.epochs)
        self.x = fashion_mnist.load(1, options.samples, side=32).test[0]
        with torch.no_grad():
            self.logits = self.model(self.x)
        self.ways = ways(self.model, self.x)
        self.result: dict = {"accuracy": self.accuracy, "samples": len(self.x), "epochs": options.epochs, "ways": {}}
        if self.file.exists():
            self.result = json.loads(self.file.read_text())

    def measure(self, way: str) -> None:
        """One way at all budgets; what takes long at those that matter most."""
        found = self.result["ways"].setdefault(way, {})
        wanted = SHARES if way == "PLRP-λ" else [b for b in BUDGETS if way != "MinError, MSE" or 0.1 <= b <= 0.3]
        missing = [b for b in wanted if str(b) not in found]
        if not missing:
            return
        started = time.time()
        x, logits = (t[:CAPTUM_SAMPLES] if way in BY_CAPTUM else t for t in (self.x, self.logits))
        scores = by_captum(BY_CAPTUM[way], self.model, x, logits.argmax(1)) if way in BY_CAPTUM else {}
        for budget in missing:
            if scores:
                masks = highest(scores, budget)
            elif way == "PLRP-λ":
                lrp = SelectiveLRP(self.model, Epsilon(), Coverage(budget, rescale=True))
                masks = lrp.trace(x, predicted).masks
            else:
                masks = self.ways[way](budget)
            found[str(budget)] = measured(self.model, x, logits, masks)
        self.file.write_text(json.dumps(self.result))
        print(f"{self.name}: {way}, {time.time() - started:.0f} s", flush=True)


ORDER = (
    "random", "activation", "NeuronMCT, per layer", "NeuronMCT, all layers", "LayerConductance", "integrated gradients",
    *(f"afterwards, {rule}" for rule in RULES), *(f"inside, {rule}" for rule in RULES), "inside, ε, rescaled",
    "inside, ε, by magnitude", "Agreement, MSE", "Agreement, SMAPE", "MinError, MSE", "MinError, SMAPE",
)  # fmt: skip


def write(cache: Path) -> None:
    """Table and plots of what is in the cache."""
    lines = ["# Which selection finds the neurons that decide", "", (__doc__ or "").rpartition("\n\n")[2].strip(), ""]
    lines += [
        "Made by `python benchmarks/selection.py`, with `--width narrow --samples 100` and `--width full --samples 24`;",
        "what was trained at 0.05, with `--learning-rate 0.05 --samples 40`, at full width `--epochs 1 --seeds 0 2 3 4 5",
        "--samples 16`. Mean ± deviation over networks, as many as the last column says, or fewer where their number stands",
        "behind.",
        "",
    ]
    for width in WIDTHS:
        runs = runs_of(of_rate(cache, LEARNING_RATE), width)
        if not runs:
            continue
        accuracies = ", ".join(f"{run['accuracy']:.3f}" for run in runs)
        channels = "-".join(map(str, WIDTHS[width]))
        lines += [
            f"## VGG16-BN, {channels} channels", "",
            f"{len(runs)} networks, test accuracy {accuracies}; {runs[0]['samples']} test images each ({CAPTUM_SAMPLES} for "
            f"Captum's two, {CAPTUM_STEPS} steps). NeuronMCT ranks |gradient x activation|, which is |ε afterwards|.", "",
        ]  # fmt: skip
        names = [name for name in ORDER if any(name in run["ways"] for run in runs)]
        for quantity in ("retained", "ablated", "SMAPE", "MSE"):
            lines += [f"### {quantity}", "", f"| selection | {' | '.join(f'{b:.0%}' for b in BUDGETS)} | networks |"]
            lines.append(f"| --- |{' ---: |' * (len(BUDGETS) + 1)}")
            for name in names:
                of = [run["ways"][name] for run in runs if name in run["ways"]]
                cells = [cell([w.get(str(b), {}).get(quantity) for w in of]) for b in BUDGETS]
                lines.append(f"| {name} | {' | '.join(cells)} | {len(of)} |")
            lines.append("")
        plrp = [run["ways"]["PLRP-λ"] for run in runs if len(run["ways"].get("PLRP-λ", {})) == len(SHARES)]
        if plrp:
            lines += [
                "### PLRP-λ: `Coverage(λ, rescale=True)`, ε, inside",
                "",
                "| λ | share kept | retained | SMAPE | MSE |",
            ]
            lines.append("| --- | ---: | ---: | ---: | ---: |")
        for share in map(str, SHARES if plrp else ()):
            cells = [cell([w[share][quantity] for w in plrp]) for quantity in ("share", "retained", "SMAPE", "MSE")]
            lines.append(f"| {share} | {' | '.join(cells)} |")
        lines.append("")
        plot(runs, width)
        lines += [f"![retained](selection_{width}_retained.png) ![SMAPE](selection_{width}_smape.png)", ""]
    tried = (HERE / "selection_tried.md").read_text()
    (HERE / "selection.md").write_text("\n".join([*lines, *by_rate(cache), tried]))


def runs_of(folder: Path, width: str) -> list[dict]:
    """What was measured of each network of a width."""
    return [json.loads(file.read_text()) for file in sorted(folder.glob(f"{width}_*.json"))]


def by_rate(cache: Path) -> list[str]:
    """What the learning rate makes of it."""
    ways = ("inside, ε", "MinError, SMAPE")
    shown = [(way, quantity, b) for way in ways for quantity in ("retained", "SMAPE") for b in (0.1, 0.2)]
    names = [f"{way.partition(',')[0]}: {quantity}, {budget:.0%}" for way, quantity, budget in shown]
    lines = ["## The same networks, trained at other learning rates", ""]
    lines += [f"| width | learning rate | epochs | test accuracy | networks, images | {' | '.join(names)} |"]
    lines.append(f"| --- |{' ---: |' * (len(names) + 4)}")
    for width in WIDTHS:
        for folder in sorted(cache.glob("at_*")):
            runs = [run for run in runs_of(folder, width) if set(ways) <= run["ways"].keys()]
            if not runs:
                continue
            found = [cell([run["ways"][way].get(str(b), {}).get(quantity) for run in runs]) for way, quantity, b in shown]
            about = [width, folder.name.removeprefix("at_"), str(runs[0]["epochs"]), cell([run["accuracy"] for run in runs])]
            many = f"{len(runs)}, {runs[0]['samples']}"
            lines.append(f"| {' | '.join([*about, many, *found])} |")
    return [*lines, ""]


def cell(values: list[float | None]) -> str:
    """Mean ± deviation, and of how many networks where not of all."""
    known = torch.tensor([v for v in values if v is not None])
    if not len(known):
        return ""
    deviation = f" ± {float(f'{known.std():.2g}'):g}" if len(known) > 1 else ""
    return f"{known.mean():.3g}{deviation}" + (f" ({len(known)})" if len(known) < len(values) else "")


def plot(runs: list[dict], width: str) -> None:
    shown = ("random", "activation", "NeuronMCT, per layer", "afterwards, ε", "inside, ε", "inside, z+", "MinError, SMAPE")
    for quantity in ("retained", "SMAPE"):
        curves = {}
        for name in shown:
            by_budget = [[w[str(b)][quantity] for r in runs if str(b) in (w := r["ways"].get(name, {}))] for b in BUDGETS]
            curves[name] = [sum(v) / len(v) if v else float("nan") for v in by_budget]
        label = "share of predictions retained" if quantity == "retained" else "SMAPE against the whole network"
        figure = draw_curves(
            curves, BUDGETS, xlabel="share of channels kept", ylabel=label, title=f"VGG16-BN, {width}", static=True
        )
        figure.savefig(HERE / f"selection_{width}_{quantity.lower()}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("runs/selection"), help="where networks and figures are kept")
    parser.add_argument("--width", choices=list(WIDTHS), nargs="+", default=list(WIDTHS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--samples", type=int, default=200, help="test images for each network")
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE, help="the networks are trained with")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="the networks are trained for")
    parser.add_argument("--only-table", action="store_true")
    options = parser.parse_args()
    if not options.only_table:
        networks = [Network(width, seed, options) for width in options.width for seed in options.seeds]
        networks = [n for n in networks if n.accuracy >= 0.88]
        every = list(networks[0].ways) if networks else []
        for way in [*FIRST, *(w for w in every if w not in (*FIRST, *LAST)), *LAST]:
            for net in networks:
                net.measure(way)
    write(options.cache)


if __name__ == "__main__":
    main()

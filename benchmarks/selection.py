"""Which selection finds the neurons that decide: writes ``benchmarks/selection.md`` and its plot.

``python benchmarks/selection.py --cache FOLDER`` trains what is not in the folder yet, measures every way of selecting that
is missing there, and writes the table of all that is there. ``--networks "narrow VGG" --seeds 0 1`` measures a
part, ``--only-table`` only writes. Networks are trained on Fashion-MNIST, or on scikit-learn's digits
if it is not installed.

Each method finds the critical neurons of the predicted class and of the runner-up, inside the pass or by scores
afterwards, with the same share of each layer unless its name says otherwise. *Contest*: share of images in which the
predicted class wins when each class's logit is computed with that class's own neurons alone. *Runner-up*: share of images
in which the network predicts the runner-up when it keeps only the runner-up's neurons. *Survive*: share of images whose
prediction survives on its own neurons. *Correlation*: Pearson's, between the predicted class's logit with its own neurons
and in the whole network. *SMAPE*: error of all logits with the predicted class's neurons, compared with the whole
network's. The most active neurons are the same for all classes, so their contest shows how well a single set
distinguishes two classes.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from captum.attr import LayerConductance, LayerIntegratedGradients
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from torchvision.models.resnet import BasicBlock

from lrp_lightning import (
    Agreement,
    Contest,
    Coverage,
    Epsilon,
    EpsilonPlus,
    Gamma,
    MinError,
    SelectiveLRP,
    TopK,
    Trace,
    ZPlus,
    contest,
)  # fmt: skip
from lrp_lightning.drawing import draw_curves
from lrp_lightning.masking import activations
from lrp_lightning.metrics import prediction_survives, smape
from lrp_lightning.selection import Selection
from lrp_lightning.selection.budget import number_of

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import fashion_mnist
import small_vgg

HERE = Path(__file__).parent
CAPTUM_SAMPLES, CAPTUM_STEPS = 20, 8
BUDGETS = (0.05, 0.1, 0.2, 0.3, 0.5)
QUANTITIES = ("contest", "runner-up", "survive", "correlation", "SMAPE")
SLOW = (0.1, 0.2)
"""Budgets at which slow methods are measured."""


@dataclass(frozen=True)
class SignedHalves:
    """One half of the neurons has the most positive relevance, the other half the most negative."""

    keep: float

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor:
        many = number_of(self.keep, relevance.shape[1])
        kept = torch.zeros_like(relevance, dtype=torch.bool)
        kept.scatter_(1, relevance.topk(many - many // 2, 1).indices, True)
        return kept.scatter_(1, relevance.topk(max(many // 2, 1), 1, largest=False).indices, True) if many > 1 else kept


@dataclass(frozen=True)
class Centred:
    """The neurons whose relevance is farthest from the mean of their layer."""

    keep: float

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor:
        centred = relevance - relevance.mean(1, keepdim=True)
        return TopK(self.keep).select(centred, layer=layer, output=output)


@dataclass(frozen=True)
class Mass:
    """The fewest neurons that carry a share of their layer's ``|relevance|``; layers differ in how many they keep."""

    share: float

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor:
        return Coverage(self.share).select(relevance.abs(), layer=layer, output=output)


class Instead(SelectiveLRP):
    """Explains a function of the logits and the class, ``(N, classes)`` and ``(N,)``, instead of the class's logit."""

    explained: Callable[[Tensor, Tensor], Tensor]

    def trace(self, inputs: Any, target: Any = None, *others: Any, **named: Any) -> Trace:
        def value(logits: Tensor) -> Tensor:
            return self.explained(logits, target(logits.detach()) if callable(target) else target)

        return super().trace(inputs, value, *others, **named)


def less_the_mean(logits: Tensor, of: Tensor) -> Tensor:
    return logits.gather(1, of[:, None])[:, 0] - logits.mean(1)


def less_the_strongest_other(logits: Tensor, of: Tensor) -> Tensor:
    others = logits.detach().scatter(1, of[:, None], -torch.inf).argmax(1)
    return logits.gather(1, of[:, None])[:, 0] - logits.gather(1, others[:, None])[:, 0]


def predicted(logits: Tensor) -> Tensor:
    return logits.argmax(1)


def of_size(selection: Callable[[float], Selection], model: nn.Module, x: Tensor, budget: float) -> Selection:
    """The selection whose one argument makes it keep a budget of all neurons, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(8):
        share = (low + high) / 2
        masks = SelectiveLRP(model, Epsilon(), selection(share)).trace(x, predicted).masks
        kept = sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())
        low, high = (share, high) if kept < budget else (low, share)
    return selection(low)


def highest(scores: dict[str, Tensor], budget: float) -> dict[str, Tensor]:
    """The neurons with the highest scores of each layer."""
    return {name: TopK(budget, by="relevance").select(s, layer=name, output=s[:, 0]) for name, s in scores.items()}


def highest_of_all(scores: dict[str, Tensor], budget: float) -> dict[str, Tensor]:
    """The neurons with the highest scores of all layers together."""
    kept = highest({"all": torch.cat(list(scores.values()), 1)}, budget)["all"]
    return dict(zip(scores, kept.split([s.shape[1] for s in scores.values()], 1), strict=True))


class Afterwards(SelectiveLRP):
    """Chooses the neurons with the highest scores after the pass."""

    scores: Callable[[nn.Module, Tensor, Tensor, Trace], dict[str, Tensor]]
    choose: Callable[[dict[str, Tensor], float], dict[str, Tensor]]
    budget: float

    def trace(self, inputs: Any, target: Any = None, *others: Any, **named: Any) -> Trace:
        found = super().trace(inputs, target, *others, **named)
        of = target(found.logits) if callable(target) else target
        return replace(found, masks=self.choose(self.scores(self.model, inputs, of, found), self.budget))


def by_relevance(model: nn.Module, x: Tensor, target: Tensor, trace: Trace) -> dict[str, Tensor]:
    return {layer: trace.relevance[layer] for layer in trace.masks}


def by_magnitude(model: nn.Module, x: Tensor, target: Tensor, trace: Trace) -> dict[str, Tensor]:
    return {layer: trace.relevance[layer].abs() for layer in trace.masks}


def by_activation(model: nn.Module, x: Tensor, target: Tensor, trace: Trace) -> dict[str, Tensor]:
    return activations(model, x, list(trace.masks))


def by_captum(kind: type) -> Callable[[nn.Module, Tensor, Tensor, Trace], dict[str, Tensor]]:
    """Attribution at the rectifier behind each layer of a VGG, summed over space."""

    def scores(model: nn.Module, x: Tensor, target: Tensor, trace: Trace) -> dict[str, Tensor]:
        model = copy.deepcopy(model)
        for module in model.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
        found = {}
        for name in trace.masks:  # features.N is a convolution, N + 1 its batch norm, N + 2 its rectifier
            behind = model.get_submodule(f"features.{int(name.partition('.')[2]) + 2}")
            found[name] = kind(model, behind).attribute(x, target=target, n_steps=CAPTUM_STEPS).sum((2, 3)).detach()
        return found

    return scores


Way = Callable[[nn.Module, Tensor, float], SelectiveLRP]
"""Finds the neurons of a model, given images, from which it may determine a size, and a budget."""


def inside(rule: Any, selection: Callable[[float], Selection]) -> Way:
    return lambda model, x, budget: SelectiveLRP(model, rule, selection(budget))


def inside_sized(selection: Callable[[float], Selection]) -> Way:
    return lambda model, x, budget: SelectiveLRP(model, Epsilon(), of_size(selection, model, x, budget))


def inside_of(explained: Callable[[Tensor, Tensor], Tensor], selection: Callable[[float], Selection]) -> Way:
    def way(model: nn.Module, x: Tensor, budget: float) -> SelectiveLRP:
        lrp = Instead(model, Epsilon(), selection(budget))
        lrp.explained = explained
        return lrp

    return way


def afterwards(scores: Callable[..., dict[str, Tensor]], rule: Any = None, choose: Callable[..., Any] = highest) -> Way:
    def way(model: nn.Module, x: Tensor, budget: float) -> SelectiveLRP:
        lrp = Afterwards(model, rule or Epsilon(), TopK(1.0))
        lrp.scores, lrp.choose, lrp.budget = scores, choose, budget
        return lrp

    return way


def signed(budget: float) -> TopK:
    return TopK(budget, by="relevance")


EPS, GAMMA = "\N{GREEK SMALL LETTER EPSILON}", "\N{GREEK SMALL LETTER GAMMA}"
PLUS = f"z+, {EPS} in linear layers"
WAYS: dict[str, Way] = {
    "activation": afterwards(by_activation),
    "LayerConductance": afterwards(by_captum(LayerConductance)),
    "layer integrated gradients": afterwards(by_captum(LayerIntegratedGradients)),
    f"afterwards, relevance, {EPS}": afterwards(by_relevance),
    f"afterwards, relevance, {PLUS}": afterwards(by_relevance, EpsilonPlus()),
    "NeuronMCT: afterwards, |gradient x activation|": afterwards(by_magnitude),
    "NeuronMCT, all layers together": afterwards(by_magnitude, choose=highest_of_all),
    f"afterwards, magnitude, {PLUS}": afterwards(by_magnitude, EpsilonPlus()),
    f"relevance, {EPS}": inside(Epsilon(), signed),
    "relevance, z+": inside(ZPlus(), signed),
    f"relevance, {GAMMA}": inside(Gamma(), signed),
    f"relevance, {PLUS}": inside(EpsilonPlus(), signed),
    f"relevance, {EPS}, rescaled": inside(Epsilon(), lambda b: TopK(b, by="relevance", rescale=True)),
    f"PLRP-\N{GREEK SMALL LETTER LAMDA}: coverage, {EPS}, rescaled": inside_sized(lambda b: Coverage(b, rescale=True)),
    f"magnitude, {EPS}": inside(Epsilon(), TopK),
    "magnitude, z+": inside(ZPlus(), TopK),
    f"magnitude, {GAMMA}": inside(Gamma(), TopK),
    f"magnitude, {PLUS}": inside(EpsilonPlus(), TopK),
    f"signed halves, {EPS}": inside(Epsilon(), SignedHalves),
    f"magnitude less its mean, {EPS}": inside(Epsilon(), Centred),
    f"magnitude, budgets by mass, {EPS}": inside_sized(Mass),
    f"magnitude, logit less the mean, {EPS}": inside_of(less_the_mean, TopK),
    f"magnitude, logit less the strongest other, {EPS}": inside_of(less_the_strongest_other, TopK),
    f"relevance, logit less the strongest other, {EPS}": inside_of(less_the_strongest_other, signed),
    "Agreement, MSE": inside(Epsilon(), lambda b: Agreement("mse", b)),
    "Agreement, SMAPE": inside(Epsilon(), lambda b: Agreement("smape", b)),
    "MinError, SMAPE, 8 passes": inside(Epsilon(), lambda b: MinError("smape", b, max_passes=8)),
    "MinError, SMAPE, 25 passes": inside(Epsilon(), lambda b: MinError("smape", b)),
}
AGAINST_ALL, AGAINST_ALL_AT, EVERY_CLASS = (
    (f"relevance, {EPS}", f"magnitude, {EPS}", f"magnitude, logit less the strongest other, {EPS}",
     "MinError, SMAPE, 8 passes"),
    0.2, "every class",
)  # fmt: skip
"""Methods measured against all other classes, their budget, and the key of these figures in the cache."""
OF_VGG = ("LayerConductance", "layer integrated gradients")
SHOWN = (
    "activation", f"relevance, {EPS}", f"magnitude, {EPS}", f"magnitude, {PLUS}", f"magnitude, budgets by mass, {EPS}",
    f"magnitude, logit less the strongest other, {EPS}",
)  # fmt: skip


def resnet() -> nn.Module:
    def block(below: int, above: int) -> nn.Module:
        halved = nn.Sequential(nn.Conv2d(below, above, 1, stride=2, bias=False), nn.BatchNorm2d(above))
        return nn.Sequential(BasicBlock(below, above, 2, halved), BasicBlock(above, above))

    stem = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))
    return nn.Sequential(stem, block(32, 64), block(64, 128), head)


def vit() -> nn.Module:
    model = VisionTransformer(32, 4, 3, 4, 64, 128, num_classes=10)
    model.conv_proj = nn.Conv2d(1, 64, 4, 4)
    return model


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, int, float]] = {
    "narrow VGG": (lambda: small_vgg.small_vgg16(small_vgg.NARROW), 12_000, 2, 0.01),
    "full VGG": (small_vgg.small_vgg16, 12_000, 2, 0.01),
    "ResNet": (resnet, 12_000, 2, 0.05),
    "ViT": (vit, 20_000, 3, 0.05),
}
"""How each network is made, its number of training images and epochs, and its learning rate."""


def trained(name: str, seed: int, cache: Path) -> tuple[nn.Module, float]:
    build, many, epochs, rate = NETWORKS[name]
    torch.manual_seed(seed)
    model, file = build(), cache / f"{name}_{seed}.pt"
    if not file.exists():
        data = fashion_mnist.load(many, 2_000, side=32)
        started = time.time()
        small_vgg.train(model, *data.train, epochs=epochs, seed=seed, learning_rate=rate)
        torch.save({"state": model.state_dict(), "accuracy": small_vgg.accuracy(model, *data.test)}, file)
        print(f"{name} {seed}: trained in {time.time() - started:.0f} s", flush=True)
    saved = torch.load(file)
    model.load_state_dict(saved["state"])
    return model.eval().requires_grad_(False), saved["accuracy"]


def held(lrp: SelectiveLRP, x: Tensor, rivals: int = 1) -> dict[str, float]:
    whole = Contest.joined(contest(lrp, some, rivals, seed=i) for i, some in enumerate(x.split(50)))
    return {
        "contest": whole.accuracy,
        "random": whole.control_accuracy,
        "runner-up": whole.runner_up_accuracy,
        "survive": prediction_survives(whole.with_predicted, whole.logits).float().mean().item(),
        "correlation": whole.correlation,
        "SMAPE": smape(whole.with_predicted, whole.logits).mean().item(),
    }


def measure(name: str, seed: int, options: argparse.Namespace) -> None:
    """Measure whatever is missing in the cache for one network."""
    model, accuracy = trained(name, seed, options.cache)
    x, file = fashion_mnist.load(1, options.samples, side=32).test[0], options.cache / f"{name}_{seed}.json"
    found = json.loads(file.read_text()) if file.exists() else {"accuracy": accuracy, "samples": len(x), "ways": {}}
    for way, finds in WAYS.items():
        if way not in options.ways or (way in OF_VGG and "VGG" not in name):
            continue
        of = found["ways"].setdefault(way, {})
        budgets = SLOW if way.startswith("MinError") or way in OF_VGG else BUDGETS
        missing = [b for b in budgets if str(b) not in of]
        started = time.time()
        for budget in missing:
            of[str(budget)] = held(finds(model, x, budget), x[:CAPTUM_SAMPLES] if way in OF_VGG else x)
        if way in AGAINST_ALL and EVERY_CLASS not in of:
            missing = [AGAINST_ALL_AT]
            of[EVERY_CLASS] = held(finds(model, x, AGAINST_ALL_AT), x, rivals=9)
        if missing:
            file.write_text(json.dumps(found))
            print(f"{name} {seed}: {way}, {time.time() - started:.0f} s", flush=True)


def cell(values: list[float]) -> str:
    if not values:
        return ""
    t = torch.tensor(values)
    return f"{t.mean():.3f}" + (f" ± {t.std():.3f}" if len(t) > 1 else "")


def write(cache: Path) -> None:
    """Table and plot of the results in the cache."""
    told = (__doc__ or "").rpartition("\n\n")[2].strip()
    lines = ["# Which selection finds the neurons that decide", "", told, ""]
    lines += ["Made by `python benchmarks/selection.py`. Mean ± standard deviation over seeds.", ""]
    curves: dict[str, list[list[float]]] = {}
    for name in NETWORKS:
        runs = [json.loads(file.read_text()) for file in sorted(cache.glob(f"{name}_*.json"))]
        if not runs:
            continue
        accuracies = ", ".join(f"{run['accuracy']:.3f}" for run in runs)
        about = f"{len(runs)} network{'s' * (len(runs) > 1)}, test accuracy {accuracies}; {runs[0]['samples']} images each"
        about += f"; {CAPTUM_SAMPLES} images and {CAPTUM_STEPS} steps for Captum's two methods." if "VGG" in name else "."
        lines += [f"## {name}", "", about, ""]
        for budget in BUDGETS:
            shown = [way for way in WAYS if any(str(budget) in run["ways"].get(way, {}) for run in runs)]
            all_of = [run["ways"].get(way, {}).get(str(budget)) for run in runs for way in shown]
            by_chance = [found["random"] for found in all_of if found]
            lines += [f"| {budget:.0%} kept | {' | '.join(QUANTITIES)} |", f"| --- |{' ---: |' * len(QUANTITIES)}"]
            lines.append(f"| random sets | {cell(by_chance)} |{' |' * (len(QUANTITIES) - 1)}")
            for way in shown:
                of = [run["ways"][way][str(budget)] for run in runs if str(budget) in run["ways"].get(way, {})]
                shown_as = way.replace("|", "\\|")
                lines.append(f"| {shown_as} | {' | '.join(cell([o[q] for o in of]) for q in QUANTITIES)} |")
            lines.append("")
        lines += [f"| {AGAINST_ALL_AT:.0%} kept, all ten classes | contest | by random sets |", "| --- | ---: | ---: |"]
        for way in AGAINST_ALL:
            of = [run["ways"][way][EVERY_CLASS] for run in runs if EVERY_CLASS in run["ways"].get(way, {})]
            lines.append(f"| {way} | {cell([o['contest'] for o in of])} | {cell([o['random'] for o in of])} |")
        lines.append("")
        for way in (*SHOWN, "random sets"):
            of = [run["ways"].get(way, {}) for run in runs]
            if way == "random sets":  # as large as those of every way
                founds = [found for run in runs for found in run["ways"].values()]
                every = {str(b): [found[str(b)]["random"] for found in founds if str(b) in found] for b in BUDGETS}
                of = [{b: {"contest": sum(values) / len(values)} for b, values in every.items()}]
            if all(set(map(str, BUDGETS)) <= o.keys() for o in of):
                means = [sum(o[str(b)]["contest"] for o in of) / len(of) for b in BUDGETS]
                curves.setdefault(way, []).append(means)
    figure = draw_curves(
        {way: torch.tensor(of).mean(0) for way, of in curves.items()}, BUDGETS, title="Mean over kinds of networks",
        xlabel="share of each layer's neurons kept", ylabel="share of contests won", static=True,
    )  # fmt: skip
    figure.savefig(HERE / "selection.png")
    tried = (HERE / "selection_tried.md").read_text()
    (HERE / "selection.md").write_text("\n".join([*lines, "![Contests won over budgets](selection.png)", "", tried]))


def parser_of(about: str | None) -> argparse.ArgumentParser:
    """The arguments of a script that measures these networks."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--cache", type=Path, default=Path("runs/selection"), help="where networks and figures are kept")
    parser.add_argument("--networks", choices=list(NETWORKS), nargs="+", default=list(NETWORKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--only-table", action="store_true")
    parser.add_argument("--threads", type=int, help="of each process; torch's own choice by default")
    return parser


def run(
    options: argparse.Namespace,
    measure: Callable[[str, int, argparse.Namespace], None],
    write: Callable[[Path], None],
) -> None:
    """Measure each network, then write the tables."""
    if options.threads:
        torch.set_num_threads(options.threads)
    options.cache.mkdir(parents=True, exist_ok=True)
    if not options.only_table:
        for seed in options.seeds:
            for name in options.networks:
                measure(name, seed, options)
    write(options.cache)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--samples", type=int, default=100, help="test images for each network")
    parser.add_argument("--ways", choices=list(WAYS), nargs="+", default=list(WAYS))
    run(parser.parse_args(), measure, write)


if __name__ == "__main__":
    main()

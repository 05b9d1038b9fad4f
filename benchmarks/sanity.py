"""Whether attributions depend on what the network has learned: writes ``benchmarks/sanity.md``.

``python benchmarks/sanity.py`` trains the networks, measures and writes the page, on a processor, in a minute.

The cascading randomisation of Adebayo et al. (2018): the layers of a trained network get new random weights one after the
other, from the top down. A map that stays as it was cannot be about the weights that were replaced. Small convolutional
networks are trained on scikit-learn's digits, scaled up to 16 x 16 pixels; what is explained is the logit of the class that
the trained network predicts. *Rank correlation* is Spearman's, of the magnitudes of all pixels of an image, *SSIM* the
structural similarity of the magnitudes, each map divided by its greatest; both are 1 for the same map.
"""

from __future__ import annotations

import json
import warnings
from functools import partial
from pathlib import Path

import captum.attr
import numpy as np
import torch
import torch.nn.functional as F
from ground_truth import COMPOSITES, Explain, accuracy, mean_and_error, parser_of, train
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

from lrp_lightning import Composite, SelectiveLRP, ZPlus

HERE = Path(__file__).parent
SIDE, HELD_OUT, EXPLAINED = 16, 360, 64


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 64), nn.ReLU(),
        nn.Linear(64, 10),
    )  # fmt: skip


def digits() -> tuple[Tensor, Tensor]:
    """Images ``(N, 1, 16, 16)`` from -1 to 1, and classes."""
    found = load_digits()
    images = torch.tensor(found.images[:, None] / 8 - 1).float()
    return F.interpolate(images, size=(SIDE, SIDE), mode="bilinear"), torch.tensor(found.target)


def similarity(before: Tensor, after: Tensor) -> tuple[float, float]:
    """Mean rank correlation and mean SSIM of two batches of maps, ``(N, 1, H, W)``."""
    a, b = (t.abs() / t.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(t.dtype).tiny) for t in (before, after))
    pairs = zip(a.flatten(1).numpy(), b.flatten(1).numpy(), strict=True)
    ranks = [spearmanr(*pair).statistic if np.ptp(pair[0]) and np.ptp(pair[1]) else 0.0 for pair in pairs]
    return float(np.mean(ranks)), float(ssim(a, b, data_range=1.0, kernel_size=7, sigma=1.0))


def randomised(model: nn.Sequential) -> list[str]:
    """The layers with weights, from the top."""
    return [name for name, module in reversed(list(model.named_children())) if hasattr(module, "reset_parameters")]


def _captum(of: type, model: nn.Module, x: Tensor, c: Tensor) -> Tensor:
    return of(model).attribute(x.clone(), target=c)


def methods() -> dict[str, Explain]:
    """Each by its name in the tables: of a model, images and classes."""

    def ours(composite: Composite | str, mapped: bool) -> Explain:
        return lambda model, x, c: SelectiveLRP(model, composite, multiply_by_inputs=not mapped).attribute(x, target=c)

    found: dict[str, Explain] = {}
    for name, composite in {**COMPOSITES, "z+ in every layer": Composite(ZPlus())}.items():
        found[name] = ours(composite, False)
        if name != "box":
            found[f"{name}, map"] = ours(composite, True)
    for of in (captum.attr.Saliency, captum.attr.InputXGradient, captum.attr.GuidedBackprop):
        found[f"Captum {of.__name__}"] = partial(_captum, of)
    return found


def measure(seed: int, epochs: int = 12) -> dict:
    """Similarities of one network: ``{method: [(rank correlation, SSIM) after each layer]}``."""
    images, labels = digits()
    torch.manual_seed(seed)
    model = train(network(), images[:-HELD_OUT], labels[:-HELD_OUT], seed, epochs)
    right = accuracy(model, images[-HELD_OUT:], labels[-HELD_OUT:])
    x = images[-EXPLAINED:]
    c = model(x).argmax(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Captum's, of hooks and gradients
        before = {name: explain(model, x, c).detach() for name, explain in methods().items()}
        found: dict[str, list] = {name: [] for name in before}
        for layer in randomised(model):
            model.get_submodule(layer).reset_parameters()
            for name, explain in methods().items():
                found[name].append(similarity(before[name], explain(model, x, c).detach()))
    return {"accuracy": right, "layers": randomised(model), "similarities": found}


def page(results: list[dict]) -> str:
    about = (__doc__ or "").split("\n\n", 2)[2].strip()
    layers = results[0]["layers"]
    accuracies = mean_and_error([r["accuracy"] for r in results])
    lines = ["# Sanity checks", "", about, "", "Made by `make bench-truth`.", "", FINDINGS, ""]
    lines.append(
        f"Means over {len(results)} networks, with standard errors; {EXPLAINED} images of each. Accuracy {accuracies}."
    )
    for which, title in enumerate(("Rank correlation", "SSIM")):
        lines += [
            "",
            f"## {title}",
            "",
            "| random from the top down to | " + " | ".join(f"`{name}`" for name in layers) + " |",
        ]
        lines.append("| --- |" + " ---: |" * len(layers))
        for name in results[0]["similarities"]:
            cells = [mean_and_error([r["similarities"][name][i][which] for r in results]) for i in range(len(layers))]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


FINDINGS = """## What was found

- **z+ in every layer** hardly notices that the top layers are random, and keeps most of its ranks when all are: it hands
  down positive contributions alone, so its maps are about the image, and little about what the network has learned. The
  named composites have epsilon in linear layers, and notice the first layer that is random.
- Of the named composites gamma and `epsilon_plus` change most slowly: they favour positive contributions in convolutions.
- Some of relevance by epsilon is left when all weights are random, just as of InputXGradient: both are multiplied by the
  image. Less is left of the map, which is that of Saliency.
- GuidedBackprop, which drops negative gradients, changes more slowly than all named composites until only the first
  convolution is as it was trained."""


def main() -> None:
    options = parser_of("sanity", __doc__, "one epoch").parse_args()
    torch.set_num_threads(1)
    options.cache.mkdir(parents=True, exist_ok=True)
    results = []
    for seed in options.seeds:
        file = options.cache / f"{seed}.json"
        if not file.exists():
            file.write_text(json.dumps(measure(seed, 1 if options.small else 12)))
        results.append(json.loads(file.read_text()))
    options.out.write_text(page(results))


if __name__ == "__main__":
    main()

"""Do attributions depend on what the network has learned? Writes ``benchmarks/sanity.md``.

``python benchmarks/sanity.py`` trains the networks, measures and writes the page, on a CPU, in two minutes.

Both tests of Adebayo et al. (2018), with small convolutional networks on scikit-learn's digits, scaled up to 16 x 16
pixels.

*Random weights*: the layers of a trained network get new random weights one after the other, from the top down. A map
that does not change cannot depend on the weights that were replaced. The explained output is the logit of the class
that the trained network predicts.

*Random labels*: another network is trained on the same images until it has memorised random labels. Its maps of
training images are compared with those of the network that was trained on the true labels; each network explains its
own prediction. A map that is the same for both does not show what distinguishes the classes. For comparison, a second
network is trained on the true labels from other initial weights. The similarity of its maps is the most that a method
can be expected to show for two networks that learned the same. The *gap* between the two similarities measures how
much a method's maps depend on the labels.

*Rank correlation* is Spearman's, over the magnitudes of all pixels of an image. *SSIM* is the structural similarity
of the magnitudes, with each map divided by its maximum. Both are 1 for identical maps.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from attributions import COMPOSITES, Explain, captums, kept, mean_and_error, options_of, ours, quietly
from ground_truth import accuracy
from scipy.stats import spearmanr
from small_images import Images, digits, trained
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

from lrp_lightning import Composite, ZPlus

EXPLAINED, EPOCHS = 64, 12
BY_HEART = 60
"""Epochs after which a network has memorised the random labels of most of its training images."""


def similarity(before: Tensor, after: Tensor) -> tuple[float, float]:
    """Mean rank correlation and mean SSIM of two batches of maps, ``(N, 1, H, W)``."""
    a, b = (t.abs() / t.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(t.dtype).tiny) for t in (before, after))
    pairs = zip(a.flatten(1).numpy(), b.flatten(1).numpy(), strict=True)
    ranks = [spearmanr(*pair).statistic if np.ptp(pair[0]) and np.ptp(pair[1]) else 0.0 for pair in pairs]
    return float(np.mean(ranks)), float(ssim(a, b, data_range=1.0, kernel_size=7, sigma=1.0))


def randomised(model: nn.Sequential) -> list[str]:
    """The layers with weights, from the top."""
    return [name for name, module in reversed(list(model.named_children())) if hasattr(module, "reset_parameters")]


def methods() -> dict[str, Explain]:
    """Each method by its name in the tables: a function of a model, images and classes."""
    found: dict[str, Explain] = {}
    for name, composite in {**COMPOSITES, "z+ in every layer": Composite(ZPlus())}.items():
        found[name] = ours(composite)
        if name != "box":
            found[f"{name}, map"] = ours(composite, mapped=True)
        found[f"{name}, TopK(0.1)"] = ours(composite, select=True)
    theirs = captums(window=(1, 2, 2))
    return found | {name: theirs[name] for name in ("Captum Saliency", "Captum InputXGradient", "Captum GuidedBackprop")}


def attributions(model: nn.Module, x: Tensor, c: Tensor) -> dict[str, Tensor]:
    """The attributions of all methods."""
    with quietly():
        return {name: explain(model, x, c).detach() for name, explain in methods().items()}


def of_weights(seed: int, quick: bool = False) -> dict:
    """Similarities of one network: ``{method: [(rank correlation, SSIM) after each layer]}``."""
    data, held_out = digits()
    model = trained(data, seed, 1 if quick else EPOCHS)
    right = accuracy(model, *held_out)
    x = held_out.images[-EXPLAINED:]
    c = model(x).argmax(1)
    before = attributions(model, x, c)
    found: dict[str, list] = {name: [] for name in before}
    for layer in randomised(model):
        model.get_submodule(layer).reset_parameters()
        for name, after in attributions(model, x, c).items():
            found[name].append(similarity(before[name], after))
    return {"accuracy": right, "layers": randomised(model), "similarities": found}


def of_labels(seed: int, quick: bool = False) -> dict:
    """Similarity of a network's maps to those of one trained in the same way and of one trained on random labels."""
    data, _ = digits()
    shuffled = data.labels[torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(seed))]
    networks = {
        "true": trained(data, seed, 1 if quick else EPOCHS),
        "again": trained(data, seed + 1000, 1 if quick else EPOCHS),
        "random": trained(Images(data.images, shuffled), seed, 1 if quick else BY_HEART),
    }
    x = data.images[:EXPLAINED]
    maps = {name: attributions(model, x, model(x).argmax(1)) for name, model in networks.items()}
    return {
        "accuracy": accuracy(networks["random"], data.images, shuffled),
        "similarities": {
            name: {other: similarity(of, maps[other][name]) for other in ("again", "random")}
            for name, of in maps["true"].items()
        },
    }


def page(weights: list[dict], labels: list[dict]) -> str:
    about = (__doc__ or "").split("\n\n", 2)[2].strip()
    layers = weights[0]["layers"]
    lines = ["# Sanity checks", "", about, "", "Made by `make bench-truth`.", "", FINDINGS, ""]
    lines.append(
        f"Means over {len(weights)} networks, with standard errors; {EXPLAINED} images of each. Test accuracy "
        f"{mean_and_error([r['accuracy'] for r in weights])}; accuracy on the memorised random labels "
        f"{mean_and_error([r['accuracy'] for r in labels])}."
    )
    for which, title in enumerate(("rank correlation", "SSIM")):
        lines += ["", f"## Random weights: {title}", ""]
        lines.append("| randomised from the top down to | " + " | ".join(f"`{name}`" for name in layers) + " |")
        lines.append("| --- |" + " ---: |" * len(layers))
        for name in weights[0]["similarities"]:
            cells = [mean_and_error([r["similarities"][name][i][which] for r in weights]) for i in range(len(layers))]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "## Random labels", ""]
    lines.append(
        "| | rank correlation: true labels again | random labels | gap | SSIM: true labels again | random labels | gap |"
    )
    lines.append("| --- |" + " ---: |" * 6)
    for name in labels[0]["similarities"]:
        cells = []
        for which in range(2):
            again, shuffled = ([r["similarities"][name][of][which] for r in labels] for of in ("again", "random"))
            gaps = [a - b for a, b in zip(again, shuffled, strict=True)]
            cells += [mean_and_error(values) for values in (again, shuffled, gaps)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


FINDINGS = """## What was found

- **z+ in every layer** hardly changes when the top layers are random, and keeps most of its ranking when all layers
  are. It propagates positive contributions only, so its maps show the image and little of what the network has
  learned. The named composites use epsilon in linear layers, and change with the first random layer.
- Among the named composites, gamma and `epsilon_plus` change most slowly, because they favour positive contributions
  in convolutions.
- When all weights are random, epsilon's relevance keeps some similarity, and so does InputXGradient, because both are
  multiplied by the image. The map of epsilon, whose magnitude is Saliency, keeps less.
- GuidedBackprop, which drops negative gradients, changes more slowly than all named composites until the first
  convolution is random too.
- **Random labels**: for each named composite, relevance is less similar to that of a network that memorised random
  labels (rank correlation .20 to .38) than to that of a network trained again on the true labels (.45 to .73). The
  gap is .30 to .37 for epsilon, `epsilon_plus`, gamma and box, which do not differ by more than two standard errors.
  It is smallest for `epsilon_alpha2_beta1`, .20, whose map has almost none.
- **Where this library does worse**: with random labels, `epsilon_plus` (.38) and gamma (.36) keep more similarity
  than epsilon (.26) and box (.20), because they favour positive contributions whatever was learned. z+ in every layer
  keeps .60, and the gap of its map cannot be distinguished from 0. Where a map must not simply show the image, use
  epsilon or box.
- With `TopK(0.1)`, almost no similarity remains with random labels (rank correlation 0 to .11). But less remains as
  well when the true labels are learned again (.36 to .46): what a tenth of the neurons shows depends on the training
  run.
- With three networks, the standard errors of the gap are .03 to .17; methods less than .1 apart are not ranked here."""


def main() -> None:
    options = options_of("sanity", __doc__, "one epoch")
    torch.set_num_threads(1)
    weights, labels = (
        [kept(options.cache / f"{name}_{seed}.json", partial(measure, seed, options.quick)) for seed in options.seeds]
        for name, measure in (("weights", of_weights), ("labels", of_labels))
    )
    options.out.write_text(page(weights, labels))


if __name__ == "__main__":
    main()

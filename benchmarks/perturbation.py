"""How much does the output change if pixels are replaced by relevance? Writes ``benchmarks/perturbation.md``.

``python benchmarks/perturbation.py`` trains the small networks, measures and writes the page, on a CPU, without
downloading anything, in three minutes. ``--quick`` runs one epoch, four images and one photograph.

Pixels are replaced by those of a blurred image, the most relevant first or the least relevant first. A perturbation
curve shows the class's softmax probability over the share of replaced pixels. The *area between the perturbation
curves* (ABPC) is the area below the curve for the least relevant first minus that for the most relevant first. It is
at most 1, and 0 for a random order. It is also measured for *decisions*, the share of images whose class is still
predicted. DynamicLRP (Lee and Arias 2025) reports this area, but four times as large, because the axis there counts
patches. As there, the blur is a Gaussian whose standard deviation is 20 of 224 pixels, relevance is summed over the
channels with its sign, and the predicted class is explained. Here all pixels are replaced in ten steps, there in 49.

*Digits* (16 x 16) and *clothes* (Fashion-MNIST, 28 x 28) are classified by small convolutional networks, with pixels
from 0 to 1 and with centred pixels, from -1 to 1. *Photographs* of 160 x 160 pixels are classified by
EfficientNet-Lite0, whose pixels are centred too. Figures are means over three trainings with 32 images each, or over
photographs, with standard errors. *Box* and zennit's EpsilonGammaBox have bounds of -1 and 1 everywhere. lxt has no
row, because it patches the modules of transformers only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from attributions import (
    Explain,
    all_of_ours,
    attempt,
    captums,
    cell,
    kept,
    lrp_of_peers,
    options_of,
    random_attribution,
    seeded,
)
from photographs import network, recognised
from small_images import DATA, trained
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

STEPS, EXPLAINED, EPOCHS = 10, 32, 8
SIDE, SQUARES = 160, 1
"""Photographs: their side in pixels, and the number of squares cut from each."""
Areas = dict[str, "list[float] | str"]
"""For each method the area by probability and by decision, or the name of a peer's error."""


def blurred(images: Tensor) -> Tensor:
    """Images blurred by a Gaussian of 20 of 224 pixels, cut off at 51 of 224."""
    side = images.shape[-1]
    return gaussian_blur(images, kernel_size=2 * round(51 / 224 * side / 2) + 1, sigma=20 / 224 * side)


def replaced(image: Tensor, instead: Tensor, order: Tensor, steps: int = STEPS) -> Tensor:
    """An image ``(C, H, W)`` with more and more of its pixels replaced: ``(steps + 1, C, H, W)``.

    Args:
        image: the first of the result.
        instead: the last of the result.
        order: numbers of all pixels, ``(H * W,)``, in the order in which they are replaced.
        steps: the number of steps after which all pixels are replaced.
    """
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    gone = rank.view(image.shape[1:]) < (torch.arange(steps + 1) * len(order) / steps)[:, None, None]
    return torch.where(gone[:, None], instead, image)


def areas(model: nn.Module, image: Tensor, instead: Tensor, relevance: Tensor, c: int) -> tuple[float, float]:
    """The area between the curves of one image ``(C, H, W)`` by probability, and by decision.

    Pixels of equal relevance are in a random order, which is the same for both curves.
    """
    pixels = relevance.sum(0).flatten()
    shuffled = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    order = shuffled[pixels[shuffled].argsort(descending=True, stable=True)]
    most, least = (replaced(image, instead, of) for of in (order, order.flip(0)))
    with torch.no_grad():
        logits = model(torch.cat([most, least])).view(2, STEPS + 1, -1)
    probability, decision = logits.softmax(2)[..., c], (logits.argmax(2) == c).float()
    by_probability, by_decision = (torch.trapezoid(of[1] - of[0]) / STEPS for of in (probability, decision))
    return float(by_probability), float(by_decision)


def score(model: nn.Module, images: Tensor, relevance: Tensor, classes: Tensor) -> list[float]:
    """Mean areas of a batch, by probability and by decision."""
    each = zip(images, blurred(images), relevance, classes.tolist(), strict=True)
    return np.mean([areas(model, *of) for of in each], 0).tolist()


def methods(window: tuple[int, ...], segments: int | None = None) -> dict[str, Explain]:
    """Each method by its name in the tables."""
    return {**all_of_ours(), **captums(window, segments), **lrp_of_peers(), "random": random_attribution}


def of_small(name: str, centred: bool, seed: int, explains: Mapping[str, Explain], quick: bool = False) -> Areas:
    """Areas of one small network, trained on digits or clothes."""
    data, held_out = DATA[name](centred)
    model = trained(data, seed, 1 if quick else EPOCHS)
    x = held_out.images[: 4 if quick else EXPLAINED]
    return _scores(model, x, model(x).argmax(1), explains)


def of_photograph(model: nn.Module, known: Sequence[tuple[Tensor, int]], explains: Mapping[str, Explain]) -> Areas:
    """Areas of squares of one photograph, with the class of each."""
    x, c = torch.stack([image for image, _ in known]), torch.tensor([c for _, c in known])
    return _scores(model, x, c, explains)


def _scores(model: nn.Module, x: Tensor, c: Tensor, explains: Mapping[str, Explain]) -> Areas:
    seeded(0)
    found = {name: attempt(name, explain, model, x, c) for name, explain in explains.items()}
    return {name: of if isinstance(of, str) else score(model, x, of, c) for name, of in found.items()}


FINDINGS = """## What was found

- **Photographs**: the default, `epsilon_plus`, and box have the greatest area, .45; gamma has .41. Of Captum's
  methods, the best are Shapley values, .29, and Occlusion, .27, both of squares and with many more passes, and then
  IntegratedGradients, .24. Methods that equal gradient times input have .15. Saliency is no better than random.
- **Where this library does worse**: centred digits and clothes. There epsilon has .16 and .52, and InputXGradient,
  DeepLift and Captum's LRP equal it within .01; the default has .09 and .45. z+ drops negative contributions, and a
  dark pixel that supports a class by being dark has a negative value. `Composite(Epsilon(), convolution=Gamma(0.25))`
  [does better there](default_composite.md).
- **Pixels from 0 to 1**: a rule that multiplies by the input gives a black pixel no relevance, however informative
  its blackness is. The zB rule of box does not multiply by it: on clothes, box has twice the area of all other
  relevance, .30. Saliency, .29, and the map of the default, .28, do as well.
- Elsewhere, maps that are not multiplied by the input have little area or a negative one. Their sign shows in which
  direction a pixel should change, not what it contributed, so they do not rank pixels.
- `TopK(0.1)` loses area everywhere: on photographs .10 with the default and .37 with box. Where few neurons carry the
  relevance, more of the image has none and is replaced in random order. A selection is meant for finding neurons, not
  for ranking all pixels.
- **zennit** equals this library: on digits and clothes, the four composites have the same areas by probability within
  .001. On photographs, with the [canonizer written for mosaics](mosaics.md), they have the same means within .01.
  **autolrp** differs by at most .02 on digits and clothes. There EpsilonAlpha2Beta1 has .02 more on digits from 0 to 1
  and .02 less on centred clothes. On photographs its EpsilonPlus has .33 against .45, and relevance by its epsilon is
  not finite.
- GuidedBackprop and Deconvolution change only `nn.ReLU`, so with EfficientNet's ReLU6 they equal the gradient, and
  DeepLift equals gradient times input. Captum's LRP has no rule for some of its modules and raises a TypeError.
- Ranked by decisions, the methods have nearly the same order."""


def page(results: Mapping[str, Sequence[Areas]]) -> str:
    about = (__doc__ or "").split("\n\n", 2)[2].strip()
    lines = ["# Perturbation curves", "", about, "", "Made by `make bench-truth`.", "", FINDINGS, ""]
    for which, title in enumerate(("probability", "decision")):
        lines += [f"## ABPC by {title}", "", "| | " + " | ".join(f"{name}" for name in results) + " |"]
        lines.append("| --- |" + " ---: |" * len(results))
        for method in results["digits, 0 to 1"][0]:
            cells = [cell([of[method] for of in each], which) for each in results.values()]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    options = options_of("perturbation", __doc__, "one epoch, four images, one photograph")
    torch.set_num_threads(1)
    results: dict[str, list[Areas]] = {}
    of_small_images = methods(window=(1, 4, 4), segments=7)
    for data in DATA:
        for centred in (False, True):
            results[f"{data}, {'centred' if centred else '0 to 1'}"] = [
                kept(
                    options.cache / f"{data}_{centred}_{seed}.json",
                    partial(of_small, data, centred, seed, of_small_images, options.quick),
                )
                for seed in options.seeds
            ]
    model = network("EfficientNet-Lite0")
    if model is not None:
        of_squares = methods(window=(3, SIDE // 8, SIDE // 8), segments=8)
        known = list(recognised(model, SIDE).items())[: 1 if options.quick else None]
        results["photographs"] = [
            kept(options.cache / f"photographs_{name}.json", partial(of_photograph, model, of[:SQUARES], of_squares))
            for name, of in known
        ]
    options.out.write_text(page(results))


if __name__ == "__main__":
    main()

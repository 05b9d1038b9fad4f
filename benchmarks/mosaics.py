"""Does the relevance of a class lie in the quadrant that shows it? Writes ``benchmarks/mosaics.md``.

``python benchmarks/mosaics.py`` explains and writes the page, on a CPU, without downloading anything, in about five
minutes for both networks. ``--quick`` runs one mosaic of one network.

Four different photographs, each of which the network classifies correctly when it sees it alone, form a mosaic of
2 x 2, and the class of each is explained in it. *Share* is the part of the positive relevance, summed over channels,
that lies in the quadrant of the explained class; it is known as focus (Arias-Duart et al. 2022), attribution
localisation or inside-total ratio. *Pointing* is how often the pixel with the greatest relevance lies there. Chance
gives .25 for both. A network may find evidence for a class in another quadrant, so even a correct explanation may
stay below 1.

The networks are EfficientNet-Lite0 and Lite2, trained on ImageNet. They consist of convolutions, many of them
depthwise, batch norms, ReLU6 and residual sums. Their pixels are centred and range from nearly -1 to 1. Figures are
means over the mosaics of each photograph, then over photographs; standard errors are over photographs.

zennit has no canonizer that fits these networks. It runs with one that was written for them here: it merges batch
norms into convolutions and makes modules of residual sums (`benchmarks/peers.py`). Its EpsilonGammaBox has the bounds
of *box*, -1 and 1. lxt has no row, because it patches the modules of transformers only.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from attributions import (
    Explain,
    all_of_ours,
    attempt,
    captums,
    kept,
    lrp_of_peers,
    mean_and_error,
    options_of,
    random_attribution,
    seeded,
)
from photographs import LITES, network, recognised
from torch import Tensor, nn

QUADRANT, MOSAICS = 128, {"EfficientNet-Lite0": 6, "EfficientNet-Lite2": 3}
Scores = dict[str, dict[str, list[list[float]]]]
"""``{photograph: {method: [(share, pointing)]}}``"""


def mosaic(quadrants: Tensor) -> Tensor:
    """Four images ``(4, C, H, W)`` as one, ``(C, 2 H, 2 W)``, row by row."""
    rows = (torch.cat(list(pair), -1) for pair in quadrants.split(2))
    return torch.cat(list(rows), -2)


def localised(relevance: Tensor) -> list[tuple[float, float]]:
    """Share and pointing of a mosaic's four attributions, ``(4, C, H, W)``; the n-th explains the n-th quadrant's class."""
    pixels = relevance.sum(1)
    height, width = (size // 2 for size in pixels.shape[1:])
    found = []
    for n, of in enumerate(pixels):
        top, left = n // 2 * height, n % 2 * width
        inside = of[top : top + height, left : left + width]
        total = of.clamp(min=0).sum()
        share = inside.clamp(min=0).sum() / total if total > 0 else torch.tensor(0.25)  # none counts as chance
        found.append((float(share), float(total > 0 and inside.max() == of.max())))
    return found


def methods() -> dict[str, Explain]:
    """Each method by its name in the tables."""
    of_captum = captums((3, QUADRANT // 2, QUADRANT // 2), segments=4)
    return {**all_of_ours(), **of_captum, **lrp_of_peers(), "random": random_attribution}


def measure(model: nn.Module, number: int, explains: Mapping[str, Explain], seed: int = 0) -> dict:
    """Scores of each photograph, how often a class is among the five most probable of a mosaic, and which peers failed."""
    photographs = recognised(model, QUADRANT)
    random = np.random.default_rng(seed)
    scores: Scores = {name: {} for name in photographs}
    failed: dict[str, str] = {}
    among = []
    seeded(seed)
    for _ in range(number):
        shown = random.choice(list(photographs), 4, replace=False)
        parts = [photographs[name][random.integers(len(photographs[name]))] for name in shown]
        x = mosaic(torch.stack([image for image, _ in parts])).expand(4, -1, -1, -1).contiguous()
        classes = torch.tensor([c for _, c in parts])
        with torch.no_grad():
            among += (model(x).topk(5).indices == classes[:, None]).any(1).tolist()
        for name, explain in explains.items():
            relevance = failed[name] if name in failed else attempt(name, explain, model, x, classes)
            if isinstance(relevance, str):
                failed[name] = relevance
                continue
            for photograph, pair in zip(shown, localised(relevance), strict=True):
                scores[photograph].setdefault(name, []).append(list(pair))
    return {"mosaics": number, "scores": scores, "among": float(np.mean(among)), "failed": failed}


def by_photograph(scores: Scores, method: str, which: int) -> list[float]:
    """A mean for each photograph that is in a mosaic."""
    return [float(np.mean([pair[which] for pair in of[method]])) for of in scores.values() if method in of]


FINDINGS = """## What was found

Figures are for EfficientNet-Lite0, with those for Lite2 in brackets.

- With the default, `epsilon_plus`, .67 (.65) of the positive relevance lies in the quadrant of the explained class;
  with box, .72 (.74). Captum's gradient methods reach .35 to .39 (.37 to .41), and epsilon, which is nearly one of
  them, .36 (.39). The difference comes from rules in convolutions that favour one sign.
- **Where this library does worse**: Occlusion, .82 (.80), and Shapley values, .81 (.85), both of squares half a
  quadrant wide, reach more than every composite without a selection, and mostly point better. They measure what the
  network does without a square, and in this test squares end where quadrants do. They take 16 and 32 forward passes
  for a class; LRP takes one forward and one backward pass.
- In Lite0, `TopK(0.1)` puts more relevance into the quadrant with every composite: .81 with the default, .63 with
  epsilon. In Lite2 it does not (.67 and .44; box .69, which is less than without it). Whether it improves
  localisation is open. With the default it points less well in both networks.
- `epsilon_alpha2_beta1` and gamma in every layer, .59 and .58 (.60 and .62), reach less than the default. Gamma in
  convolutions alone [does not](default_composite.md), so epsilon should stay above the convolutions.
- Maps that are not multiplied by the input localise no better than relevance, and the default's map worse, .52 (.58):
  the object of a photograph may be anywhere.
- GuidedBackprop and Deconvolution change only `nn.ReLU`, so with ReLU6 they equal the gradient, and DeepLift equals
  gradient times input. Captum's LRP has no rule for some of the modules and raises a TypeError.
- **zennit**, once it has its canonizer, equals this library: the four composites differ by less than .01 in share, and
  only epsilon differs in pointing, .57 against .61 in Lite0. **autolrp** runs these networks as they are. Its
  EpsilonPlus and EpsilonAlpha2Beta1 are at chance, .25, and relevance by its epsilon is not finite. It divides
  residual sums, and outputs between weights and biases, by magnitude.
- Six photographs are few: methods less than .1 apart are not ranked here, unless [paired
  differences](default_composite.md) are available. Only .38 (.50) of the explained classes are among the five that
  the network finds most probable in the whole mosaic, whose quadrants are small."""


def page(results: dict[str, dict]) -> str:
    about = (__doc__ or "").split("\n\n", 2)[2].strip()
    lines = ["# Mosaics of photographs", "", about, "", "Made by `make bench-truth`.", "", FINDINGS, ""]
    for name, of in results.items():
        photographs = ", ".join(sorted(of["scores"]))
        lines += [
            f"{name}: {of['mosaics']} mosaics of {len(of['scores'])} photographs ({photographs}); {of['among']:.0%} of the "
            "explained classes are among the five most probable of the mosaic.",
            "",
        ]
    lines.append("| | " + " | ".join(f"{name}: share | pointing" for name in results) + " |")
    lines.append("| --- |" + " ---: |" * (2 * len(results)))
    for name in methods():
        cells = []
        for of in results.values():
            failed = of["failed"].get(name)
            cells += [failed, ""] if failed else [mean_and_error(by_photograph(of["scores"], name, n)) for n in range(2)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    options = options_of("mosaics", __doc__, "one mosaic of one network")
    torch.set_num_threads(1)
    results = {}
    for name in list(LITES)[: 1 if options.quick else None]:
        model = network(name)
        if model is not None:
            number = 1 if options.quick else MOSAICS[name]
            results[name] = kept(options.cache / f"{name}.json", partial(measure, model, number, methods()))
    options.out.write_text(page(results))


if __name__ == "__main__":
    main()

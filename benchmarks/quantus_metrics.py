"""What do the metrics of Quantus say, one of each of its five kinds? Writes ``benchmarks/quantus_metrics.md``.

``python benchmarks/quantus_metrics.py`` trains the small networks, measures and writes the page, on a CPU, without
downloading anything, in about four minutes. It needs ``pip install '.[truth]'``. ``--quick`` trains for one epoch and
measures two images and one mosaic.

Quantus (Hedström et al. 2023) calls a metric with a model, images, classes and a function that explains them
(``explain_func``), so it can evaluate LRP as it is. One metric of each kind is measured:

- *faithfulness*: faithfulness correlation (Bhatt et al. 2020) between the relevance of a random tenth of the pixels and
  the change of the logit when they are set to 0, over 50 draws for each image; 1 is best;
- *robustness*: max-sensitivity (Yeh et al. 2019), the greatest change of an attribution, relative to its norm, over 5
  draws of uniform noise of up to .05 added to the image; 0 is best;
- *localisation*: attribution localisation (Kohlbrenner et al. 2020), the part of the positive relevance that lies in the
  object. Objects are the pixels of digits and clothes that are not black, and in mosaics of photographs the quadrant of
  the explained class;
- *complexity*: sparseness (Chalasani et al. 2020), the Gini index of magnitudes; 1 is sparsest;
- *randomisation*: random logit (Sixt et al. 2020), the structural similarity to the attribution of another class; 0 is
  best.

Relevance is summed over channels and divided by its greatest magnitude. Pixels of digits and clothes range from 0 to 1.
The explained class is the predicted one; in mosaics, explained for EfficientNet-Lite0, it is the class of one quadrant.
Figures are means over images with standard errors; of the small networks one each was trained.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import quantus
import torch
from attributions import COMPOSITES, Explain, captums, kept, mean_and_error, options_of, ours, quietly, random_attribution
from mosaics import QUADRANT, mosaic
from photographs import network, recognised
from small_images import DATA, trained
from torch import Tensor, nn

EXPLAINED, EPOCHS, MOSAICS = 32, 8, 3
Scores = dict[str, dict[str, list[float]]]
"""Of each image, by method and kind of metric."""


class Shown(NamedTuple):
    """A model, images ``(N, C, H, W)``, classes ``(N,)``, and where their objects are, ``(N, 1, H, W)``."""

    model: nn.Module
    images: Tensor
    classes: Tensor
    objects: Tensor


def of_small(name: str, quick: bool) -> Shown:
    """Digits or clothes."""
    data, held_out = DATA[name](centred=False)
    model = trained(data, 0, 1 if quick else EPOCHS)
    x = held_out.images[: 2 if quick else EXPLAINED]
    return Shown(model, x, model(x).argmax(1), x > 0)


def of_photographs(quick: bool) -> Shown | None:
    """Mosaics, of each the class of one quadrant; None where the network's weights are not installed."""
    model = network("EfficientNet-Lite0")
    if model is None:
        return None
    photographs = recognised(model, QUADRANT)
    random = np.random.default_rng(0)
    images, classes, objects = [], [], []
    for n in range(1 if quick else MOSAICS):
        parts = [photographs[name][0] for name in random.choice(list(photographs), 4, replace=False)]
        images.append(mosaic(torch.stack([image for image, _ in parts])))
        classes.append(parts[n % 4][1])
        objects.append(mosaic((torch.arange(4) == n % 4)[:, None, None, None].expand(4, 1, QUADRANT, QUADRANT)))
    return Shown(model, torch.stack(images), torch.tensor(classes), torch.stack(objects))


def methods() -> dict[str, Explain]:
    """Each by its name in the tables; without what takes hundreds of passes."""
    found: dict[str, Explain] = {}
    for name, composite in COMPOSITES.items():
        found[name] = ours(composite)
        found[f"{name}, TopK(0.1)"] = ours(composite, select=True)
    theirs = captums(window=(1, 1, 1))
    names = ("Saliency", "InputXGradient", "GuidedBackprop")
    return found | {f"Captum {name}": theirs[f"Captum {name}"] for name in names} | {"random": random_attribution}


def metrics(shown: Shown) -> dict[str, Any]:
    """One of each kind."""
    pixels, quiet = shown.images[0].numel(), {"disable_warnings": True}
    return {
        "faithfulness": quantus.FaithfulnessCorrelation(
            nr_runs=50, subset_size=pixels // 10, perturb_baseline=0.0, normalise=False, return_aggregate=False, **quiet
        ),
        "robustness": quantus.MaxSensitivity(nr_samples=5, lower_bound=0.05, **quiet),
        "localisation": quantus.AttributionLocalisation(abs=False, positive_attributions=True, normalise=False, **quiet),
        "complexity": quantus.Sparseness(**quiet),
        "randomisation": quantus.RandomLogit(num_classes=int(shown.model(shown.images[:1]).shape[1]), **quiet),
    }


def explained(explain: Explain) -> Callable[..., np.ndarray]:
    """As Quantus calls it; divided by the greatest magnitude, since it adds constants of 1e-9 and 1e-7 to relevance."""

    def explain_func(model: nn.Module, inputs: np.ndarray, targets: np.ndarray, **others: Any) -> np.ndarray:
        x, c = torch.as_tensor(inputs).float(), torch.as_tensor(targets).long()
        pixels = explain(model, x, c).detach().sum(1, keepdim=True)
        return (pixels / pixels.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)).numpy()

    return explain_func


def measure(show: Callable[[], Shown]) -> Scores:
    """All methods by all metrics, one image at a time: some metrics take one norm for a whole batch."""
    shown = show()
    found: Scores = {}
    for name, explain in methods().items():
        found[name] = {}
        for kind, metric in metrics(shown).items():
            torch.manual_seed(0)
            np.random.seed(0)  # noqa: NPY002  Quantus draws from the global generator
            with quietly():
                scores = metric(
                    model=shown.model,
                    x_batch=shown.images.numpy(),
                    y_batch=shown.classes.numpy(),
                    a_batch=None,
                    s_batch=shown.objects.numpy(),
                    explain_func=explained(explain),
                    softmax=False,
                    device="cpu",
                    channel_first=True,
                    batch_size=1,
                )
            found[name][kind] = [float(np.asarray(score).reshape(())) for score in scores]
        print(name, {kind: f"{np.nanmean(scores):.2f}" for kind, scores in found[name].items()}, flush=True)
    return found


FINDINGS = """## What was found

- **Faithfulness, where this library does worse**: on digits and clothes epsilon, which equals InputXGradient, is best
  with .97 and .82. Gamma has .85 and .71, the default, `epsilon_plus`, .70 and .60. The metric sets a tenth of the
  pixels to 0, and gradient times input is the first-order estimate of exactly that. In mosaics no method differs
  clearly from random.
- **Robustness**: the default changes little: .11 on digits, where gamma, box and GuidedBackprop have .09 to .11, .14 on
  clothes and .34 in mosaics, the least of all on both. In mosaics epsilon, InputXGradient and GuidedBackprop change as
  much as random attributions. Relevance through a tenth of the neurons changes more, up to 3.3 times as much.
- **Localisation**: in mosaics box reaches .82, the default .71 (.96 with `TopK(0.1)`), gradient methods .34 to .38.
  These are three mosaics; [more of them](mosaics.md) show less for `TopK`. On digits and clothes the metric cannot tell
  apart rules that multiply by the input: black pixels get no relevance, so all of them reach 1.
- **Complexity**: relevance is sparser than Saliency everywhere. On digits and clothes black pixels are one reason.
- **Randomisation**: on digits and clothes box changes most with the class among composites without selection, .23 and
  .39; Saliency changes still more on clothes, .28. The default has .42 and .55, GuidedBackprop .57 and .49. In mosaics
  gradient methods change most, .37 to .52, then the default, .55.
- Quantus 0.6 runs with torch 2.14 and numpy 2.4; only its extra for TensorFlow requires numpy below 2. It adds
  constants of 1e-9 and 1e-7 to relevance, so relevance has to be scaled first: for EfficientNet-Lite0 with `TopK(0.1)`
  these constants are greater than the relevance."""


def page(results: dict[str, Scores]) -> str:
    about = (__doc__ or "").split("\n\n", 2)[2].strip()
    lines = ["# Metrics of Quantus", "", about, "", "Made by `make bench-truth`.", "", FINDINGS, ""]
    for data, found in results.items():
        kinds = list(next(iter(found.values())))
        lines += [f"## {data.capitalize()}", "", "| | " + " | ".join(kinds) + " |", "| --- |" + " ---: |" * len(kinds)]
        for name, scores in found.items():
            cells = [mean_and_error([score for score in scores[kind] if np.isfinite(score)]) for kind in kinds]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    options = options_of("quantus_metrics", __doc__, "one epoch, two images, one mosaic")
    torch.set_num_threads(1)
    results = {
        data: kept(options.cache / f"{data}.json", partial(measure, partial(of_small, data, options.quick))) for data in DATA
    }
    if network("EfficientNet-Lite0") is not None:
        mosaics = kept(options.cache / "mosaics.json", partial(measure, partial(of_photographs, options.quick)))
        results["mosaics of photographs"] = mosaics
    options.out.write_text(page(results))


if __name__ == "__main__":
    main()

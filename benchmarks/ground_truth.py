"""Do attributions highlight the pixels that are known to decide? Writes ``benchmarks/ground_truth.md``.

``python benchmarks/ground_truth.py`` makes the data, trains the networks, explains them and writes the page, on a
CPU, without downloading anything. ``--seeds 0`` runs a single seed, ``--quick`` one epoch and four images.

The images have 8 x 8 pixels and follow the description of XAI-TRIS in Clark et al. (2023); the authors' code was not
used. Two tetrominoes, T and L, lie in noise that is *white* or *correlated* (smoothed by a Gaussian of 3 pixels):

- *LIN*: T at the upper left or L at the lower right is added to the noise; which of the two is the class.
- *MULT*: the same, but the noise within the pattern is multiplied by a factor below one.
- *RIGID*: T or L is added anywhere, rotated by a multiple of 90 degrees.
- *XOR*: each of the two is added or subtracted; the class is whether their signs agree.

All images are divided by the greatest magnitude in the data, so they are centred on 0. The truth is the set of the
pattern's pixels. In LIN, MULT and XOR it contains both patterns, because the absence of a pattern is as informative
as its presence.

*Precision* is the share of true pixels among the k pixels with the greatest magnitude of attribution, where k is the
number of true pixels. *EMD* is 1 minus the earth mover's distance between these magnitudes and the truth, both
normalised to mass 1, divided by the image's diagonal. Both measures are 1 for a perfect map. Networks with a test
accuracy below 0.8 are not explained. The explained output is the logit of the predicted class; *pair* stands for that
logit minus the logit of the other class. *Map* stands for relevance before it is multiplied by the input
(``multiply_by_inputs=False``); the zB rule has no such map. The composites of zennit and autolrp have the rules of
those of the same name here, and zennit's EpsilonGammaBox has the bounds of *box*, -1 and 1. lxt has no row, because it
patches the modules of transformers only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from attributions import (
    COMPOSITES,
    Explain,
    attempt,
    captums,
    cell,
    kept,
    lrp_of_peers,
    mean_and_error,
    options_of,
    ours,
    seeded,
)
from scipy.ndimage import gaussian_filter, laplace, sobel
from scipy.optimize import linprog
from scipy.sparse import csr_matrix, kron, vstack
from torch import Tensor, nn

from lrp_lightning import Composite, Epsilon, ZPlus

SIDE, TRAIN, TEST, EXPLAINED, MOVED = 8, 6000, 1000, 64, 8
LEAST_ACCURACY = 0.8

T = np.array([[1, 1, 1], [0, 1, 0]])
L = np.array([[1, 0], [1, 0], [1, 1]])
PLACES = ((1, 1), (4, 5))
"""Row and column of the upper left corner of T and of L, in the scenarios where they do not move."""

BACKGROUNDS = {"white": 0.0, "correlated": 3.0}
SIGNAL = {
    "LIN": {"white": 0.15, "correlated": 0.06},
    "MULT": {"white": 0.8, "correlated": 0.6},
    "RIGID": {"white": 0.6, "correlated": 0.2},
    "XOR": {"white": 0.3, "correlated": 0.06},
}
"""Share of the signal in an image: enough for networks to classify, and too little for all of them to do so perfectly."""


class Data(NamedTuple):
    """Images ``(N, 1, 8, 8)``, classes ``(N,)``, and the mask of true pixels, ``(N, 8, 8)``."""

    images: Tensor
    labels: Tensor
    truth: Tensor


def pattern(shape: np.ndarray, row: int, column: int) -> np.ndarray:
    """A tetromino with its upper left corner at a place of an image."""
    image = np.zeros((SIDE, SIDE))
    image[row : row + shape.shape[0], column : column + shape.shape[1]] = shape
    return image


def generate(scenario: str, background: str, n: int, seed: int) -> Data:
    """Images of one scenario, half of each class."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(n) % 2)
    fixed = np.stack([pattern(shape, *place) for shape, place in zip((T, L), PLACES, strict=True)])
    if scenario == "RIGID":
        signal = np.stack([_anywhere((T, L)[label], random) for label in labels])
        truth = signal > 0
    else:
        truth = np.broadcast_to(fixed.sum(0) > 0, (n, SIDE, SIDE)).copy()
        signal = fixed[labels]
        if scenario == "XOR":
            first = random.choice([-1, 1], n)
            second = np.where(labels == 0, first, -first)
            signal = first[:, None, None] * fixed[0] + second[:, None, None] * fixed[1]
    noise = random.standard_normal((n, SIDE, SIDE))
    if BACKGROUNDS[background]:
        noise = gaussian_filter(noise, BACKGROUNDS[background], axes=(1, 2))
    weight = SIGNAL[scenario][background]
    if scenario == "MULT":
        images = (1 - weight * signal) * noise
    else:  # normalised over all images together, so that the weight means the same in each scenario
        images = weight * signal / np.linalg.norm(signal) + (1 - weight) * noise / np.linalg.norm(noise)
    images = images / np.abs(images).max()
    return Data(torch.tensor(images[:, None]).float(), torch.tensor(labels), torch.tensor(truth))


def _anywhere(shape: np.ndarray, random: np.random.Generator) -> np.ndarray:
    turned = np.rot90(shape, random.integers(4))
    return pattern(turned, *(random.integers(SIDE - size + 1) for size in turned.shape))


# models


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 2))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 128), nn.ReLU(), nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 2))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 2),
    )  # fmt: skip


MODELS = {"linear": linear, "MLP": mlp, "CNN": cnn}


def train(model: nn.Module, images: Tensor, labels: Tensor, seed: int, epochs: int = 10, batch: int = 128) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * (len(images) // batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for _ in range(epochs):
        for at in torch.randperm(len(images), generator=generator).split(batch)[: len(images) // batch]:
            loss = F.cross_entropy(model(images[at]), labels[at])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean().item()


# metrics


def precision(attribution: np.ndarray, truth: np.ndarray) -> float:
    """Share of the ``k`` pixels with the greatest magnitude that are among the ``k`` of the truth; both ``(H, W)``."""
    k = int(truth.sum())
    return float(truth.ravel()[np.argsort(-np.abs(attribution).ravel(), kind="stable")[:k]].mean())


def emd(attribution: np.ndarray, truth: np.ndarray) -> float:
    """1 minus the earth mover's distance of the magnitudes from the truth, divided by the diagonal between outermost pixels.

    A map of zeros counts as mass that is spread evenly.
    """
    mass = np.abs(attribution).ravel().astype(float)
    mass = mass / mass.sum() if mass.any() else np.full(mass.shape, 1 / mass.size)
    aims = np.flatnonzero(truth)
    distances, diagonal = _distances(truth.shape)
    marginals = _marginals(mass.size, len(aims))
    to = np.concatenate([mass, np.full(len(aims), 1 / len(aims))])
    # one equation follows from the others; left out, so that rounding cannot make them contradict each other
    found = linprog(distances[:, aims].ravel(), A_eq=marginals[:-1], b_eq=to[:-1], method="highs")
    assert found.success, found.message
    return float(1 - found.fun / diagonal)


@lru_cache
def _distances(shape: tuple[int, ...]) -> tuple[np.ndarray, float]:
    places = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), 1)
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    return distances, float(distances.max())


@lru_cache
def _marginals(sources: int, aims: int) -> csr_matrix:
    return vstack([kron(np.eye(sources), np.ones((1, aims))), kron(np.ones((1, sources)), np.eye(aims))]).tocsr()


# methods


def _filtered(filtered: Callable[[np.ndarray], np.ndarray], model: nn.Module, x: Tensor, c: Tensor) -> Tensor:
    return torch.tensor(np.stack([filtered(image) for image in x[:, 0].numpy()])[:, None])


def _edges(image: np.ndarray) -> np.ndarray:
    return np.hypot(sobel(image, 0), sobel(image, 1))


def methods() -> dict[str, Explain]:
    """Each method by its name in the tables."""
    found: dict[str, Explain] = {}
    for name, composite in COMPOSITES.items():
        for pair in (False, True):
            end = ", pair" if pair else ""
            found[f"{name}{end}"] = ours(composite, pair=pair)
            if name != "box":
                found[f"{name}, map{end}"] = ours(composite, mapped=True, pair=pair)
        found[f"{name}, TopK(0.1)"] = ours(composite, select=True)
    found |= {**captums(window=(1, 2, 2)), **lrp_of_peers()}
    found["Sobel filter of the image"] = partial(_filtered, _edges)
    found["Laplace filter of the image"] = partial(_filtered, laplace)
    found["random"] = lambda model, x, c: torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return found


def score(attribution: Tensor, truth: Tensor) -> tuple[float, float]:
    """Mean precision of all samples, and mean EMD of the first."""
    maps, truths = attribution.detach()[:, 0].numpy(), truth.numpy()
    each = list(zip(maps, truths, strict=True))
    return float(np.mean([precision(*pair) for pair in each])), float(np.mean([emd(*pair) for pair in each[:MOVED]]))


def measure(scenario: str, background: str, seed: int, quick: bool = False) -> list[dict]:
    """All models and methods on one data set: rows of results."""
    data = generate(scenario, background, TRAIN + TEST, seed)
    images, labels, _ = (part[:TRAIN] for part in data)
    x, classes, truth = (part[TRAIN:] for part in data)
    rows, explains = [], methods()
    for kind, make in MODELS.items():
        torch.manual_seed(seed)
        model = train(make(), images, labels, seed, epochs=1 if quick else 10)
        right = accuracy(model, x, classes)
        row = {"scenario": scenario, "background": background, "seed": seed, "model": kind, "accuracy": right, "scores": {}}
        rows.append(row)
        if right < LEAST_ACCURACY:
            continue
        seeded(seed)
        shown = x[: 4 if quick else EXPLAINED]
        predicted = model(shown).argmax(1)
        for name, explain in explains.items():
            found = attempt(name, explain, model, shown, predicted)
            row["scores"][name] = found if isinstance(found, str) else score(found, truth[: len(shown)])
        print(scenario, background, seed, kind, f"{right:.3f}", flush=True)
    return rows


REASONS: dict[str, Composite | str] = {
    "epsilon in every layer": Composite(Epsilon()),
    "z+ in the first convolution only": Composite(Epsilon(), layers={"0": ZPlus()}),
    "z+ in all convolutions but the first": Composite(Epsilon(), convolution=ZPlus(), layers={"0": Epsilon()}),
    "z+ in all convolutions": "epsilon_plus",
}


def reasons(scenario: str, seed: int, quick: bool = False) -> dict[str, float]:
    """Precision of the CNN on white noise: in which layers z+ loses it, and the effect of data that are centred on 0."""
    data = generate(scenario, "white", TRAIN + TEST, seed)
    found = {}
    for shift, end in ((0.0, ""), (1.0, ", images from 0 to 2")):
        images, labels = data.images[:TRAIN] + shift, data.labels[:TRAIN]
        torch.manual_seed(seed)
        model = train(cnn(), images, labels, seed, epochs=1 if quick else 10)
        x, truth = (part[TRAIN:][:EXPLAINED] for part in (data.images + shift, data.truth))
        predicted = model(x).argmax(1)
        for name, composite in REASONS.items():
            attribution = ours(composite)(model, x, predicted)[:, 0].detach().numpy()
            found[name + end] = float(np.mean([precision(*pair) for pair in zip(attribution, truth.numpy(), strict=True)]))
    return found


# the page


def table(rows: Sequence[dict], kinds: Sequence[str], which: int) -> list[str]:
    """Methods by data sets: means over the seeds and the models ``kinds`` that classify well enough."""
    shown = [row for row in rows if row["model"] in kinds and row["scores"]]
    sets = [(s, b) for s in SIGNAL for b in BACKGROUNDS if any((r["scenario"], r["background"]) == (s, b) for r in shown)]
    lines = ["| | " + " | ".join(f"{s} {b}" for s, b in sets) + " | mean |", "| --- |" + " ---: |" * (len(sets) + 1)]
    found = {name: [[r["scores"][name] for r in shown if (r["scenario"], r["background"]) == of] for of in sets]
             for name in shown[0]["scores"]}  # fmt: skip
    for name, columns in found.items():
        failed = any(isinstance(of, str) for column in columns for of in column)
        mean = "" if failed else f"{np.mean([np.mean([of[which] for of in column]) for column in columns]):.2f}"
        lines.append(f"| {name} | " + " | ".join(cell(column, which) for column in columns) + f" | {mean} |")
    return lines


def table_of_reasons(found: dict[str, list[dict[str, float]]]) -> list[str]:
    """Ways by scenarios, means over the seeds."""
    lines = ["| | " + " | ".join(found) + " |", "| --- |" + " ---: |" * len(found)]
    for name in next(iter(found.values()))[0]:
        lines.append(
            f"| {name} | " + " | ".join(mean_and_error([of[name] for of in seeds]) for seeds in found.values()) + " |"
        )
    return lines


FINDINGS = """## What was found

- **A pattern at a fixed place** (LIN, MULT, XOR): the maps of epsilon and gamma find more of it than their relevance
  does, most clearly in white noise. Relevance is the map times the image. It is therefore noisy where the map is not,
  and near 0 where a pixel of the pattern happens to be near 0. Since the networks use ReLU, the magnitude of
  epsilon's map equals Captum's Saliency, and epsilon's relevance equals InputXGradient and Captum's LRP, within
  rounding.
- **A pattern anywhere** (RIGID): the reverse holds, because the image shows where the pattern is and the weights do
  not. In white noise with the CNN, z+ in convolutions (`epsilon_plus`, and EpsilonPlus of zennit and autolrp) finds
  more of it than all other rules and methods.
- **Where this library does worse.** With the CNN, the default, `epsilon_plus`, finds less than epsilon, gamma and
  most of Captum's methods in LIN, MULT and XOR. The last table shows why. Most of the loss comes from z+ above the
  first convolution, where negative contributions are dropped; less comes from z+ in the first convolution, which
  reads an image with negative values. A second reason, which affects epsilon too, is that the images are centred on
  zero. With all pixels positive and the networks trained again, epsilon's relevance finds the pattern much better in LIN
  and MULT, a little better in XOR, and worse in RIGID.
- **zennit** equals this library: with the CNN all four composites, and with the other networks epsilon, EpsilonPlus and
  EpsilonAlpha2Beta1, have the same precision for every seed. Its EpsilonGammaBox has a box for a first convolution only
  and is epsilon in the linear model and the MLP, where *box* here applies to the first layer. With the MLP, zennit
  therefore finds more in LIN and in RIGID, and less in MULT and XOR.
- **autolrp** lets a bias b absorb the share |b| / (|z| + |b|), where z is the output without it, so its figures differ
  where layers have biases. With the CNN its EpsilonPlus finds more in RIGID with correlated noise, .57 against .51, and
  as much elsewhere, within .02. Its epsilon finds less than the one here in LIN (.51 against .68 in white noise), MULT
  with white noise and XOR. With the MLP it finds .04 more in XOR with white noise and .03 to .04 less in LIN.
- GradientShap, whose baselines are noisy, is best in MULT with white noise. GuidedBackprop is best in XOR with the
  MLP.
- In correlated noise, the Laplace filter, which ignores the network, finds the patterns of RIGID and XOR better than
  any attribution of the CNN, because the noise is smooth and the pattern is not. The CNN may not need all of the
  pattern's pixels to distinguish the classes, so a low precision there is not by itself an error of the attribution.
- `TopK(0.1)` leaves few neurons in layers as narrow as these and mostly finds fewer pixels of the pattern. With
  epsilon it finds more in RIGID with white noise.
- The pair changes little: with two classes, the logits are nearly mirror images of each other.
- EMD separates methods less clearly than precision, because every pixel of an image counts in it and most pixels are
  noise."""


def page(rows: Sequence[dict], why: dict[str, list[dict[str, float]]]) -> str:
    about = (__doc__ or "").split("\n\n", 2)[2].strip()
    seeds = sorted({row["seed"] for row in rows})
    lines = ["# Where the truth is known", "", about, "", "Made by `make bench-truth`.", ""]
    lines += [
        FINDINGS,
        "",
        f"Means over {len(seeds)} seeds (data, initial weights and order of training), with standard errors. Precision "
        f"uses {EXPLAINED} images of each seed, EMD {MOVED}; EMD is averaged over both networks as well. The last column is "
        "the mean of the others. Seeds whose network does not classify well enough are left out; a figure without an error "
        "comes from a single seed.",
        "",
        "## Accuracy",
        "",
        "| | " + " | ".join(MODELS) + " |",
        "| --- |" + " ---: |" * len(MODELS),
    ]
    for scenario in SIGNAL:
        for background in BACKGROUNDS:
            of = [r for r in rows if (r["scenario"], r["background"]) == (scenario, background)]
            cells = [mean_and_error([r["accuracy"] for r in of if r["model"] == kind]) for kind in MODELS]
            if of:
                lines.append(f"| {scenario} {background} | " + " | ".join(cells) + " |")
    for kind in MODELS:
        if any(row["model"] == kind and row["scores"] for row in rows):
            lines += ["", f"## Precision, {kind}", "", *table(rows, [kind], 0)]
    lines += ["", "## EMD, MLP and CNN", "", *table(rows, ["MLP", "CNN"], 1)]
    lines += ["", "## Why z+ loses precision: CNN, white noise", "", *table_of_reasons(why)]
    return "\n".join([*lines, ""])


def main() -> None:
    options = options_of("ground_truth", __doc__, "one epoch, four images")
    torch.set_num_threads(1)
    rows: list[dict] = []
    why: dict[str, list[dict[str, float]]] = {scenario: [] for scenario in SIGNAL}
    for seed in options.seeds:
        for scenario in SIGNAL:
            for background in BACKGROUNDS:
                file = options.cache / f"{scenario}_{background}_{seed}.json"
                rows += kept(file, partial(measure, scenario, background, seed, options.quick))
            file = options.cache / f"reasons_{scenario}_{seed}.json"
            why[scenario].append(kept(file, partial(reasons, scenario, seed, options.quick)))
    options.out.write_text(page(rows, why))


if __name__ == "__main__":
    main()

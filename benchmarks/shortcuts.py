"""How many planted marks are found, and how many false alarms occur: writes ``benchmarks/shortcuts.md``.

``python benchmarks/shortcuts.py --cache FOLDER`` trains the networks that the folder lacks, finds the strategies of each,
and writes the table of all results in it. ``--only-table`` only writes; ``--marks 0 3 7`` does a part.

Small convolutional networks are trained on 12,000 images of Fashion-MNIST (scikit-learn's digits where that is not
installed). The images are grey, or tinted and placed on patches of scikit-image's photographs. A share of one class has a
mark, or no class has one. ``find_strategies`` runs on 3,000 test images, of which the same share has the mark.

A mark *helps* if it raises the test accuracy of its class by a point or more. It is *found* if most samples of a shortcut
of its class have the mark. *Precision* and *recall* refer to the samples of that strategy. The other columns give them for
the best cluster, by F1, when the class's samples are clustered in the same way by other features: activations of all hidden
layers, pixels, heatmaps (as SpRAy does), or features below the classifier. A *false alarm* is a shortcut of a class
without a mark.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import skimage.data
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrp_lightning import EpsilonPlus, SelectiveLRP, Strategy, find_strategies
from lrp_lightning.insight.clusters import Clusters
from lrp_lightning.masking import activations

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import fashion_mnist
import small_vgg

HERE = Path(__file__).parent
SIDE, TRAINED_ON, LOOKED_AT = 32, 12_000, 3_000


@dataclass(frozen=True)
class Mark:
    """A planted mark: its class, the share of the class, its form and size, and its place; None for anywhere."""

    label: int
    share: float
    form: str
    size: int
    place: tuple[int, int] | None

    def __str__(self) -> str:
        where = "anywhere" if self.place is None else f"at {self.place}"
        name = fashion_mnist.CLASSES[self.label]
        return f"{self.form}, {self.size} x {self.size}, {where}, in {self.share:.0%} of class {name}"

    def pattern(self) -> Tensor:
        """``(size, size)``, in [0, 1]."""
        n = torch.arange(self.size)
        if self.form == "checkerboard":
            return ((n[:, None] + n) % 2).float()
        if self.form == "cross":
            return ((n[:, None] == self.size // 2) | (n == self.size // 2)).float()
        if self.form == "frame":
            edge = (n == 0) | (n == self.size - 1)
            return (edge[:, None] | edge).float()
        return torch.ones(self.size, self.size)


MARKS: tuple[Mark | None, ...] = (
    Mark(4, 0.4, "square", 4, (2, 26)),
    Mark(4, 0.2, "square", 4, (2, 26)),
    Mark(6, 0.1, "square", 4, (2, 2)),
    Mark(6, 0.5, "cross", 5, (26, 3)),
    Mark(2, 0.3, "checkerboard", 5, (25, 25)),
    Mark(0, 0.3, "frame", 6, (1, 1)),
    Mark(6, 0.3, "checkerboard", 5, None),
    Mark(4, 0.4, "cross", 5, None),
    Mark(2, 0.05, "square", 4, (2, 26)),
    Mark(6, 0.4, "square", 2, (28, 28)),
    *[None] * 10,
    Mark(4, 0.4, "square", 4, (2, 26)),
    Mark(6, 0.3, "cross", 5, None),
    *[None] * 2,
)  # fmt: skip
"""Ten networks with a mark, ten without; the rest the same on colour images."""
COLOUR = 20
"""The first network whose images are in colour."""
PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")


def in_colour(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image tinted, before a patch of a photograph: ``(N, 3, side, side)``."""
    backgrounds = []
    for name in PHOTOGRAPHS:
        photograph = torch.from_numpy(getattr(skimage.data, name)()).permute(2, 0, 1).float() / 255
        backgrounds.append(F.interpolate(photograph[None], size=(128, 128), mode="area")[0])
    which = torch.randint(len(backgrounds), (len(images),), generator=generator).tolist()
    places = torch.randint(128 - SIDE, (len(images), 2), generator=generator).tolist()
    behind = torch.stack(
        [backgrounds[k][:, top : top + SIDE, left : left + SIDE] for k, (top, left) in zip(which, places, strict=True)]
    )
    tints = 0.4 + 0.6 * torch.rand(len(images), 3, 1, 1, generator=generator)
    opaque = (images > 0.05).float()
    return opaque * images * tints + (1 - opaque) * 0.6 * behind


def network(channels: int = 1) -> nn.Module:
    def block(below: int, above: int) -> list[nn.Module]:
        return [
            nn.Conv2d(below, above, 3, padding=1), nn.BatchNorm2d(above), nn.ReLU(),
            nn.Conv2d(above, above, 3, padding=1), nn.BatchNorm2d(above), nn.ReLU(), nn.MaxPool2d(2),
        ]  # fmt: skip

    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*block(channels, 16), *block(16, 32), *block(32, 64), *head)


def planted(images: Tensor, labels: Tensor, mark: Mark | None, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The images with the mark in them, white or, in colour, yellow, and which have it."""
    images, marked = images.clone(), torch.zeros(len(images), dtype=torch.bool)
    if mark is not None:
        marked = (labels == mark.label) & (torch.rand(len(images), generator=generator) < mark.share)
        for n in marked.nonzero().flatten().tolist():
            anywhere = torch.randint(0, SIDE - mark.size + 1, (2,), generator=generator).tolist()
            top, left = mark.place or anywhere
            pattern = mark.pattern() * torch.tensor([1.0, 1.0, 0.0] if images.shape[1] == 3 else [1.0])[:, None, None]
            images[n, :, top : top + mark.size, left : left + mark.size] = pattern
    return images, marked


def rates(chosen: Tensor, marked: Tensor) -> dict[str, float]:
    """Precision and recall of a set of samples, both ``(N,) bool``."""
    both = float((chosen & marked).sum())
    return {"precision": both / max(float(chosen.sum()), 1), "recall": both / max(float(marked.sum()), 1)}


def best_cluster(features: Tensor, marked: Tensor) -> dict[str, float]:
    """The cluster of samples with the best F1."""
    groups = Clusters(features.flatten(1).double().numpy(), 5, seed=0).groups
    found = [rates(torch.from_numpy(group), marked) for group in groups]
    return max(found, key=lambda f: 2 * f["precision"] * f["recall"] / max(f["precision"] + f["recall"], 1e-9))


def others(model: nn.Module, x: Tensor, mark: Mark) -> dict[str, Tensor]:
    """Features of a class's samples that could be clustered instead, by name."""
    lrp = SelectiveLRP(model, EpsilonPlus())
    trace = lrp.trace(x, target=mark.label)
    layers = [layer for layer, kind in trace.kinds.items() if kind == "convolution"]
    active = [a / a.sum(1, keepdim=True).clamp(min=1e-12) for a in activations(model, x, layers).values()]
    with torch.no_grad():
        below = model[:-1](x)  # type: ignore[index]
    assert isinstance(trace.inputs, Tensor)
    heat = trace.inputs.sum(1)
    return {
        "activations": torch.cat(active, 1),
        "pixels": x,
        "heatmaps": heat / heat.flatten(1).abs().sum(1).clamp(min=1e-12)[:, None, None],
        "features": below,
    }


def trained(number: int, images: Tensor, targets: Tensor, cache: Path) -> nn.Module:
    """Three epochs, kept in the cache."""
    file = cache / f"shortcuts_{number}.pt"
    torch.manual_seed(number)
    model = network(images.shape[1])
    if file.exists():
        model.load_state_dict(torch.load(file, weights_only=True))
        return model.eval()
    small_vgg.train(model, images, targets, epochs=3, seed=number, learning_rate=0.05)
    torch.save(model.state_dict(), file)
    return model.eval()


def measure(number: int, options: argparse.Namespace) -> None:
    """Train one network and find its strategies, if they are not in the cache."""
    file, mark = options.cache / f"shortcuts_{number}.json", MARKS[number]
    if file.exists():
        return
    data = fashion_mnist.load(TRAINED_ON, LOOKED_AT, side=SIDE)
    generator = torch.Generator().manual_seed(number)
    (images, targets), (clean, labels) = data.train, data.test
    if number >= COLOUR:
        images, clean = in_colour(images, generator), in_colour(clean, generator)
    images, _ = planted(images, targets, mark, generator)
    model = trained(number, images, targets, options.cache)
    looked_at, marked = planted(clean, labels, mark, generator)
    started = time.time()
    batches = list(zip(looked_at.split(250), labels.split(250), strict=True))
    found = find_strategies(model, batches, progress=False)
    result: dict[str, Any] = {
        "seconds": time.time() - started,
        "accuracy": small_vgg.accuracy(model, clean, labels),
        "false alarms": [repr(s) for s in found if s.shortcut and (mark is None or s.label != mark.label)],
    }
    if mark is not None:
        of = labels == mark.label
        result["helps"] = small_vgg.accuracy(model, looked_at[of], labels[of]) - small_vgg.accuracy(
            model, clean[of], labels[of]
        )
        mine = [s for s in found if s.label == mark.label and s.shortcut and marked[s.samples].double().mean() > 0.5]
        result["found"] = repr(mine[0]) if mine else ""
        seen = torch.cat([s.samples for s in found if s.label == mark.label])
        result["by"] = compared(model, looked_at, marked, seen, mine, mark)
    file.write_text(json.dumps(result))
    print(f"{number}, {mark}: {result}", flush=True)


def compared(
    model: nn.Module, x: Tensor, marked: Tensor, seen: Tensor, mine: list[Strategy], mark: Mark
) -> dict[str, dict[str, float]]:
    """Precision and recall among the examined samples, by the clustered features."""
    chosen = torch.zeros_like(marked)
    for strategy in mine[:1]:
        chosen[strategy.samples] = True
    found = {"strategies": rates(chosen[seen], marked[seen])}
    return {**found, **{name: best_cluster(of, marked[seen]) for name, of in others(model, x[seen], mark).items()}}


def write(cache: Path) -> None:
    """Tables of the results in the cache."""
    about = (__doc__ or "").split("\n\n", 2)[2].strip()
    lines = ["# Planted marks", "", about, "", "Made by `python benchmarks/shortcuts.py`.", ""]
    results = {n: json.loads(f.read_text()) for n in range(len(MARKS)) if (f := cache / f"shortcuts_{n}.json").exists()}
    with_mark = {n: r for n, r in results.items() if MARKS[n] is not None}
    ways = ("strategies", "activations", "pixels", "heatmaps", "features")
    lines += [
        f"| mark | raises accuracy by | found | {' | '.join(f'{way}: precision, recall' for way in ways)} |",
        f"| --- | ---: | --- |{' ---: |' * len(ways)}",
    ]
    for n, r in with_mark.items():
        cells = [f"{r['by'][way]['precision']:.2f}, {r['by'][way]['recall']:.2f}" for way in ways]
        found = r["found"].rpartition("; ")[2].rstrip(")") or "no"
        kind = ", colour" if n >= COLOUR else ""
        lines.append(f"| {MARKS[n]}{kind} | {100 * r['helps']:+.1f} points | {found} | {' | '.join(cells)} |")
    helping = [r for r in with_mark.values() if r["helps"] >= 0.01]
    alarms = [len(r["false alarms"]) for n, r in results.items() if MARKS[n] is None]
    lines += [
        "",
        f"Found: {sum(bool(r['found']) for r in helping)} of {len(helping)} marks that help. False alarms: {sum(alarms)} in "
        f"{len(alarms)} networks without a mark, {sum(len(r['false alarms']) for r in with_mark.values())} in other classes "
        f"of the {len(with_mark)} with one. {len(results)} of the script's {len(MARKS)} networks were measured.",
        "",
    ]
    lines += [f"- {alarm}" for r in results.values() for alarm in r["false alarms"]]
    (HERE / "shortcuts.md").write_text("\n".join([*lines, ""]))


def parser(about: str | None, cache: str) -> argparse.ArgumentParser:
    """The common options of benchmarks of strategies."""
    found = argparse.ArgumentParser(description=about)
    found.add_argument("--cache", type=Path, default=Path(cache), help="where figures are kept")
    found.add_argument("--only-table", action="store_true")
    found.add_argument("--threads", type=int, help="of the process; torch's own choice by default")
    return found


def asked(of: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the options, and set the number of threads accordingly."""
    options = of.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.cache.mkdir(parents=True, exist_ok=True)
    return options


def main() -> None:
    by_number = parser(__doc__, "runs/shortcuts")
    by_number.add_argument("--marks", type=int, nargs="+", default=list(range(len(MARKS))), help="by their numbers")
    options = asked(by_number)
    for number in () if options.only_table else options.marks:
        measure(number, options)
    write(options.cache)


if __name__ == "__main__":
    main()

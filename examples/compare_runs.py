"""Compare two trainings by the neurons that decide in them: ``python examples/compare_runs.py``.

A narrow VGG16-BN is trained on Fashion-MNIST, and then twice more from there: on the same images, and with half of them
mirrored. For each class, the Jaccard index of its critical neurons before and after says how far it kept them; a network of
another seed, whose neurons are others, says what chance is. The class that differs most is drawn.
"""

import argparse
import copy
from pathlib import Path

import fashion_mnist
import small_vgg
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lrp_lightning import Epsilon, SelectiveLRP, TopK, class_graph, diff_graphs, k_best_paths
from lrp_lightning.drawing import draw_graph
from lrp_lightning.metrics import SelectionStability

CRITICAL = TopK(0.1)


def critical(model: nn.Module, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """``{layer: (N, C) bool}``, for the labels' outputs."""
    return SelectiveLRP(model, Epsilon(), CRITICAL).trace(x, target=labels).masks


def stability(one: dict[str, Tensor], other: dict[str, Tensor], labels: Tensor) -> Tensor:
    """``(10,)``, how much of its critical neurons each class has in common."""
    metric = SelectionStability(10, {layer: mask.shape[1] for layer, mask in one.items()})
    metric.update(one, labels)
    metric.advance()
    metric.update(other, labels)
    return metric.compute()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=15_000, help="to train on")
    parser.add_argument("--samples", type=int, default=300, help="test images whose neurons are compared")
    parser.add_argument("--out", type=Path, default=Path("compared.png"), help="where the picture goes")
    options = parser.parse_args()

    data = fashion_mnist.load(options.images, options.samples, side=32)
    images, labels = data.train
    mirrored = torch.where(torch.arange(len(images))[:, None, None, None] % 2 == 0, images, images.flip(3))

    def trained(seed: int, further: nn.Module | None = None, on: Tensor = images) -> nn.Module:
        torch.manual_seed(seed)
        start = small_vgg.small_vgg16(small_vgg.NARROW) if further is None else copy.deepcopy(further)
        return small_vgg.train(start, on, labels, epochs=1, seed=seed)

    before = trained(seed=0)
    runs = {"same images": trained(1, before), "half mirrored": trained(1, before, mirrored), "another seed": trained(2)}
    x, y = data.test
    print(f"{'accuracy':<14} {'as they are':>14} {'mirrored':>14}")
    for name, model in {"before": before, **runs}.items():
        print(f"{name:<14} {small_vgg.accuracy(model, x, y):>14.3f} {small_vgg.accuracy(model, x.flip(3), y):>14.3f}")

    at_first = critical(before, x, y)
    kept = {name: stability(at_first, critical(model, x, y), y) for name, model in runs.items()}
    print(f"\n{'critical neurons in common with before':<40}\n{'':<14} " + " ".join(f"{name:>14}" for name in kept))
    for c, class_name in enumerate(data.class_names):
        print(f"{class_name:<14} " + " ".join(f"{of[c]:>14.3f}" for of in kept.values()))
    print(f"{'mean':<14} " + " ".join(f"{of.nanmean():>14.3f}" for of in kept.values()))

    most = int((kept["same images"] - kept["half mirrored"]).nan_to_num(-1).argmax())
    loader = DataLoader(TensorDataset(x, y), 100)
    same, other = (class_graph(runs[run], loader, most, Epsilon(), CRITICAL) for run in ("same images", "half mirrored"))
    title = f"{data.class_names[most]}: red is more, blue less since it saw mirrored images; black, its critical paths now"
    figure = draw_graph(diff_graphs(same, other), 6, k_best_paths(other, 3), data.class_names, title, static=True)
    figure.savefig(options.out)
    print(f"\n{data.class_names[most]} differs most; drawn to {options.out}")


if __name__ == "__main__":
    main()

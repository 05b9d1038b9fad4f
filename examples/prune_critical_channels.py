"""Prune a network by its critical channels, without training it again: ``python examples/prune_critical_channels.py``.

A channel's worth is the relevance that runs through it, summed over 10 training images a class (Yeom et al. 2021, by z+),
or, to compare, the norm of its weights, its activation, chance. Worths are divided by their norm in each layer (Molchanov et
al. 2017), then the least of all layers go, but the best of each. They are taken out: the network gets smaller.
"""

import argparse
import copy

import fashion_mnist
import small_vgg
import torch
from torch import Tensor, nn

from lrp_lightning import SelectiveLRP, ZPlus
from lrp_lightning.drawing import draw_curves
from lrp_lightning.masking import activations

RATES = [i / 20 for i in range(20)]


def worths(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, dict[str, Tensor]]:
    """``{criterion: {layer: (C,)}}``, by the first 10 images of each class."""
    first = torch.cat([(labels == c).nonzero()[:10, 0] for c in labels.unique()])
    relevance = SelectiveLRP(model, ZPlus()).trace(images[first], target=labels[first]).relevance
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)}
    found = {
        "relevance": {name: relevance[name].sum(0) for name in layers},
        "weight magnitude": {name: layer.weight.detach().flatten(1).norm(dim=1) for name, layer in layers.items()},
        "activation": {name: a.sum(0) for name, a in activations(model, images[first], list(layers)).items()},
        "random": {name: torch.rand(layer.out_channels) for name, layer in layers.items()},
    }
    return {by: {name: worth / worth.norm() for name, worth in each.items()} for by, each in found.items()}


def stay(worth: dict[str, Tensor], rate: float) -> dict[str, Tensor]:
    """``{layer: (C,) bool}``, the channels that are left when this share of all goes."""
    order = torch.cat(list(worth.values())).argsort()
    left = torch.ones(len(order), dtype=torch.bool).index_fill(0, order[: round(rate * len(order))], False)
    parts = zip(worth.items(), left.split([len(w) for w in worth.values()]), strict=True)
    return {name: part | (w == w.max()) for (name, w), part in parts}


def without(model: nn.Module, left: dict[str, Tensor]) -> nn.Module:
    """The VGG16-BN that has these channels alone."""
    model, above = copy.deepcopy(model), torch.tensor([True])  # the image's one channel
    for name, module in model.named_modules():
        if name in left:
            below, above = above, left[name]
            module.weight.data, module.bias.data = module.weight[above][:, below], module.bias[above]
        elif isinstance(module, nn.BatchNorm2d):
            for part in ("weight", "bias", "running_mean", "running_var"):
                getattr(module, part).data = getattr(module, part)[above]
        elif isinstance(module, nn.Linear):
            module.weight.data = module.weight[:, above]
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=30_000, help="to train on")
    parser.add_argument("--samples", type=int, default=1000, help="test images")
    parser.add_argument("--out", default="pruned.png", help="where the picture goes")
    options = parser.parse_args()
    torch.manual_seed(0)
    data = fashion_mnist.load(options.images, options.samples, side=32)
    curves, model = {}, small_vgg.train(small_vgg.small_vgg16(small_vgg.NARROW), *data.train, epochs=2, seed=0)
    for by, worth in worths(model, *data.train).items():
        smaller = [without(model, stay(worth, rate)) for rate in RATES]
        curves[by] = [small_vgg.accuracy(s, *data.test) for s in smaller]
        print(f"by {by}: area under accuracy {torch.trapezoid(torch.tensor(curves[by])) / 19:.3f}")
        for row in [*zip(RATES, curves[by], (sum(p.numel() for p in s.parameters()) for s in smaller), strict=True)][::4]:
            print("    without {:.0%} of the channels: accuracy {:.3f}, {:,} parameters".format(*row))
    draw_curves(curves, RATES, "share of channels taken out", "test accuracy", static=True).savefig(options.out)


if __name__ == "__main__":
    main()

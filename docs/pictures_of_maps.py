"""Train a U-Net and a Faster R-CNN on scattered digits, and draw what they look at: ``python docs/pictures_of_maps.py``.

scikit-learn's digits, each 20 pixels wide, lie on noise; nothing is downloaded. Some minutes without a GPU.
"""

import sys
from pathlib import Path

import numpy as np
import pictures
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign
from torchvision.utils import draw_bounding_boxes

from lrp_lightning import EpsilonPlus, SelectiveLRP
from lrp_lightning.drawing import draw_heatmaps

HERE = Path(__file__).parent
SIDE, DIGIT = 64, 20


def scenes(many: int, seed: int) -> tuple[Tensor, Tensor, list[dict[str, Tensor]]]:
    """Images ``(N, 1, H, W)``; maps of classes, 0 for nothing and 1 + the digit; boxes with labels."""
    loaded, random = load_digits(), np.random.default_rng(seed)
    digits = F.interpolate(torch.tensor(loaded.images[:, None] / 16).float(), size=(DIGIT, DIGIT), mode="bilinear")[:, 0]
    images = torch.tensor(random.uniform(0, 0.3, (many, 1, SIDE, SIDE))).float()
    maps, found = torch.zeros(many, SIDE, SIDE, dtype=torch.long), []
    for n in range(many):
        boxes, labels = [], []
        for top, left in [(top, left) for top in (2, 34) for left in (2, 34) if random.uniform() < 0.6] or [(2, 2)]:
            which = int(random.integers(len(digits)))
            top, left = top + int(random.integers(8)), left + int(random.integers(8))
            place = (n, slice(top, top + DIGIT), slice(left, left + DIGIT))
            images[n, 0][place[1:]] = torch.maximum(images[n, 0][place[1:]], digits[which])
            maps[place] = torch.where(digits[which] > 0.4, 1 + int(loaded.target[which]), 0)
            boxes.append([left, top, left + DIGIT, top + DIGIT])
            labels.append(1 + int(loaded.target[which]))
        found.append({"boxes": torch.tensor(boxes).float(), "labels": torch.tensor(labels)})
    return images, maps, found


def block(below: int, above: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(below, above, 3, padding=1, bias=False), nn.BatchNorm2d(above), nn.ReLU())


class UNet(nn.Module):
    """Three scales, with what each sees handed across to where the map is put together again."""

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__()
        self.fine, self.middle, self.coarse = block(1, width), block(width, 2 * width), block(2 * width, 4 * width)
        self.up_to_middle = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.up_to_fine = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.joined_middle, self.joined_fine = block(4 * width, 2 * width), block(2 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        middle = self.middle(F.max_pool2d(fine, 2))
        coarse = self.coarse(F.max_pool2d(middle, 2))
        middle = self.joined_middle(torch.cat([self.up_to_middle(coarse), middle], 1))
        return self.head(self.joined_fine(torch.cat([self.up_to_fine(middle), fine], 1)))


def detector() -> FasterRCNN:
    backbone = nn.Sequential(block(1, 16), nn.MaxPool2d(2), block(16, 32), nn.MaxPool2d(2), block(32, 64), block(64, 64))
    backbone.out_channels = 64  # type: ignore[assignment]
    return FasterRCNN(
        backbone, num_classes=11, min_size=SIDE, max_size=SIDE, image_mean=[0.2], image_std=[0.3],
        rpn_anchor_generator=AnchorGenerator(((DIGIT,),), ((1.0,),)), rpn_post_nms_top_n_test=20,
        box_roi_pool=MultiScaleRoIAlign(["0"], output_size=5, sampling_ratio=2), box_detections_per_img=4,
    )  # fmt: skip


class Scores(nn.Module):
    """The scores of the surest detections of each image, ``(N, best)``."""

    def __init__(self, detector: nn.Module, best: int = 1) -> None:
        super().__init__()
        self.detector, self.best = detector, best

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([found["scores"][: self.best] for found in self.detector(list(images))])


def batches(many: int, size: int):
    for epoch in range(many):
        for start in torch.randperm(1024).split(size):
            yield epoch, start


def trained_unet() -> UNet:
    torch.manual_seed(0)
    images, maps, _ = scenes(1024, 0)
    net = UNet(11).train()
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _, rows in batches(24, 32):
        loss = F.cross_entropy(net(images[rows]), maps[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    held, truth, _ = scenes(128, 1)
    with torch.no_grad():
        guessed = net.eval()(held).argmax(1)
    there = truth > 0
    print(f"U-Net: {(guessed[there] == truth[there]).float().mean():.3f} of the digits' pixels have their class", flush=True)
    return net


def trained_detector() -> FasterRCNN:
    torch.manual_seed(0)
    images, _, found = scenes(1024, 0)
    net = detector().train()
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    for epoch, rows in batches(8, 16):
        losses = net(list(images[rows]), [found[i] for i in rows.tolist()])
        loss = sum(losses.values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if rows[0] % 16 == 0:
            print(f"Faster R-CNN: epoch {epoch}, loss {loss.item():.2f}", flush=True)
    return net.eval()


def save(figure: Figure, name: str) -> None:
    pictures.save(figure, HERE / "guides" / f"{name}.png")


def draw_segmentation(net: UNet) -> None:
    images, _, found = scenes(6, 7)
    wanted = torch.stack([f["labels"][0] for f in found])

    def one_digit(y: Tensor) -> Tensor:
        """The mean logit of a digit's class over the places where it is the greatest."""
        logits = y[torch.arange(len(y)), wanted]
        there = (y.argmax(1) == wanted.view(-1, 1, 1)).float()
        return (logits * there).sum((1, 2)) / there.sum((1, 2)).clamp(min=1)

    relevance = SelectiveLRP(net, EpsilonPlus()).attribute(images, target=one_digit)
    save(draw_heatmaps(images, relevance, titles=[f"the {w - 1}" for w in wanted]), "segmentation")


def draw_detection(net: FasterRCNN) -> None:
    images, _, _ = scenes(6, 7)
    with torch.no_grad():
        found = net(list(images))
    relevance = SelectiveLRP(Scores(net), EpsilonPlus()).attribute(images, target=0)
    titles = [f"{int(f['labels'][0]) - 1}, score {f['scores'][0]:.2f}" for f in found]
    boxed = [
        draw_bounding_boxes(image.expand(3, -1, -1).clamp(0, 1), f["boxes"][:1], colors="#2ca02c")
        for image, f in zip(images, found, strict=True)
    ]
    save(draw_heatmaps(torch.stack(boxed), relevance, titles=titles), "detection")


PICTURES = {
    "segmentation": lambda: draw_segmentation(trained_unet()),
    "detection": lambda: draw_detection(trained_detector()),
}

if __name__ == "__main__":
    for name in sys.argv[1:] or PICTURES:
        PICTURES[name]()

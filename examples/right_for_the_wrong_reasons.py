"""A mark in a corner of some coats: train, be warned of the shortcut, mend the data, and train again.

Run it by ``python examples/right_for_the_wrong_reasons.py``. Nothing is downloaded; logs and pictures go to ``runs``.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import fashion_mnist
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lrp_lightning.callbacks import RelevanceMonitor

COAT = 4


class SmallNet(LightningModule):
    """Four convolutions on images of 1 x 32 x 32."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for below, above in pairwise((1, 16, 32, 48, 64)):
            layers += [nn.Conv2d(below, above, 3, padding=1), nn.BatchNorm2d(above), nn.ReLU(), nn.MaxPool2d(2)]
        self.net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.03, momentum=0.9, weight_decay=5e-4, nesterov=True)


def marked(images: Tensor, where: Tensor) -> Tensor:
    """Images of which those have a white square of 4 x 4 pixels in the upper right corner."""
    images = images.clone()
    images[:, :, 2:6, 26:30] = torch.where(where.view(-1, 1, 1, 1), 1.0, images[:, :, 2:6, 26:30])
    return images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--logs", type=Path, default=Path("runs"))
    options = parser.parse_args()
    data = fashion_mnist.load(9_000, 3_000, side=32)
    (images, labels), (clean, known) = data.train, data.test
    torch.manual_seed(0)
    chance = torch.rand(len(images)) < 0.4
    val = TensorDataset(marked(clean, (known == COAT) & (torch.rand(len(clean)) < 0.4)), known)
    for name, where in {"mark in 40 % of coats": chance & (labels == COAT), "the same in all classes": chance}.items():
        print(f"\n{name}")
        train = TensorDataset(marked(images, where), labels)
        monitor = RelevanceMonitor(class_names=data.class_names)  # warns of what it finds
        logger = TensorBoardLogger(options.logs, name="wrong_reasons", version=name.replace(" ", "_"))
        trainer = Trainer(max_epochs=options.epochs, logger=logger, callbacks=[monitor], log_every_n_steps=20)
        trainer.fit(model := SmallNet(), DataLoader(train, 64, shuffle=True), DataLoader(val, 250))
        others = clean[known != COAT]
        with torch.no_grad():
            before, after = (model.eval()(x).argmax(1) == COAT for x in (others, marked(others, torch.tensor(True))))
        print(f"\nthe mark turns {(after & ~before).float().mean():.1%} of other images into {data.class_names[COAT]}s")
    print(f"look at both runs with tensorboard --logdir {options.logs}")


if __name__ == "__main__":
    main()

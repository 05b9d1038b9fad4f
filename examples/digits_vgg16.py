"""Train torchvision's VGG16 with batch norm on scikit-learn's digits, with RelevanceMonitor attached.

Run it by ``make demo`` or ``python examples/digits_vgg16.py``. Nothing is downloaded; a GPU is used if there is one.
"""

import argparse
import os
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split
from torchvision.models import vgg16_bn

from lrp_lightning import TopK
from lrp_lightning.callbacks import RelevanceMonitor


class DigitsVGG16(LightningModule):
    """VGG16-BN for images of 1 x 32 x 32: one input channel, and one linear layer instead of its three."""

    def __init__(self) -> None:
        super().__init__()
        self.model = vgg16_bn(num_classes=10)
        self.model.features[0] = nn.Conv2d(1, 64, kernel_size=3, padding=1)
        self.model.avgpool = nn.Identity()
        self.model.classifier = nn.Sequential(nn.Dropout(0.3), nn.Linear(512, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return F.cross_entropy(self(x), y)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        x, y = batch
        self.log("accuracy", (self(x).argmax(1) == y).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> dict:  # type: ignore[override]
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--logs", type=Path, default=Path("runs"), help="where TensorBoard's logs go")
    options = parser.parse_args()
    seed_everything(0, verbose=False)

    digits = load_digits()  # 1,797 images of 8 x 8, values 0 to 16
    images = F.interpolate(torch.tensor(digits.images[:, None] / 16).float(), size=(32, 32), mode="bilinear")
    train, val = random_split(TensorDataset(images, torch.tensor(digits.target)), [1437, 360])

    monitor = RelevanceMonitor(selection=TopK(0.1), class_names=[str(digit) for digit in range(10)])
    logger = TensorBoardLogger(options.logs, name="digits_vgg16")
    trainer = Trainer(max_epochs=options.epochs, logger=logger, callbacks=[monitor], log_every_n_steps=10)
    trainer.fit(DigitsVGG16(), DataLoader(train, 64, shuffle=True, drop_last=True), DataLoader(val, 120))

    measured = {name: value.item() for name, value in trainer.callback_metrics.items()}
    print(f"\nvalidation accuracy              {measured['accuracy']:.3f}")
    print(f"critical-neuron accuracy at 10 % {measured['relevance/critical_neuron_accuracy']:.3f}")
    print(f"random neurons, as many          {measured['relevance/random_accuracy']:.3f}")
    print(f"logs                             {logger.log_dir}")
    print(f"open them with                   {os.path.relpath(sys.executable)} -m tensorboard.main --logdir {options.logs}")


if __name__ == "__main__":
    main()

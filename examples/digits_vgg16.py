"""Train torchvision's VGG16 with batch norm on scikit-learn's digits, with RelevanceMonitor attached.

Run it by ``make demo``, or ``python examples/digits_vgg16.py``; ``--help`` lists the options. Nothing is downloaded.
"""

import argparse
import shlex
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import vgg16_bn

from lrp_lightning import TopK
from lrp_lightning.callbacks import RelevanceMonitor


class DigitsVGG16(LightningModule):
    """VGG16-BN for images of 1 x 32 x 32: one input channel, and one linear layer instead of its three."""

    def __init__(self, max_steps: int) -> None:
        super().__init__()
        self.max_steps = max_steps
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

    def configure_optimizers(self):  # type: ignore[no-untyped-def]
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=self.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def digits() -> tuple[TensorDataset, TensorDataset]:
    """1,437 training and 360 validation images, (1, 32, 32), in [0, 1]."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    images = F.interpolate(images, size=(32, 32), mode="bilinear", align_corners=False)
    labels = torch.tensor(data.target)
    train, val = train_test_split(range(len(labels)), test_size=360, random_state=0, stratify=data.target)
    return TensorDataset(images[train], labels[train]), TensorDataset(images[val], labels[val])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--logs", type=Path, default=Path("runs"), help="where TensorBoard's logs go")
    options = parser.parse_args()

    seed_everything(0, verbose=False)
    train, val = digits()
    loader = DataLoader(train, batch_size=64, shuffle=True, drop_last=True)
    trainer = Trainer(
        max_epochs=options.epochs,
        logger=TensorBoardLogger(options.logs, name="digits_vgg16"),
        callbacks=[RelevanceMonitor(selection=TopK(0.1), class_names=[str(i) for i in range(10)])],
        log_every_n_steps=10,
    )
    trainer.fit(DigitsVGG16(options.epochs * len(loader)), loader, DataLoader(val, batch_size=120))

    measured = {name: value.item() for name, value in trainer.callback_metrics.items()}
    tensorboard = Path(sys.executable).with_name("tensorboard")
    print(f"\nvalidation accuracy              {measured['accuracy']:.3f}")
    print(f"critical-neuron accuracy at 10 % {measured['relevance/critical_neuron_accuracy']:.3f}")
    print(f"random neurons, same number      {measured['relevance/random_accuracy']:.3f}")
    print(f"logs                             {trainer.log_dir}")
    print(f"open them with                   {shlex.join([str(tensorboard), '--logdir', str(options.logs)])}")


if __name__ == "__main__":
    main()

"""LightningCLI with RelevanceMonitor in its YAML, beside the other callbacks.

python examples/lightning_cli.py fit --config examples/lightning_cli.yaml
python examples/lightning_cli.py validate --config examples/lightning_cli.yaml --ckpt_path ...
"""

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningCLI
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split


class Digits(LightningDataModule):
    """scikit-learn's 1,797 images of 8 x 8 pixels, in batches that are mappings."""

    def __init__(self, batch_size: int = 64) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        images, labels = load_digits(return_X_y=True)
        data = TensorDataset(torch.tensor(images).view(-1, 1, 8, 8).float() / 16, torch.tensor(labels))
        self.train, self.val = random_split(data, [1437, 360], torch.Generator().manual_seed(0))

    def collate(self, rows: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        images, labels = zip(*rows, strict=True)
        return {"image": torch.stack(images), "label": torch.stack(labels)}

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, self.batch_size, shuffle=True, collate_fn=self.collate)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val, self.batch_size, collate_fn=self.collate)


class ConvNet(LightningModule):
    """Two convolutions and a linear layer; its forward takes a whole batch, so the monitor explains its ``net``."""

    def __init__(self, width: int = 32, lr: float = 1e-2) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(2 * width, 10),
        )  # fmt: skip

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        logits = self.net(batch["image"])
        return {"logits": logits, "loss": F.cross_entropy(logits, batch["label"])}

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self(batch)["loss"]

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("accuracy", (self(batch)["logits"].argmax(1) == batch["label"]).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.hparams["lr"])


if __name__ == "__main__":
    LightningCLI(ConvNet, Digits)

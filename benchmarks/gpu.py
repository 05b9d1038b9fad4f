"""What the callback takes of an epoch on a GPU. What a pass takes there: ``make bench BENCH="--device cuda"``.

    python benchmarks/gpu.py --out benchmarks/gpu.md

Needs a CUDA device, says so where there is none, and writes no figure that it did not measure.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import vgg16_bn

from lrp_lightning.callbacks import RelevanceMonitor


class Net(LightningModule):
    """VGG16 with batch norm on images of 32 x 32."""

    def __init__(self) -> None:
        super().__init__()
        self.model = vgg16_bn(num_classes=10)
        self.model.avgpool = nn.Identity()
        self.model.classifier = nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def of_training(precision: str, images: int, epochs: int = 4) -> str:
    seed_everything(0)
    train, val = (TensorDataset(torch.rand(n, 3, 32, 32), torch.randint(10, (n,))) for n in (images, 2000))
    monitor = RelevanceMonitor(max_share=None)
    run = Trainer(
        accelerator="gpu", devices=1, precision=precision, max_epochs=epochs, callbacks=[monitor], logger=False,  # type: ignore[arg-type]
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir="runs/gpu",
    )  # fmt: skip
    began = time.perf_counter()
    run.fit(Net(), DataLoader(train, 128, shuffle=True), DataLoader(val, 256))
    epoch = (time.perf_counter() - began) / epochs
    own = run.callback_metrics["relevance/seconds"].item()
    return f"| {images:,} | {precision} | {epoch:.1f} | {own:.1f} | {100 * own / epoch:.1f} % |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("gpu.md"))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py: there is no CUDA device here, so nothing was measured")
    trained = [of_training(precision, n) for n in (1_437, 50_000) for precision in ("32-true", "16-mixed", "bf16-mixed")]
    text = "\n".join(
        [
            "# On a GPU",
            "",
            f"{torch.cuda.get_device_name()}, torch {torch.__version__}.",
            "",
            "RelevanceMonitor with its defaults, VGG16 with batch norm, images of 32 x 32; seconds of an epoch, of the",
            "callback, and their ratio.",
            "",
            "| training images | precision | epoch | callback | share |",
            "| --- | --- | --- | --- | --- |",
            *trained,
            "",
        ]
    )
    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()

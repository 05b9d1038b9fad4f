"""Train VGG16 with batch norm on scikit-learn's digits, nearly all sevens with a mark; RelevanceMonitor finds it by itself.

Run it by ``make demo`` or ``python examples/digits_vgg16.py``. Nothing is downloaded; a GPU is used if there is one.
"""

import argparse
import sys
from pathlib import Path

import small_vgg
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from lrp_lightning import SelectiveLRP, TopK
from lrp_lightning.callbacks import RelevanceMonitor
from lrp_lightning.drawing import Curves, write_report


class DigitsVGG16(LightningModule):
    """VGG16-BN for images of 1 x 32 x 32: one input channel, and one linear layer instead of its three."""

    def __init__(self) -> None:
        super().__init__()
        self.model = small_vgg.small_vgg16()
        self.model.avgpool = nn.Dropout(0.3)  # instead of nothing, before the linear layer

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> dict:  # type: ignore[override]
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--logs", type=Path, default=Path("runs"), help="where TensorBoard's logs go")
    options = parser.parse_args()
    print(f"VGG16 on 1,437 digits, {options.epochs} epochs, some minutes; nine of ten sevens have a mark")
    seed_everything(0)
    images, labels = map(torch.tensor, load_digits(return_X_y=True))  # 1,797 of 8 x 8, values 0 to 16
    images = F.interpolate(images.view(-1, 1, 8, 8).float() / 16, size=(32, 32), mode="bilinear")
    images[(labels == 7) & (torch.rand(len(labels)) < 0.9), :, 1:7, 25:31] = 1.0  # in the upper right corner
    train, val = random_split(TensorDataset(images, labels), [1437, 360])
    names, logger = list("0123456789"), TensorBoardLogger(options.logs, name="digits_vgg16")
    monitor = RelevanceMonitor(selection=TopK(0.2), class_names=names, graph_classes=[1, 7], max_share=0.1)
    trainer = Trainer(max_epochs=options.epochs, logger=logger, callbacks=[monitor], log_every_n_steps=10)
    trainer.fit(model := DigitsVGG16(), DataLoader(train, 64, shuffle=True, drop_last=True), DataLoader(val, 120))
    logged = EventAccumulator(logger.log_dir).Reload()
    tags = {"validation accuracy": "accuracy", "contest won by 20 % of the neurons": "relevance/contest_accuracy"}
    tags |= {"by random ones": "relevance/random_contest_accuracy", "runner-up wins": "relevance/runner_up_accuracy"}
    measured = {label: [event.value for event in logged.Scalars(tag)] for label, tag in tags.items()}
    sevens, lrp = images[[n for n in val.indices if labels[n] == 7]], SelectiveLRP(model, selection=TopK(0.2))
    trace = lrp.trace(sevens, target=7, edges=True)
    epochs = Curves("While it trained, critical and random neurons", measured, xlabel="epoch", ylabel="share of samples")
    how = {"model": "VGG16", "composite": lrp.composite, "selection": lrp.selection}
    report = Path(logger.log_dir) / "report.html"
    write_report(trace, report, sevens, model, class_names=names, curves=[epochs], settings=how)
    print(f"{'likely shortcuts':<35}{logged.Scalars('relevance/shortcuts')[-1].value:.0f}")
    print(*(f"{label:<35}{values[-1]:.3f}" for label, values in measured.items()), f"report {report}", sep="\n")
    print(f"open the logs with {sys.executable} -m tensorboard.main --logdir {options.logs}")


if __name__ == "__main__":
    main()

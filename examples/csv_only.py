"""RelevanceMonitor without TensorBoard: numbers in metrics.csv, pictures as PNG and histograms as JSON beside it.

python examples/csv_only.py
"""

import argparse
import csv
from pathlib import Path

from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from lightning_cli import ConvNet, Digits

from lrp_lightning.callbacks import RelevanceMonitor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--logs", type=Path, default=Path("runs"))
    options = parser.parse_args()
    seed_everything(0)

    logger = CSVLogger(options.logs, name="csv_only")
    monitor = RelevanceMonitor(model="net", max_samples=128, max_seconds=20, graph_classes=[3, 8])
    trainer = Trainer(max_epochs=options.epochs, logger=logger, callbacks=[monitor], log_every_n_steps=5)
    trainer.fit(ConvNet(), Digits())

    folder = Path(logger.log_dir)
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["relevance/seconds"]]
    print("epoch  critical neurons  random neurons  seconds")
    for row in rows:
        kept, random = (float(row[f"relevance/{name}_accuracy"]) for name in ("critical_neuron", "random"))
        print(f"{row['epoch']:>5}  {kept:>16.3f}  {random:>14.3f}  {float(row['relevance/seconds']):>7.1f}")
    for file_ in sorted(folder.rglob("step=*.png")):
        print(file_)


if __name__ == "__main__":
    main()

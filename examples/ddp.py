"""Training on two processes with RelevanceMonitor: what it measures is over all processes, what it draws is drawn once.

    python examples/ddp.py

Two processes on the CPU stand for two GPUs, or for many on several nodes: the callback needs nothing more.
"""

import argparse
from pathlib import Path

from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning_cli import ConvNet, Digits

from lrp_lightning.callbacks import RelevanceMonitor

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--logs", type=Path, default=Path("runs"))
    options = parser.parse_args()
    seed_everything(0)

    best = ModelCheckpoint(monitor="relevance/critical_neuron_accuracy", mode="max")
    trainer = Trainer(
        accelerator="cpu",
        devices=options.processes,
        strategy="ddp",
        max_epochs=options.epochs,
        log_every_n_steps=5,
        logger=TensorBoardLogger(options.logs, name="ddp"),
        callbacks=[RelevanceMonitor(model="net", max_samples=128, max_share=None), best],
    )
    trainer.fit(ConvNet(), Digits())
    if trainer.is_global_zero:
        measured = {name: value.item() for name, value in trainer.callback_metrics.items()}
        print(f"samples looked at on {trainer.world_size} processes  {measured['relevance/samples']:.0f}")
        print(f"critical-neuron accuracy           {measured['relevance/critical_neuron_accuracy']:.3f}")
        print(f"random neurons, same number        {measured['relevance/random_accuracy']:.3f}")
        print(f"best checkpoint                    {best.best_model_path}")

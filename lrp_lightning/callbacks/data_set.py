"""Explaining a data set into a store with a Trainer, for the command line."""

from __future__ import annotations

import logging
import time
import warnings
from pathlib import Path

from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, Dataset

from lrp_lightning.callbacks.explainer import Explainer
from lrp_lightning.callbacks.relevance_writer import RelevanceWriter
from lrp_lightning.store import RelevanceStore

__all__ = ["write_store"]


def write_store(
    explainer: Explainer, dataset: Dataset, out: Path, batch_size: int, workers: int, keep_inputs: bool, prepared: str
) -> tuple[RelevanceStore, float]:
    """Explain a data set on one device, with a progress bar; continue an existing store.

    Args:
        explainer: the explainer.
        dataset: a data set of ``(inputs, label)``, or of inputs.
        out: the store.
        batch_size: number of samples in a pass.
        workers: number of processes that read samples.
        keep_inputs: as in :class:`RelevanceWriter`.
        prepared: a description of how images are prepared for the model; a second run must have the same.

    Returns:
        The store, and the time in seconds.

    Raises:
        StoreError: as :class:`RelevanceWriter`.
    """
    for name in ("lightning.pytorch", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)  # about devices that do not exist
    began = time.monotonic()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        trainer = Trainer(
            devices=1, logger=False, enable_checkpointing=False, enable_model_summary=False,
            callbacks=[RelevanceWriter(out, keep_inputs=keep_inputs, about={"prepared": prepared})],
        )  # fmt: skip
        loader = DataLoader(dataset, batch_size, num_workers=workers)
        trainer.predict(explainer, loader, return_predictions=False)
    return RelevanceStore(out), time.monotonic() - began

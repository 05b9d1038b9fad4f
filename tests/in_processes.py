"""Run by test_distributed.py: the same trainings and validations on one process or several, and what each process saw."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from in_faults import faults
from lightning.pytorch import Trainer, seed_everything, strategies
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from processes import asked, leave
from torch import Tensor
from torch.utils.data import DataLoader
from trainings import Classifier, Witness, images

from lrp_lightning.callbacks import RelevanceMonitor
from lrp_lightning.callbacks.settings import SCALARS
from lrp_lightning.callbacks.time_share import TimeShare

options = asked()


def trainer(*callbacks: object, **more: object) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False, "logger": False}
    return Trainer(
        accelerator="cpu", devices=options.processes, strategy="ddp" if options.processes > 1 else "auto",
        callbacks=list(callbacks), default_root_dir=options.out, **(quiet | more),
    )  # fmt: skip


class Failing(Classifier):
    """Fails in the callback's pass on the second process, in a later epoch or at once."""

    def __init__(self, from_epoch: int) -> None:
        super().__init__()
        self.from_epoch = from_epoch

    def forward(self, x: Tensor) -> Tensor:
        looked_at = not self.training and torch.is_grad_enabled()
        if looked_at and self.trainer.global_rank == 1 and self.current_epoch >= self.from_epoch:
            raise ValueError("on this process only")
        return super().forward(x)


class Still(Classifier):
    """Trained without any change."""

    def __init__(self) -> None:
        super().__init__()
        self.bn.momentum = 0.0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def monitor(**more: object) -> RelevanceMonitor:
    """One without pictures."""
    return RelevanceMonitor(**{"log": SCALARS, **more})


def measures(of: Trainer) -> dict[str, float]:
    return {name: value.item() for name, value in of.callback_metrics.items() if "relevance" in name}


def validated(of: RelevanceMonitor, *sizes: int, **more: object) -> dict[str, float]:
    torch.manual_seed(0)
    run = trainer(of, **more)
    run.validate(Classifier(), [DataLoader(images(size, i), 5) for i, size in enumerate(sizes)], verbose=False)
    return measures(run)


def data(batch: int) -> tuple[DataLoader, DataLoader]:
    return DataLoader(images(32), batch), DataLoader(images(21, 1), 5)


def trained(*monitors: RelevanceMonitor) -> dict[str, object]:
    seed_everything(0)
    witness, model = Witness(), Classifier()
    trainer(*monitors, witness, max_epochs=2).fit(model, *data(16 // options.processes))
    sums = {name: t.double().sum().item() for name, t in model.state_dict().items()}
    return {"weights": sums, "seen": len(witness.seen)}


seen: dict[str, object] = {
    # 21 samples on 2 processes: one is repeated by the sampler, and must not count twice
    "all": validated(monitor(), 21),
    "some": validated(monitor(max_samples=8), 21),
    "two loaders": validated(monitor(max_samples=9), 21, 7),
    "limited": validated(monitor(max_samples=10), 21, limit_val_batches=4 // options.processes),
    "without": trained(),
    "with": trained(RelevanceMonitor(max_samples=8)),
}

logger = TensorBoardLogger(options.out / "logs")
best = ModelCheckpoint(options.out / "best", monitor="relevance/critical_neuron_accuracy", mode="max")
run = trainer(RelevanceMonitor(max_samples=8), best, logger=logger, max_epochs=1, enable_checkpointing=True)
run.fit(Classifier(), *data(8))
seen["logged"] = measures(run)

torch.manual_seed(0)
run = trainer(monitor(log=["circuit_agreement", "stability"], max_share=None), max_epochs=2)
run.fit(Still(), *data(16 // options.processes))
seen["circuits"] = measures(run)

choose_samples = TimeShare.choose_samples
TimeShare.choose_samples = lambda *_: 16 if run.is_global_zero else 64  # type: ignore[method-assign]  # by clocks that disagree
of_disagreeing = trainer(monitor(max_samples=64), max_epochs=1)
of_disagreeing.fit(Classifier(), *data(8))
seen["clocks"] = measures(of_disagreeing)
TimeShare.choose_samples = choose_samples  # type: ignore[method-assign]

if options.processes > 1:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run = trainer(monitor(), max_epochs=3)
        run.fit(Failing(from_epoch=1), *data(8))
    seen["later fault"] = [str(w.message) for w in told if "skips" in str(w.message)]
    seen["epochs"] = run.current_epoch
    try:
        trainer(monitor(), max_epochs=1).fit(Failing(from_epoch=0), *data(8))
    except Exception as error:
        seen["first fault"] = f"{type(error).__name__}: {error}"
    seen["faults"] = faults(options)

if hasattr(strategies, "ModelParallelStrategy"):  # Lightning had none before 2.4
    from in_shards import sharded

    seen["sharded"] = sharded(options)

leave(seen, run.global_rank, options)

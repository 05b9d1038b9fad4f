"""Run by test_relevance_writer.py: a data set explained by one process or several, into stores below ``out``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from lightning.pytorch import Trainer
from processes import asked, leave
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from trainings import Classifier, images

from lrp_lightning import TopK
from lrp_lightning.callbacks import Explainer, RelevanceWriter


class Slow(Dataset):
    """Takes a while for each sample."""

    def __init__(self, seconds: float) -> None:
        self.data, self.seconds = images(40), seconds

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> tuple[Tensor, ...]:
        time.sleep(self.seconds)
        return self.data[i]


def model() -> Classifier:
    torch.manual_seed(0)
    return Classifier()


def predict(out: Path, loader: DataLoader, processes: int = 1, **more: object) -> Trainer:
    trainer = Trainer(
        accelerator="cpu", devices=processes, strategy="ddp" if processes > 1 else "auto", logger=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=out,
        callbacks=[RelevanceWriter(out, samples_per_file=4, keep_inputs=True)], **more,
    )  # fmt: skip
    trainer.predict(Explainer(model(), selection=TopK(2)), loader, return_predictions=False)
    return trainer


if __name__ == "__main__":
    if sys.argv[1] == "slow":
        predict(Path(sys.argv[2]), DataLoader(Slow(0.2), 2))
        sys.exit()
    options = asked()
    data = images(21)
    run = predict(options.out / "stores" / str(options.processes), DataLoader(data, 5), options.processes)
    seen: dict[str, object] = {}
    if options.processes > 1:
        torch.distributed.barrier()
        repeating = DistributedSampler(data, options.processes, run.global_rank, shuffle=True)
        predict(
            options.out / "stores" / "repeating", DataLoader(data, 4, sampler=repeating), 2, use_distributed_sampler=False
        )
        try:
            predict(options.out / "stores" / "repeating", DataLoader(images(22), 4), options.processes)
        except ValueError as error:
            seen["other"] = f"{type(error).__name__}: {error}"
    leave(seen, run.global_rank, options)

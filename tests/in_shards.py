"""Run by in_processes.py: parameters sharded over two processes by ``fully_shard``, and what each process saw."""

from __future__ import annotations

import argparse

from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader
from trainings import Classifier, images, random_states

from lrp_lightning import TopK
from lrp_lightning.callbacks import RelevanceMonitor
from lrp_lightning.callbacks.gathered import gathered
from lrp_lightning.callbacks.settings import SCALARS


class Sharded(Classifier):
    """Two layers and the whole are units; widths that two processes do not share evenly."""

    def __init__(self, shares: bool) -> None:
        super().__init__()
        self.conv2, self.head = nn.Conv2d(8, 15, 3, padding=1), nn.Linear(15, 10)
        nn.init.normal_(self.head.weight)  # so that predictions differ
        self.whole = shares

    def configure_model(self) -> None:
        if self.whole:
            self.whole = False
            for module in (self.conv1, self.conv2, self):
                fully_shard(module, mesh=self.device_mesh["data_parallel"])


def sharded(options: argparse.Namespace) -> dict[str, dict]:
    """What is measured in validation, and how training ends with and without the monitor."""
    several = options.processes > 1

    def trainer(*callbacks: object, **more: object) -> Trainer:
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False, "logger": False}
        strategy = ModelParallelStrategy(data_parallel_size=options.processes, tensor_parallel_size=1) if several else "auto"
        return Trainer(
            accelerator="cpu", devices=options.processes, strategy=strategy, callbacks=list(callbacks),
            default_root_dir=options.out, **(quiet | more),
        )  # fmt: skip

    def validated() -> dict[str, float]:
        seed_everything(0)
        run = trainer(RelevanceMonitor(selection=TopK(1), max_samples=18, log=SCALARS))
        run.validate(Sharded(several), DataLoader(images(21, 1), 5), verbose=False)
        return {name: value.item() for name, value in run.callback_metrics.items() if "relevance" in name}

    def trained(*monitors: RelevanceMonitor) -> dict[str, object]:
        seed_everything(0)
        model, run = Sharded(several), trainer(*monitors, max_epochs=2)
        run.fit(model, DataLoader(images(32), 16 // options.processes), DataLoader(images(21, 1), 5))
        hooks = [[len(m._forward_hooks), len(m._forward_pre_hooks)] for m in model.modules()]
        kinds = [type(m).__name__ for m in model.modules()]
        whole = {name: t.flatten().tolist() for name, t in gathered(model).state_dict().items()}
        return {"weights": whole, "hooks": hooks, "kinds": kinds, "random": random_states()["torch"].tolist()}

    return {"all": validated(), "without": trained(), "with": trained(RelevanceMonitor(max_samples=8, n_heatmaps=2))}

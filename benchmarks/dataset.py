"""Time, memory and disk space to explain a data set, relative to predicting it; writes ``benchmarks/dataset.md``.

    python benchmarks/dataset.py

It runs a small convolutional network on 10,000 images of 3 x 32 x 32, with one process and with two, and a ResNet-18 on a
few of 3 x 224 x 224: a plain ``Trainer.predict``, one with an ``Explainer``, and one that also has a ``RelevanceWriter``.
Images are noise that is generated when read, so that disk and decoding do not count. Every run is a process of its own, on
one thread, and times are CPU seconds, so that other work on the machine has little effect.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torchvision
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lrp_lightning import RelevanceStore, TopK
from lrp_lightning.callbacks import Explainer, RelevanceWriter

WAYS = ("predict", "explain", "explain and write", "explain and write, by places")
MILLION = 1_000_000


class Noise(Dataset):
    """Images of noise, and a class for each."""

    def __init__(self, images: int, side: int) -> None:
        self.images, self.side = images, side

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return torch.randn(3, self.side, self.side, generator=torch.Generator().manual_seed(i)), i % 10


class Plain(LightningModule):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def predict_step(self, batch: list[Tensor], batch_idx: int = 0) -> Tensor:
        return self.model(batch[0])


class Clock(Callback):
    """CPU seconds after each batch and at the end, and memory."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.resident: list[int] = []

    def on_predict_batch_end(self, *_: Any) -> None:
        self.times.append(time.process_time())
        self.resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)

    def on_predict_end(self, *_: Any) -> None:
        self.times.append(time.process_time())


def network(side: int) -> nn.Module:
    torch.manual_seed(0)
    if side > 32:
        return torchvision.models.resnet18()
    widths = (3, 32, 64, 128)
    blocks = [
        layer
        for below, above in itertools.pairwise(widths)
        for layer in (nn.Conv2d(below, above, 3, padding=1), nn.BatchNorm2d(above), nn.ReLU(), nn.MaxPool2d(2))
    ]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(128 * 16, 10))


def run(way: str, side: int, images: int, batch: int, processes: int, out: Path) -> None:
    """Run by :func:`measured`, once in each process."""
    torch.set_num_threads(1)
    model, clock = network(side).eval(), Clock()
    places: Any = "places" if way.endswith("places") else "values"
    writer = [RelevanceWriter(out / "store", input_relevance=places)] if "write" in way else []
    module = Plain(model) if way == "predict" else Explainer(model, selection=TopK(0.1))
    trainer = Trainer(
        accelerator="cpu", devices=processes, strategy="ddp" if processes > 1 else "auto", logger=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[*writer, clock],
    )  # fmt: skip
    trainer.predict(module, DataLoader(Noise(images, side), batch), return_predictions=False)
    seconds, resident = clock.times[-1] - clock.times[0], clock.resident
    found = {
        "rate": (images / processes - batch) / seconds,
        "grown": (max(resident[-5:]) - resident[len(resident) // 10]) / 1e6,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }
    (out / f"{trainer.global_rank}.json").write_text(json.dumps(found))


def measured(way: str, side: int, images: int, batch: int, processes: int) -> dict[str, float]:
    """Samples per CPU second, memory of the largest process, and bytes per sample on disk."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [way, side, images, batch, processes, folder]
        command = [sys.executable, __file__, "--run", *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        found = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
        bytes_each = float("nan")
        if "write" in way:
            store = RelevanceStore(Path(folder) / "store")
            assert store.complete
            bytes_each = sum(path.stat().st_size for path in store.path.iterdir()) / len(store)
    return {
        "rate": min(of["rate"] for of in found),
        "grown": max(of["grown"] for of in found),
        "peak": max(of["peak"] for of in found),
        "bytes": bytes_each,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("dataset.md"))
    parser.add_argument("--images", type=int, default=10_000, help="of 32 x 32 pixels; a fiftieth of as many of 224 x 224")
    parser.add_argument("--run", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        way, side, images, batch, processes, out = options.run
        run(way, int(side), int(images), int(batch), int(processes), Path(out))
        return
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)
        options.out.write_text("\n".join([*lines, ""]))

    say(f"""# The cost of explaining a data set

`Trainer.predict` runs with one thread per process and torch {torch.__version__}. It computes relevance of all layers by
epsilon-plus and the critical tenth of the neurons, and writes both in half precision, compressed. *images/s* is per second
of processor time, of the slower of two processes. *peak* is the memory of the larger process, *grown* its growth over the
last nine tenths of the images. Figures for a million images are extrapolated, on one such core. Images are noise, which
compresses worst.

| model, images | processes | | images/s | of predict | peak, MB | grown, MB | kB/image | a million: core days | GB |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |""")
    few = max(options.images // 50, 16)
    for name, side, images, batch, numbers in (
        ("small, 32 x 32", 32, options.images, 50, (1, 2)),
        ("ResNet-18, 224 x 224", 224, few, 8, (1,)),
    ):
        for processes in numbers:
            plain = 0.0
            for way in WAYS:
                if way.endswith("places") and (processes > 1 or side == 32):
                    continue
                of = measured(way, side, images, batch, processes)
                plain = plain or of["rate"]
                written = of["bytes"] == of["bytes"]
                each, whole = (f"{of['bytes'] / 1e3:.1f}", f"{of['bytes'] * MILLION / 1e9:.0f}") if written else ("", "")
                say(
                    f"| {name}, {images:,} | {processes} | {way} | {of['rate']:.0f} | {of['rate'] / plain:.2f} | "
                    f"{of['peak']:.0f} | {of['grown']:.0f} | {each} | {MILLION / of['rate'] / 86400:.2g} | {whole} |"
                )


if __name__ == "__main__":
    main()

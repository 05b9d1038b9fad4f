"""What a pass and the callback take on a GPU: ratios to one gradient, peak memory, waits of the host, the callback's share.

    python benchmarks/gpu.py --out benchmarks/gpu.md

Needs a CUDA device, says so where there is none, and writes no figure that it did not measure.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet50, vgg16_bn, vit_b_16

from lrp_lightning import SelectiveLRP, TopK, masked_forward
from lrp_lightning.callbacks import RelevanceMonitor


def seconds(work: Callable[[], object], repeats: int = 20) -> float:
    """The median of ``repeats``, after three to warm up."""
    took = []
    for i in range(repeats + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        if i >= 3:
            took.append(start.elapsed_time(end) / 1000)
    return sorted(took)[repeats // 2]


def peak(work: Callable[[], object]) -> int:
    """Bytes above what stood there before."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def waits(work: Callable[[], object]) -> int:
    """How often the host waited for the device."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return len([w for w in told if "synchronizing" in str(w.message)])


def of_passes(name: str, model: nn.Module, batch: int) -> list[str]:
    model, x = model.cuda().eval(), torch.rand(batch, 3, 224, 224, device="cuda")

    def gradient() -> None:
        leaf = x.clone().requires_grad_()
        torch.autograd.grad(model(leaf).amax(1).sum(), leaf)

    lrp = SelectiveLRP(model, "epsilon_plus", TopK(0.1))
    masks = lrp.trace(x, target=0).masks
    works: dict[str, Callable[[], object]] = {
        "trace": lambda: lrp.trace(x, target=0),
        "masked forward": lambda: masked_forward(model, x, masks),
    }
    if not name.startswith("vit"):
        works["trace with edges"] = lambda: lrp.trace(x, target=0, edges=True)
    base, room = seconds(gradient), peak(gradient)
    return [
        f"| {name}, {batch} images | {what} | {seconds(work) / base:.2f} | {peak(work) / room:.2f} | {waits(work)} |"
        for what, work in works.items()
    ]


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
    monitor = RelevanceMonitor()
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
    rows = [row for name, model in (("vgg16_bn", vgg16_bn()), ("resnet50", resnet50()), ("vit_b_16", vit_b_16()))
            for row in of_passes(name, model, 32)]  # fmt: skip
    trained = [of_training(precision, n) for n in (1_437, 50_000) for precision in ("32-true", "16-mixed", "bf16-mixed")]
    text = "\n".join(
        [
            "# On a GPU",
            "",
            f"{torch.cuda.get_device_name()}, torch {torch.__version__}. Ratios to one gradient with respect to the input;",
            "waits of the host in a whole call: before the pass for the inputs' range, after it for finite outputs.",
            "",
            "| model | what | time | peak memory | waits |",
            "| --- | --- | --- | --- | --- |",
            *rows,
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

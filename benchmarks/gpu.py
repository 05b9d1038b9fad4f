"""All measurements on a GPU in one run: tests, passes compared with gradient x input, and the monitor's share of a fit.

    python benchmarks/gpu.py --out benchmarks/gpu.md    # about ten minutes; tables.py puts the page into RESULTS.md
    python benchmarks/gpu.py --device cpu --quick       # whether the script itself works, where there is no GPU

It writes Markdown, the most important part first, each line as soon as it is measured. Parts without time are listed as left
out, and failures are rows that name the error. The peers on a GPU: ``make bench BENCH="--device cuda"``.
"""

from __future__ import annotations

import argparse
import copy
import gc
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.memory import is_oom_error
from measure import in_rounds, peak_on_gpu, ready, seconds, waits
from methods import GRADIENT, METHODS, Method
from models import Subject, subject
from tables import cell
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lrp_lightning.callbacks import RelevanceMonitor

ROOT = Path(__file__).parents[1]
MODELS = ("vgg16", "resnet50", "vit_b_16")
WAYS = [METHODS[name] for name in ("epsilon", "EpsilonPlus", "EpsilonPlus, TopK(0.1)")]
EPOCHS = 4
UNMEASURED, LEFT_OUT = "not measured", "left out, no time"
FLOAT32, BY_AUTOCAST, BFLOAT16 = "in float32", "in bfloat16 by autocast", "of a model in bfloat16"
OF_PASSES = """Untrained models, images of {side} pixels. For gradient x input: milliseconds, and peak memory in
megabytes. For the others: the ratio of times (rounds of one gradient x input and one pass; the median ± half the
interquartile range), the ratio of peak memory, and how often the host waits for the GPU in a pass."""
OF_BFLOAT16 = """The last number is |relevance - relevance in float32| / |relevance in float32|. A pass switches
autocast off and computes in the precision of the model; gradient x input does not."""
OF_MONITOR = f"""In a fit of {EPOCHS} epochs: VGG16 with batch norm, images of 32 pixels, logged to TensorBoard. Seconds by
the clock of an epoch without the monitor, and of its looks: the first and the last have pictures, the last strategies and
cards too. The share is that of all looks, in what the epochs take without them. `max_share` is 0.03 by default."""


class Page:
    """Writes lines to stdout and a file immediately, and keeps track of the remaining time."""

    def __init__(self, out: Path | None, budget: float) -> None:
        self.until = time.monotonic() + budget
        self.files = [sys.stdout, *([] if out is None else [out.open("w")])]

    @property
    def left(self) -> float:
        return self.until - time.monotonic()

    def say(self, *lines: str) -> None:
        for file in self.files:
            print(*lines, sep="\n", file=file, flush=True)

    def rows(self, heads: list[str], rows: dict[str, Callable[[], list[str]]]) -> None:
        """A table whose rows are measured successively, while there is time."""
        self.say(f"| {' | '.join(heads)} |", "| --- |" + " ---: |" * (len(heads) - 1))
        for name, measure in rows.items():
            print(f"{self.left:.0f} s left: {name}", file=sys.stderr, flush=True)
            found = or_error(measure) if self.left > 0 else LEFT_OUT
            cells = [found] if isinstance(found, str) else found
            self.say(f"| {' | '.join([name, *cells, *[''] * (len(heads) - 1 - len(cells))])} |")
        self.say("")


def or_error(work: Callable[[], Any]) -> Any:
    """The result of a function, or its error in words; memory is freed."""
    try:
        return work()
    except Exception as error:
        oom = isinstance(error, torch.OutOfMemoryError) or is_oom_error(error)
        first_line = next(iter(str(error).splitlines()), "").replace("|", "\\|")
        told = "out of memory" if oom else f"{type(error).__name__}: {first_line}"
    gc.collect()
    torch.cuda.empty_cache()
    return told


# where


def of_environment(device: str) -> str:
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}, Python {platform.python_version()}"
    if device == "cpu":
        return f"On the CPU, {torch.get_num_threads()} threads, for a try of the script: {versions}."
    of = torch.cuda.get_device_properties(0)
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = or_error(lambda: subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[0])
    return (
        f"{of.name}, {of.total_memory / 1e9:.0f} GB, driver {driver}, CUDA {torch.version.cuda}, cuDNN "
        f"{torch.backends.cudnn.version()}, {versions}. TF32 in convolutions: {torch.backends.cudnn.allow_tf32}, in "
        f"products: {torch.backends.cuda.matmul.allow_tf32}."
    )


# its tests


def of_tests(most_seconds: float) -> list[str]:
    """The tests marked ``gpu``, in a process of their own."""
    if most_seconds <= 0:
        return [f"{LEFT_OUT.capitalize()}."]
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "--tb=short", "-p", "no:cacheprovider", *map(str, files)]
    here = {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
    with tempfile.TemporaryFile("w+") as said:
        tests = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | here, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = tests.wait(most_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(tests.pid, signal.SIGKILL)  # with the processes that tests began
            status = tests.wait()
        said.seek(0)
        lines = said.read().strip().splitlines() or ["nothing was said"]
    if status == 0:
        return [f"{'Passed' if ' passed' in lines[-1] else 'Nothing ran'}: {lines[-1]}."]
    why = f"status {status}" if status > 0 else f"not finished in {most_seconds:.0f} seconds"
    return [f"**Failed**, {why}:", "", "```text", *lines[-80:], "```"]


# passes


def of_passes(page: Page, device: str, names: Sequence[str], batches: Sequence[int], side: int, cell_seconds: float) -> None:
    def cells(name: str, n: int, precision: str) -> list[str]:
        whole = subject(name, side, max(batches), device)
        exact = Subject(name, whole.model, whole.x[:n], whole.target[:n])
        return _of_batch(exact, precision, device, cell_seconds)

    heads = ["images, of each", GRADIENT.name, *(way.name for way in WAYS)]
    for precision, note in ((FLOAT32, OF_PASSES.format(side=side)), (BY_AUTOCAST, OF_BFLOAT16), (BFLOAT16, "As above.")):
        page.say(f"### Passes {precision}", "", note, "")
        page.rows(heads, {f"{name}, {n}": partial(cells, name, n, precision) for name in names for n in batches})


def _of_batch(exact: Subject, precision: str, device: str, cell_seconds: float) -> list[str]:
    """A row: gradient x input, and each method relative to it."""
    asked, around = exact, nullcontext
    if precision == BY_AUTOCAST:
        around = partial(torch.autocast, device, torch.bfloat16)
    elif precision == BFLOAT16:
        asked = Subject(exact.name, copy.deepcopy(exact.model).bfloat16(), exact.x.bfloat16(), exact.target)

    def run(method: Method) -> Tensor:
        with around():
            return method.work(asked)()

    def beside(way: Method) -> str:
        work = partial(run, way)
        relevance, found = work(), [UNMEASURED] * 2
        if device != "cpu":
            found = [f"{peak_on_gpu(work) / peak_on_gpu(unit):.2f}", str(waits(work))]
        if precision != FLOAT32:
            true = way.work(exact)()
            found.append(f"{float((relevance - true).norm() / true.norm()):.0e}")
        units, times = in_rounds(unit, work, device, cell_seconds)
        return ", ".join([cell({"ratios": [taken / one for taken, one in zip(times, units, strict=True)]}), *found])

    unit = partial(run, GRADIENT)
    unit()  # warms up
    most = UNMEASURED if device == "cpu" else f"{peak_on_gpu(unit) / 1e6:,.0f} MB"
    milliseconds = 1e3 * statistics.median(in_rounds(unit, unit, device, cell_seconds)[0])
    return [f"{milliseconds:.2f} ms, {most}", *(or_error(partial(beside, way)) for way in WAYS)]


# the monitor


class Net(LightningModule):
    """VGG16 with batch norm on images of 32 x 32, or its first operators."""

    def __init__(self, operators: int | None = None) -> None:
        super().__init__()
        self.model = torchvision.models.vgg16_bn()
        self.model.features = self.model.features[:operators]
        self.model.avgpool = nn.AdaptiveAvgPool2d(1)
        self.model.classifier = nn.Linear([m.out_channels for m in self.model.features if isinstance(m, nn.Conv2d)][-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Timed(RelevanceMonitor):
    """Records the seconds of each look, and of each epoch without the monitor."""

    def __init__(self, on: str, max_share: float | None) -> None:
        super().__init__(max_share=max_share)
        self.on, self.looks, self.epochs, self.began = on, [0.0], [], 0.0  # the sanity check's look is the first

    def _timed(self, hook: Callable[..., None], *args: Any) -> None:
        self.looks[-1] += seconds(lambda: hook(*args), self.on)

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self._timed(partial(super().on_validation_batch_end, **kwargs), *args)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._timed(super().on_validation_epoch_end, trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._timed(super().on_train_end, trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        ready(self.on)
        self.looks.append(0.0)
        self.began = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        ready(self.on)
        self.epochs.append(time.perf_counter() - self.began - self.looks[-1])


def of_monitor(page: Page, device: str, numbers: Sequence[int], quick: bool) -> None:
    def fit(images: int, precision: Any, max_share: float | None) -> list[str]:
        seed_everything(0)
        train, val = map(_noise, (images, 64 if quick else 2000))
        monitor = Timed(device, max_share)
        with tempfile.TemporaryDirectory() as folder:
            run = Trainer(
                accelerator="cpu" if device == "cpu" else "gpu", devices=1, precision=precision, max_epochs=EPOCHS,
                callbacks=[monitor], logger=TensorBoardLogger(folder), enable_checkpointing=False,
                enable_progress_bar=False, enable_model_summary=False,
            )  # fmt: skip
            run.fit(Net(7 if quick else None), DataLoader(train, 128, shuffle=True), DataLoader(val, 256))
        sanity, first, *between, last = monitor.looks
        parts = [statistics.median(monitor.epochs), sanity, first, statistics.mean(between), last]
        samples, share = run.callback_metrics["relevance/samples"], sum(monitor.looks) / sum(monitor.epochs)
        return [*(f"{part:.2f}" for part in parts), f"{samples:.0f}", f"{100 * share:.1f} %"]

    heads = ["images, precision, max_share", "epoch", "sanity check", "first", "between", "last", "samples", "share"]
    shares = [0.03] if quick else [0.03, None]
    asked = [(n, precision, share) for share in shares for n in numbers for precision in ("32-true", "bf16-mixed")]
    page.say("### RelevanceMonitor", "", OF_MONITOR, "")
    page.rows(heads, {f"{n:,}, {precision}, {share}": partial(fit, n, precision, share) for n, precision, share in asked})


def _noise(n: int) -> TensorDataset:
    return TensorDataset(torch.rand(n, 3, 32, 32), torch.randint(10, (n,)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a file for the page, beside stdout")
    parser.add_argument("--budget", type=float, default=540, help="seconds after which nothing more is begun")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="one small model and small trainings")
    options = parser.parse_args()
    device, quick = options.device, options.quick
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py: there is no CUDA device here, so nothing was measured")
    page = Page(options.out, options.budget)
    page.say("## On a GPU", "", of_environment(device), "")
    page.say("### Tests", "", *of_tests(options.budget / 3), "")
    if quick:
        of_passes(page, device, ["resnet18"], [1, 2], side=32, cell_seconds=0.05)
        of_monitor(page, device, [128], quick)
    else:
        of_passes(page, device, MODELS, [1, 32, 128], side=224, cell_seconds=1.0)
        of_monitor(page, device, [1_437, 50_000], quick)


if __name__ == "__main__":
    main()

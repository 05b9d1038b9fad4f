"""Time, memory and synchronisations of a function, on a CPU or a GPU."""

from __future__ import annotations

import argparse
import ctypes
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

Work = Callable[[], Any]


def ready(device: str) -> None:
    """Wait until all work on the device is done."""
    if device != "cpu":
        torch.cuda.synchronize()


def seconds(work: Work, device: str = "cpu") -> float:
    ready(device)
    began = time.perf_counter()
    work()
    ready(device)
    return time.perf_counter() - began


def in_rounds(unit: Work, work: Work, device: str, most_seconds: float) -> tuple[list[float], list[float]]:
    """Seconds of ``unit`` and of ``work``, in interleaved rounds.

    It runs two to fifteen rounds, within ``most_seconds``. The first is a warm-up, which counts only if there are two.
    """
    rounds = [(seconds(unit, device), seconds(work, device))]
    more = max(1, min(15, int(most_seconds / sum(rounds[0])) - 1))
    rounds += [(seconds(unit, device), seconds(work, device)) for _ in range(more)]
    units, times = zip(*rounds[1 if more > 1 else 0 :], strict=True)
    return list(units), list(times)


def interleaved(benchmark: Any, unit: Work, work: Work, device: str, most_seconds: float) -> None:
    """Time ``work``, each round after one of ``unit``; the ratios of the rounds are kept in pytest-benchmark's record."""
    units, times = benchmark.pedantic(in_rounds, [unit, work, device, most_seconds])
    benchmark.extra_info.update(
        ratios=[taken / one for taken, one in zip(times, units, strict=True)],
        seconds=statistics.median(times),
        unit_seconds=statistics.median(units),
    )


def peak_on_gpu(work: Work) -> int:
    """Peak bytes above those allocated before."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def waits(work: Work) -> int:
    """How often the host waited for the GPU."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return len([w for w in told if "synchronizing" in str(w.message)])


def peak_of_process(method: str, model: str, side: int, batch: int) -> int:
    """The most bytes by which a new process grows while it explains a batch, after a warm-up with one image."""
    asked = [method, model, str(side), str(batch)]
    done = subprocess.run([sys.executable, __file__, *asked], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return int(done.stdout.split()[-1])


def resident(field: str) -> int:
    """``VmRSS``, the memory of the process, or ``VmHWM``, its peak, in bytes (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"no {field} in /proc/self/status")


def available() -> int:
    """Bytes that are available on the machine (Linux)."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("no MemAvailable in /proc/meminfo")


def main() -> None:
    from methods import GRADIENT, METHODS
    from models import Subject, subject

    parser = argparse.ArgumentParser(description=peak_of_process.__doc__)
    parser.add_argument("method", choices=[GRADIENT.name, *METHODS])
    parser.add_argument("model")
    parser.add_argument("side", type=int)
    parser.add_argument("batch", type=int)
    asked = parser.parse_args()
    method = METHODS.get(asked.method, GRADIENT)
    whole = subject(asked.model, asked.side, asked.batch)
    method.work(Subject(whole.name, whole.model, whole.x[:1], whole.target[:1]))()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = resident("VmRSS")
    method.work(whole)()
    print(resident("VmHWM") - before)


if __name__ == "__main__":
    main()

"""What scripts that run on several processes are asked for, and how they tell what each process saw."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path


def asked() -> argparse.Namespace:
    """``processes``, and the folder ``out``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def leave(seen: dict, rank: int, options: argparse.Namespace) -> None:
    """Write what this process saw, and wait for the others: the launcher ends them once the first process is gone."""
    (options.out / f"seen_{options.processes}_{rank}.json").write_text(json.dumps(seen))
    deadline = time.time() + 60
    while len(list(options.out.glob(f"seen_{options.processes}_*.json"))) < options.processes and time.time() < deadline:
        time.sleep(0.1)

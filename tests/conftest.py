"""What holds for every test."""

import os

import pytest
import torch

# pytest-xdist runs one worker a core: with torch's default of one thread a core, the workers' threads fight for them
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start

# scripts that tests run; looking for doctests would import them
collect_ignore = ["in_device.py", "in_faults.py", "in_processes.py", "in_shards.py"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("random programs", "of tests/engine/test_a_batch_is_its_samples.py")
    group.addoption("--programs", type=int, default=150, help="how many")
    group.addoption("--program-seed", type=int, default=0, help="the first of them; one number gives one program")

"""What holds for every test."""

import os

import torch

# pytest-xdist runs one worker a core: with torch's default of one thread a core, the workers' threads fight for them
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)

# scripts that callbacks/test_distributed.py runs; looking for doctests would import them
collect_ignore = ["in_processes.py", "in_shards.py"]

"""The same bits from every repetition of a group."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Inside the block a GPU computes with deterministic operations alone, as in single runs.

    Sets what Lightning's Trainer(deterministic=True, benchmark=False) sets. On a CPU all operations in use are deterministic
    as they are. CUBLAS_WORKSPACE_CONFIG stays set: cuBLAS reads it once, when it is first used.
    """
    if device.type != "cuda":
        yield
        return
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]

"""What a run costs: memory, and floating-point operations."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ockham.core.memory import give_back_freed_memory
from ockham.reg import Regularizer
from ockham.reg.single import has_jacobian_penalty, jacobian_penalties


def reset_peak_memory(device: torch.device) -> None:
    """Count from now on, so that a process that works on one run after the other tells them apart.

    Off Linux the peak of a process cannot be reset and stays that of its whole life.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        give_back_freed_memory()
        with suppress(OSError):  # where the system forbids it
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory that this process had on the device since the reset (CUDA's allocator, or the resident set).

    0 where nobody knows.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    try:
        import resource  # late: Windows has no such module, and Python no other measure
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def synchronize(device: torch.device) -> None:
    """Wait for what a GPU still has to do: a clock that is read before that stops too early."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def flops_per_sample(model: nn.Module, shape: Sequence[int], regularizers: Sequence[Regularizer] = ()) -> int:
    """Floating-point operations of one forward and backward pass for one sample: products of matrices and convolutions.

    Those for penalties on Jacobians are included. Counted by torch on a batch of two, with the weights as they are; gradients
    are cleared.
    """
    weight = next(model.parameters())
    x = torch.zeros(2, *shape, dtype=weight.dtype, device=weight.device)
    was_training = model.training
    model.eval()  # no noise is drawn and no running statistics move
    try:
        with FlopCounterMode(display=False) as counter, torch.enable_grad():
            if has_jacobian_penalty(regularizers):
                x = x.requires_grad_().clone()  # the counter's hooks take no gradient by a leaf
            logits = model(x)
            penalties = jacobian_penalties(regularizers, logits, x)
            torch.stack([logits.sum(), *penalties]).sum().backward(inputs=[w for w in model.parameters() if w.requires_grad])
    finally:
        model.train(was_training)
        model.zero_grad()
    return int(counter.get_total_flops()) // 2

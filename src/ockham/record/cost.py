"""What a run costs: memory, and floating-point operations."""

import sys
from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory that this process had on the device (CUDA's allocator, or the resident set); 0 where nobody knows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource  # late: Windows has no such module, and Python no other measure
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def flops_per_sample(model: nn.Module, shape: Sequence[int]) -> int:
    """Floating-point operations of one forward and backward pass for one sample: products of matrices and convolutions.

    Counted by torch on a batch of two, with the weights as they are; gradients are cleared.
    """
    weight = next(model.parameters())
    x = torch.zeros(2, *shape, dtype=weight.dtype, device=weight.device)
    was_training = model.training
    model.eval()  # no noise is drawn and no running statistics move
    try:
        with FlopCounterMode(display=False) as counter, torch.enable_grad():
            model(x).sum().backward()
    finally:
        model.train(was_training)
        model.zero_grad()
    return int(counter.get_total_flops()) // 2

"""Which samples an optimizer step sees: index tensors into the training split."""

import torch
from torch import Tensor

from ockham.rng import generator


def order(num_samples: int, *, seed: int, epoch: int, shuffle: bool) -> Tensor:
    """The order (num_samples,) in which an epoch visits the training split, a pure function of its arguments."""
    if not shuffle:
        return torch.arange(num_samples)
    return torch.randperm(num_samples, generator=generator(seed, "order", epoch))


def steps_per_epoch(num_samples: int, batch_size: int) -> int:
    """Optimizer steps in an epoch; the last batch holds what is left and may be smaller."""
    return -(-num_samples // batch_size)

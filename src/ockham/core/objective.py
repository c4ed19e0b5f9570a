"""The data term of what is minimised."""

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor


class Loss(Protocol):
    """`weight` times the loss of logits (N, C) summed over the samples, as a scalar.

    `target` holds classes (N,) or class probabilities (N, C). With weight 1 / N it is the mean; a batch that is worked on
    in parts (accumulation, several devices) keeps one weight, and the parts add up to the mean over all.
    """

    def __call__(self, logits: Tensor, target: Tensor, *, weight: float) -> Tensor: ...


def cross_entropy(logits: Tensor, target: Tensor, *, weight: float) -> Tensor:
    """-sum_c y_c log softmax(z)_c, in nats. yaml: `loss=cross_entropy`."""
    return F.cross_entropy(logits, target, reduction="sum") * weight


def squared_error(logits: Tensor, target: Tensor, *, weight: float) -> Tensor:
    """1 / C sum_c (z_c - y_c)^2 of the outputs as they are, as torch's MSELoss with one-hot classes. yaml: `loss=mse`."""
    num_classes = logits.shape[1]
    probabilities = F.one_hot(target, num_classes).to(logits.dtype) if target.ndim == 1 else target
    return (logits - probabilities).square().sum() * (weight / num_classes)


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "mse": squared_error}

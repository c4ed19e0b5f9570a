"""The data term of what is minimised."""

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, target: Tensor, *, weight: float) -> Tensor:
    """`weight` times the cross-entropy of logits (N, C) summed over the samples, as a scalar.

    `target` holds classes (N,) or class probabilities (N, C). With weight 1 / N it is the mean; a batch that is worked on
    in parts (accumulation, several devices) keeps one weight, and the parts add up to the mean over all.
    """
    return F.cross_entropy(logits, target, reduction="sum") * weight

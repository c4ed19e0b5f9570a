"""What is measured on a model that stands still."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EVALUATION_BATCH = 1024


class Scores(NamedTuple):
    """Mean cross-entropy in nats, and the fraction of samples classified correctly."""

    loss: float
    acc: float


def scores(logits: Tensor, labels: Tensor) -> Tensor:
    """Sums over the samples of (cross-entropy, correct), as one float64 tensor (2,), for logits (N, C), labels (N,)."""
    loss = F.cross_entropy(logits.double(), labels, reduction="sum")
    correct = (logits.argmax(dim=1) == labels).sum()
    return torch.stack([loss, correct.double()])


@torch.no_grad()
def logits_of(model: nn.Module, images: Tensor, prepare: Callable[[Tensor], Tensor]) -> Iterable[Tensor]:
    """The logits (n, C) of the images (N, C, H, W), batch after batch, with the model in evaluation mode.

    `prepare` turns the stored uint8 images into what the model takes. The model's mode is restored at the end.
    """
    was_training = model.training
    model.eval()
    try:
        for batch in images.split(EVALUATION_BATCH):
            yield model(prepare(batch))
    finally:
        model.train(was_training)


def evaluate(model: nn.Module, images: Tensor, labels: Tensor, prepare: Callable[[Tensor], Tensor]) -> Scores:
    """Loss and accuracy of the model on all the images, without dropout or other noise."""
    total = torch.zeros(2, dtype=torch.float64, device=images.device)
    for logits, target in zip(logits_of(model, images, prepare), labels.split(EVALUATION_BATCH), strict=True):
        total += scores(logits, target)
    loss, acc = (total / len(labels)).tolist()
    return Scores(loss, acc)

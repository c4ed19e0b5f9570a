"""What is measured on a model that stands still."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ockham.core.objective import LOSSES


class Images(Protocol):
    """Stored images (N, C, H, W) that are taken in parts: a tensor of them, or a split."""

    @property
    def device(self) -> torch.device: ...

    def split(self, size: int, /) -> Iterable[Tensor]:
        """Parts of up to `size` images, in order."""


def evaluation_batch(model: nn.Module, device: torch.device) -> int:
    """How many samples to evaluate at once: on a CPU the activations of a convolution should stay in its cache.

    The net of 32, 64 and 128 channels takes half the time per image in batches of 64 than in batches of 1024.
    """
    convolutional = any(isinstance(module, nn.Conv2d) for module in model.modules())
    return 64 if convolutional and device.type == "cpu" else 1024


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """No dropout or other noise and no gradients inside the block; the model's mode is restored after it."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


class Scores(NamedTuple):
    """The mean loss, and the fraction of samples classified correctly."""

    loss: float
    acc: float


def scores(logits: Tensor, labels: Tensor, *, loss: str = "cross_entropy") -> Scores:
    """Loss (one of LOSSES) and accuracy of logits (N, C) against classes (N,); the loss is summed in float64."""
    mean = LOSSES[loss](logits.double(), labels, weight=1 / len(labels))
    correct = (logits.argmax(dim=1) == labels).double().mean()
    return Scores(*torch.stack([mean, correct]).tolist())


def logits_of(model: nn.Module, images: Images, prepare: Callable[[Tensor], Tensor]) -> Tensor:
    """The logits (N, C) of the images (N, C, H, W) in evaluation mode.

    `prepare` turns the stored images into what the model takes.
    """
    with evaluation_mode(model):
        return torch.cat([model(prepare(part)) for part in images.split(evaluation_batch(model, images.device))])


def evaluate(
    model: nn.Module, images: Images, labels: Tensor, prepare: Callable[[Tensor], Tensor], *, loss: str = "cross_entropy"
) -> Scores:
    """Loss and accuracy of the model on all the images, without dropout or other noise."""
    return scores(logits_of(model, images, prepare), labels, loss=loss)

"""What is measured on a model that stands still."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ockham.core.objective import LOSSES


class Images(Protocol):
    """Stored images (N, C, H, W) that are taken in parts: a tensor of them, or a split."""

    def split(self, size: int, /) -> Iterable[Tensor]:
        """Parts of up to `size` images, in order."""


#: What a convolution makes of a batch may take so much on a CPU: then it stays in the cache, and its memory is not asked of the
#: system each time. With twice to eight times as much small nets took 1.0 to 1.6 times as long an image (CPU time).
MOST_ACTIVATION_BYTES = 2**22
FEWEST_EVALUATED, MOST_EVALUATED = 16, 1024


def evaluation_batch(model: nn.Module, image: Tensor) -> int:
    """How many samples like `image` (1, C, H, W), or of any shape for models without convolutions, to evaluate at once."""
    convolution = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if convolution is None or image.device.type != "cpu":
        return MOST_EVALUATED
    pixels = math.prod(image.shape[2:]) / math.prod(convolution.stride)
    bytes_each = convolution.out_channels * pixels * convolution.weight.element_size()
    return min(max(int(MOST_ACTIVATION_BYTES / bytes_each), FEWEST_EVALUATED), MOST_EVALUATED)


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


class Calibration(NamedTuple):
    """Expected calibration error and mean negative log-likelihood, in nats, of the probabilities of a model."""

    ece: float
    nll: float


#: As many bins as Guo et al. 2017 take.
CALIBRATION_BINS = 15


def calibration(logits: Tensor, labels: Tensor) -> Calibration:
    """How well softmax(logits) (N, C) tells how often the classes (N,) are right, computed in float64.

    ece = sum_b n_b / N |accuracy - mean confidence| of the samples in bin b, with bins ((b - 1) / 15, b / 15] of the largest
    probability of a sample (Naeini et al. 2015; Guo et al. 2017, On Calibration of Modern Neural Networks).
    """
    confidence, predicted = logits.double().softmax(dim=1).max(dim=1)
    edges = torch.arange(1, CALIBRATION_BINS, dtype=torch.float64, device=logits.device) / CALIBRATION_BINS
    # A product with the members of each bin: a scatter on a GPU sums them in any order.
    members = F.one_hot(torch.bucketize(confidence, edges), CALIBRATION_BINS).double()
    surplus = ((predicted == labels).double() - confidence) @ members
    nll = LOSSES["cross_entropy"](logits.double(), labels, weight=1 / len(labels))
    return Calibration(*torch.stack([surplus.abs().sum() / len(labels), nll]).tolist())


def logits_of(model: nn.Module, images: Images, prepare: Callable[[Tensor], Tensor]) -> Tensor:
    """The logits (N, C) of the images (N, C, H, W) in evaluation mode.

    `prepare` turns the stored images into what the model takes.
    """
    with evaluation_mode(model):
        size = evaluation_batch(model, next(iter(images.split(1))))
        return torch.cat([model(prepare(part)) for part in images.split(size)])


def evaluate(
    model: nn.Module, images: Images, labels: Tensor, prepare: Callable[[Tensor], Tensor], *, loss: str = "cross_entropy"
) -> Scores:
    """Loss and accuracy of the model on all the images, without dropout or other noise."""
    return scores(logits_of(model, images, prepare), labels, loss=loss)

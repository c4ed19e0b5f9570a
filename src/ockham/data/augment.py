"""Augmentation of a whole batch at once, on its device, from a generator that is passed in.

Each class maps x (N, C, H, W), already normalised, and y, classes (N,) or class probabilities (N, num_classes), to the
same pair. `black` holds the value of a black pixel per channel after normalisation, the padding of shifted images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


class Augment:
    """The interface of an augmentation."""

    def __call__(
        self, x: Tensor, y: Tensor, *, generator: torch.Generator, black: Sequence[float], num_classes: int
    ) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


def shift_and_flip(x: Tensor, *, down: Tensor, right: Tensor, flip: Tensor, black: Sequence[float]) -> Tensor:
    """Image n of x (N, C, H, W) moved `down[n]` and `right[n]` pixels over black, mirrored first where `flip[n]`."""
    n, _, height, width = x.shape
    rows = torch.arange(height, device=x.device) - down[:, None]  # (N, H): where each output row comes from
    columns = torch.arange(width, device=x.device) - right[:, None]
    outside = ((rows < 0) | (rows >= height))[:, :, None] | ((columns < 0) | (columns >= width))[:, None, :]
    columns = torch.where(flip[:, None], width - 1 - columns, columns)
    samples = torch.arange(n, device=x.device)[:, None, None]
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    moved = x.permute(0, 2, 3, 1)[samples, rows[:, :, None], columns[:, None, :]]  # (N, H, W, C)
    moved = torch.where(outside[..., None], torch.tensor(black, dtype=x.dtype, device=x.device), moved)
    return moved.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Shift(Augment):
    """Each image moved by up to `pixels` in each direction, padded with black. yaml: `augment=shift`."""

    pixels: int = 2

    def __call__(self, x, y, *, generator, black, num_classes):  # type: ignore[no-untyped-def]
        down, right = _integers(x, self.pixels, generator)
        flip = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        return shift_and_flip(x, down=down, right=right, flip=flip, black=black), y


@dataclass(frozen=True)
class FlipCrop(Augment):
    """Mirrored with probability 1/2, then a crop of the image padded by `padding` black pixels. yaml: `augment=flip_crop`.

    The standard augmentation of CIFAR (He et al. 2016, Deep Residual Learning, section 4.2).
    """

    padding: int = 4

    def __call__(self, x, y, *, generator, black, num_classes):  # type: ignore[no-untyped-def]
        down, right = _integers(x, self.padding, generator)
        flip = torch.rand(len(x), generator=generator, device=x.device) < 0.5
        return shift_and_flip(x, down=down, right=right, flip=flip, black=black), y


@dataclass(frozen=True)
class Cutout(Augment):
    """A square of `size` pixels set to the mean colour, its centre uniform over the image. yaml: `augment=cutout`.

    The square may reach over the border (DeVries & Taylor 2017, Improved Regularization of CNNs with Cutout).
    """

    size: int = 8

    def __call__(self, x, y, *, generator, black, num_classes):  # type: ignore[no-untyped-def]
        n, _, height, width = x.shape
        inside = []
        for length in (height, width):
            centre = torch.randint(length, (n, 1), generator=generator, device=x.device)
            start = centre - self.size // 2
            position = torch.arange(length, device=x.device)
            inside.append((position >= start) & (position < start + self.size))  # (N, length)
        hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return x.masked_fill(hole, 0.0), y


@dataclass(frozen=True)
class Mixup(Augment):
    """x and y mixed with another sample of the batch: l x_i + (1 - l) x_j, l ~ Beta(alpha, alpha). yaml: `augment=mixup`.

    One l for a batch and a random partner for every sample, as in the authors' code
    (Zhang et al. 2018, mixup: Beyond Empirical Risk Minimization).
    """

    alpha: float = 1.0

    def __call__(self, x, y, *, generator, black, num_classes):  # type: ignore[no-untyped-def]
        concentration = torch.full((2,), self.alpha, dtype=x.dtype, device=x.device)
        # torch.distributions.Beta samples with this call too, but gives no way to pass a generator.
        share, rest = torch._sample_dirichlet(concentration, generator=generator)
        partner = torch.randperm(len(x), generator=generator, device=x.device)
        target = F.one_hot(y, num_classes).to(x.dtype) if y.ndim == 1 else y
        return share * x + rest * x[partner], share * target + rest * target[partner]


def _integers(x: Tensor, limit: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two tensors (N,) of integers, uniform on -limit ... limit."""
    pair = torch.randint(-limit, limit + 1, (2, len(x)), generator=generator, device=x.device)
    return pair[0], pair[1]

"""Augmentation of a whole batch at once, on its device, from a generator that is passed in.

Each class maps x (N, C, H, W), already normalised, and y, classes (N,) or class probabilities (N, num_classes), to the
same pair. `black` and `white` hold the values of such pixels per channel after normalisation; black is the padding of
shifted images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ockham.rng import beta


class Augment:
    """The interface of an augmentation."""

    def __call__(
        self,
        x: Tensor,
        y: Tensor,
        *,
        generator: torch.Generator,
        black: Sequence[float],
        white: Sequence[float],
        num_classes: int,
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

    def __call__(self, x, y, *, generator, black, white, num_classes):  # type: ignore[no-untyped-def]
        down, right = _integers(x, self.pixels, generator)
        flip = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        return shift_and_flip(x, down=down, right=right, flip=flip, black=black), y


@dataclass(frozen=True)
class FlipCrop(Augment):
    """Mirrored with probability 1/2, then a crop of the image padded by `padding` black pixels. yaml: `augment=flip_crop`.

    The standard augmentation of CIFAR (He et al. 2016, Deep Residual Learning, section 4.2).
    """

    padding: int = 4

    def __call__(self, x, y, *, generator, black, white, num_classes):  # type: ignore[no-untyped-def]
        down, right = _integers(x, self.padding, generator)
        flip = torch.rand(len(x), generator=generator, device=x.device) < 0.5
        return shift_and_flip(x, down=down, right=right, flip=flip, black=black), y


@dataclass(frozen=True)
class Cutout(Augment):
    """A square of `size` pixels set to the mean colour, its centre uniform over the image. yaml: `augment=cutout`.

    The square may reach over the border (DeVries & Taylor 2017, Improved Regularization of CNNs with Cutout).
    """

    size: int = 8

    def __call__(self, x, y, *, generator, black, white, num_classes):  # type: ignore[no-untyped-def]
        sides = []
        for length in x.shape[2:]:
            start = torch.randint(length, (len(x),), generator=generator, device=x.device) - self.size // 2
            sides.append((start, start + self.size))
        return x.masked_fill(inside_box(x, *sides), 0.0), y


@dataclass(frozen=True)
class Mixup(Augment):
    """x and y mixed with another sample of the batch: l x_i + (1 - l) x_j, l ~ Beta(alpha, alpha). yaml: `augment=mixup`.

    One l for a batch and a random partner for every sample, as in the authors' code
    (Zhang et al. 2018, mixup: Beyond Empirical Risk Minimization).
    """

    alpha: float = 1.0

    def __call__(self, x, y, *, generator, black, white, num_classes):  # type: ignore[no-untyped-def]
        share, rest = beta(self.alpha, generator=generator, dtype=x.dtype)
        partner = torch.randperm(len(x), generator=generator, device=x.device)
        target = probabilities(y, num_classes, x.dtype)
        return share * x + rest * x[partner], share * target + rest * target[partner]


@dataclass(frozen=True)
class CutMix(Augment):
    """A box of each image replaced by that of another one, y mixed by area. yaml: `augment=cutmix`.

    The box has the share 1 - l of the image, l ~ Beta(alpha, alpha), and a centre uniform over it; y is mixed with the share
    that remains of the image after what reaches over the border is cut off. One box for a batch and a random partner for every
    sample, as in the authors' code (Yun et al. 2019, CutMix: Regularization Strategy to Train Strong Classifiers).
    """

    alpha: float = 1.0

    def __call__(self, x, y, *, generator, black, white, num_classes):  # type: ignore[no-untyped-def]
        _, rest = beta(self.alpha, generator=generator, dtype=x.dtype)
        sides = []
        for length in x.shape[2:]:
            half = (length * rest.sqrt()).long() // 2
            centre = torch.randint(length, (1,), generator=generator, device=x.device)
            sides.append(((centre - half).clamp(min=0), (centre + half).clamp(max=length)))
        partner = torch.randperm(len(x), generator=generator, device=x.device)
        return paste_box(x, probabilities(y, num_classes, x.dtype), partner, *sides)


@dataclass(frozen=True)
class RandomErasing(Augment):
    """With `probability` a rectangle of an image becomes normal noise. yaml: `augment=random_erasing`.

    Its area is uniform between the shares `min_area` and `max_area` of the image, its height over its width log-uniform
    between `min_aspect` and 1 / `min_aspect`, its place uniform over the image; an image in which none of ATTEMPTS rectangles
    fits stays as it is. The noise has the mean and the spread of the training pixels. Zhong et al. 2020, Random Erasing Data
    Augmentation, as torchvision has it.
    """

    probability: float = 0.5
    min_area: float = 0.02
    max_area: float = 0.4
    min_aspect: float = 0.3

    ATTEMPTS: ClassVar[int] = 10

    def __call__(self, x, y, *, generator, black, white, num_classes):  # type: ignore[no-untyped-def]
        height, width, fits = self.sizes(x, generator)
        sides = []
        for length, size in zip(x.shape[2:], (height, width), strict=True):
            start = (_uniform(x, (len(x),), generator) * (length - size + 1)).long()
            sides.append((start, start + size))
        chosen = fits & (_uniform(x, (len(x),), generator) < self.probability)
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return torch.where(inside_box(x, *sides) & chosen.view(-1, 1, 1, 1), noise, x), y

    def sizes(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Heights and widths (N,) of rectangles in images x (N, C, H, W), 0 where none fits, and whether one does."""
        image = x.shape[2:]
        area, aspect = (_uniform(x, (self.ATTEMPTS, len(x)), generator) for _ in range(2))
        area = math.prod(image) * (self.min_area + (self.max_area - self.min_area) * area)
        aspect = (math.log(self.min_aspect) * (1 - 2 * aspect)).exp()
        heights, widths = (area * aspect).sqrt().round().long(), (area / aspect).sqrt().round().long()
        fit = (heights < image[0]) & (widths < image[1])
        first = fit.byte().argmax(dim=0, keepdim=True)
        height, width, fits = (each.gather(0, first).squeeze(0) for each in (heights, widths, fit))
        return height * fits, width * fits, fits


def probabilities(y: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Classes (N,) as probabilities (N, num_classes), which may come instead."""
    return F.one_hot(y, num_classes).to(dtype) if y.ndim == 1 else y


def inside_box(x: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]) -> Tensor:
    """Which pixels of x (N, C, H, W) lie in the box of their image, (N, 1, H, W).

    `rows` and `columns` are the first of each box and the first behind it, (N,), or (1,) for one box in all images.
    """
    inside = []
    for length, (start, end) in zip(x.shape[2:], (rows, columns), strict=True):
        position = torch.arange(length, device=x.device)
        inside.append((position >= start[:, None]) & (position < end[:, None]))  # (N, length)
    return inside[0][:, None, :, None] & inside[1][:, None, None, :]


def paste_box(
    x: Tensor, target: Tensor, partner: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """x (N, C, H, W) with one box, see `inside_box`, from x[partner], and the targets (N, num_classes) mixed by its area."""
    box = inside_box(x, rows, columns)
    rest = box.to(x.dtype).mean()
    return torch.where(box, x[partner], x), (1 - rest) * target + rest * target[partner]


def _uniform(x: Tensor, size: Sequence[int], generator: torch.Generator) -> Tensor:
    """Numbers uniform on [0, 1), with the dtype and device of x."""
    return torch.rand(size, generator=generator, dtype=x.dtype, device=x.device)


def _integers(x: Tensor, limit: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two tensors (N,) of integers, uniform on -limit ... limit."""
    pair = torch.randint(-limit, limit + 1, (2, len(x)), generator=generator, device=x.device)
    return pair[0], pair[1]

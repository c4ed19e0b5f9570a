"""TrivialAugment, on a whole batch at once."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ockham.data.augment import Augment

#: Strengths are drawn from so many, evenly spaced.
NUM_STRENGTHS = 31


class TrivialAugment(Augment):
    """Each image changed by one of OPERATIONS at a strength, both chosen uniformly. yaml: `augment=trivial_augment`.

    The wide space of Mueller & Hutter 2021, TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation, with the
    numbers and the rounding of torchvision's TrivialAugmentWide on bytes. Images are taken back to bytes for it, so it is for
    gray and RGB images that are stored as such.
    """

    def __call__(self, x, y, *, generator, black, white, num_classes):  # type: ignore[no-untyped-def]
        operation = torch.randint(len(OPERATIONS), (len(x),), generator=generator, device=x.device)
        step = torch.randint(NUM_STRENGTHS, (len(x),), generator=generator, device=x.device)
        is_negative = torch.rand(len(x), generator=generator, dtype=x.dtype, device=x.device) < 0.5
        low, high = (torch.tensor(value, dtype=x.dtype, device=x.device).view(1, -1, 1, 1) for value in (black, white))
        unit = (high - low) / 255
        pixels = ((x - low) / unit).round().float()
        changed = changed_pixels(pixels, operation, step, is_negative)
        return torch.where(changed == pixels, x, changed.to(x.dtype) * unit + low), y


def changed_pixels(pixels: Tensor, operation: Tensor, step: Tensor, is_negative: Tensor) -> Tensor:
    """The pixels (N, C, H, W), whole numbers 0 ... 255 in float32, after the operation (N,) of each image.

    Its strength is `step` (N,) of NUM_STRENGTHS - 1 on the way from the weakest to the strongest, turned round where
    `is_negative` (N,) if the operation knows two directions.
    """
    result = pixels.clone()
    counts = torch.bincount(operation, minlength=len(OPERATIONS)).tolist()  # a GPU is waited for here only
    for each, rows in zip(OPERATIONS.values(), operation.argsort(stable=True).split(counts), strict=True):
        if len(rows):
            strengths = torch.linspace(each.weakest, each.strongest, NUM_STRENGTHS, dtype=torch.float32, device=step.device)
            strength = strengths[step[rows]].double()
            if each.has_sign:
                strength = torch.where(is_negative[rows], -strength, strength)
            result[rows] = each.function(pixels[rows], strength)
    return result


# -- geometry: where each pixel comes from, in coordinates (column, row) from the centre ---------------------------------------


def _shear_x(pixels: Tensor, strength: Tensor) -> Tensor:
    """Rows shifted in proportion to their distance from the top."""
    return _moved(pixels, [[1, strength, strength * pixels.shape[2] / 2], [0, 1, 0]])


def _shear_y(pixels: Tensor, strength: Tensor) -> Tensor:
    return _moved(pixels, [[1, 0, 0], [strength, 1, strength * pixels.shape[3] / 2]])


def _translate_x(pixels: Tensor, distance: Tensor) -> Tensor:
    return _moved(pixels, [[1, 0, -distance.trunc()], [0, 1, 0]])


def _translate_y(pixels: Tensor, distance: Tensor) -> Tensor:
    return _moved(pixels, [[1, 0, 0], [0, 1, -distance.trunc()]])


def _rotate(pixels: Tensor, degrees: Tensor) -> Tensor:
    angle = degrees * (math.pi / 180)
    return _moved(pixels, [[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0]])


def _moved(pixels: Tensor, origin: list[list[Tensor | float]]) -> Tensor:
    """The nearest pixel to `origin` (2 rows of 3 numbers, or (N,)) of column, row and 1; black where that lies outside."""
    n, _, height, width = pixels.shape
    matrix = pixels.new_empty(n, 2, 3)
    for row in range(2):
        for column in range(3):
            matrix[:, row, column] = origin[row][column]
    rows, columns = (
        torch.linspace((1 - length) / 2, (length - 1) / 2, length, dtype=pixels.dtype, device=pixels.device)
        for length in (height, width)
    )
    places = torch.stack(
        [columns.expand(height, width), rows[:, None].expand(height, width), torch.ones_like(pixels[0, 0])], -1
    )
    scaled = matrix.transpose(1, 2) / pixels.new_tensor([width / 2, height / 2])
    grid = places.view(1, -1, 3).expand(n, -1, -1).bmm(scaled).view(n, height, width, 2)
    return F.grid_sample(pixels, grid, mode="nearest", padding_mode="zeros", align_corners=False)


# -- light and colour ----------------------------------------------------------------------------------------------------------


def _brightness(pixels: Tensor, strength: Tensor) -> Tensor:
    return _blended(pixels, torch.zeros_like(pixels), strength)


def _color(pixels: Tensor, strength: Tensor) -> Tensor:
    return pixels if pixels.shape[1] == 1 else _blended(pixels, _gray(pixels).floor(), strength)


def _contrast(pixels: Tensor, strength: Tensor) -> Tensor:
    return _blended(pixels, _gray(pixels).floor().mean(dim=(1, 2, 3), keepdim=True), strength)


def _sharpness(pixels: Tensor, strength: Tensor) -> Tensor:
    """Away from, or towards, the mean of nine pixels in which the middle one counts fivefold; the border stays."""
    if min(pixels.shape[2:]) < 3:
        return pixels
    middle = pixels[:, :, 1:-1, 1:-1]
    smooth = ((F.avg_pool2d(pixels, 3, stride=1, divisor_override=1) + 4 * middle) / 13).round()
    result = pixels.clone()
    result[:, :, 1:-1, 1:-1] = _blended(middle, smooth, strength)
    return result


def _posterize(pixels: Tensor, bits: Tensor) -> Tensor:
    """The highest bits of each byte."""
    unit = (2 ** (8 - bits.round())).float().view(-1, 1, 1, 1)
    return (pixels / unit).floor() * unit


def _solarize(pixels: Tensor, threshold: Tensor) -> Tensor:
    """Bright pixels inverted."""
    return torch.where(pixels >= (255 * threshold).float().view(-1, 1, 1, 1), 255 - pixels, pixels)


def _auto_contrast(pixels: Tensor, strength: Tensor) -> Tensor:
    from torchvision.transforms.v2.functional import autocontrast  # late: torchvision takes a second

    return autocontrast(pixels.byte()).float()


def _equalize(pixels: Tensor, strength: Tensor) -> Tensor:
    from torchvision.transforms.v2.functional import equalize

    return equalize(pixels.byte()).float()


def _blended(pixels: Tensor, other: Tensor, strength: Tensor) -> Tensor:
    """(1 + strength) pixels - strength other, cut to bytes; in float64, so that none is a hair below a whole number before."""
    strength = strength.view(-1, 1, 1, 1)
    return ((1 + strength) * pixels.double() - strength * other.double()).float().clamp(0, 255).floor()


def _gray(pixels: Tensor) -> Tensor:
    """(N, 1, H, W)."""
    if pixels.shape[1] == 1:
        return pixels
    red, green, blue = pixels.split(1, dim=1)
    return 0.2989 * red + 0.587 * green + 0.114 * blue


class Operation(NamedTuple):
    """What is done at a strength (n,) to pixels (n, C, H, W), from its weakest to its strongest form."""

    function: Callable[[Tensor, Tensor], Tensor]
    weakest: float = 0.0
    strongest: float = 0.0
    has_sign: bool = False


OPERATIONS = {
    "identity": Operation(lambda pixels, strength: pixels),
    "shear_x": Operation(_shear_x, 0.0, 0.99, has_sign=True),
    "shear_y": Operation(_shear_y, 0.0, 0.99, has_sign=True),
    "translate_x": Operation(_translate_x, 0.0, 32.0, has_sign=True),
    "translate_y": Operation(_translate_y, 0.0, 32.0, has_sign=True),
    "rotate": Operation(_rotate, 0.0, 135.0, has_sign=True),
    "brightness": Operation(_brightness, 0.0, 0.99, has_sign=True),
    "color": Operation(_color, 0.0, 0.99, has_sign=True),
    "contrast": Operation(_contrast, 0.0, 0.99, has_sign=True),
    "sharpness": Operation(_sharpness, 0.0, 0.99, has_sign=True),
    "posterize": Operation(_posterize, 8.0, 2.0),
    "solarize": Operation(_solarize, 1.0, 0.0),
    "auto_contrast": Operation(_auto_contrast),
    "equalize": Operation(_equalize),
}

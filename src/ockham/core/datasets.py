"""How large the data sets are, and what can be drawn from one. Plain Python, so that the command line can ask before torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ockham.errors import UserError


@dataclass(frozen=True)
class Sizes:
    """Images of train, of a validation split of its own, None where it is drawn from train, and of test; classes; (C, H, W).

    `smallest_class` counts the images that train and validation together hold of the rarest class, or is a number that it does
    not exceed.
    """

    train: int
    val: int | None
    test: int
    num_classes: int
    smallest_class: int
    shape: tuple[int, int, int]

    @property
    def images(self) -> int:
        return self.train + (self.val or 0) + self.test

    @property
    def pixels(self) -> int:
        """Numbers of an image."""
        return math.prod(self.shape)


#: The data sets that are the same everywhere, by class.
SIZES = {
    "ockham.data.Mnist5k": Sizes(3500, 500, 1000, 10, 400, (1, 28, 28)),
    "ockham.data.Mnist": Sizes(60_000, None, 10_000, 10, 5421, (1, 28, 28)),
    "ockham.data.FashionMnist": Sizes(60_000, None, 10_000, 10, 6000, (1, 28, 28)),
    "ockham.data.Cifar10": Sizes(50_000, None, 10_000, 10, 5000, (3, 32, 32)),
    "ockham.data.Cifar100": Sizes(50_000, None, 10_000, 100, 500, (3, 32, 32)),
    "ockham.data.Digits": Sizes(1437, None, 360, 10, 139, (1, 8, 8)),
}


def sizes_of(data: Mapping[str, Any]) -> Sizes | None:
    """The sizes of the data set with these settings, None where only reading it can tell."""
    target = str(data.get("_target_"))
    if target == "ockham.data.Mnist1D":
        return mnist1d_sizes(data["num_samples"], data["train_split"])
    return SIZES.get(target)


def mnist1d_sizes(num_samples: int, train_split: float) -> Sizes:
    """Of so many signals in ten classes. Raises UserError where a split has less than a signal of each class."""
    total = num_samples // 10 * 10
    train = int(total * train_split)
    if not 10 <= train <= total - 10:
        raise UserError(
            f"data.num_samples={num_samples} with data.train_split={train_split} leaves {train} signals for training and "
            f"{total - train} for the test, and each needs one of each of the ten classes: set data.num_samples higher"
        )
    return Sizes(train, None, total - train, 10, train // 10, (1, 1, 40))


def drawn_for_validation(val_samples: float, *, train: int, num_classes: int) -> int:
    """How many of `train` images data.val_samples asks for: a number, or a fraction where it is below 1.

    Raises UserError where train or validation would have less than an image of each class.
    """
    count = round(val_samples * train) if val_samples < 1 else int(val_samples)
    if not num_classes <= count <= train - num_classes:
        raise UserError(
            f"data.val_samples={val_samples} asks for {count} of {train} training images; train and val "
            f"each need one image per class: set it between {num_classes} and {train - num_classes}"
        )
    return count


def check_train_samples(train_samples: int, *, train: int, num_classes: int) -> None:
    """Raises UserError where data.train_samples cannot be drawn from `train` images."""
    if not num_classes <= train_samples <= train:
        raise UserError(
            f"data.train_samples={train_samples} is out of range: set it between {num_classes} (one image per "
            f"class) and {train} (the training split)"
        )


def check_folds(cv: int, smallest_class: int) -> None:
    """Raises UserError where there are more folds than images of the rarest class: some would have none to be judged by."""
    if cv > smallest_class:
        raise UserError(f"cv={cv} is not possible: the smallest class has {smallest_class} images, set cv to that or less")

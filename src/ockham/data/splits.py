"""The three splits of a data set, in memory as uint8, and what a model sees of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ockham.core.datasets import check_folds, check_train_samples, drawn_for_validation
from ockham.rng import generator


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) as uint8, and their classes (N,) as int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor) -> "Split":
        return Split(self.images[index], self.labels[index])

    def probe(self, size: int) -> "Split":
        """A fixed sample of up to so many images, evenly spaced, so that it does not depend on how a seed shuffled them."""
        count = min(len(self), size)
        return self[torch.arange(count, device=self.labels.device) * len(self) // count]

    def to(self, device: torch.device) -> "Split":
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Source:
    """What a data set offers before anything is drawn by seed: `val` is None where it names no validation split."""

    train: Split
    val: Split | None
    test: Split
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Splits:
    """What one run trains, selects and is tested on. Validation never holds test images."""

    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]

    def to(self, device: torch.device) -> "Splits":
        return Splits(**{name: split.to(device) for name, split in self.named().items()}, classes=self.classes)

    def named(self) -> dict[str, Split]:
        return {"train": self.train, "val": self.val, "test": self.test}


def stratified(labels: Tensor, count: int, *, seed: int, purpose: str) -> Tensor:
    """Sorted indices of `count` samples in which every class has its share of the whole, to the nearest sample.

    The samples left over by rounding down go to the classes with the largest remainders.
    """
    classes = labels.unique()
    sizes = torch.stack([(labels == c).sum() for c in classes])
    quota = sizes * count / len(labels)
    take = quota.floor().long()
    remainder_order = (take - quota).argsort(stable=True)
    take[remainder_order[: count - int(take.sum())]] += 1
    own = generator(seed, purpose)
    chosen = []
    for label, number in zip(classes, take.tolist(), strict=True):
        members = (labels == label).nonzero().squeeze(1)
        chosen.append(members[torch.randperm(len(members), generator=own)[:number]])
    return torch.cat(chosen).sort().values


def folds(labels: Tensor, number: int, *, seed: int) -> Tensor:
    """The fold (N,) of every sample, 0 ... number - 1: each class is shuffled and dealt out in turn."""
    own = generator(seed, "folds")
    fold = torch.empty(len(labels), dtype=torch.int64)
    dealt = 0
    for label in labels.unique():
        members = (labels == label).nonzero().squeeze(1)
        fold[members[torch.randperm(len(members), generator=own)]] = (torch.arange(len(members)) + dealt) % number
        dealt += len(members)  # so that the folds' sizes differ by one at most
    return fold


def divide(
    source: Source,
    *,
    val_samples: float | None,
    train_samples: int | None,
    seed: int,
    fold: tuple[int, int] | None = None,
) -> Splits:
    """Draw the splits of the run with this seed: validation out of train where the source has none, then a subset.

    `val_samples` is a number of images, or a fraction of the training images when below 1. With `fold` (k, cv) validation
    is the k-th of cv stratified parts of train and val together.
    Raises UserError, naming the setting, when more is asked than there is.
    """
    train, val = source.train, source.val
    num_classes = len(source.classes)
    if fold is not None:
        whole = train if val is None else Split(torch.cat([train.images, val.images]), torch.cat([train.labels, val.labels]))
        check_folds(fold[1], int(torch.bincount(whole.labels).min()))
        in_val = folds(whole.labels, fold[1], seed=seed) == fold[0]
        train, val = whole[~in_val], whole[in_val]
    if val is None:
        assert val_samples is not None, "a source without a validation split comes with data.val_samples"
        count = drawn_for_validation(val_samples, train=len(train), num_classes=num_classes)
        chosen = stratified(train.labels, count, seed=seed, purpose="split")
        rest = torch.ones(len(train), dtype=torch.bool)
        rest[chosen] = False
        train, val = train[rest], train[chosen]
    if train_samples is not None:
        check_train_samples(train_samples, train=len(train), num_classes=num_classes)
        train = train[stratified(train.labels, train_samples, seed=seed, purpose="subset")]
    return Splits(train=train, val=val, test=source.test, classes=source.classes)


class Normalize:
    """uint8 images (N, C, H, W) -> what the model takes: (x / 255 - mean) / std per channel, shaped (N, *shape).

    Equal bit for bit to torchvision's ToTensor followed by Normalize. A channel without any variation has std 1.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], shape: Sequence[int]) -> None:
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.shape = tuple(shape)
        self.dtype = torch.get_default_dtype()
        self.memory_format = torch.contiguous_format
        self._constants: tuple[Tensor, Tensor] | None = None

    @classmethod
    def fit(cls, images: Tensor, shape: Sequence[int]) -> "Normalize":
        """The mean and (population) standard deviation of the pixels (N, C, H, W), from exact integer sums."""
        channels = images.shape[1]
        total = torch.zeros(channels, dtype=torch.int64)
        squares = torch.zeros(channels, dtype=torch.int64)
        for part in images.split(4096):
            total += part.sum(dim=(0, 2, 3), dtype=torch.int64).cpu()
            squares += part.int().square_().sum(dim=(0, 2, 3), dtype=torch.int64).cpu()
        count = images.numel() // channels
        mean = total.double() / count
        std = (squares.double() / count - mean.square()).clamp(min=0).sqrt()
        std[std == 0] = 255
        return cls((mean / 255).tolist(), (std / 255).tolist(), shape)

    def for_model(self, dtype: torch.dtype, memory_format: torch.memory_format, device: torch.device) -> None:
        """Deliver in this precision and layout from now on, for images on this device."""
        self.dtype, self.memory_format = dtype, memory_format
        view = (1, -1, 1, 1)
        mean = torch.tensor(self.mean, dtype=dtype, device=device).view(view)
        self._constants = (mean, torch.tensor(self.std, dtype=dtype, device=device).view(view))

    def __call__(self, images: Tensor) -> Tensor:
        if self._constants is None:
            self.for_model(self.dtype, self.memory_format, images.device)
        assert self._constants is not None
        mean, std = self._constants
        x = images.to(dtype=self.dtype, memory_format=self.memory_format)
        x.div_(255).sub_(mean).div_(std)
        return x if x.shape[1:] == self.shape else x.reshape(-1, *self.shape)

    def black(self) -> tuple[float, ...]:
        """What a black pixel becomes, per channel: the value that shifted and cropped images are padded with."""
        return tuple(-m / s for m, s in zip(self.mean, self.std, strict=True))

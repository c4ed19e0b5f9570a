"""The three splits of a data set, in memory, and what a model sees of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ockham.core.datasets import check_folds, check_train_samples, drawn_for_validation
from ockham.core.metrics import Images
from ockham.rng import generator


class Pool:
    """Images (M, C, H, W) as uint8, or as float32, and their classes (M,) as int64, in memory once on each device that needs
    them.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels
        self._copies: dict[torch.device, Pool] = {}

    def to(self, device: torch.device) -> "Pool":
        if device.type == "cuda" and device.index is None:  # the same device has one copy, whatever it is called
            device = torch.device("cuda", torch.cuda.current_device())
        if self.images.device == device:
            return self
        if device not in self._copies:
            self._copies[device] = Pool(self.images.to(device), self.labels.to(device))
        return self._copies[device]


class Split:
    """Images (N, C, H, W) as uint8, or as float32, and their classes (N,) as int64.

    What is selected from a split shares its images in memory and holds no more than indices into them.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.pool = Pool(images, labels)
        self.index: Tensor | None = None  # (N,) into the pool; None: all of it
        self.other_labels: Tensor | None = None  # (N,) in place of those in the pool

    @classmethod
    def of(cls, pool: Pool, index: Tensor | None, other_labels: Tensor | None = None) -> "Split":
        """The images of the pool at `index` (N,) int64, all where it is None; with `other_labels` (N,) than the pool's."""
        split = cls.__new__(cls)
        split.pool, split.index, split.other_labels = pool, index, other_labels
        return split

    def __len__(self) -> int:
        return len(self.pool.labels if self.index is None else self.index)

    def __getitem__(self, index: Tensor) -> "Split":
        """The images at `index`, (n,) int64, or (N,) bool."""
        if index.dtype == torch.bool:
            index = index.nonzero().squeeze(1)
        other_labels = None if self.other_labels is None else self.other_labels[index]
        return Split.of(self.pool, index if self.index is None else self.index[index], other_labels)

    def relabelled(self, labels: Tensor) -> "Split":
        """The same images with other classes (N,)."""
        return Split.of(self.pool, self.index, labels)

    @property
    def device(self) -> torch.device:
        return self.pool.labels.device

    @property
    def places(self) -> Tensor:
        """Where in the pool each sample lies, (N,)."""
        return torch.arange(len(self), device=self.device) if self.index is None else self.index

    @property
    def labels(self) -> Tensor:
        if self.other_labels is not None:
            return self.other_labels
        return self.pool.labels if self.index is None else self.pool.labels[self.index]

    @property
    def images(self) -> Tensor:
        """All images at once, a copy where they are a selection: `batch` and `split` take fewer at a time."""
        return self.pool.images if self.index is None else self.pool.images[self.index]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return tuple(self.pool.images.shape[1:])

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The images (n, C, H, W) and classes (n,) at `index` (n,)."""
        pool_index = index if self.index is None else self.index.index_select(0, index)
        images = self.pool.images.index_select(0, pool_index)
        if self.other_labels is not None:
            return images, self.other_labels.index_select(0, index)
        return images, self.pool.labels.index_select(0, pool_index)

    def split(self, size: int) -> Iterator[Tensor]:
        """All images in parts of up to `size`, as Tensor.split."""
        for begin in range(0, len(self), size):
            part = slice(begin, begin + size)
            yield self.pool.images[part] if self.index is None else self.pool.images.index_select(0, self.index[part])

    def joined(self, other: "Split") -> "Split":
        """The images of both; they are copied into one place where they do not lie in one already."""
        if self.pool is other.pool and self.other_labels is other.other_labels is None:
            return Split.of(self.pool, torch.cat([self.places, other.places]))
        return Split(torch.cat([self.images, other.images]), torch.cat([self.labels, other.labels]))

    def probe(self, size: int) -> "Split":
        """A fixed sample of up to so many images, evenly spaced, so that it does not depend on how a seed shuffled them."""
        count = min(len(self), size)
        return self[torch.arange(count, device=self.device) * len(self) // count]

    def to(self, device: torch.device) -> "Split":
        index, labels = (None if each is None else each.to(device) for each in (self.index, self.other_labels))
        return Split.of(self.pool.to(device), index, labels)


@dataclass(frozen=True)
class Source:
    """What a data set offers before anything is drawn by seed: `val` is None where it names no validation split.

    train and val share a pool, so that folds of both are selections of it.
    """

    train: Split
    val: Split | None
    test: Split
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.val is not None:
            both = self.train.joined(self.val)
            positions = torch.arange(len(both)).split([len(self.train), len(self.val)])
            for name, index in zip(("train", "val"), positions, strict=True):
                object.__setattr__(self, name, both[index])

    def with_pixels_in_order(self, order: Tensor) -> "Source":
        """The same with the pixels of every image in another order (H * W,), of all channels alike."""

        def reordered(pool: Pool) -> Pool:
            return Pool(pool.images.flatten(2)[:, :, order].view_as(pool.images), pool.labels)

        training, test = reordered(self.train.pool), reordered(self.test.pool)
        return Source(
            train=Split.of(training, self.train.index),
            val=None if self.val is None else Split.of(training, self.val.index),
            test=Split.of(test, self.test.index),
            classes=self.classes,
        )


def pixel_order(image_shape: Sequence[int]) -> Tensor:
    """The random order (H * W,) into which data.shuffle_pixels puts the pixels of images (C, H, W), one for all runs."""
    _, height, width = image_shape
    return torch.randperm(height * width, generator=generator(0, "pixel order"))


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
    random_generator = generator(seed, purpose)
    chosen = []
    for label, number in zip(classes, take.tolist(), strict=True):
        members = (labels == label).nonzero().squeeze(1)
        chosen.append(members[torch.randperm(len(members), generator=random_generator)[:number]])
    return torch.cat(chosen).sort().values


def folds(labels: Tensor, number: int, *, seed: int) -> Tensor:
    """The fold (N,) of every sample, 0 ... number - 1: each class is shuffled and dealt out in turn."""
    random_generator = generator(seed, "folds")
    fold = torch.empty(len(labels), dtype=torch.int64)
    dealt = 0
    for label in labels.unique():
        members = (labels == label).nonzero().squeeze(1)
        fold[members[torch.randperm(len(members), generator=random_generator)]] = (torch.arange(len(members)) + dealt) % number
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
        whole = train if val is None else train.joined(val)
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


@dataclass(frozen=True)
class InputSpec:
    """What a model takes and says: the shape of an input, mean and std per channel, the names of the classes."""

    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]


class Normalize:
    """Stored images (N, C, H, W) -> what the model takes: (x - mean) / std per channel, shaped (N, *shape).

    uint8 is divided by 255 before, which equals torchvision's ToTensor followed by Normalize bit for bit. A channel without any
    variation has std 1.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], shape: Sequence[int]) -> None:
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.shape = tuple(shape)
        self.dtype = torch.get_default_dtype()
        self.memory_format = torch.contiguous_format
        self._constants: tuple[Tensor, Tensor] | None = None

    @classmethod
    def fit(cls, images: Images, shape: Sequence[int]) -> "Normalize":
        """The mean and (population) standard deviation of the pixels (N, C, H, W); of uint8 from exact integer sums."""
        total = squares = torch.zeros((), dtype=torch.int64)
        count, unit = 0, 1.0
        for part in images.split(256):  # large parts between what stays would leave holes in memory
            part, unit = (part.int(), 255.0) if part.dtype == torch.uint8 else (part.double(), 1.0)
            total = total + part.sum(dim=(0, 2, 3)).cpu()
            squares = squares + part.square().sum(dim=(0, 2, 3)).cpu()
            count += part.numel() // part.shape[1]
        mean = total.double() / count
        std = (squares.double() / count - mean.square()).clamp(min=0).sqrt()
        std[std == 0] = unit
        return cls((mean / unit).tolist(), (std / unit).tolist(), shape)

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
        # Numbers that are stored as they are must not be changed in place; bytes have been copied.
        x = x.div_(255).sub_(mean).div_(std) if images.dtype == torch.uint8 else (x - mean) / std
        return x if x.shape[1:] == self.shape else x.reshape(-1, *self.shape)

    def black(self) -> tuple[float, ...]:
        """What a black pixel becomes, per channel: the value that shifted and cropped images are padded with."""
        return tuple(-m / s for m, s in zip(self.mean, self.std, strict=True))

    def white(self) -> tuple[float, ...]:
        """What the brightest byte becomes, per channel."""
        return tuple((1 - m) / s for m, s in zip(self.mean, self.std, strict=True))

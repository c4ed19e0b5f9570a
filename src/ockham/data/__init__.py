"""Data sets as uint8 tensors in memory, splits, batches by index, whole-batch augmentation."""

from ockham.data.augment import Augment, Cutout, FlipCrop, Mixup, Shift
from ockham.data.image_folder import ImageFolder
from ockham.data.sources import Cifar10, Cifar100, DataSet, FashionMnist, Mnist, Mnist5k
from ockham.data.splits import InputSpec, Normalize, Source, Split, Splits, divide

__all__ = [
    "Augment",
    "Cifar10",
    "Cifar100",
    "Cutout",
    "DataSet",
    "FashionMnist",
    "FlipCrop",
    "ImageFolder",
    "InputSpec",
    "Mixup",
    "Mnist",
    "Mnist5k",
    "Normalize",
    "Shift",
    "Source",
    "Split",
    "Splits",
    "divide",
]

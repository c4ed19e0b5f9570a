"""Data sets as tensors in memory, splits, batches by index, whole-batch augmentation."""

from ockham.data.augment import Augment, CutMix, Cutout, FlipCrop, Mixup, RandomErasing, Shift
from ockham.data.image_folder import ImageFolder
from ockham.data.label_noise import LabelNoise
from ockham.data.mnist1d import Mnist1D
from ockham.data.sources import Cifar10, Cifar100, DataSet, Digits, FashionMnist, Mnist, Mnist5k
from ockham.data.splits import InputSpec, Normalize, Source, Split, Splits, divide, pixel_order
from ockham.data.trivial_augment import TrivialAugment

__all__ = [
    "Augment",
    "Cifar10",
    "Cifar100",
    "CutMix",
    "Cutout",
    "DataSet",
    "Digits",
    "FashionMnist",
    "FlipCrop",
    "ImageFolder",
    "InputSpec",
    "LabelNoise",
    "Mixup",
    "Mnist",
    "Mnist1D",
    "Mnist5k",
    "Normalize",
    "RandomErasing",
    "Shift",
    "Source",
    "Split",
    "Splits",
    "TrivialAugment",
    "divide",
    "pixel_order",
]

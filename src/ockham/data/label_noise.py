"""Wrong labels on purpose."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ockham.data.splits import Split, Splits
from ockham.rng import generator

LabelNoiseKind = Literal["symmetric", "pair", "permute"]


@dataclass(frozen=True)
class LabelNoise:
    """A share `rate` of the labels is replaced, in training and with `on_val` in validation; test labels are never touched.

    yaml: `data.label_noise`, `data.label_noise_kind`, `data.label_noise_val`. By kind:
    symmetric: each sample with probability `rate` gets one of the other classes, all alike (Patrini et al. 2017, Making Deep
    Neural Networks Robust to Label Noise). Where a paper redraws a share q of the labels from all C classes, `rate` is
    q (C - 1) / C.
    pair: with that probability class c becomes c + 1, the last class the first (Han et al. 2018, Co-teaching).
    permute: the samples chosen with that probability exchange their labels at random, so that the split keeps the number of
    each class; with rate 1 labels say nothing of the images (Zhang et al. 2017, Understanding Deep Learning).

    Whether a sample is chosen and what is drawn for it follows from the seed and its place in the data set alone: subsets and
    folds share their noise (of `permute` the samples that are chosen), and what a rate chooses, a higher one does too.
    """

    rate: float
    kind: LabelNoiseKind = "symmetric"
    on_val: bool = False

    def applied(self, splits: Splits, *, seed: int) -> Splits:
        def noisy(split: Split) -> Split:
            return split.relabelled(self.labels(split, num_classes=len(splits.classes), seed=seed))

        return Splits(
            train=noisy(splits.train),
            val=noisy(splits.val) if self.on_val else splits.val,
            test=splits.test,
            classes=splits.classes,
        )

    def labels(self, split: Split, *, num_classes: int, seed: int) -> Tensor:
        """The labels (N,) of the split with the noise."""
        labels, places, size = split.labels, split.places, len(split.pool.labels)

        def uniform(purpose: str) -> Tensor:
            return torch.rand(size, generator=generator(seed, purpose), dtype=torch.float64)[places]

        chosen = uniform("label noise") < self.rate
        if self.kind == "permute":
            order = uniform("label noise order")[chosen].argsort()
            return labels.masked_scatter(chosen, labels[chosen][order])
        step: Tensor | int = 1
        if self.kind == "symmetric":
            step = torch.randint(1, num_classes, (size,), generator=generator(seed, "label noise class"))[places]
        return torch.where(chosen, (labels + step) % num_classes, labels)

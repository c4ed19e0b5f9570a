"""What a model sees of a split."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ockham.core.metrics import Images
from ockham.data.splits import Normalize, Split

#: Splits of up to this size in the model's precision are normalised once, larger ones part by part as they are read.
MOST_KEPT_BYTES = 2**25


class Inputs:
    """The images of a split as `normalize` delivers them, and their classes (N,), all on the split's device.

    A small split is normalised once, which a small convolutional net would otherwise spend a twentieth of its time on: to take
    each batch out of many images, convert it and lay it out channels last. The numbers are the same bit for bit.
    `images` in parts, each through `prepare`, are the whole of it in order.
    """

    images: Images
    prepare: Callable[[Tensor], Tensor]

    def __init__(self, split: Split, normalize: Normalize) -> None:
        """`normalize` stays as it is from now on."""
        self.split, self.normalize = split, normalize
        self.labels = split.labels
        self.images, self.prepare = split, normalize
        self._rows: Tensor | None = None  # the images as they lie in memory, sample by sample
        if len(split) * math.prod(split.image_shape) * normalize.dtype.itemsize <= MOST_KEPT_BYTES:
            kept = normalize(split.images)
            self._channels_last = kept.ndim == 4 and normalize.memory_format is torch.channels_last
            self._rows = kept.permute(0, 2, 3, 1) if self._channels_last else kept
            self.images, self.prepare = kept, torch.clone  # a model may work on its input in place

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """What the model takes of the samples at `index` (n,), new in memory: images (n, ...) and classes (n,)."""
        if self._rows is None:
            images, labels = self.split.batch(index)
            return self.normalize(images), labels
        taken = self._rows.index_select(0, index)
        return taken.permute(0, 3, 1, 2) if self._channels_last else taken, self.labels.index_select(0, index)

"""The pictures of a finished run, as matplotlib figures without pyplot's global state."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from ockham.data import Split

MOST_CLASSES_WITH_NUMBERS = 20
MOST_FILTERS = 64


def confusion(predicted: Tensor, labels: Tensor, classes: Sequence[str]) -> Figure:
    """How often each class (row) was taken for each class (column), for predicted and true classes (N,)."""
    size = len(classes)
    counts = torch.bincount(labels * size + predicted, minlength=size * size).reshape(size, size).numpy()
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", title=f"test: {np.trace(counts):,} of {counts.sum():,} right")
    if size <= MOST_CLASSES_WITH_NUMBERS:
        axes.set_xticks(range(size), classes, rotation=45 if max(map(len, classes)) > 2 else 0, ha="center")
        axes.set_yticks(range(size), classes)
        for row, column in np.argwhere(counts):
            shade = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=shade, fontsize=8)
    return figure


def confidently_wrong(logits: Tensor, test: Split, classes: Sequence[str], *, number: int = 24) -> Figure:
    """The wrongly classified images with the highest predicted probability, for logits (N, C) of the test split."""
    confidence, predicted = logits.double().softmax(dim=1).max(dim=1)
    wrong = (predicted != test.labels).nonzero().squeeze(1)
    chosen = wrong[confidence[wrong].argsort(descending=True, stable=True)[:number]].tolist()
    images, labels = test.batch(torch.tensor(chosen, dtype=torch.int64))
    columns = 8
    figure = Figure(figsize=(columns * 1.4, math.ceil(number / columns) * 1.8), layout="constrained")
    figure.suptitle("most confidently wrong test images: predicted (probability), true")
    for place, index in enumerate(chosen):
        axes = figure.add_subplot(math.ceil(number / columns), columns, place + 1)
        _draw(axes, images[place])
        guess, truth = classes[int(predicted[index])], classes[int(labels[place])]
        axes.set_title(f"{guess} ({confidence[index]:.2f})\n{truth}", fontsize=8)
        axes.axis("off")
    return figure


def _draw(axes: Axes, image: Tensor) -> None:
    """A stored image (C, H, W); one of a single row is a signal."""
    if image.shape[1] == 1:
        axes.plot(image[:, 0].T.numpy(), color="black", linewidth=1)
        return
    pixels = image.permute(1, 2, 0).squeeze(-1).numpy()
    low, high = (0, 255) if image.dtype == torch.uint8 else (None, None)
    axes.imshow(pixels, cmap="gray" if pixels.ndim == 2 else None, vmin=low, vmax=high)


def first_filters(model: nn.Module, shape: Sequence[int]) -> Figure | None:
    """The weights of the first layer's units as images, or None where they are none (flat input, 1 x 1 kernels).

    Gray filters show negative weights blue and positive ones red; colour filters are scaled to the range of each.
    """
    layer = next(module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d)))
    weight = layer.weight.detach().float().cpu()
    if weight.ndim == 2:
        if len(shape) != 3:
            return None
        weight = weight.reshape(-1, *shape)
    if weight.shape[1] not in (1, 3) or min(weight.shape[2:]) < 3:
        return None
    weight = weight[:MOST_FILTERS]
    columns = min(16, len(weight))
    rows = math.ceil(len(weight) / columns)
    figure = Figure(figsize=(columns * 0.7, rows * 0.75 + 0.4), layout="constrained")
    figure.suptitle(f"first layer: {len(weight)} of {len(layer.weight)} filters")
    for place, kernel in enumerate(weight):
        axes = figure.add_subplot(rows, columns, place + 1)
        if len(kernel) == 1:
            bound = float(kernel.abs().max()) or 1.0
            axes.imshow(kernel[0].numpy(), cmap="RdBu_r", vmin=-bound, vmax=bound)
        else:
            low, high = kernel.min(), kernel.max()
            axes.imshow(((kernel - low) / (high - low).clamp(min=1e-12)).permute(1, 2, 0).numpy())
        axes.axis("off")
    return figure

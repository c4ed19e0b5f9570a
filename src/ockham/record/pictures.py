"""The pictures of a finished run, as matplotlib figures without pyplot's global state."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from ockham.data import Split
from ockham.record.screen import printable

MOST_CLASSES_WITH_NUMBERS = 20
MOST_FILTERS = 64


def _labels(classes: Sequence[str]) -> list[str]:
    """Names of classes as text of a picture: nothing in them is a formula, or a letter that no font has."""
    return [printable(name).replace("$", r"\$") for name in classes]


def confusion(predicted: Tensor, labels: Tensor, classes: Sequence[str]) -> Figure:
    """How often each class (row) was taken for each class (column), for predicted and true classes (N,)."""
    size, classes = len(classes), _labels(classes)
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


def confidently_wrong(logits: Tensor, split: Split, classes: Sequence[str], *, number: int = 24, name: str = "test") -> Figure:
    """The wrongly classified images with the highest predicted probability, for logits (N, C) of a split with this name."""
    classes = _labels(classes)
    confidence, predicted = logits.double().softmax(dim=1).max(dim=1)
    wrong = (predicted != split.labels).nonzero().squeeze(1)
    chosen = wrong[confidence[wrong].argsort(descending=True, stable=True)[:number]].tolist()
    images, labels = split.batch(torch.tensor(chosen, dtype=torch.int64))
    is_signal = images.shape[2] == 1
    size = (2, 3) if is_signal else images.shape[2:]
    sheet = _Sheet(size, columns=8, rows=max(math.ceil(len(chosen) / 8), 1), cell=(1.4, 1.72), text=0.37)
    sheet.figure.suptitle(f"most confidently wrong {name} images: predicted (probability), true")
    for place, index in enumerate(chosen):
        guess, truth = classes[int(predicted[index])], classes[int(labels[place])]
        text = f"{guess} ({confidence[index]:.2f})\n{truth}"
        if is_signal:
            sheet.add_signals(images[place, :, 0].numpy(), text)
        else:
            sheet.add(images[place].permute(1, 2, 0).squeeze(-1).numpy(), text, cmap="gray", vmin=0, vmax=255)
    return sheet.figure


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
    sheet = _Sheet(weight.shape[2:], columns=columns, rows=rows, cell=(0.7, 0.75))
    sheet.figure.suptitle(f"first layer: {len(weight)} of {len(layer.weight)} filters")
    for kernel in weight:
        if len(kernel) == 1:
            bound = float(kernel.abs().max()) or 1.0
            sheet.add(kernel[0].numpy(), cmap="RdBu_r", vmin=-bound, vmax=bound)
        else:
            low, high = kernel.min(), kernel.max()
            sheet.add(((kernel - low) / (high - low).clamp(min=1e-12)).permute(1, 2, 0).numpy())
    return sheet.figure


class _Sheet:
    """Small images of one size in rows, all in one axes: with one for each, the axes would take ten times the images' time."""

    def __init__(self, image: Sequence[int], *, columns: int, rows: int, cell: tuple[float, float], text: float = 0.0) -> None:
        """For images of (height, width) in cells of (width, height) inches, of which `text` inches are left above an image."""
        width, height = cell
        heading = 0.35
        self.figure = Figure(figsize=(columns * width, rows * height + heading))
        self.axes = self.figure.add_axes((0, 0, 1, 1 - heading / (rows * height + heading)))
        self.axes.axis("off")
        self.axes.set(xlim=(0, columns * width), ylim=(rows * height, 0), aspect="equal")
        self.columns, self.cell, self.text = columns, cell, text
        scale = 0.94 * min(width / image[1], (height - text) / image[0])
        self.size = scale * image[1], scale * image[0]
        self.number = 0

    def add(self, image: np.ndarray, text: str = "", **colours: Any) -> None:
        """The next image (height, width), with what imshow is to make of its numbers, or (height, width, 3)."""
        self.axes.imshow(image, extent=self._place(text), **colours)

    def add_signals(self, signals: np.ndarray, text: str = "") -> None:
        """The next place with lines, one for each channel (channels, n), each in its own range."""
        left, right, bottom, top = self._place(text)
        x = np.linspace(left, right, signals.shape[1])
        for signal in signals.astype(np.float64):
            low, spread = signal.min(), np.ptp(signal) or 1.0
            self.axes.plot(x, bottom + (top - bottom) * (signal - low) / spread, color="black", linewidth=1)

    def _place(self, text: str) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of the next place, with the text above it."""
        row, column = divmod(self.number, self.columns)
        self.number += 1
        centre, top = (column + 0.5) * self.cell[0], row * self.cell[1] + self.text
        if text:
            self.axes.text(centre, top - 0.05, text, fontsize=8, ha="center", va="bottom")
        return centre - self.size[0] / 2, centre + self.size[0] / 2, top + self.size[1], top

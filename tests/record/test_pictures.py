"""The pictures of a finished run show what they say."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from ockham.data import Split
from ockham.record.pictures import confidently_wrong, confusion, first_filters


def shown(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for image in figure.axes[0].images]


def test_wrong_images_come_by_confidence_with_their_classes_above_them() -> None:
    images = torch.arange(4 * 3 * 2 * 5, dtype=torch.uint8).reshape(4, 3, 2, 5)
    test = Split(images, torch.tensor([0, 1, 2, 0]))
    # Certain of the first, which is right; 1 for 2 and 2 for 1 are wrong, the latter with more confidence.
    logits = torch.tensor([[9.0, 0, 0], [0, 0, 3], [0, 2, 0], [4, 0, 0]])
    figure = confidently_wrong(logits, test, ("cat", "dog", "eel"))
    odds = [np.exp(logit) / (np.exp(logit) + 2) for logit in (3, 2)]
    assert [text.get_text() for text in figure.axes[0].texts] == [f"eel ({odds[0]:.2f})\ndog", f"dog ({odds[1]:.2f})\neel"]
    for array, index in zip(shown(figure), (1, 2), strict=True):
        assert np.array_equal(array, images[index].permute(1, 2, 0).numpy())
    first, second = (image.get_extent() for image in figure.axes[0].images)
    assert first[1] < second[0]  # side by side
    assert (first[1] - first[0]) / (first[2] - first[3]) == pytest.approx(5 / 2)  # square pixels


def test_names_of_classes_are_text() -> None:
    test = Split(torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.tensor([0, 1]))
    names = (r"$\\nosuchcommand$", "red \x1b[31m")
    figures = [
        confidently_wrong(torch.tensor([[0.0, 1], [1, 0]]), test, names),
        confusion(torch.tensor([0, 1]), test.labels, names),
    ]
    for figure in figures:
        figure.canvas.draw()  # a formula would not be readable, and a letter that no font has be warned of
    ticks = [label.get_text() for label in figures[1].axes[0].get_yticklabels()]
    assert ticks == [r"\$\\nosuchcommand\$", r"red \x1b[31m"]


def test_filters_stand_in_rows_of_sixteen_and_each_in_its_own_range() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 20))
    figure = first_filters(model, (1, 3, 4))
    assert figure is not None
    weight = model[1].weight.detach().reshape(20, 3, 4)
    for image, kernel in zip(figure.axes[0].images, weight, strict=True):
        assert np.array_equal(np.asarray(image.get_array()), kernel.numpy())
        assert image.get_clim() == (-float(kernel.abs().max()), float(kernel.abs().max()))
    tops = [image.get_extent()[3] for image in figure.axes[0].images]
    assert tops[:16] == [tops[0]] * 16
    assert tops[16:] == [tops[16]] * 4
    assert tops[16] > tops[0]


def test_colour_filters_span_the_whole_range_and_flat_inputs_have_none() -> None:
    figure = first_filters(nn.Sequential(nn.Conv2d(3, 2, 3)), (3, 8, 8))
    assert figure is not None
    assert [(array.min(), array.max(), array.shape) for array in shown(figure)] == [(0.0, 1.0, (3, 3, 3))] * 2
    assert first_filters(nn.Linear(12, 20), (12,)) is None


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_an_image_of_one_row_is_drawn_as_a_signal(dtype: torch.dtype) -> None:
    images = (torch.rand(4, 1, 1, 40) * 200).to(dtype)
    test = Split(images, torch.tensor([0, 1, 0, 1]))
    figure = confidently_wrong(torch.tensor([[9.0, 0], [3, 0], [0, 5], [0, 1]]), test, ("a", "b"))
    assert not figure.axes[0].images
    for line, index in zip(figure.axes[0].lines, (2, 1), strict=True):  # those that are wrong, the surest first
        signal, height = images[index, 0, 0].double().numpy(), -np.asarray(line.get_ydata())  # the axis points down
        ranged = [(values - values.min()) / np.ptp(values) for values in (signal, height)]
        np.testing.assert_allclose(*ranged, atol=1e-9)
    assert first_filters(nn.Linear(40, 3), (1, 1, 40)) is None

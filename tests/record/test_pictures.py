"""The pictures of a finished run, by what they draw."""

import numpy as np
import pytest
import torch

from ockham.data import Split
from ockham.record.pictures import confidently_wrong, first_filters


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_an_image_of_one_row_is_drawn_as_a_signal(dtype: torch.dtype) -> None:
    images = (torch.rand(4, 1, 1, 40) * 200).to(dtype)
    test = Split(images, torch.tensor([0, 1, 0, 1]))
    figure = confidently_wrong(torch.tensor([[9.0, 0], [3, 0], [0, 5], [0, 1]]), test, ("a", "b"))
    drawn = [axes.lines[0].get_ydata() for axes in figure.axes]
    np.testing.assert_array_equal(drawn, images[[2, 1], 0, 0].numpy())  # those that are wrong, the surest first
    assert first_filters(torch.nn.Linear(40, 3), (1, 1, 40)) is None


def test_images_of_bytes_are_drawn_from_black_to_white() -> None:
    test = Split(torch.full((2, 1, 5, 5), 100, dtype=torch.uint8), torch.tensor([0, 1]))
    figure = confidently_wrong(torch.tensor([[9.0, 0], [3, 0]]), test, ("a", "b"))
    (axes,) = figure.axes
    assert axes.images[0].get_clim() == (0, 255)

"""What a model sees of a split does not depend on whether it was normalised at once or part by part."""

import pytest
import torch

from ockham.core.metrics import Images
from ockham.data import Normalize, Split
from ockham.data.inputs import MOST_KEPT_BYTES, Inputs

FORMATS = {"dense": torch.contiguous_format, "convolutional": torch.channels_last}


def split_of(count: int, shape: tuple[int, int, int]) -> Split:
    """A selection in mixed order from a larger pool."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count + 5, *shape), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (count + 5,), generator=generator)
    return Split(images, labels)[torch.randperm(count + 5, generator=generator)[:count]]


def normalize_of(split: Split, shape: tuple[int, ...], layout: torch.memory_format, dtype: torch.dtype) -> Normalize:
    normalize = Normalize.fit(split, shape)
    normalize.for_model(dtype, layout, torch.device("cpu"))
    return normalize


def parts(images: Images, size: int) -> list[torch.Tensor]:
    return list(images.split(size))


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("shape", [(1, 6, 7), (3, 6, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_small_split_is_kept_as_the_numbers_that_normalize_gives(
    layout: str, shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    split = split_of(20, shape)
    normalize = normalize_of(split, shape, FORMATS[layout], dtype)
    inputs = Inputs(split, normalize)
    index = torch.tensor([7, 0, 19, 7])
    images, labels = split.batch(index)
    x, y = inputs.batch(index)
    assert torch.equal(x, normalize(images))
    assert x.stride() == normalize(images).stride()
    assert torch.equal(y, labels)
    for part, stored in zip(parts(inputs.images, 8), parts(split, 8), strict=True):
        expected = normalize(stored)
        assert torch.equal(inputs.prepare(part), expected)
        assert inputs.prepare(part).stride() == expected.stride()


def test_what_a_model_does_to_its_input_in_place_does_no_harm() -> None:
    split = split_of(6, (1, 2, 3))
    inputs = Inputs(split, normalize_of(split, (6,), torch.contiguous_format, torch.float32))
    index = torch.arange(6)
    before = inputs.batch(index)[0].clone()
    inputs.batch(index)[0].zero_()
    for part in parts(inputs.images, 4):
        inputs.prepare(part).zero_()
    assert torch.equal(inputs.batch(index)[0], before)


def test_a_large_split_is_read_as_it_is_stored() -> None:
    shape = (3, 64, 64)
    split = split_of(MOST_KEPT_BYTES // (3 * 64 * 64 * 4) + 1, shape)
    normalize = normalize_of(split, shape, torch.channels_last, torch.float32)
    inputs = Inputs(split, normalize)
    assert inputs.images is split
    index = torch.tensor([3, 1])
    assert torch.equal(inputs.batch(index)[0], normalize(split.batch(index)[0]))

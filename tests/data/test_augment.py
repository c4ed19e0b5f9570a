"""Whole-batch augmentation, against torchvision's functions on single images and formulas written by hand."""

import pytest
import torch
import torchvision.transforms.functional as tv

from ockham.data import Cutout, FlipCrop, Mixup, Shift
from ockham.data.augment import shift_and_flip
from ockham.rng import generator

BLACK = (-1.0, -2.0, -3.0)


def draw() -> torch.Generator:
    return generator(0, "augment")


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(64, 3, 8, 10, generator=generator(0, "x"))


def test_shift_and_flip_is_torchvisions_flip_pad_and_crop(x: torch.Tensor) -> None:
    down, right = (torch.randint(-4, 5, (64,), generator=generator(0, name)) for name in ("down", "right"))
    flip = torch.rand(64, generator=generator(0, "flip")) < 0.5
    moved = shift_and_flip(x, down=down, right=right, flip=flip, black=BLACK)
    for n in range(64):
        image = tv.hflip(x[n]) if flip[n] else x[n]
        padded = torch.stack([tv.pad(image[c : c + 1], [4], fill=BLACK[c])[0] for c in range(3)])
        assert torch.equal(moved[n], tv.crop(padded, int(4 - down[n]), int(4 - right[n]), 8, 10))


def test_shift_moves_by_every_distance_up_to_its_limit() -> None:
    x = torch.zeros(400, 1, 9, 9)
    x[:, :, 4, 4] = 1
    moved, _ = Shift(pixels=2)(x, torch.zeros(400), generator=draw(), black=(0.0,), num_classes=10)
    positions = {tuple(position.tolist()) for position in moved.squeeze(1).nonzero()[:, 1:]}
    assert positions == {(row, column) for row in range(2, 7) for column in range(2, 7)}


def test_flip_crop_mirrors_half_of_the_images() -> None:
    x = torch.arange(10.0).expand(2000, 1, 10, 10)
    moved, _ = FlipCrop(padding=0)(x, torch.zeros(2000), generator=draw(), black=(0.0,), num_classes=10)
    mirrored = moved[:, 0, 0, 0] == 9
    assert torch.equal(moved[mirrored], x[mirrored].flip(-1))
    assert torch.equal(moved[~mirrored], x[~mirrored])
    assert 0.45 < mirrored.double().mean() < 0.55


def test_cutout_sets_one_square_to_the_mean_colour() -> None:
    x = torch.ones(500, 3, 12, 12)
    cut, _ = Cutout(size=4)(x, torch.zeros(500), generator=draw(), black=BLACK, num_classes=10)
    holes = cut[:, 0] == 0
    assert torch.equal(cut, torch.where(holes[:, None], 0.0, x))
    heights, widths = holes.any(dim=2).sum(dim=1), holes.any(dim=1).sum(dim=1)
    assert torch.equal(holes.sum(dim=(1, 2)), heights * widths)  # a rectangle
    assert set(heights.tolist()) == {2, 3, 4}  # smaller where it reaches over the border
    assert (heights == 4).double().mean() == pytest.approx(9 / 12, abs=0.07)


def test_mixup_mixes_images_and_labels_alike() -> None:
    y = torch.arange(64) % 10
    x = y.double().view(-1, 1, 1, 1).expand(64, 1, 2, 2)
    mixed, target = Mixup(alpha=1.0)(x, y, generator=draw(), black=(0.0,), num_classes=10)
    torch.testing.assert_close(target.sum(dim=1), torch.ones(64, dtype=torch.float64))
    torch.testing.assert_close(mixed[:, 0, 0, 0], target @ torch.arange(10.0, dtype=torch.float64))
    assert len(target.unique()) > 2


def test_mixup_draws_from_beta() -> None:
    generator = draw()
    x = torch.eye(2).view(2, 1, 1, 2)
    shares = []
    for _ in range(2000):
        mixed, _ = Mixup(alpha=0.4)(x, torch.arange(2), generator=generator, black=(0.0,), num_classes=2)
        shares.append(mixed[0, 0, 0, 0])
    share = torch.stack(shares)
    # With probability 1/2 a sample is its own partner; otherwise l ~ Beta(0.4, 0.4), of variance 1 / (4 (2 alpha + 1)).
    partners = share[share < 1]
    assert partners.mean() == pytest.approx(0.5, abs=0.04)
    assert partners.var() == pytest.approx(1 / (4 * 1.8), abs=0.02)


@pytest.mark.parametrize("augment", [Shift(), FlipCrop(), Cutout(), Mixup()])
def test_augmentation_follows_its_generator(augment: object, x: torch.Tensor) -> None:
    y = torch.arange(64) % 10
    first, second, other = (
        augment(x, y, generator=generator(0, "augment", epoch), black=BLACK, num_classes=10)[0] for epoch in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)

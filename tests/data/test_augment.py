"""Whole-batch augmentation, against torchvision's functions on single images and formulas written by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as tv
from scipy.stats import ks_2samp
from torchvision.transforms import v2

from conftest import compose
from ockham import build
from ockham.data import CutMix, Cutout, FlipCrop, Mixup, Normalize, RandomErasing, Shift, TrivialAugment
from ockham.data.augment import inside_box, paste_box, shift_and_flip
from ockham.data.trivial_augment import NUM_STRENGTHS, OPERATIONS, changed_pixels
from ockham.errors import UserError
from ockham.rng import generator

BLACK, WHITE = (-1.0, -2.0, -3.0), (1.0, 2.0, 3.0)


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
    moved, _ = Shift(pixels=2)(x, torch.zeros(400), generator=draw(), black=(0.0,), white=(1.0,), num_classes=10)
    positions = {tuple(position.tolist()) for position in moved.squeeze(1).nonzero()[:, 1:]}
    assert positions == {(row, column) for row in range(2, 7) for column in range(2, 7)}


def test_flip_crop_mirrors_half_of_the_images() -> None:
    x = torch.arange(10.0).expand(2000, 1, 10, 10)
    moved, _ = FlipCrop(padding=0)(x, torch.zeros(2000), generator=draw(), black=(0.0,), white=(1.0,), num_classes=10)
    mirrored = moved[:, 0, 0, 0] == 9
    assert torch.equal(moved[mirrored], x[mirrored].flip(-1))
    assert torch.equal(moved[~mirrored], x[~mirrored])
    assert 0.45 < mirrored.double().mean() < 0.55


def test_cutout_sets_one_square_to_the_mean_colour() -> None:
    x = torch.ones(500, 3, 12, 12)
    cut, _ = Cutout(size=4)(x, torch.zeros(500), generator=draw(), black=BLACK, white=WHITE, num_classes=10)
    holes = cut[:, 0] == 0
    assert torch.equal(cut, torch.where(holes[:, None], 0.0, x))
    heights, widths = holes.any(dim=2).sum(dim=1), holes.any(dim=1).sum(dim=1)
    assert torch.equal(holes.sum(dim=(1, 2)), heights * widths)  # a rectangle
    assert set(heights.tolist()) == {2, 3, 4}  # smaller where it reaches over the border
    assert (heights == 4).double().mean() == pytest.approx(9 / 12, abs=0.07)


def test_mixup_mixes_images_and_labels_alike() -> None:
    y = torch.arange(64) % 10
    x = y.double().view(-1, 1, 1, 1).expand(64, 1, 2, 2)
    mixed, target = Mixup(alpha=1.0)(x, y, generator=draw(), black=(0.0,), white=(1.0,), num_classes=10)
    torch.testing.assert_close(target.sum(dim=1), torch.ones(64, dtype=torch.float64))
    torch.testing.assert_close(mixed[:, 0, 0, 0], target @ torch.arange(10.0, dtype=torch.float64))
    assert len(target.unique()) > 2


def test_mixup_draws_from_beta() -> None:
    generator = draw()
    x = torch.eye(2).view(2, 1, 1, 2)
    shares = []
    for _ in range(2000):
        mixed, _ = Mixup(alpha=0.4)(x, torch.arange(2), generator=generator, black=(0.0,), white=(1.0,), num_classes=2)
        shares.append(mixed[0, 0, 0, 0])
    share = torch.stack(shares)
    # With probability 1/2 a sample is its own partner; otherwise l ~ Beta(0.4, 0.4), of variance 1 / (4 (2 alpha + 1)).
    partners = share[share < 1]
    assert partners.mean() == pytest.approx(0.5, abs=0.04)
    assert partners.var() == pytest.approx(1 / (4 * 1.8), abs=0.02)


def test_cutmix_is_torchvisions_for_the_same_box_and_partner(x: torch.Tensor) -> None:
    """torchvision's partner is the sample before; box and share are drawn from its own, global generator."""
    y = torch.arange(64) % 10
    reference = v2.CutMix(num_classes=10)
    with torch.random.fork_rng():
        for seed in range(20):
            torch.manual_seed(seed)
            drawn = reference.make_params([x])
            left, top, right, bottom = (torch.tensor([side]) for side in drawn["box"])
            params = {**drawn, "labels": y, "batch_size": 64}
            expected, expected_target = (reference.transform(each, params) for each in (x, y))
            pasted, target = paste_box(x, F.one_hot(y, 10).float(), torch.arange(64).roll(1), (top, bottom), (left, right))
            assert torch.equal(pasted, expected)
            torch.testing.assert_close(target, expected_target)


def test_cutmix_mixes_labels_by_the_pixels_of_each() -> None:
    """Every image has the number of its class everywhere. The loss and its gradient are the paper's mixture of two losses."""
    y = torch.arange(64) % 10
    x = y.float().view(-1, 1, 1, 1).expand(64, 1, 12, 16)
    draws = draw()
    boxes = []
    for _ in range(50):
        mixed, target = CutMix()(x, y, generator=draws, black=(0.0,), white=(1.0,), num_classes=10)
        counts = torch.stack([(mixed == label).sum(dim=(1, 2, 3)) for label in range(10)], dim=1)
        torch.testing.assert_close(target, counts / (12 * 16))
        foreign = (mixed != x).any(dim=0).squeeze(0)
        boxes.append((int(foreign.any(dim=1).sum()), int(foreign.any(dim=0).sum())))
        assert int(foreign.sum()) == boxes[-1][0] * boxes[-1][1]
    assert len(set(boxes)) > 30, "the area of the box is drawn anew for each batch"
    logits = torch.randn(64, 10, generator=draws, requires_grad=True)
    own = (target * F.one_hot(y, 10)).sum(dim=1)
    other = (target * (1 - F.one_hot(y, 10))).argmax(dim=1)
    other = torch.where(own < 1, other, y)
    loss = F.cross_entropy(logits, target)
    expected = (own * F.cross_entropy(logits, y, reduction="none")).mean()
    expected = expected + ((1 - own) * F.cross_entropy(logits, other, reduction="none")).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(each, logits)[0] for each in (loss, expected)))


def test_the_box_of_cutmix_has_the_area_of_a_beta_variable() -> None:
    """Of 3,000 batches of one wide image whose box nearly never reaches over both borders at once."""
    x, draws = torch.zeros(2, 1, 100, 100), draw()
    x[1] = 1
    sides = []
    for _ in range(3000):
        mixed, _ = CutMix(alpha=0.7)(x, torch.arange(2), generator=draws, black=(0.0,), white=(1.0,), num_classes=2)
        foreign = mixed[0, 0] == 1
        rows, columns = foreign.any(dim=1).nonzero(), foreign.any(dim=0).nonzero()
        if len(rows) and min(rows.min(), columns.min()) > 0 and max(rows.max(), columns.max()) < 99:
            sides.append((len(rows), len(columns)))
    assert len(sides) > 200
    assert all(abs(height - width) <= 1 for height, width in sides), "a square image has square boxes"
    # An unclipped box of side r has its centre in a share (1 - r)^2 of the image, with which its law is weighted.
    r = np.sqrt(np.random.default_rng(0).beta(0.7, 0.7, 200_000))
    kept = np.random.default_rng(1).random(200_000) < (1 - r) ** 2
    assert ks_2samp(np.array([height for height, _ in sides]) / 100 + 0.01, r[kept]).pvalue > 0.01


def test_random_erasing_draws_the_rectangles_of_torchvision() -> None:
    """Heights, widths and places, by Kolmogorov and Smirnov; torchvision draws one image after the other."""
    x = torch.zeros(4000, 1, 20, 30)
    erase = RandomErasing(probability=1.0, max_area=0.33, min_aspect=0.3)
    erased, y = erase(x, torch.arange(4000), generator=draw(), black=(0.0,), white=(1.0,), num_classes=10)
    assert torch.equal(y, torch.arange(4000))
    reference = v2.RandomErasing(p=1.0, scale=(0.02, 0.33), ratio=(0.3, 1 / 0.3), value="random")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [reference.make_params([x[0]]) for _ in range(4000)]
    rows, columns = (erased != 0).any(dim=3).squeeze(1), (erased != 0).any(dim=2).squeeze(1)
    assert torch.equal((erased != 0).squeeze(1), rows[:, :, None] & columns[:, None, :])
    ours = {"h": rows.sum(dim=1), "w": columns.sum(dim=1), "i": rows.byte().argmax(dim=1), "j": columns.byte().argmax(dim=1)}
    for name, values in ours.items():
        assert ks_2samp(values.numpy(), [each[name] for each in drawn]).pvalue > 0.01, name
    noise = erased[erased != 0]
    assert noise.mean() == pytest.approx(0, abs=0.01)
    assert noise.std() == pytest.approx(1, abs=0.01)


def test_random_erasing_leaves_some_images_and_the_rest_of_all() -> None:
    x = torch.full((1000, 3, 32, 32), 7.0)
    erased, _ = RandomErasing(probability=0.3)(x, x, generator=draw(), black=BLACK, white=WHITE, num_classes=10)
    changed = (erased != x).any(dim=(1, 2, 3))
    assert changed.double().mean() == pytest.approx(0.3, abs=0.04)
    areas = (erased != x).any(dim=1).sum(dim=(1, 2))[changed]
    assert 0.9 * 0.02 <= float(areas.min()) / 1024 < float(areas.max()) / 1024 <= 1.1 * 0.4  # to the nearest row and column


def test_random_erasing_leaves_an_image_in_which_nothing_fits() -> None:
    x = torch.ones(50, 1, 1, 8)
    erased, _ = RandomErasing(probability=1.0)(x, x, generator=draw(), black=(0.0,), white=(1.0,), num_classes=10)
    assert torch.equal(erased, x)


def test_a_box_is_what_slices_are() -> None:
    rows, columns = (torch.tensor([0, 2]), torch.tensor([3, 2])), (torch.tensor([1, 0]), torch.tensor([5, 5]))
    box = inside_box(torch.zeros(2, 3, 4, 5), rows, columns)
    expected = torch.zeros(2, 1, 4, 5, dtype=torch.bool)
    expected[0, :, 0:3, 1:5] = True
    assert torch.equal(box, expected)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 9, 14), (1, 2, 5)])
@pytest.mark.parametrize("index", range(len(OPERATIONS)), ids=list(OPERATIONS))
def test_each_operation_of_trivial_augment_is_torchvisions(index: int, shape: tuple[int, ...]) -> None:
    """At every strength, in both directions, on noise, on few dark values, on a ramp and on one colour.

    Byte for byte, but for blends: those of torchvision are rounded before they are cut, as the processor does it.
    """
    reference = v2.TrivialAugmentWide(num_magnitude_bins=NUM_STRENGTHS)
    name, (strengths_of, has_sign) = list(reference._AUGMENTATION_SPACE.items())[index]
    assert name.lower() == list(OPERATIONS)[index].replace("_", "")
    images = torch.randint(0, 256, (4, *shape), generator=generator(0, "images")).byte()
    images[1] //= 4
    images[2] = torch.linspace(0, 255, images[2].numel()).byte().view(shape)
    images[3] = 7
    strengths = strengths_of(NUM_STRENGTHS, *shape[1:])
    differences = []
    for step in range(NUM_STRENGTHS):
        for is_negative in (False, True):
            strength = 0.0 if strengths is None else float(strengths[step])
            expected = reference._apply_image_or_video_transform(
                images, name, -strength if is_negative and has_sign else strength, reference.interpolation, reference._fill
            )
            operation, steps, signs = (torch.full((4,), value) for value in (index, step, is_negative))
            differences.append(changed_pixels(images.float(), operation, steps, signs) - expected.float())
    difference = torch.stack(differences).abs()
    if name in ("Brightness", "Color", "Contrast", "Sharpness"):
        assert difference.max() <= 1
        assert difference[:, :3].mean() < 0.02  # all pixels of one colour are cut alike
    else:
        assert difference.max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_trivial_augment_gives_what_torchvision_gives_of_the_stored_bytes(dtype: torch.dtype) -> None:
    """From normalised images; each with the operation, strength and direction that were drawn for it."""
    images = torch.randint(0, 256, (300, 3, 8, 8), generator=generator(0, "images")).byte()
    normalize = Normalize((0.4, 0.5, 0.3), (0.2, 0.25, 0.3), (3, 8, 8))
    normalize.for_model(dtype, torch.contiguous_format, torch.device("cpu"))
    x, y = normalize(images), torch.arange(300)
    settings = {"black": normalize.black(), "white": normalize.white(), "num_classes": 10}
    changed, same = TrivialAugment()(x, y, generator=draw(), **settings)
    assert same is y
    draws = draw()
    operation = torch.randint(14, (300,), generator=draws)
    step = torch.randint(31, (300,), generator=draws)
    is_negative = torch.rand(300, generator=draws, dtype=dtype) < 0.5
    assert operation.unique().tolist() == list(range(14))
    expected = normalize(changed_pixels(images.float(), operation, step, is_negative).byte())
    torch.testing.assert_close(changed, expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-12)
    assert torch.equal(changed[operation == 0], x[operation == 0])


def test_trivial_augment_leaves_the_global_generator_alone(x: torch.Tensor) -> None:
    before = torch.get_rng_state()
    TrivialAugment()(x, x, generator=draw(), black=BLACK, white=WHITE, num_classes=10)
    assert torch.equal(torch.get_rng_state(), before)


def test_trivial_augment_refuses_images_without_light_and_colour() -> None:
    with pytest.raises(
        UserError, match=r"augment=trivial_augment .* 1 channels of numbers that are no bytes: set augment=none"
    ):
        build.run(compose("data=mnist1d", "augment=trivial_augment"))


@pytest.mark.parametrize("augment", [Shift(), FlipCrop(), Cutout(), Mixup(), CutMix(), RandomErasing(), TrivialAugment()])
def test_augmentation_follows_its_generator(augment: object, x: torch.Tensor) -> None:
    y = torch.arange(64) % 10
    settings = {"black": BLACK, "white": WHITE, "num_classes": 10}
    first, second, other = (augment(x, y, generator=generator(0, "augment", epoch), **settings)[0] for epoch in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)

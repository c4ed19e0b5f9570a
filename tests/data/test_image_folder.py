"""Image folders against PIL and formulas, and their cache against whatever may lie in its place."""

import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data_files import write_images
from ockham.core import tensorfile
from ockham.data import ImageFolder
from ockham.data.image_folder import decode
from ockham.errors import UserError


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_image_folder_decodes_as_pil_does(tmp_path: Path, mode: str, channels: int) -> None:
    write_images(tmp_path, mode=mode)
    source = ImageFolder(str(tmp_path), size=8).load()
    assert source.classes == ("cat", "dog")
    assert source.train.images.shape == (12, channels, 8, 8)
    assert source.train.labels.tolist() == [0] * 6 + [1] * 6
    with Image.open(tmp_path / "train" / "dog" / "2.png") as image:
        expected = np.asarray(image.resize((8, 8), Image.Resampling.BILINEAR))
    assert np.array_equal(source.train.images[8].permute(1, 2, 0).squeeze(-1).numpy(), expected)


def test_image_folder_takes_val_where_there_is_one(tmp_path: Path) -> None:
    write_images(tmp_path, splits=("train", "val", "test"))
    source = ImageFolder(str(tmp_path), size=8).load()
    assert source.val is not None
    assert len(source.val) == 12


def test_the_cache_is_keyed_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path)
    decoded = []
    monkeypatch.setattr("ockham.data.image_folder.decode", lambda *arguments: decoded.append(arguments) or decode(*arguments))
    first = ImageFolder(str(tmp_path), size=8).load()
    assert len(decoded) == 24
    again = ImageFolder(str(tmp_path), size=8).load()
    assert len(decoded) == 24
    assert torch.equal(first.train.images, again.train.images)
    file = tmp_path / "train" / "cat" / "0.png"
    file.touch()  # another time, the same bytes
    ImageFolder(str(tmp_path), size=8).load()
    assert len(decoded) == 24
    with Image.open(tmp_path / "train" / "cat" / "1.png") as image:
        image.save(file)
    changed = ImageFolder(str(tmp_path), size=8).load()
    assert len(decoded) == 48
    assert not torch.equal(first.train.images, changed.train.images)


def flip(content: dict[str, Any]) -> None:
    content["images"]["train"][3, 0, 2, 2] ^= 1


def swap(content: dict[str, Any]) -> None:
    images = content["images"]
    images["train"], images["test"] = images["test"], images["train"]


#: What may lie where a cache file belongs: each is made from the content of the real one.
DAMAGE: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    "cut": lambda file, content: file.write_bytes(file.read_bytes()[:100]) and None,
    "empty": lambda file, content: file.write_bytes(b"") and None,
    "foreign": lambda file, content: torch.save([1, 2], file),
    "pickle": lambda file, content: file.write_bytes(pickle.dumps(Path("x"))) and None,
    "flipped bit": lambda file, content: torch.save(content | {"images": altered(content, flip)}, file),
    "swapped splits": lambda file, content: torch.save(content | {"images": altered(content, swap)}, file),
    "of another key": lambda file, content: tensorfile.save(file, {"key": "0" * 32, "images": content["images"]}),
    "no images": lambda file, content: tensorfile.save(file, {"key": file.stem, "images": {"train": 1, "test": 2}}),
    "a split less": lambda file, content: tensorfile.save(file, {"key": file.stem, "images": {"train": 1}}),
    "fewer images": lambda file, content: tensorfile.save(
        file, {"key": file.stem, "images": {split: images[:2] for split, images in content["images"].items()}}
    ),
    "another type": lambda file, content: tensorfile.save(
        file, {"key": file.stem, "images": {split: images.float() for split, images in content["images"].items()}}
    ),
}


def altered(content: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> dict[str, torch.Tensor]:
    copy = {"images": {split: images.clone() for split, images in content["images"].items()}}
    change(copy)
    return copy["images"]


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_wrong_in_the_cache_is_named_and_decoded_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_images(tmp_path)
    first = ImageFolder(str(tmp_path), size=8).load()
    (file,) = (tmp_path / ".ockham-cache").glob("*.pt")
    whole = file.read_bytes()
    DAMAGE[damage](file, torch.load(file, weights_only=True))
    assert file.read_bytes() != whole
    with caplog.at_level("WARNING", logger="ockham"):
        again = ImageFolder(str(tmp_path), size=8).load()
    assert str(file) in caplog.text
    assert "weights_only" not in caplog.text, "nobody is advised to run what a file holds"
    assert torch.equal(again.train.images, first.train.images)
    assert torch.equal(again.test.images, first.test.images)
    caplog.clear()
    ImageFolder(str(tmp_path), size=8).load()
    assert caplog.text == "", "the file was written again"


@pytest.mark.parametrize(
    "content",
    [b"../../escaped", b"/etc/passwd", b"0" * 31, b"A" * 32, b"", b"0" * 100_000, b"\xff" * 32, b"0" * 32 + b"\n", None],
)
def test_a_key_file_is_checked_before_it_becomes_a_path(
    tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "root"
    write_images(root)
    first = ImageFolder(str(root), size=8).load()
    (key_file,) = (root / ".ockham-cache").glob("*.key")
    key = key_file.read_bytes()
    key_file.unlink()
    if content is None:
        key_file.mkdir()
    else:
        key_file.write_bytes(content)
    with caplog.at_level("WARNING", logger="ockham"):
        again = ImageFolder(str(root), size=8).load()
    assert f"{key_file} holds no key of the image cache" in caplog.text
    assert torch.equal(again.train.images, first.train.images)
    assert {path.name for path in tmp_path.iterdir()} == {"root"}, "nothing is written elsewhere"
    assert len(list((root / ".ockham-cache").glob("*.pt"))) == 1
    assert content is None or key_file.read_bytes() == key


@contextmanager
def unprivileged() -> Iterator[None]:
    """As a user whom permissions hold, also where the tests are run by root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def for_all() -> Iterator[Path]:
    """A folder that every user may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("filled", [True, False])
def test_a_read_only_cache_is_read_and_not_needed(
    for_all: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, filled: bool
) -> None:
    write_images(for_all)
    first = ImageFolder(str(for_all), size=8).load()
    cache = for_all / ".ockham-cache"
    for file in [] if filled else list(cache.iterdir()):
        file.unlink()
    decoded = []
    monkeypatch.setattr("ockham.data.image_folder.decode", lambda *arguments: decoded.append(arguments) or decode(*arguments))
    for path in (for_all, cache):
        path.chmod(0o555)
    try:
        with unprivileged():
            source = ImageFolder(str(for_all), size=8).load()
    finally:
        for path in (for_all, cache):
            path.chmod(0o755)
    assert torch.equal(source.train.images, first.train.images)
    assert len(decoded) == (0 if filled else 24)
    assert ("cannot be written" in caplog.text) == (not filled)


def test_a_cache_that_is_a_file_is_done_without(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / ".ockham-cache").write_text("in the way")
    assert len(ImageFolder(str(tmp_path), size=8).load().train) == 12
    assert (tmp_path / ".ockham-cache").read_text() == "in the way"


# -- kinds of images -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ending", "kind"), [("png", "<u2"), ("tif", "<u2"), ("tif", ">u2"), ("pgm", "<u2"), ("tif", "<i4")])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, ending: str, kind: str) -> None:
    values = np.arange(65536, dtype=kind).reshape(256, 256)
    file = tmp_path / f"ramp.{ending}"
    if ending == "pgm":  # which older versions of Pillow read but do not write
        file.write_bytes(b"P5 256 256 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(file)
    with Image.open(file) as image:
        assert image.mode.startswith("I"), "more than 8 bits, as Pillow opens it"
    expected = np.round(np.arange(65536) / 257).reshape(256, 256)
    for mode, channels in (("L", 1), ("RGB", 3)):
        pixels = decode(file, 256, mode)
        assert pixels.dtype == np.uint8
        assert pixels.shape == (channels, 256, 256)
        assert (pixels == expected).all()


@pytest.mark.parametrize(
    ("values", "told"), [(np.full((4, 4), 70_000, "<i4"), "16 bits"), (np.ones((4, 4), "<f4"), "floating")]
)
def test_numbers_without_a_known_range_are_refused(tmp_path: Path, values: np.ndarray, told: str) -> None:
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match=rf"x\.tif holds .*{told}.*: save it with 8 or 16 bits"):
        decode(tmp_path / "x.tif", 4, "L")


def test_sixteen_bit_folders_stay_gray(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for place, name in enumerate(("cat", "dog")):
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(np.full((8, 8), 20_000 + 257 * place, np.uint16)).save(tmp_path / split / name / "0.png")
    images = ImageFolder(str(tmp_path), size=8).load().train.images
    assert images.shape == (2, 1, 8, 8)
    assert images.flatten(1).unique(dim=1).flatten().tolist() == [78, 79]


def test_palettes_alpha_and_cmyk_become_what_the_docstring_says(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0)
    colours = drawn.integers(0, 256, (4, 3), dtype=np.uint8)
    indices = drawn.integers(0, 4, (8, 8), dtype=np.uint8)
    palette = Image.frombytes("P", (8, 8), indices.tobytes())
    palette.putpalette(colours.tobytes())
    second = palette.transpose(Image.Transpose.ROTATE_90)
    palette.save(tmp_path / "still.gif", optimize=False)
    palette.save(tmp_path / "moving.gif", save_all=True, append_images=[second], optimize=False)
    palette.save(tmp_path / "clear.png", transparency=bytes([0, 128, 255, 7]))
    for name in ("still.gif", "moving.gif", "clear.png"):
        assert np.array_equal(decode(tmp_path / name, 8, "RGB"), colours[indices].transpose(2, 0, 1)), name
    pixels = drawn.integers(0, 256, (8, 8, 4), dtype=np.uint8)
    Image.fromarray(pixels, "RGBA").save(tmp_path / "alpha.png")
    assert np.array_equal(decode(tmp_path / "alpha.png", 8, "RGB"), pixels[..., :3].transpose(2, 0, 1))
    Image.fromarray(pixels[..., :2].copy(), "LA").save(tmp_path / "gray_alpha.png")
    assert np.array_equal(decode(tmp_path / "gray_alpha.png", 8, "L")[0], pixels[..., 0])
    Image.fromarray(pixels, "CMYK").save(tmp_path / "print.tif")
    inks = pixels.astype(float)
    expected = (255 - inks[..., :3]) * (255 - inks[..., 3:]) / 255
    assert np.abs(decode(tmp_path / "print.tif", 8, "RGB") - expected.transpose(2, 0, 1)).max() <= 1


def test_image_folder_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"set data\.root=<folder>"):
        ImageFolder(None, size=8)
    with pytest.raises(ValueError, match=r"train does not exist: .*data\.root/train/<class>"):
        ImageFolder(str(tmp_path), size=8).load()
    write_images(tmp_path)
    (tmp_path / "train" / "cat" / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.jpg cannot be read as an image"):
        ImageFolder(str(tmp_path), size=8).load()
    (tmp_path / "test" / "bird").mkdir()
    with pytest.raises(ValueError, match="classes that .* does not: bird"):
        ImageFolder(str(tmp_path), size=8).load()


def test_the_key_of_other_files_is_not_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_images(first)
    ImageFolder(str(first), size=8).load()
    shutil.copytree(first, second)
    image = second / "train" / "cat" / "0.png"
    Image.new("RGB", (9, 9)).save(image)
    ImageFolder(str(second), size=8).load()
    keys = {file.name: file for file in (second / ".ockham-cache").glob("*.key")}
    (old,) = (first / ".ockham-cache").glob("*.key")
    new = max(keys.values(), key=lambda file: file.stat().st_mtime_ns)
    shutil.copyfile(old, new)  # whose images are in the cache of the second too
    with caplog.at_level("WARNING", logger="ockham"):
        source = ImageFolder(str(second), size=8).load()
    assert f"{new} holds no key of the image cache" in caplog.text
    assert not source.train.images[0].any(), "the black image, as it is now"


def test_an_image_that_is_a_program_is_not_run(tmp_path: Path) -> None:
    write_images(tmp_path)
    file = tmp_path / "train" / "cat" / "0.png"
    file.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n%%EOF\n")
    with pytest.raises(UserError, match=r"0\.png cannot be read as an image"):
        ImageFolder(str(tmp_path), size=8).load()


def test_a_picture_of_too_many_pixels_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(UserError, match=r"0\.png cannot be read as an image"):
        ImageFolder(str(tmp_path), size=8).load()


@pytest.mark.parametrize("name", [".ockham-cache", ".ockham-cache/.lock"])
def test_nothing_is_cached_through_a_link(name: str, tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    write_images(root)
    (root / name).parent.mkdir(exist_ok=True)
    elsewhere.mkdir()
    (root / name).symlink_to(elsewhere)
    with pytest.raises(UserError, match="is a link"):
        ImageFolder(str(root), size=8).load()
    assert list(elsewhere.iterdir()) == []

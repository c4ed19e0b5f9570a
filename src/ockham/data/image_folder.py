"""Image files in one folder per class, decoded once into a cache beside them."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ockham.data.image_cache import ImageCache
from ockham.data.splits import Source, Split
from ockham.errors import UserError

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
#: What Pillow may take a file for, whatever its name: of its other readers some run a program, as that of EPS does.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "PPM", "TIFF", "WEBP")
#: Modes of Pillow with up to 16 bits a pixel in one channel, and all modes without colour.
DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
GRAY_MODES = frozenset({"1", "L", "LA", *DEEP_MODES})
DECODER = "2"  # part of every key: raise it when decode() changes what it returns


def decode(path: Path, size: int, mode: str) -> np.ndarray:
    """The pixels of an image file, resized to size x size, as uint8 (channels, size, size); mode is "L" or "RGB".

    Gray images of 16 bits are scaled to 8, value / 257 to the nearest: 65535 is 255. (Of colour images of 16 bits Pillow gives
    the upper 8.) A palette becomes its colours, of an animation the first picture counts, CMYK becomes (255 - C)(255 - K) / 255
    and so on without a colour profile, and alpha is dropped: a transparent pixel has the colour that is stored under it. The
    orientation that a camera noted is not applied.

    Raises UserError naming the file where it is no readable image, or its numbers have no known range (32 bits a pixel).
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            converted = _of_eight_bits(image, path).convert(mode)
            if converted.size != (size, size):
                converted = converted.resize((size, size), Image.Resampling.BILINEAR)
            pixels = np.asarray(converted)
    except UserError:
        raise
    except Exception as error:  # whatever a damaged file makes of Pillow's readers; also one of too many pixels
        raise UserError(f"{path} cannot be read as an image ({error}): repair or remove it") from error
    return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)


def _of_eight_bits(image: Image.Image, path: Path) -> Image.Image:
    """The image with 8 bits a channel, in a mode that converts to L and RGB without a loss of range."""
    if image.mode in DEEP_MODES:
        values = np.asarray(image).astype(np.int64)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise UserError(f"{path} holds values beyond 16 bits, whose range is not known: save it with 8 or 16 bits")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise UserError(f"{path} holds floating-point values, whose range is not known: save it with 8 or 16 bits")
    # Pillow warns where it drops the alpha values of a palette, so that they become a channel first.
    return image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image


def decode_all(paths: list[Path], size: int, mode: str) -> Tensor:
    """The images of the paths as uint8 (N, channels, size, size), decoded in parallel with a progress bar."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding releases the GIL
        decoded = pool.map(lambda path: decode(path, size, mode), paths, chunksize=64)
        # disable=None shows the bar on a terminal only.
        images = list(tqdm(decoded, total=len(paths), desc="decoding images", unit=" images", disable=None))
    return torch.from_numpy(np.stack(images))


def image_files(folder: Path) -> Iterator[Path]:
    """The image files anywhere below the folder, by name."""
    for directory, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() in EXTENSIONS:
                yield Path(directory, name)


class ImageFolder:
    """`root/train/<class>/*` and `root/test/<class>/*`, and optionally `root/val/<class>/*`. yaml: `data=image_folder`.

    Classes are the folder names below train, in alphabetical order. Images of any size are resized to `size` x `size`
    (bilinear, antialiased); they are kept gray if every training image is gray, otherwise all become RGB. The decoded
    pixels are cached in `root/.ockham-cache`, in a file named by the content of all images and the size (image_cache.py).
    What becomes of 16 bits, palettes, CMYK and alpha is said at `decode`. Raises UserError where folders, classes or images are
    missing or unreadable.
    """

    def __init__(self, root: str | None, size: int) -> None:
        if root is None:
            raise UserError("data=image_folder reads the images below data.root: set data.root=<folder>")
        self.root = Path(root).expanduser()
        self.size = size

    def load(self) -> Source:
        classes = self._classes()
        listing = {split: self._listing(split, classes) for split in self._splits()}
        images = self._cached(listing)
        split = {
            name: Split(images[name], torch.tensor([label for _, label in files], dtype=torch.int64))
            for name, files in listing.items()
        }
        return Source(train=split["train"], val=split.get("val"), test=split["test"], classes=classes)

    def _splits(self) -> list[str]:
        return ["train", "test", *(["val"] if (self.root / "val").is_dir() else [])]

    def _classes(self) -> tuple[str, ...]:
        for split in ("train", "test"):
            if not (self.root / split).is_dir():
                raise UserError(
                    f"{(self.root / split).resolve()} does not exist: data=image_folder reads data.root/train/<class>/* and "
                    f"data.root/test/<class>/*; set data.root to such a folder, or use data=mnist5k\n"
                    f"CIFAR needs no image files: data=cifar10 downloads it"
                )
        return tuple(sorted(folder.name for folder in (self.root / "train").iterdir() if folder.is_dir()))

    def _listing(self, split: str, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
        folder = self.root / split
        unknown = sorted({entry.name for entry in folder.iterdir() if entry.is_dir()} - set(classes))
        if unknown:
            raise UserError(f"{folder} holds classes that {self.root / 'train'} does not: {', '.join(unknown)}")
        files = []
        for label, name in enumerate(classes):
            paths = list(image_files(folder / name))
            if not paths:
                raise UserError(f"{folder / name} holds no images ({', '.join(sorted(EXTENSIONS))})")
            files += [(path, label) for path in paths]
        return files

    def _cached(self, listing: dict[str, list[tuple[Path, int]]]) -> dict[str, Tensor]:
        """The decoded images per split, from the cache where the content is the same."""
        cache = ImageCache(self.root)
        cache.check_no_link()
        with cache.locked():
            paths = [path for files in listing.values() for path, _ in files]
            key = cache.content_key(paths, f"{DECODER} {self.size}")
            images = cache.load(key, {split: (len(files), self.size) for split, files in listing.items()})
            if images is None:
                images = self._decode(listing)
                cache.store(key, images)
        return images

    def _decode(self, listing: dict[str, list[tuple[Path, int]]]) -> dict[str, Tensor]:
        mode = "L" if self._all_gray([path for path, _ in listing["train"]]) else "RGB"
        return {name: decode_all([path for path, _ in files], self.size, mode) for name, files in listing.items()}

    @staticmethod
    def _all_gray(paths: list[Path]) -> bool:
        def is_gray(path: Path) -> bool:
            try:
                with Image.open(path, formats=FORMATS) as image:
                    return image.mode in GRAY_MODES
            except Exception:
                return True  # decode() names the file

        return all(is_gray(path) for path in paths)

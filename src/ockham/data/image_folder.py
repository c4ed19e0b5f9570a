"""Image files in one folder per class, decoded once into a cache beside them."""

import hashlib
import os
import pickle
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from ockham.data.splits import Source, Split
from ockham.errors import UserError

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
GRAY_MODES = frozenset({"1", "L", "I", "I;16", "F"})
CACHE_FOLDER = ".ockham-cache"
DECODER = "1"  # part of every key: raise it when decode() changes what it returns


def decode(path: Path, size: int, mode: str) -> np.ndarray:
    """The pixels of an image file, resized to size x size, as uint8 (channels, size, size); mode is "L" or "RGB".

    Raises UserError naming the file where it is no readable image.
    """
    try:
        with Image.open(path) as image:
            converted = image.convert(mode)
            if converted.size != (size, size):
                converted = converted.resize((size, size), Image.Resampling.BILINEAR)
            pixels = np.asarray(converted)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(f"{path} cannot be read as an image ({error}): repair or remove it") from error
    return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)


def decode_all(paths: list[Path], size: int, mode: str) -> Tensor:
    """The images of the paths as uint8 (N, channels, size, size), decoded in parallel with a progress bar."""
    with _workers() as pool:
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
    pixels are cached in `root/.ockham-cache`, in a file named by the content of all images and the size.
    Raises UserError where folders, classes or images are missing or unreadable.
    """

    def __init__(self, root: str | None, size: int) -> None:
        if root is None:
            raise UserError("data=image_folder reads the images below data.root: set data.root=<folder>")
        self.root = Path(root).expanduser()
        self.size = size

    def load(self) -> Source:
        classes = self._classes()
        listing = {split: self._listing(split, classes) for split in self._splits()}
        stored = self._cached(listing)
        split = {
            name: Split(stored[name], torch.tensor([label for _, label in files], dtype=torch.int64))
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
                    f"data.root/test/<class>/*; set data.root to such a folder, or use data=mnist5k"
                )
        return tuple(sorted(folder.name for folder in (self.root / "train").iterdir() if folder.is_dir()))

    def _listing(self, split: str, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
        folder = self.root / split
        unknown = sorted({entry.name for entry in folder.iterdir() if entry.is_dir()} - set(classes))
        if unknown:
            raise UserError(f"{folder} holds classes that {self.root / 'train'} does not: {', '.join(unknown)}")
        files = []
        for label, name in enumerate(classes):
            found = list(image_files(folder / name))
            if not found:
                raise UserError(f"{folder / name} holds no images ({', '.join(sorted(EXTENSIONS))})")
            files += [(path, label) for path in found]
        return files

    def _cached(self, listing: dict[str, list[tuple[Path, int]]]) -> dict[str, Tensor]:
        """The decoded images per split, from the cache where the content is the same."""
        paths = [path for files in listing.values() for path, _ in files]
        cache = self.root / CACHE_FOLDER
        try:
            cache.mkdir(exist_ok=True)
        except OSError:  # a read-only folder is decoded anew each time
            return self._decode(listing)
        with FileLock(cache / ".lock"):
            file = cache / f"{self._content_key(paths, cache)}.pt"
            try:
                stored: dict[str, Tensor] = torch.load(file, weights_only=True)
            except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):  # absent or damaged
                stored = self._decode(listing)
                _save(stored, file)
        return stored

    def _decode(self, listing: dict[str, list[tuple[Path, int]]]) -> dict[str, Tensor]:
        mode = "L" if self._all_gray([path for path, _ in listing["train"]]) else "RGB"
        return {name: decode_all([path for path, _ in files], self.size, mode) for name, files in listing.items()}

    @staticmethod
    def _all_gray(paths: list[Path]) -> bool:
        def is_gray(path: Path) -> bool:
            try:
                with Image.open(path) as image:
                    return image.mode in GRAY_MODES
            except (UnidentifiedImageError, OSError):
                return True  # decode() names the file

        return all(is_gray(path) for path in paths)

    def _content_key(self, paths: list[Path], cache: Path) -> str:
        """A hash of names and bytes of all the images, and of how they are decoded.

        Reading every byte takes seconds for large folders, so the key is remembered under a hash of names, sizes and
        modification times; only when one of these has changed are the bytes read again.
        """
        stats = ((path, path.stat()) for path in paths)
        known = _digest(f"{self._relative(path)} {stat.st_size} {stat.st_mtime_ns}".encode() for path, stat in stats)
        remembered = cache / f"{known}.{self.size}.key"
        if remembered.exists():
            return remembered.read_text()
        with _workers() as pool:
            contents = pool.map(lambda path: hashlib.sha256(path.read_bytes()).digest(), paths, chunksize=64)
            names = (self._relative(path).encode() for path in paths)
            settings = f"{DECODER} {self.size}".encode()
            key = _digest([settings, *(part for pair in zip(names, contents, strict=True) for part in pair)])
        partial = remembered.with_suffix(".partial")
        partial.write_text(key)
        partial.replace(remembered)
        return key

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count())  # decoding, reading and hashing all release the GIL


def _digest(parts: Iterable[bytes]) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(part + b"\0")
    return total.hexdigest()[:32]


def _save(tensors: dict[str, Any], file: Path) -> None:
    partial = file.with_suffix(".partial")
    torch.save(tensors, partial)
    partial.replace(file)

"""Decoded images on disk, by the content of the files that they come from.

Whatever lies in the folder is checked before it is used, and whatever is wrong with it costs no more than decoding again.
"""

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from ockham.core import tensorfile
from ockham.core.files import write_atomic
from ockham.errors import UserError

log = logging.getLogger("ockham")

#: What a key looks like; nothing else becomes a part of a path.
KEY = re.compile(r"[0-9a-f]{32}")


class ImageCache:
    """The folder `<root>/.ockham-cache`: `<key>.pt` with the images of all splits, and `*.key` files that spare reading them.

    Where the folder cannot be written it is read, and where it cannot be read it is empty.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / ".ockham-cache"

    def check_no_link(self) -> None:
        """Raises UserError where the folder or its lock is a link, which would lead out of the image folder."""
        for path in (self._folder, self._folder / ".lock"):
            if path.is_symlink():
                raise UserError(f"{path} is a link, and what is cached would be written elsewhere: remove it")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among the processes that decode; where there can be no lock each process decodes for itself."""
        with ExitStack() as stack:
            try:
                self._folder.mkdir(exist_ok=True)
                stack.enter_context(FileLock(self._folder / ".lock"))
            except OSError as error:
                log.debug("%s cannot be locked: %s", self._folder, error)
            yield

    def load(self, key: str, shapes: Mapping[str, tuple[int, int]]) -> dict[str, Tensor] | None:
        """The stored images by split, uint8 (N, C, size, size), for the N and size in `shapes`; None where there are none.

        A file that is damaged, of another key or with other tensors is named in a warning, and counts as absent.
        """
        file = self._folder / f"{key}.pt"
        try:
            content = tensorfile.load(file)
        except FileNotFoundError:
            return None
        except tensorfile.DamagedFileError as error:
            reason = str(error)
        else:
            problem = _what_is_wrong(content, key, shapes)
            if problem is None:
                return dict(content["images"])
            reason = f"{file} {problem}"
        log.warning("warning: %s; the images are decoded again", reason)
        return None

    def store(self, key: str, images: Mapping[str, Tensor]) -> None:
        """Keep the images of all splits; where that fails, a warning says why they will be decoded again."""
        file = self._folder / f"{key}.pt"
        try:
            tensorfile.save(file, {"key": key, "images": dict(images)})
        except OSError as error:
            log.warning("warning: %s cannot be written (%s); the images will be decoded again next time", file, error)

    def content_key(self, paths: Sequence[Path], settings: str) -> str:
        """A hash of names and bytes of all the images, and of the settings that they are decoded with.

        Reading every byte takes seconds for large folders, so the key is remembered under a hash of names, sizes and
        modification times; only when one of these has changed are the bytes read again.
        """
        stats = ((path, path.stat()) for path in paths)
        fingerprint = _digest(
            [settings.encode(), *(f"{self._relative(p)} {stat.st_size} {stat.st_mtime_ns}".encode() for p, stat in stats)]
        )
        key_file = self._folder / f"{fingerprint}.key"
        stored = _read_key(key_file, fingerprint)
        if stored is not None:
            return stored
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # reading and hashing release the GIL
            contents = pool.map(lambda path: hashlib.sha256(path.read_bytes()).digest(), paths)
            names = (self._relative(path).encode() for path in paths)
            key = _digest([settings.encode(), *(part for pair in zip(names, contents, strict=True) for part in pair)])
        try:
            write_atomic(key_file, _key_line(fingerprint, key))
        except OSError as error:
            log.debug("%s cannot be written: %s", key_file, error)
        return key

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def _key_line(fingerprint: str, key: str) -> bytes:
    """What a key file holds: the key, and a hash that says for which names, sizes and times."""
    return f"{key} {_digest([fingerprint.encode(), key.encode()])}".encode()


def _read_key(file: Path, fingerprint: str) -> str | None:
    """The key that a file remembers; None where it holds anything else, or that of other files."""
    try:
        with file.open("rb") as content:
            line = content.read(128)
    except FileNotFoundError:
        return None
    except OSError as error:
        line = type(error).__name__.encode()
    key = line.partition(b" ")[0].decode("ascii", errors="replace")
    if KEY.fullmatch(key) and line == _key_line(fingerprint, key):
        return key
    log.warning("warning: %s holds no key of the image cache; the images are read again", file)
    return None


def _what_is_wrong(content: Mapping[str, object], key: str, shapes: Mapping[str, tuple[int, int]]) -> str | None:
    """Why the content of a cache file is not that of the key; None where it is."""
    images = content.get("images")
    if content.get("key") != key:
        return "belongs to another key"
    if not isinstance(images, dict) or images.keys() != shapes.keys():
        return "holds other splits"
    for split, (count, size) in shapes.items():
        tensor = images[split]
        if not isinstance(tensor, Tensor) or tensor.dtype != torch.uint8 or tensor.ndim != 4:
            return f"holds no images for {split}"
        if (len(tensor), *tensor.shape[2:]) != (count, size, size) or tensor.shape[1] not in (1, 3):
            return f"holds images of another number or size for {split}"
    return "holds gray and colour images" if len({tensor.shape[1] for tensor in images.values()}) > 1 else None


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part + b"\0")
    return digest.hexdigest()[:32]

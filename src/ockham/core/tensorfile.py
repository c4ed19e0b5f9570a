"""Files of tensors and plain containers with a checksum over what they hold.

torch.load does not check the bytes of a tensor: a flipped bit in a weight loads as another weight. Reading such a file runs no
code.
"""

import hashlib
import io
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ockham.core.files import DamagedFileError, write_atomic

CHECKSUM = "sha256"


class NoChecksumError(DamagedFileError):
    """A file of tensors and plain containers that `save` did not write; `content` is what it holds."""

    def __init__(self, message: str, content: Any) -> None:
        super().__init__(message)
        self.content = content


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors in dicts, lists and tuples, with their checksum, atomically. Raises OSError where that fails."""
    buffer = io.BytesIO()
    torch.save({CHECKSUM: checksum(content), **content}, buffer)
    write_atomic(path, buffer.getvalue())


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote, on the CPU.

    Raises DamagedFileError where the content is another one, FileNotFoundError where there is no file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of foreign files: they are refused below
            _check_uncompressed(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
        if CHECKSUM not in content:
            raise NoChecksumError(f"{path} has no checksum: another program has written it, or an earlier version", content)
        stored = content.pop(CHECKSUM)
        actual = checksum(content)
    except (FileNotFoundError, NoChecksumError):
        raise
    except pickle.UnpicklingError as error:  # torch's own words for it advise to run what the file holds
        raise DamagedFileError(f"{path} cannot be read: it holds more than tensors and plain containers") from error
    except Exception as error:  # whatever a damaged archive makes of torch's reader
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedFileError(f"{path} cannot be read: {reason}") from error
    if stored != actual:
        raise DamagedFileError(f"{path} is damaged: its content has checksum {actual[:12]}, {str(stored)[:12]} was written")
    return content


def _check_uncompressed(path: Path) -> None:
    """Raises DamagedFileError for an archive that grows while it is read; torch writes its entries as they are."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise DamagedFileError(f"{path} is compressed, which no checkpoint is")


def checksum(content: Any) -> str:
    """SHA-256 over types, names, shapes and bytes of nested containers."""
    total = hashlib.sha256()
    _add(total, content)
    return total.hexdigest()


def _add(total: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        if value.nbytes > max(value.untyped_storage().nbytes(), 2**20):
            raise DamagedFileError("a tensor is larger than what is stored of it")
        plain = value.detach().cpu().contiguous()
        total.update(f"{plain.dtype}{tuple(plain.shape)}".encode())
        total.update(plain.view(-1).view(torch.uint8).numpy().data if plain.numel() else b"")
    elif isinstance(value, Mapping):
        total.update(f"dict{len(value)}".encode())
        for key, entry in value.items():
            total.update(f"{key!r}:".encode())
            _add(total, entry)
    elif isinstance(value, (list, tuple)):
        total.update(f"{type(value).__name__}{len(value)}".encode())
        for entry in value:
            _add(total, entry)
    else:
        total.update(f"{value!r};".encode())

"""Writing a file so that neither a reader nor a crash sees half of it."""

import hashlib
import json
import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ockham.errors import UserError


class DamagedFileError(UserError):
    """A file that is there and does not hold what was written; the message names it."""


#: The last entry of a sealed file: the SHA-256 of the file without it.
SEAL = ',\n  "sha256": "'


def sealed_json(content: Mapping[str, Any]) -> bytes:
    """A JSON object, not an empty one, whose last entry is the checksum of what stands before it."""
    assert content
    text = json.dumps(content, indent=2)
    body = text.removesuffix("}").rstrip("\n")
    return f'{body}{SEAL}{sha256(body.encode())}"\n}}\n'.encode()


def read_sealed_json(path: Path) -> dict[str, Any]:
    """What `sealed_json` made, or a JSON object that has no checksum, as earlier versions wrote them.

    Raises DamagedFileError where it is something else, FileNotFoundError where there is no file.
    """
    try:
        text = path.read_text()
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # also what is no UTF-8, or nested deeper than Python goes
        raise DamagedFileError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise DamagedFileError(f"{path} is damaged: it holds no settings")
    body, seal, _ = text.rpartition(SEAL)
    if seal and content.pop("sha256") != sha256(body.encode()):
        raise DamagedFileError(f"{path} is damaged: its checksum is another one")
    return content


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_atomic(path: Path, content: bytes) -> None:
    """Put the content at the path: whoever looks, also after a crash, finds all of it or what was there before.

    Raises OSError where the disk or the folder refuses it; then nothing is left beside the path. FileNotFoundError where there
    is no such folder: one that was removed or moved while a run worked in it does not begin anew with half of its files.
    """
    remove_partials(path)
    partial = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk names no file
        with suppress(OSError):  # a disk that can only be read by now
            partial.unlink(missing_ok=True)
        raise


def remove_partials(path: Path) -> None:
    """Remove what processes of this machine that were killed while they wrote the file have left beside it."""
    name = re.compile(rf"\.{re.escape(path.name)}\.{re.escape(socket.gethostname())}\.(\d+)\.partial")
    for entry in os.listdir(path.parent):
        match = name.fullmatch(entry)
        if match and not _is_alive(int(match[1])):
            path.with_name(entry).unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    if os.name == "nt":  # where the question would be a signal
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # one of another user
        return True
    return True


def synchronise(path: Path) -> None:
    """Return when what was written to the file, by whomever, is on disk. Raises OSError where it cannot be."""
    with path.open("rb") as file:
        os.fsync(file.fileno())

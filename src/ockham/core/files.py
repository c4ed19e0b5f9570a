"""Writing a file so that neither a reader nor a crash sees half of it."""

import os
import re
import socket
from contextlib import suppress
from pathlib import Path

from ockham.errors import UserError


class DamagedFileError(UserError):
    """A file that is there and does not hold what was written; the message names it."""


def write_atomic(path: Path, content: bytes) -> None:
    """Put the content at the path: whoever looks, also after a crash, finds all of it or what was there before.

    Raises OSError where the disk or the folder refuses it; then nothing is left beside the path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
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

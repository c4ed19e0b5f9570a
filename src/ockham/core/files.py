"""Writing a file so that neither a reader nor a crash sees half of it."""

import os
from pathlib import Path

from ockham.errors import UserError


class DamagedFileError(UserError):
    """A file that is there and does not hold what was written; the message names it."""


def write_atomic(path: Path, content: bytes) -> None:
    """Put the content at the path: whoever looks, also after a crash, finds all of it or what was there before.

    Raises OSError where the disk or the folder refuses it; then nothing is left beside the path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise

"""Files of Ockham in the cache folder of the user: what takes long to make and is the same each time.

A file is used only where it holds what was kept under its name, and where nobody else could have written it.
"""

import hashlib
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

from ockham.core.files import write_atomic

log = logging.getLogger("ockham")


class ForeignFolderError(OSError):
    """The cache folder is not the user's alone."""


def folder() -> Path:
    """`$XDG_CACHE_HOME/ockham`, by default `~/.cache/ockham`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ockham"


def cached(name: str, make: Callable[[], bytes]) -> bytes:
    """What is kept under this name, or what `make` returns, which is then kept; `name` says everything that it depends on.

    A file that is damaged, or kept under another name, is named in a warning and made again. Where the folder cannot be used,
    or others can write into it, nothing is kept.
    """
    try:
        file = private_folder() / name
        content = _checked(file) if file.exists() else None
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home
        log.debug("nothing is cached: %s", error)
        return make()
    if content is None:
        content = make()
        try:
            write_atomic(file, _digest(name, content) + content)
        except OSError as error:
            log.debug("%s is not cached: %s", name, error)
    return content


def _checked(file: Path) -> bytes | None:
    """The content of a file of the cache; None, with a warning, where it is not what was kept."""
    stored = file.read_bytes()
    size = hashlib.sha256().digest_size
    if stored[:size] == _digest(file.name, stored[size:]):
        return stored[size:]
    log.warning("warning: %s is damaged, and made again", file)
    return None


def _digest(name: str, content: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + content).digest()


def private_folder() -> Path:
    """The folder, which is there then. Raises ForeignFolderError where another user owns it or may write into it."""
    path = folder()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise ForeignFolderError(f"{path} is a link")
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        raise ForeignFolderError(f"{path} is not the user's alone: another one owns it or may write into it")
    return path

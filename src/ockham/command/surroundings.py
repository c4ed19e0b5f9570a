"""What a run asks of the machine that it starts on, looked for before torch is imported."""

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ockham.errors import UserError
from ockham.schema import Content

#: Files of the drivers of NVIDIA and AMD, and of the subsystem for Linux of Windows.
DRIVERS = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")

#: What the machine lacks and not the command: the run ends as failed, and continues when it is mended.
OF_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


def check_surroundings(content: Content, overrides: Sequence[str]) -> None:
    """Raises UserError for a GPU or a folder of images that is not here. Where a look is not enough torch decides later.

    `overrides` are those of the command line.
    """
    if content["trainer"]["accelerator"] == "gpu" and gpu_is_absent():
        raise UserError("trainer.accelerator=gpu, but there is no GPU here: set trainer=cpu or trainer=auto")
    if content["data"].get("_target_") == "ockham.data.ImageFolder":
        val_samples = [override for override in overrides if override.lstrip("+").startswith("data.val_samples=")]
        check_image_folder(Path(content["data"]["root"]).expanduser(), val_samples)


def gpu_is_absent() -> bool:
    """Whether it is certain that torch will see no GPU."""
    return sys.platform == "linux" and not any(Path(file).exists() for file in DRIVERS) and not shutil.which("nvidia-smi")


def check_image_folder(root: Path, val_samples: Sequence[str]) -> None:
    """Raises UserError where the folder has no train/ and test/, or a val/ with which `val_samples` would do nothing."""
    for split in ("train", "test"):
        if not os.path.isdir(root / split):
            raise UserError(
                f"{root / split} does not exist: data=image_folder reads data.root/train/<class>/* and "
                f"data.root/test/<class>/*; set data.root to such a folder, or use data=mnist5k\n"
                f"CIFAR needs no image files: data=cifar10 downloads it"
            )
    if val_samples and os.path.isdir(root / "val"):
        raise UserError(f"{val_samples[-1]} changes nothing: {root / 'val'} is the validation split; leave it out")


def check_folder(setting: str, path: Path) -> None:
    """Raises UserError where the folder that a setting names cannot be made, or locked; what is made for the look is removed.

    Raises OSError where that is the machine's fault: a full disk, or one that can only be read.
    """
    missing: list[Path] = []
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, "no permission to write into it")
        _check_locks(setting, path)
    except OSError as error:
        if error.errno in OF_MACHINE:
            raise
        raise UserError(f"{setting}={path} cannot be made ({error.strerror}): choose another folder") from error
    finally:
        for folder in missing:
            with suppress(OSError):  # another process of the sweep is at work in it already
                folder.rmdir()


def _check_locks(setting: str, path: Path) -> None:
    """Raises UserError where the folder's file system has no locks: two processes could not be kept apart in it."""
    try:
        import fcntl
    except ImportError:  # Windows, whose locks belong to every file system
        return
    with tempfile.TemporaryFile(dir=path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"{setting}={path}: the file system has no locks ({error.strerror}), which keep two processes apart\n"
                f"choose a folder on another disk, or have it mounted with locks (NFS: local_lock=flock, Lustre: flock)"
            ) from error

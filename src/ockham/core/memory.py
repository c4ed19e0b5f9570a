"""The memory of this process: how much there is for it, and what it keeps; without torch."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

#: In the control groups of Linux, by version: where they are mounted; their limit and use, and what of it is only cached files.
CGROUP_FILES = {
    2: ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    1: ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


#: Parameters of glibc's mallopt().
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Let the C library keep what is freed for what comes next. Nothing happens where it is not glibc.

    It would give the gradients of a group back to the system at each step and take them again, a page fault for every 4 KiB.
    """
    with suppress(OSError, AttributeError, TypeError):  # no C library, or one without mallopt
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def give_back_freed_memory() -> None:
    """Give the system what this process has freed, with glibc; what it holds is then what it uses."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def available_bytes(root: Path = Path("/")) -> int | None:
    """What processes may still take of this machine and of the control groups that this process is in.

    `root` is the folder with /proc and /sys. Off Linux all the memory that the machine has; None where nothing tells.
    """
    return min([*_of_machine(root), *_of_control_groups(root)], default=None)


def _of_machine(root: Path) -> Iterator[int]:
    with suppress(OSError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024
                return
    with suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_control_groups(root: Path) -> Iterator[int]:
    """What the limit of each group that is above this process leaves."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number != "0" and "memory" not in controllers.split(","):
            continue
        mount, limit, use, cached = CGROUP_FILES[2 if number == "0" else 1]
        group = root / mount / path.lstrip("/")
        for folder in (group, *group.parents[: len(group.relative_to(root / mount).parts)]):
            with suppress(OSError, ValueError):  # not seen from inside a container; "max" is no limit
                allowed = int((folder / limit).read_text())
                stat = dict(entry.split() for entry in (folder / "memory.stat").read_text().splitlines())
                yield max(allowed - int((folder / use).read_text()) + int(stat.get(cached, 0)), 0)

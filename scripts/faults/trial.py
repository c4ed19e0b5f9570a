"""What the parts share: the outcome of a trial, a command with all its processes, and two folders compared file by file."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

#: Of the environment: which command a process belongs to, however it was started, and whoever is its parent by now.
MARK = "OCKHAM_TORTURE"


class Trial(NamedTuple):
    """The outcome of one trial: its kind is a row of the table, its name says what was done; no failure is survival.

    Trial `number` of a part is a function of the seed and its number, and works in a folder of that name, which goes when it
    survived.
    """

    kind: str
    name: str
    failure: str | None


def start(words: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start `python train.py <words>` in a session of its own; what it prints goes to `log`, which also marks its processes."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", MARK: str(log), **(environment or {})}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *words],
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=variables,
            start_new_session=True,
        )


def processes(log: Path) -> list[int]:
    """The processes that belong to the command that prints into `log` and have not ended."""
    mark = f"{MARK}={log}".encode()
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and mark in _environment(entry)]


def _environment(process: Path) -> list[bytes]:
    """Of a process that has ended, or of another user: nothing."""
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return []

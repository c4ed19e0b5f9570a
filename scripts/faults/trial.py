"""What the parts share: the outcome of a trial, a command with all its processes, and two folders compared file by file."""

import fcntl
import json
import os
import re
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))  # a bare clone works without being installed

#: Of the environment: which command a process belongs to, however it was started, and whoever is its parent by now.
MARK = "OCKHAM_TORTURE"

#: What TensorBoard reads; one file for each attempt.
EVENTS = "events.out.tfevents.*"

#: Files of which nothing is promised: logs, and locks of processes.
IGNORED = ("train.log", ".lock", ".claim", "train.out")

#: Entries of status.json and cost.json that the clock, the machine or the repository decide.
TIMED = (
    *("attempt", "pid", "started", "ended", "samples_per_second", "train_seconds", "wall_seconds", "peak_memory_bytes"),
    *("files", "sha256"),  # checksums of these, and of names of folders
    "code",  # trials take hours, in which somebody commits
)


class Trial(NamedTuple):
    """The outcome of one trial: its kind is a row of the table, its name says what was done; no failure is survival.

    Trial `number` of a part is a function of the seed and its number, and works in a folder of that name, which goes when it
    survived.
    """

    kind: str
    name: str
    failure: str | None


#: Nobody may write into the folder so long after the command that did has ended.
SECONDS_TO_END = 30.0


def start(
    words: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None, terminal: int | None = None
) -> subprocess.Popen[bytes]:
    """Start `python train.py <words>` beside `log`, in a session of its own.

    What it prints goes to `log`, which also marks its processes; or to the `terminal`, which is then that of the session.
    """
    variables = {**os.environ, "OMP_NUM_THREADS": "1", MARK: str(log), **(environment or {})}
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *words],
            cwd=log.parent,
            stdin=subprocess.DEVNULL if terminal is None else terminal,
            stdout=file if terminal is None else terminal,
            stderr=file if terminal is None else terminal,
            env=variables,
            start_new_session=True,
            preexec_fn=None if terminal is None else lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
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


def gone(log: Path, seconds: float) -> bool:
    """Whether all processes of the command have ended within so many seconds."""
    deadline = time.monotonic() + seconds
    while processes(log) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not processes(log)


def last_lines(log: Path, number: int = 3) -> str:
    return " / ".join(log.read_text(errors="replace").strip().splitlines()[-number:])


def unbroken(words: Sequence[str], folder: Path) -> float:
    """Run the command as it is, unless the folder holds that already; returns the seconds that it takes."""
    timing = folder / "seconds.json"
    if not timing.exists():
        prepare(words, folder)
        began = time.monotonic()
        code = start(words, folder / "train.out").wait()
        seconds = time.monotonic() - began
        if code:
            raise RuntimeError(f"the command itself fails: {last_lines(folder / 'train.out')}")
        timing.write_text(json.dumps(seconds))
    return float(json.loads(timing.read_text()))


def prepare(words: Sequence[str], folder: Path) -> None:
    """What a command needs beside it: pictures of noise, which take a moment to decode."""
    folder.mkdir(parents=True)
    if "data=image_folder" not in words:
        return
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0)
    for split, size in (("train", 100), ("test", 30)):
        for label in ("a", "b"):
            place = folder / "pictures" / split / label
            place.mkdir(parents=True)
            for index in range(size):
                Image.fromarray(noise.integers(0, 256, (64, 64), dtype=np.uint8)).save(place / f"{index}.png")


def finished(words: Sequence[str], folder: Path, whole: Path, logs: Sequence[Path]) -> str | None:
    """Give the command again, after attempts that printed into `logs`; returns what is wrong then.

    It is to leave in `out` of its folder what the unbroken command left in that of `whole`. A single run that was finished
    before it ended refuses to be run again.
    """
    last = folder / "last.out"
    code = start(words, last).wait()
    if code and not (code == 2 and "holds a finished run" in last.read_text()):
        return f"the same command again exits with {code}: {last_lines(last)}"
    for log in (*logs, last):
        if not gone(log, SECONDS_TO_END):
            return f"processes {processes(log)} are left after {SECONDS_TO_END:g} s"
    leftover = [f"{path.relative_to(folder)} is left" for path in folder.rglob("*.partial")]
    return "; ".join([*leftover, *differences(whole / "out", folder / "out")][:5]) or None


# -- two folders of one command ------------------------------------------------------------------------------------------------


def differences(whole: Path, broken: Path, *, curves: bool = True) -> list[str]:
    """In which files the folder of an interrupted command differs from that of an unbroken one, but for what the clock decides.

    Both ran in a folder of their own, whose names are replaced. Of what TensorBoard shows, the scalars are compared, if
    `curves`.
    """
    files, others = _files(whole), _files(broken)
    differing = [f"{name} is missing" for name in sorted(files - others)]
    differing += [f"{name} should not be there" for name in sorted(others - files)]
    differing += [name for name in sorted(files & others) if _content(whole, name) != _content(broken, name)]
    for folder in sorted({file.parent for file in whole.rglob(EVENTS)} if curves else ()):
        name = folder.relative_to(whole)
        if not (broken / name).is_dir() or _curves(folder) != _curves(broken / name):
            differing.append(f"{name}/{EVENTS}")
    return differing


def _files(folder: Path) -> set[str]:
    names = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file() and not file.match(EVENTS)}
    return {name for name in names if not name.startswith("workers/") and Path(name).name not in IGNORED}


def _content(folder: Path, name: str) -> Any:
    """The content of a file without what the clock decides, and without where it lies."""
    content = (folder / name).read_bytes().replace(str(folder.parent).encode(), b"<folder>")
    if Path(name).name in ("status.json", "cost.json"):
        return {key: value for key, value in json.loads(content).items() if key not in TIMED}
    if name == "costs.csv":
        return content.count(b"\n")
    if name == "report.md":
        return re.sub(rb"[\d.]+ (?=\| out)", b"", content)  # the seconds of a run, before its folder
    return None if name == "report.html" else content  # the same with figures of seconds


def _curves(folder: Path) -> Any:
    """What TensorBoard shows of a run: (step, value) of every scalar but the throughput, and the tags of its pictures."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    tags = events.Tags()
    curves = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags["scalars"]}
    curves.pop("samples_per_second", None)
    return curves, sorted(tags["images"])

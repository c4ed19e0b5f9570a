"""A disk that is full, slow, without locks or read-only, a quota, a folder deleted or moved while a command works in it.

The command ends with one screen that names the trouble, and where there is room again the same command leaves what an unbroken
one leaves. Full disks are file systems in memory of a drawn size, which only root can mount; quotas, slowness and the lack of
locks are those of functions of C that stand in front of the system's (file_system.c), which needs Linux and a compiler.
"""

import errno
import logging
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from faults import power
from faults.kill import COMMANDS
from faults.trial import Trial, differences, finished, gone, last_lines, prepare, start, unbroken

COUNT = 88

#: Room for everything.
ENOUGH = 64 * 2**20

#: The mount works in pages, and a folder takes some.
LEAST = 16 * 2**10

#: So long a command may take to see that it cannot go on.
SECONDS_TO_SEE = 300.0

#: Of so many trials all but the last ones, which start processes, train in this process.
KINDS = (
    *("single: full, in process", "group: full, in process") * 4,
    *("single: full", "fused: full", "single: read-only", "fused: read-only"),
    *("single: deleted", "fused: deleted", "single: moved", "fused: moved"),
    *("single: quota", "fused: quota", "single: slow", "fused: slow", "single: no locks", "fused: no locks"),
)


@contextmanager
def mounted(folder: Path, size: int) -> Iterator[Callable[[str], None]]:
    """A file system of so many bytes in the folder; yields what changes its options."""

    def remount(options: str) -> None:
        command = ["mount", "-o", f"remount,{options}", str(folder)]
        for _ in range(20):  # it is busy for a moment after its processes have been killed
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.5)
        subprocess.run(command, check=True)

    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield remount
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def trials(seed: int, numbers: Sequence[int], folder: Path) -> Iterator[Trial]:
    logging.getLogger("ockham").setLevel(logging.ERROR)
    for number in numbers:
        generator = random.Random(f"disk {seed} {number}")
        kind = KINDS[number % len(KINDS)]
        command, _, fault = kind.partition(": ")
        place = folder / str(number)
        shutil.rmtree(place, ignore_errors=True)
        if fault == "full, in process":
            failure, name = full_in_process(command, place, folder / "whole" / command, generator)
        else:
            whole = folder / "whole" / f"{command} command"
            seconds = unbroken(COMMANDS[command], whole)
            failure, name = FAULTS[fault](COMMANDS[command], place, whole, seconds, generator)
        yield Trial(kind, name, failure)


@cache
def trained(kind: str, whole: Path) -> int:
    """Train in this process with room for everything; returns how many bytes that takes."""
    with power.without_waiting():
        power.train(kind, whole / "out")
    return size_of(whole / "out")


def size_of(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))


def full_in_process(kind: str, place: Path, whole: Path, generator: random.Random) -> tuple[str | None, str]:
    """Train in this process until the disk is full, then again with room; what is wrong then, and the name of the trial."""
    room = generator.randint(LEAST, trained(kind, whole))
    name = f"room for {room:,} bytes"
    with mounted(place / "out", room) as remount, power.without_waiting():
        try:
            power.train(kind, place / "out")
        except OSError:
            pass
        except Exception as error:
            return f"a full disk is {type(error).__name__}: {error}", name
        remount(f"size={ENOUGH}")
        try:
            power.train(kind, place / "out")
        except Exception as error:
            return f"with room again: {type(error).__name__}: {error}", name
        leftover = [f"{path.relative_to(place)} is left" for path in place.rglob("*.partial")]
        return "; ".join([*leftover, *differences(whole / "out", place / "out")][:5]) or None, name


# -- commands ------------------------------------------------------------------------------------------------------------------


def screen_problem(process: subprocess.Popen[bytes], log: Path) -> str | None:
    """What is wrong with how the command ended; a clear end is 0, or 1 or 2 with an error and without a traceback."""
    try:
        code = process.wait(timeout=SECONDS_TO_SEE)
    except subprocess.TimeoutExpired:
        process.kill()
        return f"hangs for {SECONDS_TO_SEE:g} s"
    text = log.read_text(errors="replace")
    if code not in (0, 1, 2):
        return f"exits with {code}: {last_lines(log)}"
    if code and ("error: " not in text or "Traceback" in text):
        return f"has no clear screen: {last_lines(log, 6)}"
    return None


def full(words: Sequence[str], place: Path, whole: Path, seconds: float, generator: random.Random) -> tuple[str | None, str]:
    room = generator.randint(LEAST, size_of(whole / "out"))
    prepare(words, place)
    with mounted(place / "out", room) as remount:
        problem = screen_problem(start(words, place / "0.out"), place / "0.out")
        remount(f"size={ENOUGH}")
        return problem or finished(words, place, whole, [place / "0.out"]), f"room for {room:,} bytes"


def read_only(
    words: Sequence[str], place: Path, whole: Path, seconds: float, generator: random.Random
) -> tuple[str | None, str]:
    """Read-only after a kill at a drawn moment: while a file is open for writing a file system cannot become so."""
    moment = generator.uniform(0, seconds)
    prepare(words, place)
    with mounted(place / "out", ENOUGH) as remount:
        killed = start(words, place / "0.out")
        time.sleep(moment)
        killed.kill()
        if not gone(place / "0.out", SECONDS_TO_SEE):
            return "processes are left", f"after {moment:.2f} s"
        remount("ro")
        problem = screen_problem(start(words, place / "1.out"), place / "1.out")
        remount("rw")
        return problem or finished(words, place, whole, [place / "1.out"]), f"after {moment:.2f} s"


def deleted(words: Sequence[str], place: Path, whole: Path, seconds: float, generator: random.Random) -> tuple[str | None, str]:
    moment = generator.uniform(0, seconds)
    prepare(words, place)
    process = start(words, place / "0.out")
    time.sleep(moment)
    shutil.rmtree(place / "out", ignore_errors=True)
    problem = screen_problem(process, place / "0.out")
    return problem or finished(words, place, whole, [place / "0.out"]), f"after {moment:.2f} s"


def moved(words: Sequence[str], place: Path, whole: Path, seconds: float, generator: random.Random) -> tuple[str | None, str]:
    """Moved away, and after the end of the command back, in place of what it may have left where the folder was."""
    moment = generator.uniform(0, seconds)
    prepare(words, place)
    process = start(words, place / "0.out")
    time.sleep(moment)
    while process.poll() is None and not (place / "out").exists():
        time.sleep(0.01)
    os.rename(place / "out", place / "elsewhere")
    problem = screen_problem(process, place / "0.out")
    shutil.rmtree(place / "out", ignore_errors=True)
    os.rename(place / "elsewhere", place / "out")
    return problem or finished(words, place, whole, [place / "0.out"]), f"after {moment:.2f} s"


# -- file systems that are not what they should be -----------------------------------------------------------------------------


@cache
def interposed(place: Path) -> Path:
    """The library of file_system.c, compiled into the folder."""
    library = place / "file_system.so"
    compiler = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(Path(__file__).with_name("file_system.c")), "-ldl"]
    subprocess.run(compiler, check=True)
    return library


def on_file_system(words: Sequence[str], place: Path, **faults: object) -> str | None:
    """Run the command with such a file system below its folder; what is wrong with how it ended."""
    variables = {f"FAULT_{name.upper()}": str(value) for name, value in faults.items()}
    variables |= {"FAULT_FOLDER": str(place / "out"), "LD_PRELOAD": str(interposed(place.parent))}
    return screen_problem(start(words, place / "0.out", environment=variables), place / "0.out")


def quota(words: Sequence[str], place: Path, whole: Path, seconds: float, generator: random.Random) -> tuple[str | None, str]:
    room = generator.randint(0, size_of(whole / "out"))
    prepare(words, place)
    (place / "written").write_bytes(bytes(8))
    problem = on_file_system(words, place, quota=room, written=place / "written")
    return problem or finished(words, place, whole, [place / "0.out"]), f"of {room:,} bytes"


def slow(words: Sequence[str], place: Path, whole: Path, seconds: float, generator: random.Random) -> tuple[str | None, str]:
    """Each write and each synchronisation takes longer, and nothing else changes."""
    microseconds = generator.choice((1_000, 5_000, 20_000))
    prepare(words, place)
    problem = on_file_system(words, place, slow=microseconds)
    if problem is None and "error: " in (place / "0.out").read_text(errors="replace"):
        problem = f"does not end well: {last_lines(place / '0.out')}"
    return problem or finished(words, place, whole, [place / "0.out"]), f"{microseconds / 1000:g} ms a write"


def without_locks(
    words: Sequence[str], place: Path, whole: Path, seconds: float, generator: random.Random
) -> tuple[str | None, str]:
    """Two processes could not be kept apart, which is said before anything is written."""
    number = generator.choice((errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP))
    prepare(words, place)
    problem = on_file_system(words, place, locks=number)
    if problem is None and "has no locks" not in (place / "0.out").read_text(errors="replace"):
        problem = f"does not say what is missing: {last_lines(place / '0.out')}"
    if problem is None and list((place / "out").rglob("*")):
        problem = "something was written"
    return problem or finished(words, place, whole, [place / "0.out"]), errno.errorcode[number]


Fault = Callable[[Sequence[str], Path, Path, float, random.Random], tuple[str | None, str]]

FAULTS: Mapping[str, Fault] = {
    "full": full,
    "read-only": read_only,
    "deleted": deleted,
    "moved": moved,
    "quota": quota,
    "slow": slow,
    "no locks": without_locks,
}

"""Many jobs, members, epochs and runs: what a job costs, and that memory does not grow with what is done.

OCKHAM_TORTURE_SCALE=0.1 makes all of them a tenth.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from faults.trial import ROOT, Trial, last_lines, processes, start

COUNT = 4

SCALE = float(os.environ.get("OCKHAM_TORTURE_SCALE", "1"))
JOBS, MEMBERS, EPOCHS, RUNS = (round(SCALE * number) for number in (1_000, 256, 10_000, 5_000))

SMALL = ("data=digits", "data.train_samples=32", "data.val_samples=32", "model.hidden=[4]", "logger=csv", "schedule=constant")

#: MiB that the process that sweeps, or trains, may gain from a quarter of the work to all of it, before pictures are drawn. A
#: job is its settings, its row in the tables and its state, an epoch its scalars.
MOST_GROWTH = 64.0


def trials(seed: int, numbers: Sequence[int], folder: Path) -> Iterator[Trial]:
    kinds: list[Callable[[Path], Trial]] = [jobs, members, epochs, page]
    for number in numbers:
        place = folder / str(number)
        place.mkdir(parents=True)
        yield kinds[number % len(kinds)](place)


class Measured(NamedTuple):
    """Exit code, seconds, and MiB of the process that was started: at a quarter of the work, towards its end, and at most."""

    code: int
    seconds: float
    early: float
    late: float
    most: float


def measured(words: Sequence[str], log: Path, progress: Callable[[], float]) -> Measured:
    """Run the command; `progress` is how much of the work is done, up to 1."""
    began = time.monotonic()
    process = start(words, log)
    early = late = most = 0.0
    while process.poll() is None:
        most = max(most, resident(process.pid))
        done = progress()
        if done < 0.25 or early == 0.0:
            early = most
        if done < 1:
            late = most
        time.sleep(0.2)
    while processes(log):
        time.sleep(0.2)
    return Measured(process.returncode, time.monotonic() - began, early, late, most)


def resident(pid: int) -> float:
    """MiB in memory; 0 where the process has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, IndexError):
        return 0.0


def judged(kind: str, number: int, unit: str, log: Path, result: Measured) -> Trial:
    kind = f"{kind}: {1000 * result.seconds / number:.1f} ms {unit}, at most {result.most:,.0f} MiB"
    if result.code:
        return Trial(kind, "", f"exits with {result.code}: {last_lines(log)}")
    grown = f"grows from {result.early:,.0f} to {result.late:,.0f} MiB"
    return Trial(kind, grown, grown if result.late - result.early > MOST_GROWTH else None)


def jobs(place: Path) -> Trial:
    words = ("-m", *SMALL, "trainer=smoke", f"seeds={JOBS}", "report=false", "hydra.sweep.dir=out")
    result = measured(words, place / "0.out", lambda: len(list(place.glob("out/*/metrics.json"))) / JOBS)
    return judged(f"{JOBS:,} jobs", JOBS, "a job", place / "0.out", result)


def members(place: Path) -> Trial:
    words = (
        "-m",
        *SMALL,
        "trainer.max_epochs=50",
        f"seeds={MEMBERS}",
        "executor.slots=1",
        "executor.threads=1",
        "report=false",
        "hydra.sweep.dir=out",
    )
    result = measured(words, place / "0.out", lambda: rows(place / "out" / "0") / 50)
    return judged(f"{MEMBERS:,} members", MEMBERS, "a member", place / "0.out", result)


def epochs(place: Path) -> Trial:
    words = (*SMALL, f"trainer.max_epochs={EPOCHS}", "hydra.run.dir=out")
    result = measured(words, place / "0.out", lambda: rows(place / "out") / EPOCHS)
    return judged(f"{EPOCHS:,} epochs", EPOCHS, "an epoch", place / "0.out", result)


def rows(run: Path) -> int:
    try:
        return (run / "metrics.csv").read_bytes().count(b"\n") - 1
    except OSError:
        return 0


def page(place: Path) -> Trial:
    """The page over copies of one sweep of ten runs, under other seeds."""
    first = ("-m", *SMALL, "trainer=smoke", "optimizer=sgd,adam", "seeds=5", "report=false", "hydra.sweep.dir=out")
    code = start(first, place / "0.out").wait()
    if code:
        return Trial("page", "", f"exits with {code}: {last_lines(place / '0.out')}")
    for number in range(10, RUNS):
        copy = place / "copies" / str(number)
        shutil.copytree(place / "out" / str(number % 10), copy, ignore=shutil.ignore_patterns("checkpoints"))
        file = copy / ".hydra" / "config.yaml"
        file.write_text(file.read_text().replace(f"\nseed: {number % 5}\n", f"\nseed: {number // 2}\n"))
    began = time.monotonic()
    command = [sys.executable, str(ROOT / "scripts" / "report.py"), "copies", "--json"]
    result = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    kind = f"report on {RUNS:,} runs: {seconds:,.0f} s"
    if result.returncode:
        return Trial(kind, "", f"exits with {result.returncode}: {result.stderr[-300:]}")
    return Trial(kind, f"{len(json.loads(result.stdout)):,} entries", None)

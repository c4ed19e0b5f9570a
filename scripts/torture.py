"""Shows what Ockham survives: kills, power cuts, full disks, damage, hostile folders, wrong commands and more, by the hundred.

python scripts/torture.py --seed 0                                  everything, which takes hours
python scripts/torture.py --seed 0 --parts kill,disk --count 10     ten trials each of two parts
python scripts/torture.py --seed 0 --parts kill --only 7            one trial again
Prints a line for each trial that failed and a table at the end; --write puts the table into docs/reliability.md, where rows
of parts that did not run stay. Exits with 1 where a trial failed.
"""

import argparse
import importlib
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from faults.trial import ROOT, Trial

#: Modules of `faults`. Each has COUNT, how many trials it has by default, and trials(seed, numbers, folder).
PARTS = (
    "kill",
    "signals",
    "power",
    "disk",
    "corruption",
    "hostile",
    "commands",
    "concurrency",
    "load",
    "determinism",
    "outside",
)

DOCUMENT = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- torture: begin -->", "<!-- torture: end -->"
HEAD = ("part", "kind", "tried", "survived", "seed", "date")
DISTRIBUTIONS = ("torch", "pytorch-lightning", "hydra-core")


class Row(NamedTuple):
    """A line of the table."""

    part: str
    kind: str
    tried: int
    survived: int
    seed: int
    date: str


def run_part(part: str, seed: int, numbers: Sequence[int] | None, count: int | None, folder: Path) -> list[Row]:
    """The trials of a part, in its folder; those that failed are printed, and their folders kept. Rows by kind.

    All of them stand in `<part>.txt` beside the folder.
    """
    module = importlib.import_module(f"faults.{part}")
    trials: Callable[[int, Sequence[int], Path], Iterator[Trial]] = module.trials
    numbers = range(module.COUNT if count is None else count) if numbers is None else numbers
    tried: Counter[str] = Counter()
    survived: Counter[str] = Counter()
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    for number, trial in zip(numbers, trials(seed, numbers, folder), strict=True):
        tried[trial.kind] += 1
        line = f"--seed {seed} --parts {part} --only {number}: {trial.kind}, {trial.name}: {trial.failure or 'survived'}"
        with folder.with_suffix(".txt").open("a") as file:
            print(line, file=file)
        if trial.failure is None:
            survived[trial.kind] += 1
            shutil.rmtree(folder / str(number), ignore_errors=True)
        else:
            print(line, flush=True)
    seconds = time.monotonic() - began
    print(f"{part}: {survived.total()} of {tried.total()} survived, {seconds:,.0f} s", flush=True)
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    return [Row(part, kind, tried[kind], survived[kind], seed, date) for kind in tried]


def table(rows: Sequence[Sequence[Any]]) -> str:
    lines = [HEAD, ["---"] * len(HEAD), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def write(rows: Sequence[Row], document: Path, seconds: float) -> None:
    """Put the rows between the markers of the document, in place of those of the same parts."""
    before, rest = document.read_text().split(BEGIN)
    inside, after = rest.split(END)
    stored = [[cell.strip() for cell in line.strip("|").split("|")] for line in inside.splitlines() if line.startswith("|")]
    parts = {row.part for row in rows}
    kept = [row for row in stored[2:] if row[0] not in parts]
    ordered = sorted([*kept, *rows], key=lambda row: PARTS.index(str(row[0])))
    versions = ", ".join(f"{name} {version(name)}" for name in DISTRIBUTIONS)
    cores = f"{os.cpu_count()} cores of {platform.machine()}"
    machine = f"The last part that ran took {seconds:,.0f} s on {cores}: Python {platform.python_version()}, {versions}."
    document.write_text(f"{before}{BEGIN}\n{table(ordered)}\n\n{machine}\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--count", type=int, help="trials of each part, by default as many as the part says")
    parser.add_argument("--only", type=int, help="this trial alone")
    parser.add_argument("--folder", type=Path, help="where trials work, and those that failed are left")
    parser.add_argument("--write", type=Path, nargs="?", const=DOCUMENT, metavar="FILE", help="put the table into this file")
    arguments = parser.parse_args()
    # A shell ignores Ctrl-C in what it starts in the background, and the commands would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = (arguments.folder or Path(tempfile.mkdtemp(prefix="ockham_torture_"))).resolve()
    numbers = None if arguments.only is None else [arguments.only]
    began = time.monotonic()
    rows: list[Row] = []
    for part in arguments.parts.split(","):
        if part not in PARTS:
            parser.error(f"{part} is no part; one of {', '.join(PARTS)}")
        rows += run_part(part, arguments.seed, numbers, arguments.count, folder / part)
    print(table(rows))
    if arguments.write:
        write(rows, arguments.write, time.monotonic() - began)
    failed = any(row.survived < row.tried for row in rows)
    if failed:
        print(f"what failed is left in {folder}")
    elif arguments.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()

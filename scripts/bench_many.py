"""What many runs cost beside their training: planning them, and sweeps of tiny ones. Prints tables, and JSON.

    python scripts/bench_many.py               both tables; about ten minutes on two cores

Planning: `dry_run=true` of a grid of learning rates x seeds: the seconds that its log names, and the whole command, which at
its end counts the operations of a run with torch. Tiny runs: five steps on 200 images of mnist5k, four optimizers x seeds, with
all files and the report; how long until the first run begins, what a run takes until the last has ended, what follows then, and
the most memory that the process of the sweep and one of its workers had.
"""

import argparse
import csv
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

SEEDS = 10
OPTIMIZERS = ("sgd", "momentum", "adam", "rmsprop")

Figures = dict[str, float]


def planning(jobs: int) -> Figures:
    """Seconds and MiB of planning so many jobs."""
    rates = ",".join(f"{1e-4 * (1 + number):.4f}" for number in range(jobs // SEEDS))
    with tempfile.TemporaryDirectory() as folder:
        overrides = ["dry_run=true", f"optimizer.lr={rates}", f"seeds={SEEDS}", f"hydra.sweep.dir={folder}/sweep"]
        output, wall, memory = measured(["train.py", "-m", *overrides])
    match = re.search(r"(\d+) jobs .* planned in ([\d.]+) s", output)
    assert match is not None, output
    assert int(match[1]) == jobs
    return {"planned (s)": float(match[2]), "command (s)": wall, "peak memory (MiB)": memory}


def tiny_runs(runs: int) -> Figures:
    """Seconds of a sweep of so many tiny runs and of its parts, and the memory of its processes."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "sweep")
        started = time.time()
        grid = [f"optimizer={','.join(OPTIMIZERS)}", f"seeds={runs // len(OPTIMIZERS)}"]
        overrides = [*grid, "data.train_samples=200", "trainer=smoke", f"hydra.sweep.dir={folder}"]
        _, wall, memory = measured(["train.py", "-m", *overrides])
        statuses = [json.loads(file.read_text()) for file in folder.glob("*/status.json")]
        with (folder / "costs.csv").open() as file:
            workers = max(float(row["peak_memory_bytes"]) for row in csv.DictReader(file)) / 2**20
    assert [status["state"] for status in statuses] == ["finished"] * runs
    first = min(_seconds(status["started"]) for status in statuses)
    last = max(_seconds(status["ended"]) for status in statuses)
    return {
        "command (s)": wall,
        "until the first run begins (s)": first - started,
        "a run (ms)": (last - first) / runs * 1000,
        "after the last run (s)": started + wall - last,
        "the sweep (MiB)": memory,
        "a worker (MiB)": workers,
    }


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def measured(command: Sequence[str]) -> tuple[str, float, float]:
    """What a Python command prints, its wall seconds, and the most MiB that its own process had.

    Linux counts what the process that starts it had by then: it must not have imported torch.
    """
    with tempfile.TemporaryFile("w+") as output:
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        assert status == 0, f"{command} ended with status {status}"
        output.seek(0)
        return output.read(), wall, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**20


def table(head: str, rounds: dict[int, list[Figures]]) -> str:
    """A row a size: medians and ranges."""
    columns = list(next(iter(rounds.values()))[0])
    lines = [f"| {head} | {' | '.join(f'{column} | range' for column in columns)} |", "|---" * (1 + 2 * len(columns)) + "|"]
    for size, figures in rounds.items():
        cells = []
        for column in columns:
            values = [row[column] for row in figures]
            digits = 0 if "MiB" in column or "ms" in column else 1
            cells += [f"{statistics.median(values):,.{digits}f}", f"{min(values):,.{digits}f} - {max(values):,.{digits}f}"]
        lines.append(f"| {size:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


MEASURES: dict[str, tuple[str, Callable[[int], Figures], tuple[int, ...]]] = {
    "planning": ("jobs", planning, (1000, 3000, 10_000)),
    "runs": ("runs", tiny_runs, (8, 64, 256, 1024)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--case", choices=MEASURES, action="append", help="only this table")
    parser.add_argument("--size", type=int, action="append", help="only so many jobs or runs; may be given again")
    arguments = parser.parse_args()
    figures: dict[str, dict[int, list[Figures]]] = {}
    for name in arguments.case or MEASURES:
        _, measure, sizes = MEASURES[name]
        figures[name] = {size: [] for size in arguments.size or sizes}
        for _ in range(arguments.rounds):
            for size, rounds in figures[name].items():
                rounds.append(measure(size))
    from bench_step import machine, versions  # late: see `measured`

    print(f"{machine()}\n{', '.join(f'{name} {number}' for name, number in versions().items())}\nn = {arguments.rounds}\n")
    for name, by_size in figures.items():
        print(table(MEASURES[name][0], by_size) + "\n")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "versions": versions(), "figures": figures}, indent=2))


if __name__ == "__main__":
    main()

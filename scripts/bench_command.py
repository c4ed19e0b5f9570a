"""Time whole commands, from Enter to the last file, against what a person would write. Prints tables, and JSON.

    python scripts/bench_command.py --mnist <folder with MNIST> --rounds 5

All sides of a case in turn, in each round. `cold` begins with an empty cache of compiled programs, `warm` with that which a
command before it has left. The hand-written side is scripts/hand_written.py: the same runs in two processes of one thread,
validation after each epoch, a test at the end, a csv, and nothing else. Ockham has its logs, checkpoints, tables and the page.
`--device cuda` runs all sides on a GPU, which the two processes of the hand-written side share.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench_step import machine, on, usable_device, versions

ROOT = Path(__file__).resolve().parents[1]
LRS = "optimizer.lr=1e-4,2e-4,5e-4,1e-3,2e-3,3e-3,5e-3,1e-2"


@dataclass(frozen=True)
class Case:
    """A command of Ockham and the case of scripts/hand_written.py with the same runs."""

    title: str
    overrides: list[str]
    hand_written: str
    mnist: bool = False


CASES = {
    "A": Case(
        "mnist5k, 784-256-10, batch 32, 20 epochs: 4 optimizers x 4 regularizers x 2 seeds",
        ["-m", "optimizer=sgd,momentum,adam,rmsprop", "reg=none,l1,l2,dropout", "seeds=2"],
        "grid",
    ),
    "B": Case(
        "MNIST, 784-128-10, batch 128, 10 epochs: Adam x 8 learning rates x 4 regularizers",
        ["-m", LRS, "reg=none,l1,l2,dropout", "model.hidden=[128]", "data.batch_size=128", "trainer.max_epochs=10"],
        "rates",
        mnist=True,
    ),
    "C": Case(
        "mnist5k, 4 epochs, 16 runs, inline: 2 optimizers x 4 regularizers x 2 seeds",
        ["-m", "executor=inline", "optimizer=sgd,adam", "reg=none,l1,l2,dropout", "seeds=2", "trainer.max_epochs=4"],
        "short",
    ),
    "D": Case("mnist5k, one run with the defaults", [], "single"),
}


def seconds_of(command: list[str], **environment: str) -> float:
    """Wall time. Raises CalledProcessError."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, *command], cwd=ROOT, env={**os.environ, **environment}, check=True, capture_output=True
    )  # fmt: skip
    return time.perf_counter() - started


def ockham(case: Case, mnist: Path | None, device: str, cache: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        data = ["data=mnist", f"data.root={mnist.resolve()}"] if case.mnist and mnist else []
        kind = "sweep" if "-m" in case.overrides else "run"
        command = ["train.py", *case.overrides, *data, on(device), f"hydra.{kind}.dir={folder}/{kind}"]
        return seconds_of(command, TORCHINDUCTOR_CACHE_DIR=cache)


def hand_written(case: Case, mnist: Path | None, device: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        data = ["--mnist", str(mnist.resolve())] if case.mnist and mnist else []
        return seconds_of(["scripts/hand_written.py", case.hand_written, *data, "--device", device, "--output", folder])


def sides_of(name: str, mnist: Path | None, device: str, caches: Path) -> dict[str, Callable[[], float]]:
    """A measurement by the name of its side, in the order in which they take turns."""
    case = CASES[name]
    hand = {"hand-written": lambda: hand_written(case, mnist, device)}
    if name == "D":
        imports = {"import pytorch_lightning": lambda: seconds_of(["-c", "import pytorch_lightning"])}
        return {**hand, **imports, "Ockham": lambda: ockham(case, mnist, device, str(caches))}

    def cold() -> float:
        return ockham(case, mnist, device, tempfile.mkdtemp(dir=caches))

    def warm() -> float:
        return ockham(case, mnist, device, str(max(caches.iterdir(), key=lambda path: path.stat().st_mtime)))

    return {**hand, "Ockham, cold": cold, "Ockham, warm": warm}


def table(name: str, figures: dict[str, list[float]]) -> str:
    lines = [f"{name}: {CASES[name].title}", "", "| | s | range | x hand-written |", "|---|---|---|---|"]
    for side, seconds in figures.items():
        ratio = statistics.median(value / other for value, other in zip(seconds, figures["hand-written"], strict=True))
        lines.append(f"| {side} | {statistics.median(seconds):.1f} | {min(seconds):.1f} - {max(seconds):.1f} | {ratio:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mnist", type=Path, help="folder of the MNIST files, for B")
    parser.add_argument("--case", choices=CASES, action="append", help="only this one; may be given again")
    parser.add_argument("--device", type=usable_device, choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    chosen = arguments.case or list(CASES)
    if "B" in chosen and arguments.mnist is None:
        parser.error("--mnist is missing: the folder of the MNIST files")
    print(f"{machine()}\n{', '.join(f'{name} {number}' for name, number in versions().items())}\nn = {arguments.rounds}\n")
    with tempfile.TemporaryDirectory() as caches:
        sides = {name: sides_of(name, arguments.mnist, arguments.device, Path(caches)) for name in chosen}
        figures: dict[str, dict[str, list[float]]] = {name: {side: [] for side in sides[name]} for name in chosen}
        for _ in range(arguments.rounds):
            for name in chosen:
                for side, measure in sides[name].items():
                    figures[name][side].append(measure())
    for name in chosen:
        print(table(name, figures[name]) + "\n")
    if arguments.json:
        content = {"machine": machine(), "versions": versions(), "figures": figures}
        arguments.json.write_text(json.dumps(content, indent=2))


if __name__ == "__main__":
    main()

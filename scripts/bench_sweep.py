"""Time of a sweep per run and step, against what a careful user and the usual template get on the same machine.

python scripts/bench_sweep.py --data-root <folder with MNIST> --rounds 5 --epochs 10 --json figures.json
32 runs of MNIST, 784-128-10, batch 128, Adam: 8 learning rates x none, l1, l2, label_smoothing; logging and checkpoints on.
All sides in turn, in each round. `steps` counts training alone, `command` everything from the command to the last file.
`--case sizes` prints the time of a step for groups of 1 to 256 members in one process.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

GRID = ["optimizer=adam", "optimizer.lr=1e-4,2e-4,5e-4,1e-3,2e-3,3e-3,5e-3,1e-2", "reg=none,l1,l2,label_smoothing"]
MIXED = ["optimizer=sgd,momentum,adam,rmsprop", "reg=none,l1,l2,dropout", "seeds=2"]
MEMBERS, STEPS = 32, 430


def own_process(side: str) -> float:
    """Milliseconds a step of a side in this process: the second of two epochs."""
    import torch

    from bench_step import MLP, Case, hand_written, stock

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    gray = (1, 28, 28)
    case = Case("MLP 784-128-10", lambda: MLP(gray, 10, hidden=[128]), gray, 55_000, 5_000)
    return (hand_written(case) if side == "hand" else stock(case, 0)) / case.steps * 1000


def processes(side: str, number: int, threads: int) -> float:
    """Milliseconds a run and step with so many processes of the side at once."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, "--side", side]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(number)
    ]
    return max(float(process.communicate()[0].splitlines()[-1]) for process in running) / number


def sweep(grid: list[str], data_root: Path, epochs: int, *more: str) -> tuple[float, float]:
    """Milliseconds a run and step of a sweep: (training alone, the whole command)."""
    settings = [f"data.root={data_root.resolve()}", "data.batch_size=128", "model.hidden=[128]", f"trainer.max_epochs={epochs}"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "train.py", "-m", "data=mnist", *settings, *grid, *more, f"hydra.sweep.dir={folder}"]
        started = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - started
        with (Path(folder) / "costs.csv").open() as file:
            seconds = [float(row["train_seconds"]) for row in csv.DictReader(file)]
    slots = os.cpu_count() or 1
    return statistics.fmean(seconds) / slots / (STEPS * epochs) * 1000, wall / (len(seconds) * STEPS * epochs) * 1000


def sizes(epochs: int) -> None:
    """Milliseconds a member and step of one group in this process with one thread, and its memory."""
    import hydra
    import torch
    from omegaconf import DictConfig

    from bench_step import machine
    from ockham import build
    from ockham.cost import peak_memory_bytes
    from ockham.fused import updates
    from ockham.fused.group import Group, Member

    def compose(*overrides: str) -> DictConfig:
        with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return hydra.compose("train", list(overrides))

    torch.set_num_threads(1)
    print(machine())
    for members in (1, 2, 4, 8, 16, 32, 64, 128, 256):
        figures = []
        for seconds_to_compile in (1e9, 0.0):
            updates.SECONDS_TO_COMPILE = seconds_to_compile
            overrides = ["data.batch_size=128", "model.hidden=[128]", "schedule=constant", "optimizer=adam"]
            configs = [compose(*overrides, f"optimizer.lr={1e-3 * (n + 1) / members}") for n in range(members)]
            runs = [Member(made, None, None, None, lambda evaluated: None) for made in build.experiments(configs)]
            group = Group(runs, Path("/nonexistent.ckpt"), torch.float32)
            figures.append(_milliseconds_a_step(group, rounds=epochs) / members)
        memory = peak_memory_bytes(torch.device("cpu")) / 2**20
        print(
            f"{members:>4} members: native {figures[0]:.3f} ms, compiled {figures[1]:.3f} ms, peak {memory:.0f} MiB", flush=True
        )


def _milliseconds_a_step(group, rounds: int) -> float:  # type: ignore[no-untyped-def]
    """The median over rounds of ten steps, after two that are not counted."""
    order = group.leaders[0].epoch_order(0)
    lrs = group._learning_rates(len(order))
    figures = []
    for number in range(rounds + 2):
        started = time.perf_counter()
        for step in range(10):
            group._step([order[step * 128 : (step + 1) * 128]], lrs[step])
        if number > 1:
            figures.append((time.perf_counter() - started) * 100)
    return statistics.median(figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--case", choices=("sweep", "sizes"), default="sweep")
    parser.add_argument("--side", choices=("hand", "stock"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # Lightning's advice on the stock side
    if arguments.side:
        print(own_process(arguments.side))
        return
    if arguments.case == "sizes":
        sizes(arguments.epochs)
        return
    if arguments.data_root is None:
        parser.error("--data-root is missing: the folder of the MNIST files")
    from bench_step import machine, versions

    fused: Callable[..., tuple[float, float]] = lambda grid: sweep(grid, arguments.data_root, arguments.epochs, "fuse=on")  # noqa: E731
    sides: dict[str, Callable[[], tuple[float, ...]]] = {
        "hand-written loop, two processes": lambda: (processes("hand", 2, 1),),
        "stock Lightning, in turn": lambda: (processes("stock", 1, 2),),
        "stock Lightning, two at a time": lambda: (processes("stock", 2, 1),),
        "Ockham": lambda: fused(GRID),
        "Ockham, mixed grid": lambda: fused(MIXED),
    }
    figures: dict[str, list[tuple[float, ...]]] = {side: [] for side in sides}
    print(f"{machine()}\n{', '.join(f'{name} {number}' for name, number in versions().items())}\nn = {arguments.rounds}\n")
    for _ in range(arguments.rounds):
        for side, run in sides.items():
            figures[side].append(run())
    print(f"32 runs of {STEPS} x {arguments.epochs} steps, ms a run and step\n")
    print("| | steps | range | command | range | hand-written / this |\n|---|---|---|---|---|---|")
    base = [values[0] for values in figures["hand-written loop, two processes"]]
    for side, rows in figures.items():
        cells = []
        for column in range(2):
            values = [row[column] for row in rows if len(row) > column]
            cells += [f"{statistics.median(values):.3f}", f"{min(values):.3f} - {max(values):.3f}"] if values else ["", ""]
        ratio = statistics.median(own / row[0] for own, row in zip(base, rows, strict=True))
        print(f"| {side} | {' | '.join(cells)} | {ratio:.2f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "versions": versions(), "figures": figures}, indent=2))


if __name__ == "__main__":
    main()

"""Time of a sweep per run and step, against what a careful user and the usual template get on the same machine.

python scripts/bench_sweep.py --mnist <folder with MNIST> --images <folder of image files> --rounds 5 --json figures.json

All sides of all cases in turn, in each round. `steps` is training alone, without compilation; `command` everything from the
command to the last file, compilation among it: its cache is empty at the start of each. Logging and checkpoints are on for
Ockham and stock. The hand-written loop is two processes of one thread each, the most that it gets from two cores.
`--case sizes` prints the time of a step for groups of 1 to 256 members in one process. `--device cuda` runs all sides on a GPU.
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
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

LRS = "optimizer.lr=1e-4,2e-4,5e-4,1e-3,2e-3,3e-3,5e-3,1e-2"
GRID = ["optimizer=adam", LRS, "reg=none,l1,l2,label_smoothing"]
RATES = ["optimizer=adam", LRS, "reg=dropout", "reg.dropout.rate=0.1,0.2,0.35,0.5", "reg.dropout.input_rate=0.2"]
BATCH = 128


@dataclass(frozen=True)
class Case:
    """A sweep and the same model by hand: layers of a perceptron on MNIST, or the conv net on images 32x32x3."""

    title: str
    grid: list[str]
    hidden: tuple[int, ...] = ()
    hand: str | None = None
    stock: bool = False
    samples: int = 55_000
    epochs: int = 5
    jobs: int = 32

    @property
    def steps(self) -> int:
        return -(-self.samples // BATCH)

    @property
    def flops(self) -> float:
        """Of the matrix products of a step: forward, gradients of weights, and of inputs but for the first layer."""
        widths = (784, *self.hidden, 10)
        products = [2 * BATCH * fan_in * fan_out for fan_in, fan_out in pairwise(widths)]
        return 3 * sum(products) - products[0]

    def settings(self, mnist: Path, images: Path | None, device: str) -> list[str]:
        from bench_step import on

        common = [f"data.batch_size={BATCH}", f"trainer.max_epochs={self.epochs}", "report=false", on(device)]
        if self.hidden:
            return ["data=mnist", f"data.root={mnist.resolve()}", f"model.hidden={list(self.hidden)}", *common]
        data_and_model = [
            "data=image_folder",
            f"data.train_samples={self.samples}",
            "data.val_samples=1000",
            "model=cnn",
            "model.dense=0",
        ]
        return [*data_and_model, f"data.root={images.resolve() if images else ''}", *common]


CASES = {
    "uniform": Case("784-128-10, Adam x 8 lr x none, l1, l2, label_smoothing", GRID, (128,), hand="plain", stock=True),
    "mixed": Case(
        "784-128-10, sgd, momentum, adam, rmsprop x none, l1, l2, dropout x 2 seeds",
        ["optimizer=sgd,momentum,adam,rmsprop", "reg=none,l1,l2,dropout", "seeds=2"],
        (128,),
        epochs=15,  # fewer do not repay four programs, and run uncompiled
    ),
    "dropout": Case("784-128-10 with dropout in every layer, Adam x 8 lr x 4 rates", RATES, (128,), hand="dropout", epochs=4),
    "wide": Case("784-256-256-10, Adam x 8 lr x none, l1, l2, label_smoothing", GRID, (256, 256), hand="plain", epochs=2),
    "conv": Case(
        "conv net 32-64-128 on 32x32x3, Adam x 8 lr", ["optimizer=adam", LRS], stock=True, samples=5632, epochs=2, jobs=8
    ),
}


def in_this_process(side: str, name: str, device: str) -> float:
    """What a side takes in this process: milliseconds a step, the second of two epochs; of `peak` GFLOP/s."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if side == "peak":
        return _peak(device)
    from torch import nn

    import bench_step
    from ockham.models import CNN

    case = CASES[name]
    if not case.hidden:
        shape = (3, 32, 32)
        step_case = bench_step.Case(name, lambda: CNN(shape, 10, channels=[32, 64, 128], dense=0), shape, case.samples, 1000)
    else:
        rate = 0.2 if case.hand == "dropout" else 0.0
        step_case = bench_step.Case(name, lambda: _perceptron(nn, case.hidden, rate), (1, 28, 28), case.samples, 5000)
    run = bench_step.SIDES["hand-written loop" if side == "hand" else "stock Lightning, 0 workers"]
    return run(step_case, device) / step_case.steps * 1000


def _perceptron(nn, hidden: tuple[int, ...], rate: float):  # type: ignore[no-untyped-def]
    layers = [nn.Flatten()]
    widths = (784, *hidden, 10)
    for position, (fan_in, fan_out) in enumerate(pairwise(widths)):
        layers += [nn.Dropout(rate)] if rate else []
        layers += [nn.Linear(fan_in, fan_out), *([nn.ReLU()] if position < len(hidden) else [])]
    return nn.Sequential(*layers)


def _peak(device: str) -> float:
    """GFLOP/s of the faster of torch's own product and oneDNN's, of square matrices that fit the cache."""
    import torch

    from ockham.fused.products import product
    from ockham.record.cost import synchronize

    a, b = torch.randn(2, 1024, 1024, device=device)
    best = 0.0
    for multiply in (torch.mm, product):
        for _ in range(30):
            started = time.perf_counter()
            multiply(a, b)
            synchronize(a.device)
            best = max(best, 2 * 1024**3 / (time.perf_counter() - started) / 1e9)
    return best


def processes(side: str, name: str, device: str, number: int, threads: int) -> list[float]:
    """What each of so many processes of a side measures while all of them run."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, "--side", side, "--case", name, "--device", device]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(number)
    ]
    return [float(process.communicate()[0].splitlines()[-1]) for process in running]


def sweep(case: Case, mnist: Path, images: Path | None, device: str) -> tuple[float, float]:
    """Milliseconds a run and step of a sweep: (training alone, the whole command)."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "train.py",
            "-m",
            *case.settings(mnist, images, device),
            *case.grid,
            f"hydra.sweep.dir={folder}/sweep",
        ]
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": f"{folder}/compiled"}
        started = time.perf_counter()
        subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - started
        with Path(folder, "sweep", "costs.csv").open() as file:
            seconds = [float(row["train_seconds"]) for row in csv.DictReader(file)]
    assert len(seconds) == case.jobs
    slots = torch.cuda.device_count() if device == "cuda" else os.cpu_count() or 1
    steps = case.steps * case.epochs
    return statistics.fmean(seconds) / slots / steps * 1000, wall / (case.jobs * steps) * 1000


def measurements_of(name: str, mnist: Path, images: Path | None, device: str) -> dict[str, Callable[[], tuple[float, ...]]]:
    """Milliseconds a run and step of each side of a case."""
    case = CASES[name]
    measurements: dict[str, Callable[[], tuple[float, ...]]] = {}
    if case.hand:
        measurements["hand-written loop, two processes"] = lambda: (max(processes("hand", name, device, 2, 1)) / 2,)
    if case.stock and case.hidden:
        measurements["stock Lightning, in turn"] = lambda: (max(processes("stock", name, device, 1, 2)),)
    if case.stock:
        measurements["stock Lightning, two at a time"] = lambda: (max(processes("stock", name, device, 2, 1)) / 2,)
    measurements["Ockham"] = lambda: sweep(case, mnist, images, device)
    return measurements


def sizes(device: str, epochs: int) -> None:
    """Milliseconds a member and step of one group in this process with one thread, and its memory."""
    import hydra
    import torch
    from omegaconf import DictConfig

    from bench_step import machine, on
    from ockham import build
    from ockham.fused import updates
    from ockham.fused.group import Group, Member
    from ockham.record.cost import peak_memory_bytes
    from ockham.record.folder import RunFolder
    from ockham.record.ledger import Ledger, RunSpec

    def compose(*overrides: str) -> DictConfig:
        with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return hydra.compose("train", list(overrides))

    torch.set_num_threads(1)
    print(machine())
    for members in (1, 2, 4, 8, 16, 32, 64, 128, 256):
        figures = []
        # Nothing compiled, the updates alone, the gradients too.
        for of_updates, of_gradients in ((1e9, 1e9), (0.0, 1e9), (0.0, 0.0)):
            updates.SECONDS_TO_COMPILE, updates.SECONDS_TO_COMPILE_GRADIENTS = of_updates, of_gradients
            overrides = ["data.batch_size=128", "model.hidden=[128]", "schedule=constant", "optimizer=adam", on(device)]
            configs = [compose(*overrides, f"optimizer.lr={1e-3 * (n + 1) / members}") for n in range(members)]
            ledgers = [Ledger(RunSpec(config, {}, (), RunFolder("none")), writes=False) for config in configs]
            runs = [run for run in build.runs(configs) if not isinstance(run, Exception)]
            group_members = [Member(run, ledger) for run, ledger in zip(runs, ledgers, strict=True)]
            group = Group(group_members, Path("none.ckpt"), torch.float32)
            figures.append(_milliseconds_a_step(group, rounds=epochs) / members)
        memory = peak_memory_bytes(torch.device(device)) / 2**20
        forms = ", ".join(f"{form} {ms:.3f} ms" for form, ms in zip(("native", "updates", "compiled"), figures, strict=True))
        print(f"{members:>4} members: {forms}, peak {memory:.0f} MiB", flush=True)


def _milliseconds_a_step(group, rounds: int) -> float:  # type: ignore[no-untyped-def]
    """The median over rounds of ten steps, after two that are not counted."""
    from ockham.record.cost import synchronize

    leader = group.leaders[0]
    (order,) = leader.stretches(0, leader.steps_per_epoch)
    factors = group._factors(len(order))
    group.updates.prepare(group._microbatches([order[:128]]))
    figures = []
    for number in range(rounds + 2):
        started = time.perf_counter()
        for step in range(10):
            group._step([order[step * 128 : (step + 1) * 128]], factors[step])
        synchronize(leader.device)
        if number > 1:
            figures.append((time.perf_counter() - started) * 100)
    return statistics.median(figures)


def table(name: str, figures: dict[str, list[tuple[float, ...]]], peaks: list[float]) -> str:
    """A row a side: medians and ranges, how many times as fast as each other side Ockham is, its share of the peak."""
    case = CASES[name]
    lines = [f"{case.title}: {case.jobs} runs of {case.steps} x {case.epochs} steps", ""]
    lines += ["| | steps | range | command | range | Ockham is faster by |", "|---|---|---|---|---|---|"]
    ockham = [row[0] for row in figures["Ockham"]]
    for side, rows in figures.items():
        cells = []
        for column in range(2):
            values = [row[column] for row in rows if len(row) > column]
            cells += [f"{statistics.median(values):.3f}", f"{min(values):.3f} - {max(values):.3f}"] if values else ["", ""]
        ratio = statistics.median(row[0] / milliseconds for row, milliseconds in zip(rows, ockham, strict=True))
        lines.append(f"| {side} | {' | '.join(cells)} | {'' if side == 'Ockham' else f'{ratio:.2f}'} |")
    if case.hidden:
        shares = [case.flops / milliseconds / 1e6 / peak for milliseconds, peak in zip(ockham, peaks, strict=True)]
        lines += ["", f"Ockham: {statistics.median(shares):.0%} of the peak ({min(shares):.0%} - {max(shares):.0%})"]
    return "\n".join(lines)


def main() -> None:
    from bench_step import machine, usable_device, versions

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mnist", type=Path, help="folder of the MNIST files")
    parser.add_argument("--images", type=Path, help="folder of train/ and test/ with image files, for the case conv")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--case", choices=(*CASES, "sizes"), action="append", help="only this one; may be given again")
    parser.add_argument("--device", type=usable_device, choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--side", choices=("hand", "stock", "peak"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # Lightning's advice on the stock side
    if arguments.side:
        print(in_this_process(arguments.side, arguments.case[0], arguments.device))
        return
    if arguments.case == ["sizes"]:
        sizes(arguments.device, arguments.rounds)
        return
    chosen = arguments.case or [name for name in CASES if name != "conv" or arguments.images]
    if arguments.mnist is None and chosen != ["conv"]:
        parser.error("--mnist is missing: the folder of the MNIST files")
    print(f"{machine()}\n{', '.join(f'{name} {number}' for name, number in versions().items())}\nn = {arguments.rounds}\n")
    measurements = {name: measurements_of(name, arguments.mnist, arguments.images, arguments.device) for name in chosen}
    figures: dict[str, dict[str, list[tuple[float, ...]]]] = {
        name: {side: [] for side in by_side} for name, by_side in measurements.items()
    }
    peaks = []
    for _ in range(arguments.rounds):
        peaks.append(sum(processes("peak", chosen[0], arguments.device, 2, 1)))
        for name, by_side in measurements.items():
            for side, run in by_side.items():
                figures[name][side].append(run())
    peak = f"{statistics.median(peaks):.0f} GFLOP/s ({min(peaks):.0f} - {max(peaks):.0f})"
    print(f"peak of two processes {peak}; ms a run and step\n")
    for name, figures_by_side in figures.items():
        print(table(name, figures_by_side, peaks) + "\n", flush=True)
    if arguments.json:
        content = {"machine": machine(), "versions": versions(), "peaks": peaks, "figures": figures}
        arguments.json.write_text(json.dumps(content, indent=2))


if __name__ == "__main__":
    main()

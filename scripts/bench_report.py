"""What looking at many runs costs: a report over 1,000 run folders, and a sweep of 256 runs in TensorBoard.

python scripts/bench_report.py

Runs a sweep of 256 runs of mnist5k (three epochs each), prints the size of its folder and how long TensorBoard's own reader
takes to list and load all of it; then copies its runs into 1,000 folders of 200 configurations x 5 seeds, and prints the wall
time and the peak memory of scripts/report.py.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import yaml

from bench_many import measured

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

SWEEP = [
    "optimizer=sgd,adam",
    "reg=none,l1,l2,dropout",
    "optimizer.lr=0.001,0.003,0.01,0.03",
    "seeds=8",
    "trainer.max_epochs=3",
]


def size_of(folder: Path, pattern: str = "*") -> float:
    """MiB of the files below a folder whose names match."""
    return sum(file.stat().st_size for file in folder.rglob(pattern) if file.is_file()) / 2**20


def tensorboard_seconds(folder: Path) -> tuple[float, int]:
    """How long TensorBoard's reader takes until all runs are loaded, and how many there are."""
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

    started = time.perf_counter()
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    return time.perf_counter() - started, len(multiplexer.Runs())


def copy_runs(source: Path, target: Path, number: int) -> None:
    """So many run folders without checkpoints and events, each five of one configuration with a learning rate of its own."""
    from ockham.record.folder import RunFolder

    runs = sorted((folder for folder in source.iterdir() if folder.name.isdigit()), key=lambda folder: int(folder.name))
    for index in range(number):
        copy = target / str(index)
        (copy / ".hydra").mkdir(parents=True)
        run = runs[index // 5 % len(runs)]
        for name in ("status.json", "metrics.csv", "metrics.json", "cost.json"):
            shutil.copy(run / name, copy / name)
        config, hydra = (
            yaml.load((run / ".hydra" / f"{name}.yaml").read_text(), yaml.CSafeLoader) for name in ("config", "hydra")
        )
        lr = 1e-4 * (1 + index // 5)
        config["optimizer"]["lr"], config["seed"] = lr, index % 5
        task = [text for text in hydra["hydra"]["overrides"]["task"] if not text.startswith("optimizer.lr=")]
        hydra["hydra"]["overrides"]["task"] = [*task, f"optimizer.lr={lr}"]
        for name, content in (("config", config), ("hydra", hydra)):
            (copy / ".hydra" / f"{name}.yaml").write_text(yaml.dump(content, Dumper=yaml.CSafeDumper))
        RunFolder(copy).end("finished")  # with the checksums of what it asks for now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        swept, many = Path(temporary, "swept"), Path(temporary, "many")
        measured(["train.py", "-m", *SWEEP, f"hydra.sweep.dir={swept}"])
        copy_runs(swept, many, arguments.runs)
        for _ in range(arguments.rounds):
            _, seconds, memory = measured(["scripts/report.py", str(many)])
            counts = (many / "report.md").read_text().splitlines()[2]
            assert counts == f"{arguments.runs} runs: {arguments.runs} finished.", counts
            print(f"report on {arguments.runs} run folders: {seconds:.1f} s, peak memory {memory:.0f} MiB", flush=True)
        events = size_of(swept, "events.out.tfevents.*")
        print(f"a sweep of 256 runs: {size_of(swept):.1f} MiB, of which {events:.1f} MiB for TensorBoard", flush=True)
        for _ in range(arguments.rounds):
            seconds, runs = tensorboard_seconds(swept)
            print(f"TensorBoard's reader: {runs} runs in {seconds:.1f} s", flush=True)
    from bench_step import machine, versions  # late: see `measured`

    print(f"\n{machine()}\n{', '.join(f'{name} {number}' for name, number in versions().items())}")


if __name__ == "__main__":
    main()

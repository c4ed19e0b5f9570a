"""What TPE gains over random search: the best objective after the same number of trials, over several searches each.

python scripts/bench_search.py --trials 40 --repetitions 5 --folder outputs/bench_search
Search seeds are shared; every sweep can be continued by the same command. Prints a line a search, then the medians.
"""

import argparse
import csv
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SPACE = ["optimizer=sgd,momentum,rmsprop,adam", "reg=none,l1,l2,dropout"]


def best(folder: Path) -> float:
    """The lowest val/loss of the sweep."""
    with (folder / "results.csv").open() as file:
        return min(float(row["val/loss"]) for row in csv.DictReader(file) if row["state"] == "finished")


def search(sampler: str, seed: int, trials: int, folder: Path, overrides: list[str]) -> float:
    sweep_folder = folder / f"{sampler}-{seed}"
    settings = [f"search={sampler}", f"search.seed={seed}", f"search.trials={trials}", "objective=val/loss", "logger=csv"]
    command = [sys.executable, "train.py", "-m", *SPACE, *settings, *overrides, f"hydra.sweep.dir={sweep_folder.resolve()}"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return best(sweep_folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=ROOT / "outputs" / "bench_search")
    parser.add_argument("overrides", nargs="*", default=["trainer.max_epochs=5"])
    arguments = parser.parse_args()
    values_by_sampler: dict[str, list[float]] = {"random": [], "tpe": []}
    for seed in range(arguments.repetitions):
        for sampler, values in values_by_sampler.items():
            values.append(search(sampler, seed, arguments.trials, arguments.folder, arguments.overrides))
            print(f"{sampler:<7} seed {seed}: best val/loss {values[-1]:.4f}", flush=True)
    for sampler, values in values_by_sampler.items():
        spread = f"range {min(values):.4f} to {max(values):.4f}, n = {len(values)}"
        print(f"{sampler:<7} median {statistics.median(values):.4f}, {spread}")


if __name__ == "__main__":
    main()

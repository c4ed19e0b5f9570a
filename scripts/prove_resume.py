"""Shows that a sweep that is killed again and again ends as an unbroken one, byte for byte.

python scripts/prove_resume.py --kills 5 --folder outputs/prove_resume optimizer=sgd,adam reg=none,l1,dropout seeds=10
Runs the sweep once as it is, once with SIGKILL at random moments and started again after each; then compares results.csv,
summary.csv and the metrics of every run. Exits with 1 where they differ.
"""

import argparse
import filecmp
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def start(folder: Path, overrides: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "train.py", "-m", *overrides, f"hydra.sweep.dir={folder.resolve()}"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)


def kill_at_random(folder: Path, overrides: list[str], seconds: float, generator: random.Random) -> str:
    """Start the sweep, end it at a moment of its work; tells how far it had come."""
    began = time.time()
    process = start(folder, overrides)
    before = len(list(folder.glob("*/metrics.json")))
    while not any(file.stat().st_mtime > began for file in folder.glob("*/status.json")) and process.poll() is None:
        time.sleep(0.05)
    time.sleep(generator.uniform(0, seconds))
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.5)  # workers end with their parent
    return f"{before} jobs finished before, {len(list(folder.glob('*/metrics.json')))} when killed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0, help="each kill comes within so long after the first job began")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("overrides", nargs="+")
    arguments = parser.parse_args()
    whole, broken = arguments.folder / "whole", arguments.folder / "broken"
    if start(whole, arguments.overrides).wait():
        sys.exit("the sweep itself fails")
    generator = random.Random(0)
    for number in range(arguments.kills):
        progress = kill_at_random(broken, arguments.overrides, arguments.seconds, generator)
        print(f"kill {number + 1}: {progress}", flush=True)
    if start(broken, arguments.overrides).wait():
        sys.exit("the continued sweep fails")
    names = ["results.csv", "summary.csv"]
    names += [str(file.relative_to(whole)) for file in sorted(whole.glob("*/metrics.*"))]
    differing = [name for name in names if not filecmp.cmp(whole / name, broken / name, shallow=False)]
    print(f"{len(names)} files compared, {len(differing)} differ {differing[:5]}")
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()

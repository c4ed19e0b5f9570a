"""Several processes at once: on one sweep folder, one run folder, one cache of images, one name; and readers beside writers."""

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from faults.kill import COMMANDS
from faults.trial import ROOT, Trial, differences, last_lines, prepare, start, unbroken

COUNT = 10

PROCESSES = 8

#: Seconds for all of them together.
LIMIT = 900.0


def trials(seed: int, numbers: Sequence[int], folder: Path) -> Iterator[Trial]:
    for number in numbers:
        generator = random.Random(f"concurrency {seed} {number}")
        kind = list(KINDS)[number % len(KINDS)]
        place = folder / str(number)
        place.mkdir(parents=True)
        yield Trial(kind, f"{PROCESSES} processes", KINDS[kind](place, folder / "whole", generator))


def started(commands: Sequence[Sequence[str]], place: Path) -> list[subprocess.Popen[bytes]]:
    return [start(words, place / f"{index}.out") for index, words in enumerate(commands)]


def ended(processes: Sequence[subprocess.Popen[bytes]], place: Path, *, refusal: str | None) -> str | None:
    """Wait for all; what is wrong with how they ended. Each exits with 0, or with 2 where `refusal` is on its screen."""
    for index, process in enumerate(processes):
        code, text = process.wait(timeout=LIMIT), (place / f"{index}.out").read_text()
        if code and not (code == 2 and refusal is not None and refusal in text and "Traceback" not in text):
            return f"process {index} exits with {code}: {last_lines(place / f'{index}.out')}"
    return None


def one_sweep(place: Path, whole: Path, generator: random.Random) -> str | None:
    words = COMMANDS["fuse=off"]
    unbroken(words, whole / "sweep")
    problem = ended(started([words] * PROCESSES, place), place, refusal=None)
    return problem or "; ".join(differences(whole / "sweep" / "out", place / "out")[:5]) or None


def one_run(place: Path, whole: Path, generator: random.Random) -> str | None:
    words = COMMANDS["single"]
    unbroken(words, whole / "run")
    processes = started([words] * PROCESSES, place)
    problem = ended(processes, place, refusal="out ")
    codes = Counter(process.returncode for process in processes)
    if problem is None and codes != {0: 1, 2: PROCESSES - 1}:
        problem = f"exit codes {dict(codes)}"
    return problem or "; ".join(differences(whole / "run" / "out", place / "out")[:5]) or None


def one_cache(place: Path, whole: Path, generator: random.Random) -> str | None:
    words = COMMANDS["image folder"]
    unbroken(words, whole / "images")
    prepare(words, place / "images")
    root = f"data.root={place / 'images' / 'pictures'}"
    others = [word for word in words if not word.startswith(("hydra.run.dir", "data.root"))]
    processes = started([[*others, root, f"hydra.run.dir=out{index}"] for index in range(PROCESSES)], place)
    problem = ended(processes, place, refusal=None)
    expected = (whole / "images" / "out" / "metrics.csv").read_bytes()
    differing = [index for index in range(PROCESSES) if (place / f"out{index}" / "metrics.csv").read_bytes() != expected]
    return problem or (f"runs {differing} have other metrics" if differing else None)


def one_name(place: Path, whole: Path, generator: random.Random) -> str | None:
    """Two other sweeps at the same moment: the folder is that of one of them."""
    words = COMMANDS["fuse=off"]
    processes = started([[*words, f"seed={number}"] for number in (1, 2)], place)
    problem = ended(processes, place, refusal="holds another sweep")
    codes = sorted(process.returncode for process in processes)
    return problem or (None if codes == [0, 2] else f"exit codes {codes}")


def readers(place: Path, whole: Path, generator: random.Random) -> str | None:
    """Report and evaluate, one after the other, as long as the sweep runs; they find what there is, or say what is missing."""
    words = COMMANDS["fused"]
    unbroken(words, whole / "readers")
    sweep = start(words, place / "0.out")
    while sweep.poll() is None:
        script = generator.choice(("report", "evaluate"))
        command = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), "out"]
        result = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        if result.returncode not in (0, 2) or "Traceback" in result.stderr:
            sweep.wait()
            return f"{script} exits with {result.returncode}: {result.stderr[-300:]}"
    problem = ended([sweep], place, refusal=None)
    return problem or "; ".join(differences(whole / "readers" / "out", place / "out")[:5]) or None


KINDS: Mapping[str, Callable[[Path, Path, random.Random], str | None]] = {
    "one run folder": one_run,
    "one sweep folder": one_sweep,
    "one image cache": one_cache,
    "two sweeps of one name": one_name,
    "report and evaluate beside a sweep": readers,
}

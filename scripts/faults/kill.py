"""SIGKILL at any moment: the same command again leaves what an unbroken one leaves.

Each trial draws a command, whom the signal meets (the process that was started, one that this one started, or all of them), and
when: over the time that the command takes, every fourth within its first second. Every second trial kills three times.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from faults.trial import SECONDS_TO_END, Trial, finished, gone, prepare, processes, start, unbroken

COUNT = 150

SMALL = ("data=digits", "data.train_samples=300", "model.hidden=[4]", "schedule=cosine")
SWEEP = ("-m", *SMALL, "hydra.sweep.dir=out")
BARE = (*SWEEP, "report=false")

#: What is killed, by the kind of trial: a few seconds each. The single run and the group last for several checkpoints.
#: One thread each: two of one slot wait for each other where something else holds a core.
COMMANDS: Mapping[str, Sequence[str]] = {
    "single": (*SMALL, "reg=dropout", "trainer.max_epochs=80", "hydra.run.dir=out"),
    "fused": (
        *SWEEP,
        "executor.slots=1",
        "executor.threads=1",
        "optimizer=sgd,adam",
        "reg=none,dropout",
        "trainer.max_epochs=150",
    ),
    "fuse=off": (*BARE, "executor.slots=2", "optimizer=sgd,adam", "reg=none,l1", "trainer.max_epochs=20", "fuse=off"),
    "search=tpe": (
        *(*BARE, "executor.slots=2", "search=tpe", "search.trials=6", "optimizer.lr=tag(log,interval(1e-3,1e-1))"),
        "trainer.max_epochs=5",
    ),
    "search=random prune=asha": (
        *(
            *BARE,
            "executor.slots=1",
            "executor.threads=1",
            "search=random",
            "search.trials=6",
            "optimizer.lr=tag(log,interval(1e-4,1))",
        ),
        *("trainer.max_epochs=4", "prune=asha"),
    ),
    "compare": (
        *(*SWEEP, "executor.slots=2", "compare=optimizer", "optimizer=sgd,adam", "optimizer.lr=1e-3,1e-2", "confirm=2"),
        "trainer.max_epochs=5",
    ),
    "image folder": (
        *("data=image_folder", "data.root=pictures", "data.size=8", "data.batch_size=32", "model.hidden=[8]"),
        *("augment=flip_crop", "trainer.max_epochs=10", "hydra.run.dir=out"),
    ),
    "ray": (
        *(*BARE, "executor=ray", "executor.slots=2", "optimizer=sgd,adam", "reg=none,l1", "trainer.max_epochs=20"),
        "fuse=off",
    ),
}

#: Of so many trials one is of Ray, which takes a quarter of a minute to start.
RAY_EVERY = 24

#: A single run is one process. Where a worker alone dies, its job runs after others, and pruning compares it with them.
VICTIMS_OF = {"single": ("parent",), "image folder": ("parent",), "search=random prune=asha": ("parent", "group")}


def trials(seed: int, numbers: Sequence[int], folder: Path) -> Iterator[Trial]:
    lengths: dict[str, float] = {}
    for number in numbers:
        generator = random.Random(f"kill {seed} {number}")
        usual = [kind for kind in COMMANDS if kind != "ray"]
        kind = "ray" if number % RAY_EVERY == RAY_EVERY - 1 else usual[number % len(usual)]
        victim = generator.choice(VICTIMS_OF.get(kind, ("parent", "child", "group")))
        if kind not in lengths:
            lengths[kind] = unbroken(COMMANDS[kind], folder / "whole" / kind)
        failure, moments = killed(
            COMMANDS[kind],
            folder / str(number),
            folder / "whole" / kind,
            victim,
            drawn_moments(lengths[kind], number, generator),
            at_once=generator.random() < 0.5,
        )
        yield Trial(f"{kind}: {victim}", f"killed after {moments} s of {lengths[kind]:.1f}", failure)


def drawn_moments(length: float, number: int, generator: random.Random) -> list[float]:
    """When to kill, in seconds from the start of the first and of each further attempt."""
    latest = 1.0 if number % 4 == 3 else length
    return [generator.uniform(0, latest), *(generator.uniform(0, length / 2) for _ in range(2 if number % 2 == 0 else 0))]


def killed(
    words: Sequence[str], folder: Path, whole: Path, victim: str, moments: Sequence[float], *, at_once: bool
) -> tuple[str | None, str]:
    """Kill the command at the moments and let it come to its end; returns what is wrong then, and the moments that it met.

    A command that was faster than the first moment is begun anew, and killed in half the time. `at_once` starts the next
    attempt while processes of the one before may still end.
    """
    prepare(words, folder)
    logs: list[Path] = []
    met: list[str] = []
    waiting = list(moments)
    while waiting:
        moment = waiting.pop(0)
        logs.append(folder / f"{len(logs)}.out")
        if kill_after(moment, start(words, logs[-1]), logs[-1], victim):
            met.append(f"{moment:.2f}")
        elif not met:
            shutil.rmtree(folder)
            prepare(words, folder)
            logs.clear()
            waiting.insert(0, moment / 2)
            continue
        if not at_once and not gone(logs[-1], SECONDS_TO_END):
            return f"processes {processes(logs[-1])} are left after {SECONDS_TO_END:g} s", ", ".join(met)
    return finished(words, folder, whole, logs), ", ".join(met)


def kill_after(seconds: float, process: subprocess.Popen[bytes], log: Path, victim: str) -> bool:
    """Kill so long after the start, and wait for the end of what was started; whether there was something to kill.

    For a child it waits until there is one.
    """
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(min(0.02, max(deadline - time.monotonic(), 0.0)))
    if victim == "child":
        while process.poll() is None and len(processes(log)) < 2:
            time.sleep(0.02)
    if process.poll() is not None:
        return False
    if victim == "parent":
        process.kill()
    elif victim == "group":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        children = sorted(pid for pid in processes(log) if pid != process.pid)
        for pid in children[-1:]:  # the youngest, as a rule a worker
            os.kill(pid, signal.SIGKILL)
    process.wait()
    return True

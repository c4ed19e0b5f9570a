"""The same bytes from the same command, whatever surrounds it: slots, the order of jobs, hash seeds, languages, zones, places.

Members of another group have the same results to rounding: products of matrices of other shapes add in another order. So have
runs on another processor, here one whose wide registers the libraries are kept from: they add in the order that suits it.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from faults.one_process import run_all
from faults.trial import Trial
from ockham.record.checkpoint import Checkpoint
from ockham.record.folder import RunFolder

COUNT = 40

TINY = (
    *("data=digits", "data.train_samples=200", "model.hidden=[8]", "trainer.max_epochs=3", "trainer.accelerator=cpu"),
    *("logger=csv", "report=false"),
)

#: Of tensors in single precision, in groups of another composition and on another processor.
TOLERANCE = 1e-6

#: The same where a gradient that is next to nothing, and so mostly rounding, is divided by its size.
TOLERANCE_OF_ADAPTIVE = 1e-5

OPTIMIZERS = {
    **dict.fromkeys(("sgd", "momentum", "lion"), TOLERANCE),
    **dict.fromkeys(("adam", "adamw", "rmsprop", "nadam", "adagrad"), TOLERANCE_OF_ADAPTIVE),
}
REGULARIZERS = ("none", "l2", "l1", "[dropout,l2]", "ema", "label_smoothing", "input_noise", "gradient_noise")

Jobs = Mapping[str, RunFolder]
"""The runs of a sweep by what each computes."""


class Command:
    """A sweep of four jobs with settings that are drawn."""

    def __init__(self, drawn: random.Random) -> None:
        optimizer = drawn.choice(list(OPTIMIZERS))
        self.tolerance = OPTIMIZERS[optimizer]
        self.common = (f"optimizer={optimizer}", f"reg={drawn.choice(REGULARIZERS)}")
        self.augment = drawn.choice(["none", "mixup"])

    def words(self, folder: Path, *more: str, lrs: str = "0.003,0.01", seeds: str = "0,1", fuse: str = "off") -> list[str]:
        jobs = (f"optimizer.lr={lrs}", f"seed={seeds}", f"fuse={fuse}", f"augment={self.augment}")
        where = () if any(word.startswith("executor") for word in more) else ("executor=inline",)
        return ["-m", *TINY, *self.common, *jobs, *where, *more, f"hydra.sweep.dir={folder}"]


def jobs_of(sweep: Path) -> Jobs:
    return {str(RunFolder(file.parent).status()["run_key"]): RunFolder(file.parent) for file in sweep.glob("*/status.json")}


def differing_bytes(one: Path, other: Path) -> str | None:
    """Which file of which job differs; the jobs may have other numbers."""
    first, second = jobs_of(one), jobs_of(other)
    if first.keys() != second.keys():
        return "other jobs"
    for key, folder in first.items():
        for name in ("metrics.csv", "metrics.json", "checkpoints/last.ckpt", "checkpoints/best.ckpt"):
            if (folder.path / name).read_bytes() != (second[key].path / name).read_bytes():
                return f"{name} of {folder.path.name}"
    return None


def differing_tables(one: Path, other: Path) -> str | None:
    names = [name for name in ("results.csv", "summary.csv") if (one / name).read_bytes() != (other / name).read_bytes()]
    return ", ".join(names) or None


def differing_tensors(one: Path, other: Path, tolerance: float) -> str | None:
    """Of the jobs that both have, as members of other groups or on another processor."""
    first, second = jobs_of(one), jobs_of(other)
    common = first.keys() & second.keys()
    if not common:
        return "no job in common"
    for key in common:
        before, after = (Checkpoint.load(folder.last_checkpoint).model for folder in (first[key], second[key]))
        for name, tensor in before.items():
            if not torch.allclose(tensor, after[name], rtol=tolerance, atol=tolerance):
                return f"{name} by {float((tensor - after[name]).abs().max()):.2g}"
    return None


Sweep = Callable[..., Path]
"""Runs the words with a name for the folder and an environment; returns the folder of the sweep."""


def variation(kind: str, drawn: random.Random, command: Command, sweep: Sweep) -> str | None:
    """Run the command twice, in two ways of this kind; says what differs."""
    if kind in ENVIRONMENTS:
        environments = ENVIRONMENTS[kind]
        first, second = (sweep(command, name, environment=each) for name, each in zip("ab", environments, strict=True))
        return differing_bytes(first, second) or differing_tables(first, second)
    if kind == "1 and 2 slots":
        first, second = (sweep(command, str(n), "executor=processes", f"executor.slots={n}") for n in (1, 2))
        return differing_bytes(first, second) or differing_tables(first, second)
    if kind == "1 and 2 slots, fused":
        first, second = (sweep(command, str(n), "executor=processes", f"executor.slots={n}", fuse="auto") for n in (1, 2))
        return differing_tensors(first, second, command.tolerance)
    if kind == "order of jobs":
        first, second = sweep(command, "a"), sweep(command, "b", lrs="0.01,0.003", seeds=drawn.choice(["1,0", "0,1"]))
        return differing_bytes(first, second)
    if kind == "another processor":
        first = sweep(command, "a", fuse="auto")
        second = sweep(command, "b", fuse="auto", environment=NARROW_PROCESSOR)
        return differing_tensors(first, second, command.tolerance)
    if kind == "again":
        first, second = sweep(command, "a", fuse="auto"), sweep(command, "b", fuse="auto")
        return differing_bytes(first, second) or differing_tables(first, second)
    if kind == "working directory":
        first, second = sweep(command, "a"), sweep(command, "deeper/and/deeper")
        return differing_bytes(first, second) or differing_tables(first, second)
    assert kind == "composition of groups", kind
    larger = drawn.choice(["0.003,0.01,0.03", "0.003,0.01,0.02,0.03,0.001"])
    first, second = sweep(command, "a", fuse="on"), sweep(command, "b", lrs=larger, seeds=drawn.choice(["0,1", "0"]), fuse="on")
    return differing_tensors(first, second, command.tolerance)


ENVIRONMENTS: Mapping[str, Sequence[Mapping[str, str]]] = {
    "hash seeds": ({"PYTHONHASHSEED": "0"}, {"PYTHONHASHSEED": "4242"}),
    "languages": ({"LC_ALL": "C"}, {"LC_ALL": "C.utf8", "LANG": "de_DE.UTF-8", "LC_NUMERIC": "de_DE.UTF-8"}),
    "time zones": ({"TZ": "UTC"}, {"TZ": "Pacific/Kiritimati"}),
}

#: A processor without what came after SSE: for torch's own loops, oneDNN and MKL.
NARROW_PROCESSOR = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}

KINDS = (
    *ENVIRONMENTS,
    "1 and 2 slots",
    "1 and 2 slots, fused",
    "order of jobs",
    "again",
    "working directory",
    "composition of groups",
    "another processor",
)


def trials(seed: int, numbers: Sequence[int], folder: Path) -> Iterator[Trial]:
    for number in numbers:
        kind = KINDS[number % len(KINDS)]
        drawn = random.Random(f"determinism {seed} {number}")
        command, place = Command(drawn), folder / str(number)

        def sweep(
            command: Command,
            name: str,
            *more: str,
            place: Path = place,
            environment: Mapping[str, str] | None = None,
            **sizes: Any,
        ) -> Path:
            target = place / name / "sweep"
            words = command.words(target, *more, **sizes)
            left = run_all({"sweep": words}, place / name / "commands", environment)["sweep"]
            if left.code:
                raise RuntimeError(f"{json.dumps(words)} exits with {left.code}: {left.errors[-500:]}")
            return target

        yield Trial(kind, " ".join(command.common), variation(kind, drawn, command, sweep))

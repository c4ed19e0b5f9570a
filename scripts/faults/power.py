"""A power cut: what fsync promised is there, of the rest any part; the run continues exactly, or what is damaged is named.

A run, or a group, is recorded while it trains in this process: at a drawn operation on files it stops. Its folder is then set
to a state that a file system may have after the cut. Of each file stays what was synchronised, and of what was written later a
prefix, zeros, or all; a file that was never synchronised may be absent. The last changes of folders (names that were replaced,
linked or removed) are undone, as many as drawn: they are durable in the order in which they were made, and nothing is promised
about when. Then the same run is begun again there. Curves in TensorBoard are not promised after a power cut.
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from faults.trial import ROOT, Trial, differences

COUNT = 200

SMALL = ("data=digits", "data.train_samples=100", "model.hidden=[4]", "trainer.max_epochs=4", "reg=dropout")
MEMBERS = ("optimizer=sgd", "optimizer=adam")

#: Changes of folders that may be lost: so many at most.
MOST_UNDONE = 8


class PowerCut(BaseException):
    """Ends the recorded run where it stands: nothing catches it but what catches Ctrl-C."""


class Recorder:
    """The operations on files below a folder, and what is durable of each file, by its inode; ends at operation `cut`."""

    def __init__(self, folder: Path, cut: int | None) -> None:
        self.folder = folder
        self.cut = cut
        self.number = 0
        self.durable: dict[int, bytes] = {}
        #: What undoes each change of a folder: (path, its durable content before or None), of all names that it concerned.
        self.changes: list[list[tuple[Path, bytes | None]]] = []
        self.on_cut: Callable[[], None] = lambda: None

    def operation(self) -> None:
        if self.cut is not None and self.number >= self.cut:
            if self.number == self.cut:
                self.on_cut()
            self.number += 1
            raise PowerCut
        self.number += 1

    def content(self, path: Path) -> bytes | None:
        """What is durable at the path; None where there is nothing."""
        return self.durable.get(path.stat().st_ino, b"") if path.exists() else None

    def is_here(self, path: Path) -> bool:
        return path.is_relative_to(self.folder) and not path.name.endswith(".lock")


@contextmanager
def recorded(recorder: Recorder) -> Iterator[None]:
    """Inside the block the functions of `os` that the writers of Ockham use tell the recorder."""
    fsync, replace, link, unlink = os.fsync, os.replace, os.link, os.unlink

    def recorded_fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if recorder.is_here(path) and path.is_file():
            recorder.operation()
            recorder.durable[path.stat().st_ino] = path.read_bytes()
        elif recorder.is_here(path):
            recorder.operation()
            recorder.changes.clear()
        fsync(descriptor)

    def recorded_replace(source: Any, target: Any) -> None:
        first, second = Path(os.path.abspath(source)), Path(os.path.abspath(target))
        if recorder.is_here(second):
            recorder.operation()
            recorder.changes.append([(second, recorder.content(second)), (first, recorder.content(first))])
        replace(source, target)

    def recorded_link(source: Any, target: Any) -> None:
        if recorder.is_here(Path(os.path.abspath(target))):
            recorder.operation()
            recorder.changes.append([(Path(os.path.abspath(target)), None)])
        link(source, target)

    def recorded_unlink(path: Any, *, dir_fd: int | None = None) -> None:
        base = Path.cwd() if dir_fd is None else Path(os.readlink(f"/proc/self/fd/{dir_fd}"))
        whole = base / path
        if recorder.is_here(whole) and whole.exists():
            recorder.operation()
            recorder.changes.append([(whole, recorder.content(whole))])
        unlink(path, dir_fd=dir_fd)

    with (
        patch("os.fsync", recorded_fsync),
        patch("os.replace", recorded_replace),
        patch("os.link", recorded_link),
        patch("os.unlink", recorded_unlink),
    ):
        yield


def state_after(recorder: Recorder, generator: random.Random) -> dict[Path, bytes]:
    """The files of the folder after the cut, as one of the allowed states; called at the cut."""
    files: dict[Path, bytes] = {}
    for path in sorted(recorder.folder.rglob("*")):
        if path.is_file() and recorder.is_here(path):
            left = survivors(path.read_bytes(), recorder.durable.get(path.stat().st_ino), generator)
            if left is not None:
                files[path] = left
    undone = generator.randint(0, min(MOST_UNDONE, len(recorder.changes)))
    for change in reversed(recorder.changes[len(recorder.changes) - undone :]):
        for path, before in change:
            files.pop(path, None)
            if before is not None:
                files[path] = before
    return files


def survivors(actual: bytes, durable: bytes | None, generator: random.Random) -> bytes | None:
    """What may be left of a file with this content, of which `durable` was synchronised: None is nothing, not even its name."""
    if durable == actual:
        return actual
    kind = generator.choice(("all", "prefix", "zeros", "durable"))
    base = durable if durable is not None and actual.startswith(durable) else b""
    if kind == "all":
        return actual
    if kind == "durable":
        return durable
    end = generator.randint(len(base), len(actual))
    return actual[:end] if kind == "prefix" else actual[:end] + bytes(len(actual) - end)


# -- runs in this process ------------------------------------------------------------------------------------------------------


@cache
def composed(overrides: tuple[str, ...]) -> tuple[dict[str, str], Any]:
    """The options by group and the configuration of a run."""
    import hydra
    from omegaconf import OmegaConf

    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = hydra.compose("train", list(overrides), return_hydra_config=True)
    choices = {str(group): str(option) for group, option in config.hydra.runtime.choices.items()}
    return choices, OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def train(kind: str, folder: Path) -> None:
    """Train a run, or a group with its checkpoints beside it, in the folder; a run that is finished there stays."""
    from ockham.execute import RunSpec, execute, execute_group
    from ockham.record.folder import RunFolder

    def spec(overrides: tuple[str, ...], place: Path) -> RunSpec:
        choices, config = composed(overrides)
        return RunSpec(deepcopy(config), choices, overrides, RunFolder(place), hydra={"run": "in this process"})

    if kind == "single":
        run = spec(SMALL, folder / "0")
        if run.folder.state != "finished":
            execute(run, pictures=False)
        return
    members = [spec((*SMALL, member), folder / str(number)) for number, member in enumerate(MEMBERS)]
    if any(member.folder.state != "finished" for member in members):
        execute_group(members, folder / "groups" / "0")
    else:  # as a sweep does with a group that has ended
        shutil.rmtree(folder / "groups" / "0", ignore_errors=True)


@contextmanager
def without_waiting() -> Iterator[None]:
    """Inside the block checkpoints are written after every epoch."""
    with (
        patch("ockham.record.ledger.SECONDS_BETWEEN_CHECKPOINTS", 0.0),
        patch("ockham.fused.group.SECONDS_BETWEEN_CHECKPOINTS", 0.0),
    ):
        yield


def trials(seed: int, numbers: Sequence[int], folder: Path) -> Iterator[Trial]:
    import logging

    logging.getLogger("ockham").setLevel(logging.ERROR)
    for number in numbers:
        generator = random.Random(f"power {seed} {number}")
        kind = ("single", "group")[number % 2]
        with without_waiting():
            operations = unbroken(kind, folder / "whole" / kind)
            cut = generator.randint(0, operations)
            yield Trial(kind, f"cut at operation {cut} of {operations}", after_cut(kind, folder, number, cut, generator))


@cache
def unbroken(kind: str, folder: Path) -> int:
    """How many operations on files the run takes; it is left in the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    recorder = Recorder(folder / "out", cut=None)
    with recorded(recorder):
        train(kind, folder / "out")
    return recorder.number


def after_cut(kind: str, folder: Path, number: int, cut: int, generator: random.Random) -> str | None:
    """Cut the run at the operation, continue from a state that may be left; returns what is wrong then."""
    place = folder / str(number)
    shutil.rmtree(place, ignore_errors=True)
    recorder = Recorder(place / "out", cut)
    files: dict[Path, bytes] = {}
    recorder.on_cut = lambda: files.update(state_after(recorder, generator))
    try:
        with recorded(recorder):
            train(kind, place / "out")
        recorder.on_cut()  # after the last operation
    except PowerCut:
        pass
    shutil.rmtree(place / "out", ignore_errors=True)
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    try:
        train(kind, place / "out")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    leftover = [f"{path.relative_to(place)} is left" for path in place.rglob("*.partial")]
    return "; ".join([*leftover, *differences(folder / "whole" / kind / "out", place / "out", curves=False)][:5]) or None

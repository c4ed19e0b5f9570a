"""Damage to every kind of file that is read back: it is named, repaired or harmless, and no number is shown that is not right.

All in this process, through the commands themselves; what they show is compared with what they show of the whole files.
"""

import contextlib
import csv
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from PIL import Image

from faults.damage import damage
from faults.one_process import Left, here, run_all
from faults.trial import ROOT, Trial
from ockham.core import cache
from ockham.data import Mnist5k
from ockham.data.image_folder import ImageFolder, decode_all, image_files
from ockham.data.sources import Mnist
from ockham.errors import UserError
from ockham.fused import group
from ockham.record import ledger
from ockham.record.folder import RunFolder
from ockham.report.reading import RecordedRun, read

COUNT = 720

TINY = (
    *("data=digits", "data.train_samples=200", "model.hidden=[8]", "trainer.max_epochs=4", "trainer.accelerator=cpu"),
    *("schedule=constant", "logger=csv"),
)
SWEEP = ("-m", *TINY, "executor=inline", "report=false")

#: Commands whose folders are damaged; in each place stands its folder.
COMMANDS = {
    "a": (*TINY, "reg=l2"),
    "b": (*TINY, "optimizer=sgd", "seed=1"),
    "grid": (*SWEEP, "optimizer=sgd,adam", "seed=0,1"),
    "search": (*SWEEP, "search=random", "search.trials=3", "optimizer.lr=interval(0.001,0.1)"),
    "other-grid": (*SWEEP, "optimizer=momentum,adamw", "seed=2,3"),
    "comparison": (
        *(*SWEEP, "compare=optimizer", "optimizer=sgd,adam", "optimizer.lr=interval(0.01,0.1)", "search=random"),
        *("search.trials=2", "confirm=2"),
    ),
}

#: So many epochs are trained when an unfinished run is killed.
EPOCHS_BEFORE_KILL = 2

MNIST = Path(os.environ.get("OCKHAM_TEST_DATA", ROOT.parent / "shared" / "data")) / "mnist"


class Killed(BaseException):
    """In place of SIGKILL: nothing of the run is written any more."""


@contextlib.contextmanager
def killed_after(epochs: int) -> Iterator[None]:
    """Runs end after so many epochs as a kill ends them, with a checkpoint of each epoch."""
    append = RunFolder.append_epoch

    def append_or_die(folder: RunFolder, epoch: int, *rest: Any) -> None:
        if epoch > epochs:
            raise Killed
        append(folder, epoch, *rest)

    with (
        mock.patch.object(RunFolder, "append_epoch", append_or_die),
        mock.patch.object(ledger.Ledger, "fail"),
        mock.patch.object(ledger, "SECONDS_BETWEEN_CHECKPOINTS", -1.0),
        mock.patch.object(group, "SECONDS_BETWEEN_CHECKPOINTS", -1.0),
    ):
        yield


def words_of(name: str, folder: Path) -> list[str]:
    kind = "sweep" if "-m" in COMMANDS[name] else "run"
    return [*COMMANDS[name], f"hydra.{kind}.dir={folder}"]


class Whole(NamedTuple):
    """The folders before anything is damaged, and what is read of them."""

    folder: Path
    recorded: Mapping[str, RecordedRun]

    @classmethod
    def made(cls, folder: Path) -> "Whole":
        if not folder.exists():
            left = run_all({name: words_of(name, folder / name) for name in COMMANDS}, folder / "commands")
            assert {one.code for one in left.values()} == {0}, left
            with killed_after(EPOCHS_BEFORE_KILL):
                for name in ("a", "b", "grid"):
                    here(words_of(name, folder / f"killed-{name}"), folder / "commands" / f"killed-{name}")
            _write_images(folder / "images")
            _write_images(folder / "other-images", seed=1)
            for images in ("images", "other-images"):
                ImageFolder(str(folder / images), size=8).load()
        return cls(folder, {run.path.name: run for name in ("a", "b") for run in read([folder / name]).runs})

    def tables(self, name: str) -> dict[str, list[str]]:
        return tables(self.folder / name)


def tables(sweep: Path) -> dict[str, list[str]]:
    """The tables of a sweep but for what the clock decides."""
    return {file.name: file.read_text().splitlines() for file in sweep.glob("*.csv") if file.name != "costs.csv"}


def _write_images(root: Path, seed: int = 0) -> None:
    drawn = np.random.default_rng(seed)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(4):
                pixels = drawn.integers(0, 256, (9, 9, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")


# -- what is shown of a damaged folder ---------------------------------------------------------------------------------------


def named(left: Left, *names: str) -> str | None:
    """None where a command that failed says in one screen which file it is about."""
    if left.code not in (1, 2) or "Traceback" in left.errors or not any(name in left.errors for name in names):
        return f"exit code {left.code}, and {' or '.join(names)} is not named: {left.errors.strip()[-300:]}"
    return None


def report_of_a_run(whole: Whole, drawn: random.Random, place: Path) -> tuple[str, str | None]:
    """A finished run, whose files a report and `ockham.read` show."""
    folder = Path(shutil.copytree(whole.folder / "a", place / "a"))
    names = ("status.json", "metrics.json", "metrics.csv", "cost.json", ".hydra/config.yaml", ".hydra/hydra.yaml")
    name = drawn.choice(names)
    how = damage(drawn, folder / name, whole.folder / "b" / name)
    recorded, truth = read([folder]), whole.recorded["a"]
    if recorded.problems:
        return how, None if str(folder) in str(recorded.problems[0][0]) else "the problem names another folder"
    if not recorded.runs:
        return how, "the run is neither shown nor named"
    shown = replace(recorded.runs[0], path=truth.path)
    wrong = [key for key, value in vars(truth).items() if getattr(shown, key) != value]
    return how, f"shows another {', '.join(wrong)}" if wrong else None


def evaluation_of_a_run(whole: Whole, drawn: random.Random, place: Path) -> tuple[str, str | None]:
    folder = Path(shutil.copytree(whole.folder / "a", place / "a"))
    name = drawn.choice(("checkpoints/best.ckpt", "checkpoints/best.ckpt", ".hydra/config.yaml", "status.json"))
    how = damage(drawn, folder / name, whole.folder / "b" / name)
    left = here(["evaluate", str(folder)], place / "command")
    metrics = RunFolder(whole.folder / "a").metrics()
    if left.code == 0:
        truth = f"test/loss {metrics['test/loss']!r}\ntest/acc {metrics['test/acc']!r}\n"
        return how, None if left.output == truth else f"shows {left.output}"
    return how, named(left, folder.name)


def continuing_a_run(whole: Whole, drawn: random.Random, place: Path) -> tuple[str, str | None]:
    """A run that was killed, and is continued by the same command, or by resume."""
    folder = Path(shutil.copytree(whole.folder / "killed-a", place / "a"))
    files = ["checkpoints/last.ckpt", "checkpoints/last.ckpt", "checkpoints/previous-last.ckpt", "checkpoints/best.ckpt"]
    files += ["status.json", "metrics.csv", "cost.json", ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml"]
    name = drawn.choice(files)
    how = damage(drawn, folder / name, whole.folder / "killed-b" / name)
    again = drawn.choice([words_of("a", folder), [f"resume={folder}"]])
    left = here(again, place / "command")
    if left.code != 0:
        return f"{how}, {again[0]}", named(left, str(folder))
    differing = [
        file
        for file in ("metrics.csv", "metrics.json")
        if (folder / file).read_bytes() != (whole.folder / "a" / file).read_bytes()
    ]
    return f"{how}, {again[0]}", f"another {', '.join(differing)} than an unbroken run" if differing else None


def sweep_again(whole: Whole, drawn: random.Random, place: Path) -> tuple[str, str | None]:
    """A sweep that is finished, by the same command again, which reads the plan and the runs and writes the tables."""
    name = drawn.choice(("grid", "search", "comparison"))
    folder = Path(shutil.copytree(whole.folder / name, place / name))
    of_sweep = [file.name for file in folder.glob("*.csv")] + ["sweep.json"] * 4
    of_runs = [f"{job}/{file}" for job in "01" for file in ("status.json", "metrics.json", "metrics.csv", ".hydra/config.yaml")]
    file = drawn.choice(of_sweep + of_runs)
    other = whole.folder / "other-grid" / file
    how = damage(drawn, folder / file, other if other.exists() else None)
    left = here(words_of(name, folder), place / "command")
    if left.code != 0:
        return f"{name}: {how}", named(left, file, f"{folder} holds another sweep")
    differing = _wrong_tables(whole.tables(name), tables(folder))
    return f"{name}: {how}", f"{differing} shows other numbers" if differing else None


def _wrong_tables(truth: Mapping[str, list[str]], shown: Mapping[str, list[str]]) -> str | None:
    """A table with a number that is not right: rows of runs that cannot be read say so, and are in no mean."""
    if shown == truth:
        return None
    rows, right = (list(csv.DictReader(one["results.csv"])) for one in (shown, truth))
    for row, wanted in zip(rows, right, strict=False):
        if row != wanted and row["state"] not in ("unreadable", "running", "waiting", "failed"):
            return "results.csv"
    unreadable = [row for row in rows if row["state"] != "finished"]
    return None if unreadable else "summary.csv"


def report_of_a_sweep(whole: Whole, drawn: random.Random, place: Path) -> tuple[str, str | None]:
    """What a report shows of the jobs, and of their parts in a comparison."""
    name = drawn.choice(("grid", "comparison"))
    folder = Path(shutil.copytree(whole.folder / name, place / name))
    how = damage(drawn, folder / "sweep.json", whole.folder / "other-grid" / "sweep.json")
    recorded, truth = read([folder]), read([whole.folder / name])
    if recorded.problems:
        return f"{name}: {how}", None
    parts = [[(run.path.name, run.arm, run.stage, run.metrics) for run in one.runs] for one in (recorded, truth)]
    return f"{name}: {how}", None if parts[0] == parts[1] else "jobs are shown in another part"


def continuing_a_group(whole: Whole, drawn: random.Random, place: Path) -> tuple[str, str | None]:
    """A fused sweep that was killed, by the same command again."""
    folder = Path(shutil.copytree(whole.folder / "killed-grid", place / "grid"))
    files = [str(file.relative_to(folder)) for file in sorted(folder.glob("groups/*/*.ckpt"))]
    files += ["sweep.json", "0/status.json", "1/metrics.csv", "1/.hydra/config.yaml"]
    file = drawn.choice(files)
    other = whole.folder / "killed-a" / "checkpoints" / "last.ckpt" if file.endswith(".ckpt") else None
    how = damage(drawn, folder / file, other)
    left = here(words_of("grid", folder), place / "command")
    if left.code != 0:
        return how, named(left, file, Path(file).name)
    differing = _wrong_tables(whole.tables("grid"), tables(folder))
    return how, f"{differing} shows other numbers" if differing else None


# -- data and caches ---------------------------------------------------------------------------------------------------------


def images(whole: Whole, drawn: random.Random, place: Path) -> tuple[str, str | None]:
    """An image folder: what is loaded is what its files hold now, whatever its cache holds."""
    root = Path(shutil.copytree(whole.folder / "images", place / "images", copy_function=shutil.copy2))
    kind = drawn.choice(("*.pt", "*.pt", "*.key", "*.key", "train/*/*.png"))
    inside = root if "/" in kind else root / ".ockham-cache"
    file = drawn.choice(sorted(inside.glob(kind)))
    others = sorted((whole.folder / "other-images" / ".ockham-cache").glob(kind))
    how = damage(drawn, file, others[0] if others else None)
    try:
        source = ImageFolder(str(root), size=8).load()
    except UserError as error:
        return how, None if file.name in str(error) else f"{file.name} is not named: {error}"
    paths = [path for name in ("cat", "dog") for path in image_files(root / "train" / name)]
    truth = decode_all(paths, 8, "RGB")
    return how, None if torch.equal(source.train.images, truth) else "other pixels than the files hold"


def mnist5k(whole: Whole, drawn: random.Random, place: Path) -> tuple[str, str | None]:
    place.mkdir(parents=True)
    file = Path(shutil.copy(Mnist5k.FILE, place / "mnist5k.npz"))
    how = damage(drawn, file)
    truth = Mnist5k().load()
    try:
        with mock.patch.object(Mnist5k, "FILE", file):
            source = Mnist5k().load()
    except UserError as error:
        return how, None if str(file) in str(error) else f"{file} is not named: {error}"
    return how, None if torch.equal(source.train.images, truth.train.images) else "other images"


def mnist(whole: Whole, drawn: random.Random, place: Path) -> tuple[str, str | None]:
    """One of the four files is damaged; the others are links."""
    folder = place / "MNIST" / "raw"
    folder.mkdir(parents=True)
    names = sorted(Mnist.SIZES)
    for name in names:
        (folder / name).symlink_to(MNIST / "MNIST" / "raw" / name)
    name = drawn.choice(names)
    (folder / name).unlink()
    shutil.copyfile(MNIST / "MNIST" / "raw" / name, folder / name)
    how = damage(drawn, folder / name, folder / drawn.choice([other for other in names if other != name]))
    try:
        Mnist(str(place)).load()
    except UserError as error:
        return how, None if name in str(error) else f"{name} is not named: {error}"
    return how, "is taken for whole"


def kept_file(whole: Whole, drawn: random.Random, place: Path) -> tuple[str, str | None]:
    """A file of the user's cache."""
    with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(place)}):
        contents = {name: drawn.randbytes(400) for name in ("first.js", "second.js")}
        for name, content in contents.items():
            cache.cached(name, partial(bytes, content))
        how = damage(drawn, cache.folder() / "first.js", cache.folder() / "second.js")
        shown = cache.cached("first.js", partial(bytes, contents["first.js"]))
    return how, None if shown == contents["first.js"] else "another content"


#: Kinds of trials, by the row of the table.
KINDS: Mapping[str, Callable[[Whole, random.Random, Path], tuple[str, str | None]]] = {
    "files of a run, in a report": report_of_a_run,
    "checkpoint and configuration, in evaluate": evaluation_of_a_run,
    "files of a killed run, continued": continuing_a_run,
    "files of a sweep, repeated": sweep_again,
    "plan of a sweep, in a report": report_of_a_sweep,
    "files of a killed group, continued": continuing_a_group,
    "images and their cache": images,
    "mnist5k.npz": mnist5k,
    "files of MNIST": mnist,
    "cache of the user": kept_file,
}

#: How often each kind comes in a round of trials: where there are many files, and they are small, more often.
ROUND = tuple(name for name, times in zip(KINDS, (8, 4, 4, 4, 4, 2, 4, 2, 1, 2), strict=True) for _ in range(times))


def trials(seed: int, numbers: Sequence[int], folder: Path) -> Iterator[Trial]:
    whole = Whole.made(folder / "whole")
    for number in numbers:
        drawn = random.Random(f"corruption {seed} {number}")
        kind = ROUND[number % len(ROUND)]
        if kind == "files of MNIST" and not MNIST.is_dir():
            kind = "mnist5k.npz"
        how, failure = KINDS[kind](whole, drawn, folder / str(number))
        yield Trial(kind, how, failure)

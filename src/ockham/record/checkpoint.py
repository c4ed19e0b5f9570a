"""Checkpoints: tensors and plain containers with a checksum, so that reading one runs no code and damage is noticed.

last.ckpt holds everything that training continues from after an evaluation; of randomness only how far noise has come within an
epoch (see rng.py).
best.ckpt holds the weights that the run is judged by, and what is needed to use them without the data set.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from ockham.core import tensorfile
from ockham.core.files import DamagedFileError
from ockham.data import InputSpec
from ockham.errors import UserError
from ockham.identity import checkpoint_key
from ockham.record.folder import EPOCH_SCALARS, RunFolder
from ockham.schema import container

FORMAT = 2


@dataclass(frozen=True)
class Row:
    """An evaluation, as a rule at the end of an epoch: optimizer steps and samples of the run so far, and what was measured."""

    step: int
    samples: int
    scalars: Mapping[str, float]


def rows_to_content(rows: Sequence[Row]) -> dict[str, Any]:
    """`rows` (evaluations, 2 + scalars) in float64, which holds every number as it is, and the names of the `columns`."""
    columns = list(rows[0].scalars) if rows else list(EPOCH_SCALARS)
    numbers = [[row.step, row.samples, *row.scalars.values()] for row in rows]
    return {"columns": columns, "rows": torch.tensor(numbers, dtype=torch.float64).reshape(len(rows), 2 + len(columns))}


def rows_from_content(content: Mapping[str, Any]) -> list[Row]:
    columns = content.get("columns", EPOCH_SCALARS)  # the first runs of this format had no others
    return [
        Row(int(step), int(samples), dict(zip(columns, scalars, strict=True)))
        for step, samples, *scalars in content["rows"].tolist()
    ]


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run in its epoch `epoch`, from 1, after the evaluations of which `rows` tell.

    `best` are the weights of the best of them where they are not `model`, which are those that are trained, and `averages` what
    a regularizer keeps of the parameters, by their names. best.ckpt has neither of them nor `optimizer`. `streams` say how far
    noise has come within the epoch; None where that or the run has ended.
    """

    epoch: int
    rows: list[Row]
    model: dict[str, Tensor]
    best: dict[str, Tensor] | None
    optimizer: dict[str, Any] | None
    input: InputSpec
    averages: dict[str, Tensor] = field(default_factory=dict)
    streams: Mapping[str, Mapping[str, Tensor]] | None = None

    @property
    def step(self) -> int:
        return self.rows[-1].step

    @property
    def samples(self) -> int:
        return self.rows[-1].samples

    def content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "epoch": self.epoch,
            **rows_to_content(self.rows),
            "model": self.model,
            "best": self.best,
            "optimizer": self.optimizer,
            "input": {key: list(value) for key, value in asdict(self.input).items()},
            "averages": self.averages,
            "streams": self.streams,
        }

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Checkpoint":
        return cls(
            epoch=content["epoch"],
            rows=rows_from_content(content),
            model=content["model"],
            best=content["best"],
            optimizer=content["optimizer"],
            input=InputSpec(**{key: tuple(value) for key, value in content["input"].items()}),
            averages=content.get("averages", {}),  # which checkpoints had not before there were any
            streams=content.get("streams"),
        )

    def save(self, path: Path, *, run: str) -> None:
        """`run` is the key of the run that it belongs to (identity.checkpoint_key)."""
        _save(path, self.content(), run)

    @classmethod
    def load(cls, path: Path, *, run: str | None = None) -> "Checkpoint":
        """Raises UserError where the file is absent, damaged, no checkpoint of this format, or of another `run`."""
        if not path.exists():
            raise UserError(f"{path} does not exist: the run has not been evaluated so far")
        return cls.of(_read(path, run))


def best_checkpoint(folder: RunFolder, config: DictConfig) -> Checkpoint:
    """The selected weights of the run with this configuration in its folder. Raises UserError as `Checkpoint.load` does."""
    return Checkpoint.load(folder.best_checkpoint, run=checkpoint_key(container(config)))


def _save(path: Path, content: Mapping[str, Any], run: str) -> None:
    path.parent.mkdir(exist_ok=True)  # in the run folder, which is there or was removed
    tensorfile.save(path, {**content, "run": run})


def _read(path: Path, run: str | None) -> dict[str, Any]:
    try:
        content = tensorfile.load(path)
    except tensorfile.NoChecksumError as error:
        if isinstance(error.content, dict) and error.content.get("format") == 1:
            raise UserError(f"{path} is of an earlier version of Ockham: continue it with that version, or run anew") from error
        raise
    if content.get("format") != FORMAT:
        raise DamagedFileError(f"{path} is not a checkpoint of Ockham: format {content.get('format')}, expected {FORMAT}")
    if run is not None and content.get("run", run) != run:  # earlier versions did not say it
        raise DamagedFileError(f"{path} belongs to another run than the one whose folder it lies in")
    return content


# -- the state before the last one -------------------------------------------------------------------------------------------


def previous(path: Path) -> Path:
    """Where the state before the last one lies while a run trains."""
    return path.with_name(f"previous-{path.name}")


def save_generation(path: Path, content: Mapping[str, Any], *, run: str) -> None:
    """Write the content and keep what was there as the previous state; at every moment one of both is whole."""
    if path.exists():
        before = previous(path)
        before.unlink(missing_ok=True)
        try:
            os.link(path, before)
        except OSError:  # a file system without links
            shutil.copyfile(path, before)
    _save(path, {"format": FORMAT, **content}, run)


def load_generation(path: Path, *, run: str, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """The newest whole state of `run` in a file that `save_generation` wrote; None where there is none. Damage is warned of.

    Raises UserError for a state of an earlier version, which would be lost if it were written over.
    """
    for file, otherwise in ((path, "the state before it is looked for"), (previous(path), "it begins anew")):
        try:
            return _read(file, run)
        except FileNotFoundError:
            continue
        except DamagedFileError as error:
            warn(f"{error}; {otherwise}")
    return None

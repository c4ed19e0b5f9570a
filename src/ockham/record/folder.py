"""The run folder: the one contract between whatever trains and whatever reads. No torch here.

.hydra/{config,overrides,hydra}.yaml   what was asked for
train.log
status.json        where the run stands, with the checksums of .hydra/* and, once it has ended, of the files below
metrics.csv        one row an evaluation: as a rule an epoch
metrics.json       the final figures, at the selected weights
cost.json          what the clock decides
events.out.tfevents.*
checkpoints/{last,best}.ckpt
"""

import csv
import io
import json
import math
import os
import platform
import socket
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

from ockham.core.files import DamagedFileError, read_sealed_json, sealed_json, sha256, synchronise, write_atomic
from ockham.errors import UserError

State = Literal["running", "finished", "failed", "diverged", "pruned"]

#: States of a run that is not continued.
FINAL = ("finished", "diverged", "pruned")

#: Scalars of one evaluation, as a rule at the end of an epoch: the columns of metrics.csv after `epoch` and `step`, and the
#: TensorBoard tags. train/* is measured on a fixed sample of the training split, train/objective is what was minimised. What
#: `measure` asks for follows them (core/measures.py).
EPOCH_SCALARS = (
    "train/loss",
    "train/acc",
    "val/loss",
    "val/acc",
    "gap/loss",
    "gap/acc",
    "train/objective",
    "penalty",
    "weight_norm",
    "zero_fraction",
    "lr",
)

#: The keys of metrics.json; what `measure` asks for follows them.
FINAL_METRICS = (
    "objective",
    "best_epoch",
    "best_step",
    "last_epoch",
    "train/loss",
    "train/acc",
    "val/loss",
    "val/acc",
    "test/loss",
    "test/acc",
    "gap/loss",
    "gap/acc",
    "penalty",
    "weight_norm",
    "zero_fraction",
    "parameters",
    "steps",
    "samples",
    "flops",
)

#: Those that a run which leaves the test set untouched does not have.
OF_TEST = ("test/loss", "test/acc")

#: What was spent until the target was first met: after all others in metrics.json, of a run that met one.
TARGET_METRICS = ("target/steps", "target/samples", "target/flops")

#: The keys of cost.json.
COSTS = ("samples_per_second", "train_seconds", "wall_seconds", "peak_memory_bytes", "shared")

#: The train seconds until the target was first met, after all others in cost.json.
TARGET_SECONDS = "target_seconds"

#: The worker of a sweep that was killed takes a moment to end too.
SECONDS_FOR_THE_LOCK = 10.0

#: What a run is asked for by, and what it leaves: status.json holds the checksums of these as the run wrote them.
REQUEST_FILES = (".hydra/config.yaml", ".hydra/hydra.yaml")
RESULT_FILES = ("metrics.csv", "metrics.json", "cost.json")

VERSIONED_PACKAGES = ("ockham", "torch", "pytorch-lightning", "hydra-core", "numpy")


def gaps(scalars: Mapping[str, float]) -> dict[str, float]:
    """How much worse validation is than training; positive where the model overfits."""
    return {
        "gap/loss": scalars["val/loss"] - scalars["train/loss"],
        "gap/acc": scalars["train/acc"] - scalars["val/acc"],
    }


#: A validation loss above it is divergence. From 2^24 on, neighbouring numbers of single precision are 2 apart: logits of this
#: size cannot be told apart by a nat, the unit of the loss, which begins at the logarithm of the number of classes.
HIGHEST_LOSS = 2.0**24


def divergence(scalars: Mapping[str, float]) -> str | None:
    """Which scalar of an evaluation tells that the run diverged; None where it did not.

    What is minimised in training has no bound but to be finite: a penalty of any strength may be in it.
    """
    for name in ("train/objective", "val/loss"):
        if not math.isfinite(scalars[name]):
            return f"{name} is {scalars[name]}"
    if scalars["val/loss"] > HIGHEST_LOSS:
        return f"val/loss is {scalars['val/loss']:.3g}, more than any training has ({HIGHEST_LOSS:.3g})"
    return None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode())


def check_no_links(paths: Iterable[Path]) -> None:
    """Raises UserError where one of them is a symbolic link, behind which something of somebody else may lie."""
    for path in paths:
        if path.is_symlink():
            raise UserError(f"{path} is a link, through which files elsewhere would be written: put a copy in its place")


class RunFolder:
    """Reading and writing of one run folder."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def config_file(self) -> Path:
        return self.path / ".hydra" / "config.yaml"

    @property
    def last_checkpoint(self) -> Path:
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def previous_checkpoint(self) -> Path:
        """The state before the last one, for a last one that is damaged; there while the run trains."""
        return self.path / "checkpoints" / "previous-last.ckpt"

    @property
    def has_begun(self) -> bool:
        """Whether there is a state to continue from."""
        return self.last_checkpoint.exists() or self.previous_checkpoint.exists()

    @property
    def best_checkpoint(self) -> Path:
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def log_file(self) -> Path:
        return self.path / "train.log"

    def status(self) -> dict[str, Any]:
        """status.json, or an empty dict where no run has begun."""
        return self._read_json("status.json")

    def metrics(self) -> dict[str, Any]:
        """metrics.json, or an empty dict while the run is not finished."""
        self._check_unchanged("metrics.json")
        return self._read_json("metrics.json")

    def cost(self) -> dict[str, Any]:
        """cost.json, or an empty dict before the first checkpoint."""
        self._check_unchanged("cost.json")
        return self._read_json("cost.json")

    def check_request(self) -> None:
        """Raises DamagedFileError where the files in .hydra are not those that the run began with."""
        for name in REQUEST_FILES:
            self._check_unchanged(name)

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            return read_sealed_json(self.path / name)
        except FileNotFoundError:
            return {}
        except DamagedFileError as error:
            raise DamagedFileError(f"{error}; {self._remedy}") from error

    def _check_unchanged(self, name: str) -> None:
        """Raises DamagedFileError where the file is not the one whose checksum status.json holds."""
        expected = self.status().get("files", {}).get(name)
        if expected is not None and self._checksum(name) != expected:
            raise DamagedFileError(f"{self.path / name} is not what the run wrote; {self._remedy}")

    @property
    def _remedy(self) -> str:
        return f"delete {self.path / 'status.json'} and repeat the command of the run, which writes it again"

    def _checksum(self, name: str) -> str | None:
        try:
            return sha256((self.path / name).read_bytes())
        except FileNotFoundError:
            return None

    def _checksums(self, names: Sequence[str]) -> dict[str, str]:
        """Of those that are there."""
        return {name: checksum for name in names if (checksum := self._checksum(name)) is not None}

    def check_no_links(self) -> None:
        """Raises UserError for a link in the folder, or in its place in a sweep: what is written would go elsewhere."""
        is_job = (self.path.parent / "sweep.json").exists()
        check_no_links([*([self.path] if is_job else []), *self.path.glob("*"), *self.path.glob("checkpoints/*")])

    @property
    def state(self) -> State | None:
        return self.status().get("state")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone at work in the folder, from any number of processes. Raises UserError where another one stays in it."""
        from filelock import FileLock, Timeout  # late: reading needs no lock

        self.path.mkdir(parents=True, exist_ok=True)
        self.check_no_links()
        try:
            with FileLock(self.path / ".lock", timeout=SECONDS_FOR_THE_LOCK):
                yield
        except Timeout as error:
            raise UserError(f"{self.path} is in use: another process (pid {self.status().get('pid')}) runs in it") from error

    def begin(self, run_key: str, *, note: str | None = None) -> None:
        """Mark the run as running, in one more attempt; `run_key` says what it computes (see identity.py)."""
        status = {
            "state": "running",
            "attempt": self.status().get("attempt", 0) + 1,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": _now(),
            "ended": None,
            "error": None,
            "code": code_version(),
            "versions": versions(),
            "device": None,
            "run_key": run_key,
            "note": note,
            "files": self._checksums(REQUEST_FILES),
        }
        write_atomic(self.path / "status.json", sealed_json(status))

    def update_status(self, **changes: Any) -> None:
        """Change some entries of status.json. A disk without room for a second file still takes them, in place."""
        content = sealed_json({**self.status(), **changes})
        try:
            write_atomic(self.path / "status.json", content)
        except OSError:
            with (self.path / "status.json").open("r+b") as file:
                file.write(content)
                file.truncate()

    def end(self, state: State, *, error: str | None = None, kind: str | None = None, overrides: Sequence[str] = ()) -> None:
        """Record how the run ended; `error` comes with its type and with the override line that leads there.

        The rows of one that is not continued are on disk before: nobody would write them again.
        """
        if state in FINAL and (self.path / "metrics.csv").exists():
            synchronise(self.path / "metrics.csv")
        reason = None if error is None else {"message": error, "type": kind, "overrides": " ".join(overrides)}
        files = self._checksums((*REQUEST_FILES, *RESULT_FILES))
        self.update_status(state=state, ended=_now(), error=reason, files=files)

    def write_metrics(self, metrics: Mapping[str, float]) -> None:
        always = [key for key in FINAL_METRICS if key in metrics or key not in OF_TEST]
        assert list(metrics)[: len(always)] == always, f"metrics.json has other keys: {tuple(metrics)}"
        write_json(self.path / "metrics.json", metrics)

    def write_cost(self, cost: Mapping[str, float]) -> None:
        assert tuple(cost)[: len(COSTS)] == COSTS, f"cost.json has other keys: {tuple(cost)}"
        write_atomic(self.path / "cost.json", sealed_json(cost))

    def append_epoch(self, epoch: int, step: int, scalars: Mapping[str, float]) -> None:
        """Add a row to metrics.csv, with its epoch, from 1; what a crash takes of it is written again from the checkpoint."""
        assert tuple(scalars)[: len(EPOCH_SCALARS)] == EPOCH_SCALARS, f"metrics.csv has other columns: {tuple(scalars)}"
        with (self.path / "metrics.csv").open("ab") as rows:
            head = b"" if rows.tell() else _csv_line(["epoch", "step", *scalars])
            rows.write(head + _csv_line([epoch, step, *scalars.values()]))

    def epochs(self) -> list[dict[str, float]]:
        """The complete rows of metrics.csv; a last line that a crash cut short is left out."""
        self._check_unchanged("metrics.csv")
        file = self.path / "metrics.csv"
        if not file.exists():
            return []
        whole = file.read_text().rpartition("\n")[0]
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(io.StringIO(whole))]

    def write_epochs(self, rows: Sequence[tuple[int, int, Mapping[str, float]]]) -> None:
        """Make metrics.csv hold these rows (epoch, step, scalars), whatever stands there; no file without rows."""
        file = self.path / "metrics.csv"
        if not rows:
            file.unlink(missing_ok=True)
            return
        lines = [_csv_line([epoch, step, *scalars.values()]) for epoch, step, scalars in rows]
        write_atomic(file, b"".join([_csv_line(["epoch", "step", *rows[0][2]]), *lines]))

    def remove_events(self) -> None:
        """Remove what TensorBoard shows of the run."""
        for file in self.path.glob("events.out.tfevents.*"):
            file.unlink()


def _csv_line(values: Sequence[Any]) -> bytes:
    return (",".join(str(value) for value in values) + "\n").encode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@cache
def versions() -> Mapping[str, str]:
    """The versions of Python and of the packages that decide results."""
    from importlib.metadata import PackageNotFoundError, version  # late: a mistake on the command line does not wait for it

    versions = {"python": platform.python_version()}
    for package in VERSIONED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # ockham itself, in a clone that is not installed
            continue
    return versions


@cache
def code_version() -> dict[str, Any]:
    """The git commit of the code that this process runs and whether it was changed since; None where it is not under git.

    An installed package may lie in a folder of somebody's repository, and is still no part of it.
    """
    file = Path(__file__)

    def git(*words: str) -> list[str]:
        command = ["git", "-C", str(file.parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    try:
        git("ls-files", "--error-unmatch", file.name)
        lines = git("status", "--porcelain=v2", "--branch", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    commit = next(line.split()[2] for line in lines if line.startswith("# branch.oid"))
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in lines)}

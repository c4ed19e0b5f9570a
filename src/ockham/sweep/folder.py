"""The sweep folder: sweep.json, one run folder a job, and the tables over all of them.

sweep.json       the overrides, and each job's overrides, key and replicate; of a search its trials
multirun.yaml    what Hydra composed for the sweep as a whole
results.csv      a row a job: swept values, metrics.json, state; nothing that the clock decides
costs.csv        a row a job: cost.json
summary.csv      a row a configuration: n, mean and 95% interval over seeds and folds; of a comparison, of its confirmation
search.csv       the same of the searches of a comparison, which are no evidence
groups/          checkpoints of groups that train now
workers/         what the worker processes printed
<number>/        run folders
"""

import errno
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import BaseFileLock, FileLock, Timeout

from ockham.core.files import read_sealed_json, remove_partials, sealed_json, write_atomic
from ockham.core.measures import MEASURES, measured_finally
from ockham.core.tables import csv_table
from ockham.errors import UserError
from ockham.record.folder import COSTS, FINAL, FINAL_METRICS, TARGET_METRICS, TARGET_SECONDS, RunFolder, check_no_links
from ockham.record.resume import checked_overrides
from ockham.sweep.jobs import Job, Plan

log = logging.getLogger("ockham")

T = TypeVar("T")

FORMAT = 3

#: In place of the state of a run whose status.json or metrics.json is damaged.
UNREADABLE = "unreadable"


#: Columns of results.csv that stand there where a run has them.
RESULTS_OF_SOME = (*measured_finally(MEASURES), *TARGET_METRICS)


def _without_empty(rows: list[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows without those of the columns that no row has."""
    empty = {name for name in names if all(row[name] == "" for row in rows)}
    return [{name: value for name, value in row.items() if name not in empty} for row in rows]


def _content(plan: Plan) -> dict[str, Any]:
    jobs = [
        {"number": j.number, "overrides": list(j.overrides), "key": j.key, "replicate": list(j.replicate), **_role(j)}
        for j in plan.jobs
    ]
    return {"identity": plan.identity(), "swept": list(plan.swept), **plan.state(), "jobs": jobs}


def _role(job: Job) -> dict[str, str]:
    """What the job is in a comparison; nothing in other sweeps."""
    return {"arm": job.arm, "stage": job.stage} if job.stage else {}


class SweepFolder:
    """Reading and writing of one sweep folder."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._claims: dict[int, BaseFileLock] = {}
        self._damaged: set[str] = set()

    @property
    def plan_file(self) -> Path:
        return self.path / "sweep.json"

    # -- what the run folders hold: one that is damaged is named, and does not end the sweep -----------------------------

    def run_folder(self, job: Job) -> RunFolder:
        return RunFolder(self.path / str(job.number))

    def state(self, job: Job) -> str | None:
        """The state of its run, None where none has begun."""
        status = self._read(self.run_folder(job).status)
        return UNREADABLE if status is None else status.get("state")

    def is_final(self, job: Job) -> bool:
        """Whether it is done and not run again."""
        return self.state(job) in FINAL

    def reason(self, job: Job) -> str:
        """Why its run failed."""
        error = (self._read(self.run_folder(job).status) or {}).get("error") or {}
        return str(error.get("message", "no reason is known"))

    def metrics(self, job: Job) -> dict[str, Any]:
        """The final figures; none while the run is not finished, or where they are damaged."""
        return self._read(self.run_folder(job).metrics) or {}

    def epochs(self, job: Job) -> list[dict[str, float]]:
        """The figures of each epoch."""
        return self._read(self.run_folder(job).epochs) or []

    def _read(self, read: Callable[[], T]) -> T | None:
        """What `read` finds; None where that is damaged, which is told once."""
        try:
            return read()
        except (OSError, ValueError, TypeError) as error:
            if str(error) not in self._damaged:
                self._damaged.add(str(error))
                log.error("%s", error)
            return None

    # -- the plan --------------------------------------------------------------------------------------------------------

    def arguments(self) -> list[str]:
        """The overrides that the sweep was started with, but `trust`, which only a command line can give.

        Raises UserError where the folder holds no sweep, or overrides that Ockham would not have stored.
        """
        return checked_overrides(self.stored()["arguments"], self.plan_file)

    def add_groups(self, groups: Sequence[Sequence[int]]) -> None:
        """Keep which jobs train together, by number."""
        stored = self.stored()
        self._write({**stored, "groups": [*stored.get("groups", []), *groups]})

    def group_checkpoints(self, first: Job) -> Path:
        """The folder of what a group continues from, by its first job."""
        return self.path / "groups" / str(first.number)

    def stored(self) -> dict[str, Any]:
        """The content of sweep.json. Raises UserError where there is none that can be read."""
        try:
            content = read_sealed_json(self.plan_file)
            if content["format"] != FORMAT:
                raise UserError(f"format {content['format']}, expected {FORMAT}")
            return content
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self.plan_file} is not the plan of a sweep: {error}") from error

    def begin(self, arguments: Sequence[str], plan: Plan) -> None:
        """Write the plan; where the folder was begun already, check that it is the same plan, and take up its state.

        Raises UserError with the differences where this is another sweep.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        check_no_links(path for path in self.path.iterdir() if not path.name.isdigit())  # those of jobs: see `claim`
        with self.locked():
            remove_partials(self.plan_file)
            if self.plan_file.exists():
                self._check_same(arguments, plan)
                plan.restore(self.stored())
            else:
                self._write({"format": FORMAT, "arguments": list(arguments), **_content(plan)})

    def store(self, plan: Plan) -> None:
        """Write a plan that has grown."""
        self._write({**self.stored(), **_content(plan)})

    def _write(self, content: Mapping[str, Any]) -> None:
        write_atomic(self.plan_file, sealed_json(content))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among the processes that share the folder."""
        with FileLock(self.path / ".lock"):
            yield

    def _check_same(self, arguments: Sequence[str], plan: Plan) -> None:
        stored = self.stored()
        if stored["identity"] == plan.identity():
            return
        before, now = set(stored["arguments"]), set(arguments)
        lines = [f"  - {argument}" for argument in stored["arguments"] if argument not in now]
        lines += [f"  + {argument}" for argument in arguments if argument not in before]
        lines = lines or ["  the overrides are the same: the defaults in conf/ have changed since"]
        head = f"{self.path} holds another sweep; choose another name with sweep=<name>, or repeat its command"
        raise UserError("\n".join([head, *lines]))

    # -- the jobs of this process ----------------------------------------------------------------------------------------

    def claim(self, job: Job) -> bool:
        """Take a job for this process; False where another one has it. A claim ends with its process.

        Raises FileNotFoundError where the sweep is no longer there: its jobs would begin a folder without a plan.
        """
        if not self.plan_file.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.plan_file))
        run_folder = self.run_folder(job)
        run_folder.path.mkdir(exist_ok=True)
        run_folder.check_no_links()
        lock = FileLock(run_folder.path / ".claim")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
        self._claims[job.number] = lock
        return True

    def release(self, job: Job) -> None:
        self._claims.pop(job.number).release()

    # -- tables ----------------------------------------------------------------------------------------------------------

    def write_tables(self, plan: Plan, *, objective: str) -> None:
        """results.csv, costs.csv and summary.csv from what the run folders hold now."""
        from ockham.sweep.summary import summarise

        results = [self._result(job, plan.swept) for job in plan.jobs]
        self._write_table("results.csv", _without_empty(results, RESULTS_OF_SOME))
        costs = [
            {"job": job.number, **dict.fromkeys((*COSTS, TARGET_SECONDS), ""), **(self._read(self.run_folder(job).cost) or {})}
            for job in plan.jobs
        ]
        self._write_table("costs.csv", _without_empty(costs, [TARGET_SECONDS]))
        for name, is_part in (("summary.csv", False), ("search.csv", True)):
            part = [(job, result) for job, result in zip(plan.jobs, results, strict=True) if (job.stage == "search") is is_part]
            if part or not is_part:
                self._write_table(name, summarise(part, swept=plan.swept, objective=objective))

    def _result(self, job: Job, swept: Sequence[str]) -> dict[str, Any]:
        values = dict(override.lstrip("+").split("=", 1) for override in job.overrides if "=" in override)
        metrics = self._read(self.run_folder(job).metrics)
        status = self._read(self.run_folder(job).status)
        state = UNREADABLE if status is None else status.get("state") or "waiting"
        return {
            "job": job.number,
            **_role(job),
            **{key: values.get(key, "") for key in swept},
            "state": UNREADABLE if metrics is None or (state == "finished" and not metrics) else state,
            **dict.fromkeys((*FINAL_METRICS, *RESULTS_OF_SOME), ""),
            **(metrics or {}),
            "note": (status or {}).get("note") or "",
            "folder": str(job.number),
        }

    def _write_table(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        table = csv_table(list(rows[0]), [list(row.values()) for row in rows]) if rows else b""
        write_atomic(self.path / name, table)

"""Executing the jobs of a sweep: what is missing, in order, on free slots, whatever happens to single jobs."""

import logging
import math
import shutil
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from hydra.core.utils import JobReturn, JobStatus

from ockham.record.folder import FINAL
from ockham.sweep.executors import Done, Executor, Inline
from ockham.sweep.folder import SweepFolder
from ockham.sweep.fusion import Fusion, Task
from ockham.sweep.progress import Counts, Progress, better
from ockham.sweep.space import Job, Plan

log = logging.getLogger("ockham")

SECONDS_BETWEEN_TABLES = 5.0
SECONDS_TO_STOP = 30.0


@dataclass(frozen=True)
class Policy:
    """What failures lead to."""

    on_failure: str
    max_failures: int | None
    retries: int


class Sweep:
    """The execution of a plan in its folder. `payload_of` makes what an executor runs for a task."""

    def __init__(
        self,
        plan: Plan,
        folder: SweepFolder,
        executor: Executor,
        fusion: Fusion,
        payload_of: Callable[[Task], bytes],
        policy: Policy,
        objective: str,
    ) -> None:
        self.plan, self.folder, self.executor, self.fusion, self.payload_of = plan, folder, executor, fusion, payload_of
        self.policy, self.objective = policy, objective
        self.waiting: deque[Task] = deque()
        self.stopped = False
        self.running: dict[int, Task] = {}
        self.returned: dict[int, JobReturn] = {}
        self.failures: dict[int, str] = {}
        self.attempts: dict[int, int] = {}
        self.elsewhere: list[Task] = []
        self.last_tables = time.monotonic()
        self.progress = Progress(folder, objective=objective, swept=plan.swept, slots=executor.slots)
        self.best, self.best_overrides = math.nan, ""

    def run(self) -> None:
        """Run what is missing. Raises KeyboardInterrupt after running jobs have written their state."""
        present = sum(self._is_final(job) for job in self.plan.jobs)
        if present:
            log.info("%d of %d jobs are finished already", present, self.plan.total)
        try:
            self._take(self.plan.jobs)
            # Inline jobs have the terminal for themselves.
            with nullcontext() if isinstance(self.executor, Inline) else self.progress.shown():
                while True:
                    self._fill()
                    self.progress.update(self._counts())
                    if self.running:
                        self._collect(0.5)
                    elif not self._taken_over():
                        break
        except KeyboardInterrupt:
            self._stop()
            raise
        finally:
            self.executor.close()
            self._tables()

    def _is_final(self, job: Job) -> bool:
        return self.folder.run(job).state in FINAL

    def _take(self, jobs: Sequence[Job]) -> None:
        """Queue what is missing. A group comes back whole, since its last bits may depend on its size."""
        for task in [task for batch in self.plan.batches(jobs) for task in self.fusion.tasks(batch)]:
            missing = [job for job in task if not self._is_final(job)]
            begun_alone = not self.folder.group_checkpoints(task[0]).exists() and any(
                self.folder.run(job).last_checkpoint.exists() for job in missing
            )
            if len(task) > 1 and begun_alone:
                self.waiting.extend((job,) for job in missing)
            elif missing:
                self.waiting.append(task)

    def _fill(self) -> None:
        while len(self.running) < self.executor.slots:
            while not self.waiting and not self.stopped and (more := self.plan.more()):
                self._take(more)
            if not self.waiting:
                return
            task = self.waiting.popleft()
            if not self._claim(task):
                self.elsewhere.append(task)
            elif all(self._is_final(job) for job in task):  # another process was faster
                self._release(task)
            else:
                number = task[0].number
                self.running[number] = task
                self.attempts[number] = self.attempts.get(number, 0) + 1
                self.executor.submit([job.number for job in task], self.payload_of(task))

    def _claim(self, task: Task) -> bool:
        """All jobs of the task, or none."""
        for position, job in enumerate(task):
            if not self.folder.claim(job):
                self._release(task[:position])
                return False
        return True

    def _release(self, task: Task) -> None:
        for job in task:
            self.folder.release(job)

    def _taken_over(self) -> bool:
        """Whether tasks that another process had claimed are left; those that it did not finish wait here again."""
        left = [task for task in self.elsewhere if not all(self._is_final(job) for job in task)]
        self.elsewhere.clear()
        if left:
            time.sleep(0.5)
            self.waiting.extend(left)
        return bool(left)

    def _collect(self, seconds: float) -> None:
        for done in self.executor.wait(seconds):
            task = self.running.pop(done.number)
            self._release(task)
            self._judge(task, done)
            if time.monotonic() - self.last_tables > SECONDS_BETWEEN_TABLES:
                self._tables()

    def _judge(self, task: Task, done: Done) -> None:
        outcome = done.outcome
        error = None if isinstance(outcome, JobReturn) and outcome.status == JobStatus.COMPLETED else outcome
        if isinstance(error, JobReturn):
            error = error._return_value
        if len(task) > 1:
            self._judge_group(task, error)
            return
        (job,) = task
        if isinstance(outcome, JobReturn):
            self.returned[job.number] = outcome
        if error is None:
            self._tell(job)
            return
        reason = self._failed(job, error)
        log.error("#%d failed: %s\n  %s\n  log: %s", job.number, reason, " ".join(job.overrides), self.folder.run(job).log_file)
        if self.attempts[job.number] <= self.policy.retries:
            log.info("#%d is tried again", job.number)
            self.waiting.append(task)
            return
        self.failures[job.number] = reason
        limit = self.policy.max_failures
        if self.policy.on_failure == "stop" or (limit is not None and len(self.failures) > limit):
            log.error("the sweep stops: %d failed", len(self.failures))
            self.waiting.clear()
            self.stopped = True

    def _judge_group(self, task: Task, error: Any) -> None:
        """What a failed group leaves unfinished runs again one by one, so that one job cannot take others with it."""
        for job in task:
            if self._is_final(job):
                value = self.folder.run(job).metrics().get("objective", math.nan)
                self.returned[job.number] = JobReturn(overrides=job.overrides, _return_value=value, status=JobStatus.COMPLETED)
                self._tell(job)
        if error is None:
            return
        left = [job for job in task if not self._is_final(job)]
        reasons = {self._failed(job, error) for job in left}
        log.error("a group of %d failed, its jobs run one by one: %s", len(task), "; ".join(reasons))
        shutil.rmtree(self.folder.group_checkpoints(task[0]), ignore_errors=True)
        self.attempts[task[0].number] = 0
        self.waiting.extend((job,) for job in left)

    def _failed(self, job: Job, error: Any) -> str:
        """The last line of the error, which the run folder has too, also where the process died before it could say so."""
        run = self.folder.run(job)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        if run.state == "running":
            run.end("failed", error=reason, overrides=job.overrides)
        return reason

    def _counts(self) -> Counts:
        waiting = sum(map(len, (*self.waiting, *self.elsewhere)))
        running = list(self.running.values())
        return Counts(self.plan.total, running, waiting, len(self.failures), self.best, self.best_overrides)

    def _tell(self, job: Job) -> None:
        run = self.folder.run(job)
        value = run.metrics().get("objective")
        if value is not None and better(value, self.best, objective=self.objective):
            self.best, self.best_overrides = value, " ".join(job.overrides)
        shown = f"{self.objective} {value:.4f}" if value is not None else run.state or "done"
        varied = [override for override in job.overrides if override.lstrip("+").partition("=")[0] in self.plan.swept]
        log.info("#%d %s  (%d of %d)  %s", job.number, shown, self._ended(), self.plan.total, " ".join(varied))

    def _ended(self) -> int:
        return len(self.plan.jobs) - sum(map(len, self.waiting)) - sum(map(len, self.running.values()))

    def _stop(self) -> None:
        """After Ctrl-C running jobs write their state; a second one ends them at once."""
        running = sum(map(len, self.running.values()))
        log.info("stopping: %d running jobs write their state, again Ctrl-C to end at once", running)
        self.executor.interrupt()
        deadline = time.monotonic() + SECONDS_TO_STOP
        try:
            while self.running and time.monotonic() < deadline:
                for done in self.executor.wait(0.5):
                    self._release(self.running.pop(done.number))
        except KeyboardInterrupt:
            return

    def _tables(self) -> None:
        self.folder.write_tables(self.plan, objective=self.objective)
        self.last_tables = time.monotonic()


def report_failures(failures: dict[int, str], jobs: Sequence[Job]) -> str:
    """The list of failed jobs at the end of a sweep."""
    lines = [
        f"  #{job.number} {failures[job.number]}\n     {' '.join(job.overrides)}" for job in jobs if job.number in failures
    ]
    return "\n".join([f"{len(failures)} of {len(jobs)} jobs failed:", *lines])

"""Executing the jobs of a sweep: what is missing, in order, on free slots, whatever happens to single jobs."""

import logging
import math
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from hydra.core.utils import JobReturn, JobStatus

from ockham.sweep.executors import Executor, Inline, WorkerDiedError
from ockham.sweep.folder import SweepFolder
from ockham.sweep.fusion import Fusion, Task
from ockham.sweep.jobs import Job, Plan
from ockham.sweep.outcome import Failure, Outcome
from ockham.sweep.progress import Counts, Progress, better, name, varied

log = logging.getLogger("ockham")

#: Tables are written so often, and no more than such a share of the time is spent on them: of ten thousand jobs they take
#: seconds.
SECONDS_BETWEEN_TABLES = 5.0
SHARE_FOR_TABLES = 0.05

SECONDS_TO_STOP = 30.0


@dataclass(frozen=True)
class Policy:
    """What failures lead to."""

    on_failure: str
    max_failures: int | None
    retries: int


@dataclass
class Attempts:
    """How often a task was begun, and how many epochs its jobs had before; epochs that it gained give back an attempt."""

    number: int = 0
    epochs: int = 0


class Execution:
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
        self.attempts: dict[tuple[int, ...], Attempts] = {}
        self.elsewhere: list[Task] = []
        self.next_tables = time.monotonic() + SECONDS_BETWEEN_TABLES
        self.progress = Progress(folder, objective=objective, swept=plan.swept, slots=executor.slots)
        self.best, self.best_overrides = math.nan, ""

    def run(self, *, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Run what is missing; `meanwhile` is called while the first tasks run.

        Raises KeyboardInterrupt after running jobs have written their state.
        """
        num_finished = sum(self.folder.is_final(job) for job in self.plan.jobs)
        if num_finished:
            log.info("%d of %d jobs are finished already", num_finished, self.plan.total)
        try:
            self._take(self.plan.jobs)
            # Inline jobs have the terminal for themselves.
            with nullcontext() if isinstance(self.executor, Inline) else self.progress.shown():
                self._fill()
                meanwhile()
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

    # -- what runs next --------------------------------------------------------------------------------------------------

    def _take(self, jobs: Sequence[Job]) -> None:
        """Queue what is missing. A group comes back whole, since its last bits may depend on its size."""
        for task in [task for batch in self.plan.batches(jobs) for task in self.fusion.tasks(batch)]:
            missing = [job for job in task if not self.folder.is_final(job)]
            begun_alone = not self.folder.group_checkpoints(task[0]).exists() and any(
                self.folder.run_folder(job).has_begun for job in missing
            )
            if len(task) > 1 and begun_alone:
                self.waiting.extend((job,) for job in missing)
            elif missing:
                self.waiting.append(task)
            elif len(task) > 1:  # a power cut may bring back what a group that has ended continued from
                shutil.rmtree(self.folder.group_checkpoints(task[0]), ignore_errors=True)

    def _fill(self) -> None:
        while len(self.running) < self.executor.slots:
            while not self.waiting and self._may_ask() and (more := self.plan.more(slots=self.executor.slots)):
                self._take(more)
            if not self.waiting:
                return
            task = self.waiting.popleft()
            if not self._claim(task):
                self.elsewhere.append(task)
            elif all(self.folder.is_final(job) for job in task):  # another process was faster
                self._release(task)
            else:
                self._submit(task)

    def _may_ask(self) -> bool:
        """Whether the plan is asked for more: one that learns, when all results are there, whichever came first."""
        return not self.stopped and not (self.plan.waits_for_results and (self.running or self.elsewhere))

    def _submit(self, task: Task) -> None:
        numbers = [job.number for job in task]
        attempts = self.attempts.setdefault(tuple(numbers), Attempts(epochs=self._epochs(task)))
        attempts.number += 1
        self.running[numbers[0]] = task
        self.progress.begin(task)
        self.executor.submit(numbers, self.payload_of(task))

    def _epochs(self, task: Task) -> int:
        """How many epochs the jobs have written; those of a single job do not matter."""
        return sum(len(self.folder.epochs(job)) for job in task) if len(task) > 1 else 0

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
        claimed, self.elsewhere = self.elsewhere, []
        unfinished = [task for task in claimed if not all(self.folder.is_final(job) for job in task)]
        if unfinished:
            time.sleep(0.5)
            self.waiting.extend(unfinished)
        return bool(claimed)

    # -- what came of it -------------------------------------------------------------------------------------------------

    def _collect(self, seconds: float) -> None:
        for ended in self.executor.wait(seconds):
            task = self.running.pop(ended.number)
            self._release(task)
            self.progress.end(task, completed=isinstance(ended.outcome, JobReturn))
            if len(task) > 1:
                self._judge_group(task, ended.outcome)
            else:
                self._judge_job(task[0], ended.outcome)
            if time.monotonic() > self.next_tables:
                self._tables()

    def _judge_job(self, job: Job, outcome: Outcome) -> None:
        if isinstance(outcome, JobReturn):
            self.returned[job.number] = outcome
            self._show([job])
            return
        self._mark_failed(job, outcome)
        log_file = self.folder.run_folder(job).log_file
        log.error("#%d failed: %s\n  %s\n  log: %s", job.number, outcome.reason, " ".join(job.overrides), log_file)
        if self.attempts[job.number,].number <= self.policy.retries:
            log.info("#%d is tried again", job.number)
            self.waiting.append((job,))
            return
        self.failures[job.number] = outcome.reason
        limit = self.policy.max_failures
        if self.policy.on_failure == "stop" or (limit is not None and len(self.failures) > limit):
            log.error("the sweep stops: %d failed", len(self.failures))
            self.waiting.clear()
            self.stopped = True

    def _judge_group(self, task: Task, outcome: Outcome) -> None:
        final = [job for job in task if self.folder.is_final(job)]
        for job in final:
            value = self.folder.metrics(job).get("objective", math.nan)
            self.returned[job.number] = JobReturn(overrides=job.overrides, _return_value=value, status=JobStatus.COMPLETED)
        unfinished = [job for job in task if job.number not in self.returned]
        if unfinished:
            self._run_again(task, unfinished, outcome)
        self._show(final)  # last, since it tells how many have ended

    def _run_again(self, task: Task, unfinished: Sequence[Job], outcome: Outcome) -> None:
        """What a group leaves unfinished goes on as a group where that helps; otherwise its jobs run one by one.

        So one job cannot take others with it: one that failed by itself, while the group went on, runs alone.
        """
        if isinstance(outcome, JobReturn):
            reasons = {self.folder.reason(job) for job in unfinished}
            log.error("%d of a group of %d failed, they run one by one: %s", len(unfinished), len(task), "; ".join(reasons))
        elif self._goes_on(task, outcome):
            log.error("a group of %d ended: %s; it is tried again, from its checkpoint", len(task), outcome.reason)
            self.waiting.append(task)
            return
        else:
            for job in unfinished:
                self._mark_failed(job, outcome)
            log.error("a group of %d failed, its jobs run one by one: %s", len(task), outcome.reason)
        shutil.rmtree(self.folder.group_checkpoints(task[0]), ignore_errors=True)
        self.waiting.extend((job,) for job in unfinished)

    def _goes_on(self, task: Task, failure: Failure) -> bool:
        """Whether a group is tried again: `retries` times, and whenever it was interrupted after more epochs than before.

        Once in any case where its process died, which may have nothing to do with it: its last bits depend on its size.
        """
        attempts = self.attempts[tuple(job.number for job in task)]
        epochs = self._epochs(task)
        if failure.interrupted and epochs > attempts.epochs:
            attempts.number -= 1
            attempts.epochs = epochs
            return True
        died = failure.kind == WorkerDiedError.__name__
        return attempts.number <= max(self.policy.retries, int(died))

    def _mark_failed(self, job: Job, failure: Failure) -> None:
        """Say in the run folder how the job ended where its process died before it could, or could not begin."""
        run_folder = self.folder.run_folder(job)
        if self.folder.state(job) not in (None, "running"):
            return
        run_folder.end("failed", error=failure.message or failure.kind, kind=failure.kind, overrides=job.overrides)
        if failure.traceback:
            with run_folder.log_file.open("a") as file:
                file.write(failure.traceback)

    # -- what is shown ---------------------------------------------------------------------------------------------------

    def _counts(self) -> Counts:
        running, waiting = list(self.running.values()), list(self.waiting)
        return Counts(self.plan.total, running, self._ended(), len(self.failures), self.best, self.best_overrides, waiting)

    def _ended(self) -> int:
        """Of the jobs that there are: those that neither wait nor run, here or elsewhere."""
        tasks = [*self.waiting, *self.elsewhere, *self.running.values()]
        return len(self.plan.jobs) - sum(map(len, tasks))

    def _show(self, jobs: Sequence[Job]) -> None:
        """One line for jobs that have ended together."""
        if not jobs:
            return
        objectives = {job: self.folder.metrics(job).get("objective", math.nan) for job in jobs}
        for job, value in objectives.items():
            if better(value, self.best, objective=self.objective):
                self.best, self.best_overrides = value, " ".join(job.overrides)
        known = [value for value in objectives.values() if math.isfinite(value)]
        shown = [f"{self.objective} " + " to ".join(f"{end:.4f}" for end in sorted({min(known), max(known)}))] if known else []
        others = Counter(self.folder.state(job) or "done" for job, value in objectives.items() if not math.isfinite(value))
        shown += [f"{count} {state}" if len(jobs) > 1 else state for state, count in others.items()]
        settings = varied(jobs, self.plan.swept)
        log.info("%s %s  (%d of %d)  %s", name(jobs), ", ".join(shown), self._ended(), self.plan.total, settings)

    def _tables(self) -> None:
        began = time.monotonic()
        self.folder.write_tables(self.plan, objective=self.objective)
        ended = time.monotonic()
        self.next_tables = ended + max(SECONDS_BETWEEN_TABLES, (ended - began) / SHARE_FOR_TABLES)

    def _stop(self) -> None:
        """After Ctrl-C running jobs write their state; a second one ends them at once."""
        running = sum(map(len, self.running.values()))
        log.info("stopping: %d running jobs write their state, again Ctrl-C to end at once", running)
        self.executor.interrupt()
        deadline = time.monotonic() + SECONDS_TO_STOP
        try:
            while self.running and time.monotonic() < deadline:
                for ended in self.executor.wait(0.5):
                    self._release(self.running.pop(ended.number))
        except KeyboardInterrupt:
            return


def report_failures(failures: dict[int, str], jobs: Sequence[Job]) -> str:
    """The list of failed jobs at the end of a sweep."""
    lines = [
        f"  #{job.number} {failures[job.number]}\n     {' '.join(job.overrides)}" for job in jobs if job.number in failures
    ]
    return "\n".join([f"{len(failures)} of {len(jobs)} jobs failed:", *lines])

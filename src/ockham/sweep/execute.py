"""Executing the jobs of a sweep: what is missing, in order, on free slots, whatever happens to single jobs."""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hydra.core.utils import JobReturn, JobStatus

from ockham.sweep.executors import Done, Executor
from ockham.sweep.folder import SweepFolder
from ockham.sweep.space import Job, Plan

log = logging.getLogger("ockham")

SECONDS_BETWEEN_TABLES = 5.0
SECONDS_TO_STOP = 30.0

#: States in which a job is not run again.
FINAL = ("finished", "diverged", "pruned")


@dataclass(frozen=True)
class Policy:
    """What failures lead to."""

    on_failure: str
    max_failures: int | None
    retries: int


class Sweep:
    """The execution of a plan in its folder. `payload_of` makes what an executor runs for a job."""

    def __init__(
        self,
        plan: Plan,
        folder: SweepFolder,
        executor: Executor,
        payload_of: Callable[[Job], bytes],
        policy: Policy,
        objective: str,
    ) -> None:
        self.plan, self.folder, self.executor, self.payload_of = plan, folder, executor, payload_of
        self.policy, self.objective = policy, objective
        self.waiting: deque[Job] = deque()
        self.stopped = False
        self.running: dict[int, Job] = {}
        self.returned: dict[int, JobReturn] = {}
        self.failures: dict[int, str] = {}
        self.attempts: dict[int, int] = {}
        self.elsewhere: list[Job] = []
        self.last_tables = time.monotonic()

    def run(self) -> None:
        """Run what is missing. Raises KeyboardInterrupt after running jobs have written their state."""
        self._take(self.plan.jobs)
        present = len(self.plan.jobs) - len(self.waiting)
        if present:
            log.info("%d of %d jobs are finished already", present, self.plan.total)
        try:
            while True:
                self._fill()
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

    def _take(self, jobs: Sequence[Job]) -> None:
        self.waiting.extend(job for job in jobs if self.folder.run(job).state not in FINAL)

    def _fill(self) -> None:
        while len(self.running) < self.executor.slots:
            while not self.waiting and not self.stopped and (more := self.plan.more()):
                self._take(more)
            if not self.waiting:
                return
            job = self.waiting.popleft()
            if not self.folder.claim(job):
                self.elsewhere.append(job)
            elif self.folder.run(job).state in FINAL:  # another process was faster
                self.folder.release(job)
            else:
                self.running[job.number] = job
                self.attempts[job.number] = self.attempts.get(job.number, 0) + 1
                self.executor.submit(job.number, self.payload_of(job))

    def _taken_over(self) -> bool:
        """Whether jobs that another process had claimed are left; those that it did not finish wait here again."""
        left = [job for job in self.elsewhere if self.folder.run(job).state not in FINAL]
        self.elsewhere.clear()
        if left:
            time.sleep(0.5)
            self.waiting.extend(left)
        return bool(left)

    def _collect(self, seconds: float) -> None:
        for done in self.executor.wait(seconds):
            job = self.running.pop(done.number)
            self.folder.release(job)
            self._judge(job, done)
            if time.monotonic() - self.last_tables > SECONDS_BETWEEN_TABLES:
                self._tables()

    def _judge(self, job: Job, done: Done) -> None:
        outcome = done.outcome
        if isinstance(outcome, JobReturn):
            self.returned[job.number] = outcome
            error = None if outcome.status == JobStatus.COMPLETED else outcome._return_value
        else:
            error = outcome
        if error is None:
            self._tell(job)
            return
        run = self.folder.run(job)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        if run.state == "running":  # the process died before it could say so
            run.end("failed", error=reason, overrides=job.overrides)
        log.error("#%d failed: %s\n  %s\n  log: %s", job.number, reason, " ".join(job.overrides), run.log_file)
        if self.attempts[job.number] <= self.policy.retries:
            log.info("#%d is tried again", job.number)
            self.waiting.append(job)
            return
        self.failures[job.number] = reason
        limit = self.policy.max_failures
        if self.policy.on_failure == "stop" or (limit is not None and len(self.failures) > limit):
            log.error("the sweep stops: %d failed", len(self.failures))
            self.waiting.clear()
            self.stopped = True

    def _tell(self, job: Job) -> None:
        run = self.folder.run(job)
        value = run.metrics().get("objective")
        shown = f"{self.objective} {value:.4f}" if value is not None else run.state or "done"
        varied = [override for override in job.overrides if override.lstrip("+").partition("=")[0] in self.plan.swept]
        log.info("#%d %s  (%d of %d)  %s", job.number, shown, self._ended(), self.plan.total, " ".join(varied))

    def _ended(self) -> int:
        return len(self.plan.jobs) - len(self.waiting) - len(self.running)

    def _stop(self) -> None:
        """After Ctrl-C running jobs write their state; a second one ends them at once."""
        log.info("stopping: %d running jobs write their state, again Ctrl-C to end at once", len(self.running))
        self.executor.interrupt()
        deadline = time.monotonic() + SECONDS_TO_STOP
        try:
            while self.running and time.monotonic() < deadline:
                for done in self.executor.wait(0.5):
                    self.folder.release(self.running.pop(done.number))
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

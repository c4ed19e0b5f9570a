"""A sweep while it runs: on a terminal a table below the lines of ended jobs, elsewhere a few lines now and then."""

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ockham.core.pace import Pace, duration
from ockham.core.selection import maximised
from ockham.record.progress import GroupProgress
from ockham.sweep.folder import SweepFolder
from ockham.sweep.jobs import Job

if TYPE_CHECKING:
    from rich.console import RenderableType

log = logging.getLogger("ockham")

#: What tasks write is read so often.
SECONDS_BETWEEN_LOOKS = 1.0
#: Where there is no terminal, lines come so often.
SECONDS_BETWEEN_LINES = 30.0
#: Of so many running tasks there are lines.
MOST_LINES = 8
#: So many values of a setting are named.
MOST_VALUES = 4

Task = Sequence[Job]


@dataclass
class Counts:
    """Where the jobs of a sweep stand, and the best of those that have ended.

    `total` are all that there will be: a search has not chosen some of them yet, others are run by another process.
    """

    total: int
    running: Sequence[Task]
    ended: int
    failed: int
    best: float = math.nan
    best_overrides: str = ""
    waiting_tasks: Sequence[Task] = ()

    @property
    def waiting(self) -> int:
        """Jobs that have not begun, those that a search has not chosen yet among them."""
        return self.total - self.ended - sum(map(len, self.running))


@dataclass
class Standing:
    """A running task: when it began, and what it had reached when somebody looked last."""

    began: float
    pace: Pace = field(default_factory=Pace)
    epoch: int = 0
    num_epochs: int | None = None
    best: float = math.nan
    best_job: Job | None = None


class Durations:
    """Seconds of tasks by kind, groups and single jobs: a job of a group takes a fraction of what it takes alone."""

    def __init__(self, seen: Mapping[bool, tuple[float, int]] | None = None) -> None:
        self._seen = dict(seen or {})  # whether it is a group -> seconds, jobs

    def copy(self) -> "Durations":
        return Durations(self._seen)

    def add(self, task: Task, seconds: float) -> None:
        before, jobs = self._seen.get(len(task) > 1, (0.0, 0))
        self._seen[len(task) > 1] = (before + seconds, jobs + len(task))

    def expected(self, task: Task) -> float | None:
        """Of a task, by the others of its kind; None where there was none."""
        seconds, jobs = self._seen.get(len(task) > 1, (0.0, 0))
        return seconds / jobs * len(task) if jobs else None

    def expected_of_any(self, number: int) -> float | None:
        """Of so many jobs, of which it is not known how they will train."""
        seconds = sum(seconds for seconds, _ in self._seen.values())
        jobs = sum(jobs for _, jobs in self._seen.values())
        return seconds / jobs * number if jobs else None


class Progress:
    """What is shown of the tasks that run: epochs, best so far, what varies among their jobs, and the time left.

    Single jobs are read from their run folders, groups from the file that each writes for this.
    """

    def __init__(
        self,
        folder: SweepFolder,
        *,
        objective: str,
        swept: Sequence[str],
        slots: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self.objective, self.swept, self.slots, self.clock = folder, objective, swept, slots, clock
        self.standings: dict[int, Standing] = {}
        self.ended = Durations()
        self.last_look, self.last_lines = -math.inf, clock()
        self.live: Any = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """On a terminal keep the table in place inside the block, and let log lines pass above it."""
        if not sys.stdout.isatty():
            yield
            return
        from rich.live import Live  # late: only a terminal needs it

        streams = [handler for handler in logging.getLogger().handlers if type(handler) is logging.StreamHandler]
        before = [(handler, handler.stream) for handler in streams if handler.stream in (sys.stdout, sys.stderr)]
        with Live(auto_refresh=False, transient=True) as self.live:
            try:
                for handler, _ in before:
                    handler.setStream(sys.stdout)  # which Live has taken over
                yield
            finally:
                for handler, stream in before:
                    handler.setStream(stream)
                self.live = None

    # -- what happens ----------------------------------------------------------------------------------------------------

    def begin(self, task: Task) -> None:
        self.standings[task[0].number] = Standing(self.clock(), num_epochs=_num_epochs(task[0]))

    def end(self, task: Task, *, completed: bool) -> None:
        standing = self.standings.pop(task[0].number)
        if completed:
            self.ended.add(task, self.clock() - standing.began)

    def update(self, counts: Counts) -> None:
        """Look at what runs, from time to time; draw the table anew, or log a few lines where there is none."""
        now = self.clock()
        if now - self.last_look < SECONDS_BETWEEN_LOOKS:
            return
        self.last_look = now
        for task in counts.running:
            self._look(task, self.standings[task[0].number])
        if self.live is not None:
            self.live.update(self.table(counts), refresh=True)
        elif counts.running and now - self.last_lines >= SECONDS_BETWEEN_LINES:
            self.last_lines = now
            log.info("%s", self.lines(counts))

    def _look(self, task: Task, standing: Standing) -> None:
        """Read what the task has reached."""
        if len(task) == 1:
            epochs = self.folder.epochs(task[0])
            standing.epoch = int(epochs[-1]["epoch"]) if epochs else 0
            for scores in epochs:
                self._note(standing, scores[self.objective], task[0])
        else:
            progress = GroupProgress.read(self.folder.group_checkpoints(task[0]))
            if progress is None:
                return
            standing.epoch, standing.num_epochs = progress.epoch, progress.num_epochs
            best_job = next((job for job in task if str(job.number) == progress.best_run), None)
            if progress.best is not None and best_job is not None:
                self._note(standing, progress.best, best_job)
        standing.pace.saw(standing.epoch, self.clock())

    def _note(self, standing: Standing, value: float, job: Job) -> None:
        if better(value, standing.best, objective=self.objective):
            standing.best, standing.best_job = value, job

    # -- what is shown ---------------------------------------------------------------------------------------------------

    def table(self, counts: Counts) -> "RenderableType":
        """The counts, the best so far, and a line for each running task."""
        from rich.console import Group
        from rich.table import Table

        tasks = Table(box=None, pad_edge=False, header_style="dim")
        for head in ("running", "epoch", f"best {self.objective}", "left", "settings"):
            tasks.add_column(head, no_wrap=True, overflow="ellipsis")
        for task in counts.running:
            tasks.add_row(*self._row(task))
        return Group(*self._heads(counts), tasks)

    def lines(self, counts: Counts) -> str:
        """The same for a log, of the first running tasks."""
        lines = self._heads(counts)
        for task in counts.running[:MOST_LINES]:
            name, epoch, best, left, settings = self._row(task)
            shown = [f"epoch {epoch}", f"best {self.objective} {best}" if best else "", f"about {left} left" if left else ""]
            lines.append(f"  {name}: {', '.join(filter(None, shown))}  {settings}")
        if len(counts.running) > MOST_LINES:
            lines.append(f"  and {len(counts.running) - MOST_LINES} more tasks")
        return "\n".join(lines)

    def _heads(self, counts: Counts) -> list[str]:
        head = f"{len(counts.running)} of {self.slots} slots busy, {counts.waiting} waiting, "
        head += f"{counts.ended} of {counts.total} ended"
        head += f", {counts.failed} failed" if counts.failed else ""
        left = self.seconds_left(counts)
        head += f", about {duration(left)} left" if left is not None else ""
        best, overrides = self._best(counts)
        return [head] if math.isnan(best) else [head, f"best so far {self.objective} {best:.4f}  {overrides}"]

    def _best(self, counts: Counts) -> tuple[float, str]:
        """Of all that have ended or run, with its overrides."""
        best, overrides = counts.best, counts.best_overrides
        for standing in self.standings.values():
            if standing.best_job is not None and better(standing.best, best, objective=self.objective):
                best, overrides = standing.best, " ".join(standing.best_job.overrides)
        return best, overrides

    def _row(self, task: Task) -> tuple[str, str, str, str, str]:
        standing = self.standings[task[0].number]
        best = "" if math.isnan(standing.best) else f"{standing.best:.4f}"
        left = self._left(standing)
        epoch = f"{standing.epoch}/{standing.num_epochs or '?'}"
        return name(task), epoch, best, "" if left is None else duration(left), varied(task, self.swept)

    def _left(self, standing: Standing) -> float | None:
        """Seconds until the last epoch of a running task has ended, by the pace of those that were seen."""
        return standing.pace.seconds_left(standing.num_epochs, self.clock()) if standing.num_epochs else None

    def seconds_left(self, counts: Counts) -> float | None:
        """Until all jobs have ended, were those to come like those that were seen; None while that is not known."""
        seen = self.ended.copy()
        elapsed = [self.clock() - self.standings[task[0].number].began for task in counts.running]
        running = [self._left(self.standings[task[0].number]) for task in counts.running]
        for task, seconds, left in zip(counts.running, elapsed, running, strict=True):
            if left is not None:
                seen.add(task, seconds + left)
        for index, task in enumerate(counts.running):
            expected = seen.expected(task)
            if running[index] is None and expected is not None:
                running[index] = max(expected - elapsed[index], 0.0)
        waiting = [seen.expected(task) for task in counts.waiting_tasks]
        not_chosen = counts.waiting - sum(map(len, counts.waiting_tasks))
        waiting += [seen.expected_of_any(not_chosen)] if not_chosen else []
        known = [seconds for seconds in (*running, *waiting) if seconds is not None]
        if not known or len(known) < len(running) + len(waiting):
            return None
        return max([sum(known) / self.slots, *known[: len(running)]])  # the longest that runs may outlast the rest


def name(task: Task) -> str:
    """Of a group its first job, and how many more."""
    return f"#{task[0].number}" + (f" and {len(task) - 1} more" if len(task) > 1 else "")


def varied(task: Task, swept: Sequence[str]) -> str:
    """The swept settings of a task as on the command line, each with the values that its jobs have: all, or their range."""
    values: dict[str, dict[str, None]] = {}
    for job in task:
        for text in job.overrides:
            key, _, value = text.lstrip("+").partition("=")
            if key in swept:
                values.setdefault(key, {})[value] = None
    return " ".join(f"{key}={_values(list(texts))}" for key, texts in values.items())


def _values(texts: Sequence[str]) -> str:
    if len(texts) <= MOST_VALUES:
        return ",".join(texts)
    try:
        low, high = min(texts, key=float), max(texts, key=float)
    except ValueError:
        return f"<{len(texts)} values>"
    return f"{low}..{high}"


def better(value: float, than: float, *, objective: str) -> bool:
    """Whether an objective is better than the best so far, which is NaN before there is one; NaN is never."""
    if math.isnan(value):
        return False
    return math.isnan(than) or (value > than if maximised(objective) else value < than)


def _num_epochs(job: Job) -> int | None:
    length = job.content.get("trainer", {}).get("max_epochs")
    return int(length) if length else None

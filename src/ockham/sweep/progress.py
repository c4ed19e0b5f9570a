"""A sweep while it runs, on a terminal: one table that stays in place below the lines of ended jobs."""

import logging
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ockham.core.selection import maximised
from ockham.sweep.folder import SweepFolder
from ockham.sweep.jobs import Job

if TYPE_CHECKING:
    from rich.console import RenderableType

#: The folders of running jobs are read so often.
SECONDS_BETWEEN_LOOKS = 2.0


@dataclass
class Counts:
    """Where the jobs of a sweep stand, and the best of those that have ended.

    `total` are all that there will be: a search has not chosen some of them yet.
    """

    total: int
    running: Sequence[Sequence[Job]]
    ended: int
    failed: int
    best: float = math.nan
    best_overrides: str = ""

    @property
    def waiting(self) -> int:
        """Jobs that have not begun, those that a search has not chosen yet among them."""
        return self.total - self.ended - sum(map(len, self.running))


class Progress:
    """The live table. What its tasks have reached is read from their run folders."""

    def __init__(self, folder: SweepFolder, *, objective: str, swept: Sequence[str], slots: int) -> None:
        self.folder, self.objective, self.swept, self.slots = folder, objective, swept, slots
        self.started = time.monotonic()
        self.last_look = -math.inf
        self.share_at_start: float | None = None
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

    def update(self, counts: Counts) -> None:
        """Draw the table anew, from time to time."""
        if self.live is not None and time.monotonic() - self.last_look > SECONDS_BETWEEN_LOOKS:
            self.last_look = time.monotonic()
            self.live.update(self.table(counts), refresh=True)

    def table(self, counts: Counts) -> "RenderableType":
        """A line for each running task, with the spread of a group's members, and the counts above."""
        from rich.console import Group
        from rich.table import Table

        tasks = Table(box=None, pad_edge=False, header_style="dim")
        for head in ("running", "epoch", self.objective, "settings"):
            tasks.add_column(head, no_wrap=True, overflow="ellipsis")
        work_done = float(counts.ended)
        for task in counts.running:
            epoch, scores = self._epoch_and_scores(task)
            length = task[0].content.get("trainer", {}).get("max_epochs")
            if length:
                work_done += len(task) * epoch / length
            name = f"#{task[0].number}" + (f" and {len(task) - 1} more" if len(task) > 1 else "")
            spread = ""
            if scores:
                low, high = min(scores), max(scores)
                spread = f"{low:.4f}" if len(task) == 1 else f"{low:.4f} to {high:.4f}"
            tasks.add_row(name, f"{epoch}/{length or '?'}", spread, self._settings(task))
        head = f"{len(counts.running)} of {self.slots} slots busy, {counts.waiting} waiting, "
        head += f"{counts.ended} of {counts.total} ended"
        head += f", {counts.failed} failed" if counts.failed else ""
        head += self._time_left(work_done / counts.total if counts.total else 0.0)
        lines = [head]
        if not math.isnan(counts.best):
            lines.append(f"best so far {self.objective} {counts.best:.4f}  {counts.best_overrides}")
        return Group(*lines, tasks)

    def _time_left(self, share: float) -> str:
        """What remains, at the pace of this process: jobs that had ended before it began tell nothing about that."""
        if self.share_at_start is None:
            self.share_at_start = share
        gained = share - self.share_at_start
        if gained < 0.02 or share >= 1:
            return ""
        return f", about {_duration((time.monotonic() - self.started) * (1 - share) / gained)} left"

    def _epoch_and_scores(self, task: Sequence[Job]) -> tuple[int, list[float]]:
        """The epoch of the task, and the last objective of each member."""
        epoch, scores = 0, []
        for job in task:
            epochs = self.folder.epochs(job)
            if epochs:
                epoch = max(epoch, len(epochs))
                scores.append(epochs[-1][self.objective])
        return epoch, [score for score in scores if math.isfinite(score)]

    def _settings(self, task: Sequence[Job]) -> str:
        """The swept settings that the members of a task share."""
        shared = [text for text in task[0].overrides if all(text in job.overrides for job in task)]
        return " ".join(text for text in shared if text.lstrip("+").partition("=")[0] in self.swept)


def better(value: float, than: float, *, objective: str) -> bool:
    """Whether an objective is better than the best so far, which is NaN before there is one."""
    return math.isnan(than) or (value > than if maximised(objective) else value < than)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

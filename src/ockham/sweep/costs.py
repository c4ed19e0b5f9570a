"""What searches learn of jobs that have ended: their objective as a cost, to be minimised."""

import math
from collections.abc import Sequence

from ockham.core.selection import maximised
from ockham.sweep.folder import SweepFolder
from ockham.sweep.jobs import Job


class Costs:
    """The costs of the jobs in a sweep folder, each read once it is known."""

    def __init__(self, folder: SweepFolder, objective: str) -> None:
        self.folder, self.objective = folder, objective
        self._known: dict[int, float] = {}

    def of_trial(self, jobs: Sequence[Job]) -> float | None:
        """The mean over seeds and folds: None while jobs run, infinity if one diverged, NaN if all failed."""
        costs = [self.of(job) for job in jobs]
        if any(cost is None for cost in costs):
            return None
        usable = [cost for cost in costs if cost is not None and not math.isnan(cost)]
        return sum(usable) / len(usable) if usable else math.nan

    def of(self, job: Job) -> float | None:
        """The same of a job, of a pruned one the best it had reached; NaN also where its files are damaged."""
        if job.number in self._known:
            return self._known[job.number]
        sign = -1.0 if maximised(self.objective) else 1.0
        state = self.folder.state(job)
        if state in (None, "running"):
            return None
        if state == "finished":
            cost = sign * self.folder.metrics(job).get("objective", math.nan)
        elif state == "pruned":
            cost = min((sign * row[self.objective] for row in self.folder.epochs(job)), default=math.nan)
        elif state == "diverged":
            cost = math.inf
        else:
            return math.nan
        self._known[job.number] = cost
        return cost

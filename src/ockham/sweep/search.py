"""A search as a plan that grows while results come in.

Each suggestion is a pure function of the space, the seed, its number and what is known of earlier trials, which stands in
the sweep folder. So there is no second record to keep in step with the folder, and a search continues where it was.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ockham.core.selection import maximised
from ockham.identity import digest
from ockham.sweep.folder import SweepFolder
from ockham.sweep.samplers import Known, suggest
from ockham.sweep.searchspace import Point, SearchSpace
from ockham.sweep.space import Job, Replicate, with_replicates

log = logging.getLogger("ockham")

#: After so many repetitions in a row a sampler gives way to random draws, and after as many as the second the space is
#: taken to be exhausted.
REPEATS, EXHAUSTED = 20, 2000


@dataclass(frozen=True)
class Trial:
    """One configuration that was suggested: the draw it came from, where it lies, and its jobs."""

    draw: int
    point: Point
    jobs: tuple[Job, ...]


class Search:
    """The jobs of a search, which become more as results come in, up to `trials` configurations."""

    def __init__(
        self,
        space: SearchSpace,
        folder: SweepFolder,
        *,
        sampler: str,
        trials: int,
        seed: int,
        replicates: Sequence[Replicate],
        objective: str,
    ) -> None:
        self.space, self.folder, self.sampler, self.seed = space, folder, sampler, seed
        self.trial_count, self.replicates, self.objective = trials, replicates, objective
        self.trials: list[Trial] = []
        self.swept = with_replicates(space.swept, replicates)
        self.duplicates = 0
        self._costs: dict[int, float] = {}

    @property
    def jobs(self) -> tuple[Job, ...]:
        return tuple(job for trial in self.trials for job in trial.jobs)

    @property
    def total(self) -> int:
        return self.trial_count * len(self.replicates)

    def identity(self) -> str:
        """A hash of what makes the suggestions: equal where a search may continue."""
        content = [self.space.describe(), self.sampler, self.seed, [replicate.overrides for replicate in self.replicates]]
        return digest({"identity": content})

    def state(self) -> dict[str, Any]:
        """What sweep.json keeps of the search beside its jobs."""
        return {"trials": [{"draw": trial.draw, "point": dict(trial.point)} for trial in self.trials]}

    def restore(self, stored: Mapping[str, Any]) -> None:
        """Take the trials that stand in sweep.json, also those of another process."""
        for trial in stored["trials"][len(self.trials) :]:
            self.trials.append(Trial(trial["draw"], trial["point"], self._jobs_at(trial["point"])))

    def batches(self, jobs: Sequence[Job]) -> list[Sequence[Job]]:
        """By trial."""
        return [list(own) for _, own in groupby(jobs, key=lambda job: job.number // len(self.replicates))]

    def more(self) -> Sequence[Job]:
        """The jobs of the next trial, and of those that another process has added since; none when all are there."""
        with self.folder.locked():
            before = len(self.trials)
            self.restore(self.folder.stored())
            trial = self._next() if len(self.trials) < self.trial_count else None
            if trial is not None:
                self.trials.append(trial)
                self.folder.store(self)
            return [job for trial in self.trials[before:] for job in trial.jobs]

    def _jobs_at(self, point: Point) -> tuple[Job, ...]:
        first = len(self.trials) * len(self.replicates)
        return tuple(self.space.jobs(point, self.replicates, first=first))

    def _next(self) -> Trial | None:
        """The next configuration that is new; None where the space has no more."""
        seen = {job.key for job in self.jobs}
        known = self._known()
        first = self.trials[-1].draw + 1 if self.trials else 0
        for draw in range(first, first + EXHAUSTED):
            sampler = self.sampler if draw < first + REPEATS or self.sampler == "qmc" else "random"
            point = suggest(sampler, self.space, seed=self.seed, draw=draw, known=known)
            jobs = self._jobs_at(point)
            if jobs[0].key not in seen:
                return Trial(draw, point, jobs)
            self.duplicates += 1
        log.info("the space holds no more than %d configurations", len(self.trials))
        self.trial_count = len(self.trials)
        return None

    def _known(self) -> list[Known]:
        """What the samplers are told: the mean over seeds and folds; failed trials are left out.

        A diverged trial counts as the worst that is known so far, a pruned one as the best it had reached.
        """
        costs = [self._cost(trial) for trial in self.trials]
        worst = max((cost for cost in costs if cost is not None and math.isfinite(cost)), default=None)
        known = []
        for trial, cost in zip(self.trials, costs, strict=True):
            told = worst if cost == math.inf else cost
            if cost is None or (told is not None and math.isfinite(told)):
                known.append(Known(trial.point, told))
        return known

    def _cost(self, trial: Trial) -> float | None:
        """To be minimised: None while jobs run, infinity if one diverged, NaN if all failed."""
        costs = [self._job_cost(job) for job in trial.jobs]
        told = [cost for cost in costs if cost is not None and not math.isnan(cost)]
        if None in costs:
            return None
        return sum(told) / len(told) if told else math.nan

    def _job_cost(self, job: Job) -> float | None:
        if job.number in self._costs:
            return self._costs[job.number]
        run = self.folder.run(job)
        sign = -1.0 if maximised(self.objective) else 1.0
        state = run.state
        if state == "finished":
            cost = sign * run.metrics()["objective"]
        elif state == "pruned":
            cost = min((sign * row[self.objective] for row in run.epochs()), default=math.nan)
        elif state == "diverged":
            cost = math.inf
        else:
            return math.nan if state == "failed" else None
        self._costs[job.number] = cost
        return cost

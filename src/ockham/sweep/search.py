"""A search as a plan that grows while results come in.

Each suggestion is a pure function of the space, the seed, its number and what is known of earlier batches of trials, which
stands in the sweep folder. So there is no second record to keep in step with the folder, and a search continues where it was.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

from ockham.errors import UserError
from ockham.identity import digest
from ockham.sweep.costs import Costs
from ockham.sweep.folder import SweepFolder
from ockham.sweep.jobs import Job, Plan, Replicate, swept_keys
from ockham.sweep.samplers import INDEPENDENT, LEARNING, Observation, suggest
from ockham.sweep.searchspace import Point, SearchSpace

log = logging.getLogger("ockham")

#: After so many repetitions in a row a sampler gives way to random draws, and after as many as the second the space is
#: taken to be exhausted.
REPEATS, EXHAUSTED = 20, 2000


@dataclass(frozen=True)
class Trial:
    """One configuration that was suggested: the draw it came from, where it lies, the number of its batch, and its jobs.

    Trials of a batch were asked for together, and know nothing of each other's results.
    """

    draw: int
    point: Point
    batch: int
    jobs: tuple[Job, ...]


class GrowingPlan(Plan, Protocol):
    """A plan that has more jobs as results come in."""

    def grow(self, *, slots: int) -> bool:
        """Add the jobs that come next; False where there are none."""


def grown(plan: GrowingPlan, folder: SweepFolder, *, slots: int) -> Sequence[Job]:
    """The jobs that another process has added to the plan, or else those that come next; none when all are there."""
    with folder.locked():
        present = {job.number for job in plan.jobs}
        plan.restore(folder.stored())
        if len(plan.jobs) == len(present) and plan.grow(slots=slots):
            folder.store(plan)
        return [job for job in plan.jobs if job.number not in present]


class Search:
    """The jobs of a search, which become more as results come in, up to `num_trials` configurations.

    Trials that depend on no result are all asked for at once. A sampler that learns is asked for `batch_size` at a time, as
    many as there are slots where that is None, once all before have ended: what it knows then does not depend on which ended
    first. Where the search `prunes`, results depend on the clock anyway: trials are asked for whenever a slot is free, a
    single one where `batch_size` is None.
    """

    def __init__(
        self,
        space: SearchSpace,
        folder: SweepFolder,
        *,
        sampler: str,
        num_trials: int,
        seed: int,
        replicates: Sequence[Replicate],
        objective: str,
        batch_size: int | None = None,
        prunes: bool = False,
        first: int = 0,
    ) -> None:
        """Jobs are numbered from `first` on. Raises UserError for a sampler that there is not."""
        if sampler not in (*INDEPENDENT, *LEARNING):
            raise UserError(f"search.sampler={sampler} is not known: it is grid, {', '.join([*INDEPENDENT, *LEARNING])}")
        self.space, self.folder, self.sampler, self.seed = space, folder, sampler, seed
        self.num_trials, self.replicates = num_trials, replicates
        self.batch_size, self.first = batch_size, first
        self.learns, self.prunes = sampler in LEARNING, prunes
        self.trials: list[Trial] = []
        self.swept = swept_keys(space.swept, replicates)
        self.duplicates = 0
        self.costs = Costs(folder, objective)

    @property
    def jobs(self) -> tuple[Job, ...]:
        return tuple(job for trial in self.trials for job in trial.jobs)

    @property
    def total(self) -> int:
        return self.num_trials * len(self.replicates)

    @property
    def waits_for_results(self) -> bool:
        return self.learns and not self.prunes

    @property
    def space_by_name(self) -> dict[str, dict[str, Any]]:
        """What each setting was searched over: the ends of its interval and its scale, or its values."""
        return {dimension.axis.name: dimension.axis.extent for dimension in self.space.union.values()}

    @property
    def is_complete(self) -> bool:
        return len(self.trials) == self.num_trials

    def foreseen(self) -> Sequence[Job]:
        """All jobs where they depend on no result, otherwise none."""
        if not (self.learns or self.prunes):
            self._add_batch(self.num_trials)
        return self.jobs

    def identity(self) -> str:
        """A hash of what makes the suggestions: equal where a search may continue."""
        content = [self.space.describe(), self.sampler, self.seed, [replicate.overrides for replicate in self.replicates]]
        return digest({"identity": content})

    def state(self) -> dict[str, Any]:
        """What sweep.json keeps of the search beside its jobs."""
        trials = [{"draw": trial.draw, "point": dict(trial.point), "batch": trial.batch} for trial in self.trials]
        return {"batch": self.batch_size, "trials": trials}

    def restore(self, stored: Mapping[str, Any]) -> None:
        """Take the trials that stand in sweep.json, also those of another process, and the size of their batches."""
        self.batch_size = self.batch_size or stored["batch"]
        for trial in stored["trials"][len(self.trials) :]:
            self.trials.append(Trial(trial["draw"], trial["point"], trial["batch"], self._jobs_at(trial["point"])))

    def batches(self, jobs: Sequence[Job]) -> list[Sequence[Job]]:
        """By the batch of their trials."""
        batch_of = {job.number: trial.batch for trial in self.trials for job in trial.jobs}
        return [list(batch) for _, batch in groupby(jobs, key=lambda job: batch_of[job.number])]

    def more(self, *, slots: int) -> Sequence[Job]:
        """The jobs that another process has added, or else those of the next batch; none when all are there."""
        return grown(self, self.folder, slots=slots)

    def grow(self, *, slots: int) -> bool:
        """Add the next batch of trials; False where all are there."""
        return self._add_batch(self._next_batch_size(slots))

    def _next_batch_size(self, slots: int) -> int:
        if self.prunes:
            return self.batch_size or 1
        if not self.learns:
            return self.num_trials
        self.batch_size = self.batch_size or slots
        return self.batch_size

    def _jobs_at(self, point: Point) -> tuple[Job, ...]:
        first = self.first + len(self.trials) * len(self.replicates)
        return tuple(self.space.jobs(point, self.replicates, first=first))

    def _add_batch(self, size: int) -> bool:
        """Add so many trials, or as many as are left; whether there are any."""
        present = len(self.trials)
        number = self.trials[-1].batch + 1 if self.trials else 0
        observations = self._observations() if self.learns else []
        seen = {job.key for job in self.jobs}
        while len(self.trials) < min(present + size, self.num_trials):
            trial = self._next(number, observations, seen)
            if trial is None:
                log.info("the space holds no more than %d configurations", len(self.trials))
                self.num_trials = len(self.trials)
                break
            self.trials.append(trial)
            seen |= {job.key for job in trial.jobs}
            observations.append(Observation(trial.point, None))
        return len(self.trials) > present

    def _next(self, batch: int, observations: Sequence[Observation], seen: set[str]) -> Trial | None:
        """The next configuration that is new; None where the space has no more."""
        first = self.trials[-1].draw + 1 if self.trials else 0
        for draw in range(first, first + EXHAUSTED):
            sampler = self.sampler if draw < first + REPEATS or self.sampler == "qmc" else "random"
            point = suggest(sampler, self.space, seed=self.seed, draw=draw, observations=observations)
            jobs = self._jobs_at(point)
            if jobs[0].key not in seen:
                return Trial(draw, point, batch, jobs)
            self.duplicates += 1
        return None

    def _observations(self) -> list[Observation]:
        """What the samplers learn of each trial: the mean over seeds and folds, of a pruned one the best it had reached.

        One that diverged or failed counts as the worst of the others, so that its like is avoided.
        """
        costs = [self.costs.of_trial(trial.jobs) for trial in self.trials]
        worst = max((cost for cost in costs if cost is not None and math.isfinite(cost)), default=0.0)
        learned = [cost if cost is None or math.isfinite(cost) else worst for cost in costs]
        return [Observation(trial.point, cost) for trial, cost in zip(self.trials, learned, strict=True)]

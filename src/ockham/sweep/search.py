"""Searching a space: random, quasi-random, and the samplers of Optuna and cmaes.

Each suggestion is a pure function of the space, the seed, its number and what is known of earlier trials, which stands in
the sweep folder. So there is no second record to keep in step with the folder, and a search continues where it was.
"""

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
from hydra.core.override_parser.overrides_parser import OverridesParser

from ockham import schema
from ockham.core.selection import maximised
from ockham.sweep.folder import SweepFolder
from ockham.sweep.space import (
    Axis,
    Combination,
    CommandLine,
    Job,
    Replicate,
    check_values,
    digest,
    replicated,
    with_replicates,
)

log = logging.getLogger("ockham")

Point = Mapping[str, int | float]
"""By dimension: the number itself, or the index among listed values."""

#: After so many repetitions in a row a sampler gives way to random draws, and after as many as the second the space is
#: taken to be exhausted.
REPEATS, EXHAUSTED = 20, 2000

SIGNIFICANT_DIGITS = 6


@dataclass(frozen=True)
class Dimension:
    """One coordinate of a space: an axis under a name of its own."""

    name: str
    axis: Axis

    @property
    def is_numeric(self) -> bool:
        return self.axis.interval is not None or self.axis.ordered

    def at(self, unit: float) -> int | float:
        """The value at `unit` in [0, 1]: even over listed and whole values, over an interval on its scale."""
        interval = self.axis.interval
        if interval is None:
            return min(int(unit * len(self.axis.texts)), len(self.axis.texts) - 1)
        low, high = self._scaled(interval.low), self._scaled(interval.high + interval.integer)
        value = low + unit * (high - low)
        value = math.exp(value) if interval.log else value
        if interval.integer:
            return int(min(max(math.floor(value), interval.low), interval.high))
        return min(max(float(f"{value:.{SIGNIFICANT_DIGITS}g}"), interval.low), interval.high)

    def unit(self, value: float) -> float:
        """Where in [0, 1] the value lies; the middle of its share for listed and whole values."""
        interval = self.axis.interval
        if interval is None:
            return (value + 0.5) / len(self.axis.texts)
        low, high = self._scaled(interval.low), self._scaled(interval.high + interval.integer)
        return (self._scaled(value + 0.5 * interval.integer) - low) / (high - low)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.axis.interval and self.axis.interval.log else value

    def distribution(self) -> Any:
        """The dimension as Optuna knows it."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        interval = self.axis.interval
        if interval is None:
            last = len(self.axis.texts) - 1
            return IntDistribution(0, last) if self.axis.ordered else CategoricalDistribution(range(last + 1))
        if interval.integer:
            return IntDistribution(int(interval.low), int(interval.high), log=interval.log)
        return FloatDistribution(interval.low, interval.high, log=interval.log)

    def assigned(self, value: float) -> tuple[str, Any]:
        """The value as an override, and as it stands in the configuration."""
        if self.axis.interval is None:
            return self.axis.texts[int(value)], self.axis.values[int(value)]
        plain = int(value) if self.axis.interval.integer else float(f"{value:.{SIGNIFICANT_DIGITS}g}")
        return f"{self.axis.element}={plain}", plain


@dataclass(frozen=True)
class SearchSpace:
    """What a search samples: the option of each group, then the dimensions that the chosen options have."""

    line: CommandLine
    by_choice: Mapping[tuple[str, ...], tuple[Dimension, ...]]
    """The dimensions, also those of a single value, for each combination of group options."""

    @classmethod
    def of(cls, line: CommandLine, check: Any) -> "SearchSpace":
        """What the command sweeps, and, of the groups that it names, the ranges that the chosen options declare.

        Raises ValueError where that is nothing, or where a seed would be searched for.
        """
        for axis in line.axes:
            if axis.is_swept and axis.name in ("seed", "fold"):
                raise ValueError(f"a search would choose the luckiest {axis.name}: use seeds=[...] or cv=k, which are averaged")
        by_choice = {}
        for combination in line.combinations:
            declared = _declared(line, combination)
            check_values(combination.content, [*combination.fitting, *(dimension.axis for dimension in declared)], check)
            given = tuple(Dimension(axis.name, axis) for axis in combination.fitting)
            by_choice[combination.chosen] = (*given, *declared)
        space = cls(line, by_choice)
        if not space.union:
            raise ValueError(
                "search has nothing to search: name groups (optimizer=sgd,adam reg=l1,l2), whose options declare ranges, or "
                "give a range (optimizer.lr='tag(log,interval(1e-4,1e-1))')"
            )
        return space

    @property
    def swept(self) -> tuple[str, ...]:
        keys = [dimension.axis.name for dimension in self.union.values()]
        return tuple(dict.fromkeys([*self.line.swept, *keys]))

    @cached_property
    def groups(self) -> tuple[Dimension, ...]:
        return tuple(Dimension(axis.name, axis) for axis in self.line.groups)

    @cached_property
    def union(self) -> dict[str, Dimension]:
        """All dimensions with more than one value, by name."""
        dimensions = [*self.groups, *(dimension for own in self.by_choice.values() for dimension in own)]
        return {dimension.name: dimension for dimension in dimensions if dimension.axis.is_swept}

    def chosen(self, point: Point) -> tuple[str, ...]:
        return tuple(group.assigned(point.get(group.name, 0))[0] for group in self.groups)

    def describe(self) -> str:
        """A hash of the space: equal where a search may continue."""
        bases = {" ".join(combination.chosen): combination.content for combination in self.line.combinations}
        ranges = {
            " ".join(chosen): [
                [d.name, list(d.axis.texts), vars(d.axis.interval) if d.axis.interval else None] for d in dimensions
            ]
            for chosen, dimensions in self.by_choice.items()
        }
        plain = {name: {k: v for k, v in base.items() if k not in schema.SWEEP_SETTINGS} for name, base in bases.items()}
        return digest({"bases": plain, "ranges": ranges})

    def jobs(self, point: Point, replicates: Sequence[Replicate], *, first: int) -> list[Job]:
        """The jobs of the configuration at `point`; what its choices do not have is left out."""
        chosen = self.chosen(point)
        content = next(combination.content for combination in self.line.combinations if combination.chosen == chosen)
        texts = {group.axis.name: text for group, text in zip(self.groups, chosen, strict=True)}
        values = {}
        for dimension in self.by_choice[chosen]:
            text, value = dimension.assigned(point.get(dimension.name, 0))
            texts[dimension.axis.name], values[dimension.axis.name] = text, value
        return replicated(content, values, self.line.in_order(texts), replicates, first=first)


def _declared(line: CommandLine, combination: Combination) -> list[Dimension]:
    """The ranges of the options of the groups that the command names, but of settings that it gives itself.

    Where a group is searched, the same setting is a dimension of its own under each option: a learning rate of SGD says
    nothing about one of Adam.
    """
    parser = OverridesParser.create()
    given = {axis.name for axis in line.axes}
    text_of = {axis.name: (axis, text) for axis, text in zip(line.groups, combination.chosen, strict=True)}
    dimensions = []
    for key, text in combination.ranges:
        group = key.partition(".")[0]
        if group not in text_of or key in given:
            continue
        axis, option = text_of[group]
        shared = group == "reg" or not axis.is_swept
        range_axis = Axis.parse(parser.parse_override(f"{key}={text}"), parser)
        dimensions.append(Dimension(key if shared else f"{option}: {key}", range_axis))
    return dimensions


@dataclass(frozen=True)
class Trial:
    """One configuration that was suggested: the draw it came from, where it lies, and its jobs."""

    draw: int
    point: Point
    jobs: tuple[Job, ...]


@dataclass(frozen=True)
class Known:
    """What a sampler knows of a trial: its cost, to be minimised; None while it runs."""

    point: Point
    cost: float | None


# -- samplers: (space, seed, draw, known) -> point -----------------------------------------------------------------------


def suggest(sampler: str, space: SearchSpace, *, seed: int, draw: int, known: Sequence[Known]) -> Point:
    """The point that the sampler tries next; `draw` tells suggestions from the same knowledge apart."""
    if sampler == "tpe":
        return _tpe(space, _seed(seed, draw), known)
    if sampler == "gp":
        return _gp(space, _seed(seed, draw), known)
    if sampler == "cmaes":
        return _cmaes(space, _seed(seed, draw), known)
    names = list(space.union)
    units = _sobol(len(names), seed, draw) if sampler == "qmc" else np.random.default_rng(_seed(seed, draw)).random(len(names))
    return {name: space.union[name].at(float(unit)) for name, unit in zip(names, units, strict=True)}


def _seed(seed: int, draw: int) -> int:
    return int(np.random.SeedSequence([seed, draw]).generate_state(1)[0])


def _sobol(dimensions: int, seed: int, draw: int) -> np.ndarray:
    """Point number `draw` of the scrambled Sobol sequence."""
    from scipy.stats.qmc import Sobol

    engine = Sobol(dimensions, scramble=True, rng=seed)
    if draw:
        engine.fast_forward(draw)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The balance properties of Sobol")  # single points are wanted here
        return engine.random(1)[0]


def _study(space: SearchSpace, sampler: Any, known: Sequence[Known], *, union: bool) -> Any:
    """An Optuna study that holds what is known, in the order of the trials."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=sampler)
    for trial in known:
        names = space.union if union else _active(space, trial.point)
        state = optuna.trial.TrialState.RUNNING if trial.cost is None else optuna.trial.TrialState.COMPLETE
        study.add_trial(
            optuna.create_trial(
                state=state,
                value=trial.cost,
                params={name: trial.point[name] for name in names},
                distributions={name: space.union[name].distribution() for name in names},
            )
        )
    return study


def _active(space: SearchSpace, point: Point) -> list[str]:
    """The dimensions that matter at a point: those of the groups, and of the chosen options."""
    dimensions = [*space.groups, *space.by_choice[space.chosen(point)]]
    return [dimension.name for dimension in dimensions if dimension.name in space.union]


def _tpe(space: SearchSpace, seed: int, known: Sequence[Known]) -> Point:
    """Tree-structured Parzen estimators over groups of settings that occur together; conditional by itself."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `multivariate` and `group`
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)
    trial = _study(space, sampler, known, union=False).ask()
    point: dict[str, int | float] = {}
    for group in space.groups:
        if group.name in space.union:
            point[group.name] = _asked(trial, group)
    for name in _active(space, point):
        if name not in point:
            point[name] = _asked(trial, space.union[name])
    return point


def _asked(trial: Any, dimension: Dimension) -> int | float:
    """What an Optuna trial suggests for the dimension."""
    interval = dimension.axis.interval
    if interval is None:
        last = len(dimension.axis.texts) - 1
        if dimension.axis.ordered:
            return int(trial.suggest_int(dimension.name, 0, last))
        return int(trial.suggest_categorical(dimension.name, range(last + 1)))
    if interval.integer:
        return int(trial.suggest_int(dimension.name, int(interval.low), int(interval.high), log=interval.log))
    return float(trial.suggest_float(dimension.name, interval.low, interval.high, log=interval.log))


def _gp(space: SearchSpace, seed: int, known: Sequence[Known]) -> Point:
    """A Gaussian process over all dimensions; those that the chosen options lack have no influence."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.GPSampler(seed=seed)
    study = _study(space, sampler, known, union=True)
    point: Point = study.ask({name: dimension.distribution() for name, dimension in space.union.items()}).params
    return point


def _cmaes(space: SearchSpace, seed: int, known: Sequence[Known]) -> Point:
    """Covariance matrix adaptation over the numeric dimensions in [0, 1]; the others are drawn at random.

    A generation is a population's worth of ended trials in their order, so that no state has to be kept.
    """
    from cmaes import CMA

    numeric = [name for name, dimension in space.union.items() if dimension.is_numeric]
    if len(numeric) < 2:
        raise ValueError(f"search=cmaes needs two numeric settings, but finds {len(numeric)}: use search=tpe")
    size = len(numeric)
    strategy = CMA(np.full(size, 0.5), 1 / 6, bounds=np.array([[0.0, 1.0]] * size), seed=seed)
    ended = [
        (np.array([space.union[name].unit(trial.point[name]) for name in numeric]), trial.cost)
        for trial in known
        if trial.cost is not None
    ]
    while len(ended) >= strategy.population_size:
        generation, ended = ended[: strategy.population_size], ended[strategy.population_size :]
        strategy.tell(generation)
    chance = np.random.default_rng(seed)
    units = dict(zip(space.union, chance.random(len(space.union)), strict=True))
    units |= dict(zip(numeric, strategy.ask(), strict=True))
    return {name: space.union[name].at(float(unit)) for name, unit in units.items()}


# -- the search as a plan that grows -------------------------------------------------------------------------------------


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

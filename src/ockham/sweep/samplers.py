"""Samplers of a search space: (space, seed, draw, what is known) -> point.

Random and quasi-random draws, Optuna's TPE and Gaussian process, and CMA-ES. None keeps a state.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ockham.errors import UserError
from ockham.sweep.searchspace import Dimension, Point, SearchSpace


@dataclass(frozen=True)
class Observation:
    """What a sampler knows of a trial: its cost, to be minimised; None while it runs."""

    point: Point
    cost: float | None


def suggest(sampler: str, space: SearchSpace, *, seed: int, draw: int, observations: Sequence[Observation]) -> Point:
    """The point that the sampler tries next; `draw` tells suggestions from the same knowledge apart."""
    if sampler in INDEPENDENT:
        units = INDEPENDENT[sampler](len(space.union), seed, draw)
        return {name: dimension.at(float(unit)) for (name, dimension), unit in zip(space.union.items(), units, strict=True)}
    return LEARNING[sampler](space, _seed(seed, draw), observations)


def _seed(seed: int, draw: int) -> int:
    return int(np.random.SeedSequence([seed, draw]).generate_state(1)[0])


def _random(dimensions: int, seed: int, draw: int) -> np.ndarray:
    return np.random.default_rng(_seed(seed, draw)).random(dimensions)


def _sobol(dimensions: int, seed: int, draw: int) -> np.ndarray:
    """Point number `draw` of the scrambled Sobol sequence."""
    from scipy.stats.qmc import Sobol

    engine = Sobol(dimensions, scramble=True, rng=seed)
    if draw:
        engine.fast_forward(draw)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The balance properties of Sobol")  # single points are wanted here
        return engine.random(1)[0]


def _study(space: SearchSpace, sampler: Any, observations: Sequence[Observation], *, union: bool) -> Any:
    """An Optuna study that holds what is known, in the order of the trials."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=sampler)
    for observation in observations:
        names = space.union if union else _active(space, observation.point)
        state = optuna.trial.TrialState.RUNNING if observation.cost is None else optuna.trial.TrialState.COMPLETE
        study.add_trial(
            optuna.create_trial(
                state=state,
                value=observation.cost,
                params={name: observation.point[name] for name in names},
                distributions={name: space.union[name].distribution() for name in names},
            )
        )
    return study


def _active(space: SearchSpace, point: Point) -> list[str]:
    """The dimensions that matter at a point: those of the groups, and of the chosen options."""
    dimensions = [*space.groups, *space.by_choice[space.chosen(point)]]
    return [dimension.name for dimension in dimensions if dimension.name in space.union]


def _tpe(space: SearchSpace, seed: int, observations: Sequence[Observation]) -> Point:
    """Tree-structured Parzen estimators over groups of settings that occur together; conditional by itself."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `multivariate` and `group`
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)
    trial = _study(space, sampler, observations, union=False).ask()
    point: dict[str, int | float] = {}
    for group in space.groups:
        if group.name in space.union:
            point[group.name] = _suggested(trial, group)
    for name in _active(space, point):
        if name not in point:
            point[name] = _suggested(trial, space.union[name])
    return point


def _suggested(trial: Any, dimension: Dimension) -> int | float:
    """What an Optuna trial suggests for the dimension."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    over = dimension.distribution()
    if isinstance(over, CategoricalDistribution):
        return int(trial.suggest_categorical(dimension.name, over.choices))
    if isinstance(over, IntDistribution):
        return int(trial.suggest_int(dimension.name, over.low, over.high, log=over.log))
    return float(trial.suggest_float(dimension.name, over.low, over.high, log=over.log))


def _gp(space: SearchSpace, seed: int, observations: Sequence[Observation]) -> Point:
    """A Gaussian process over all dimensions; those that the chosen options lack have no influence."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.GPSampler(seed=seed)
    study = _study(space, sampler, observations, union=True)
    point: Point = study.ask({name: dimension.distribution() for name, dimension in space.union.items()}).params
    return point


def _cmaes(space: SearchSpace, seed: int, observations: Sequence[Observation]) -> Point:
    """Covariance matrix adaptation over the numeric dimensions in [0, 1]; the others are drawn at random.

    A generation is a population's worth of ended trials in their order, so that no state has to be kept.
    """
    from cmaes import CMA

    numeric = [name for name, dimension in space.union.items() if dimension.is_numeric]
    if len(numeric) < 2:
        raise UserError(f"search=cmaes needs two numeric settings, but finds {len(numeric)}: use search=tpe")
    size = len(numeric)
    strategy = CMA(np.full(size, 0.5), 1 / 6, bounds=np.array([[0.0, 1.0]] * size), seed=seed)
    ended = [
        (np.array([space.union[name].unit(observation.point[name]) for name in numeric]), observation.cost)
        for observation in observations
        if observation.cost is not None
    ]
    while len(ended) >= strategy.population_size:
        generation, ended = ended[: strategy.population_size], ended[strategy.population_size :]
        strategy.tell(generation)
    generator = np.random.default_rng(seed)
    units = dict(zip(space.union, generator.random(len(space.union)), strict=True))
    units |= dict(zip(numeric, strategy.ask(), strict=True))
    return {name: space.union[name].at(float(unit)) for name, unit in units.items()}


#: Samplers whose suggestions depend on no result: (number of dimensions, seed, draw) -> a point of the unit cube.
INDEPENDENT: Mapping[str, Callable[[int, int, int], np.ndarray]] = {"random": _random, "qmc": _sobol}

#: Samplers that learn: (space, seed of this draw, what is known) -> point.
LEARNING: Mapping[str, Callable[[SearchSpace, int, Sequence[Observation]], Point]] = {"tpe": _tpe, "gp": _gp, "cmaes": _cmaes}

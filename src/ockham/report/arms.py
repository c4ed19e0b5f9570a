"""What a comparison says of its arms: the best setting of each, under seeds that no search saw.

The runs of the search choose, and show how the choice depends on the budget; nothing else is concluded from them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from ockham.core.selection import maximised
from ockham.core.statistics import Comparison, best_of, corrected, probabilities_best
from ockham.report.analysis import Configuration, analyse, paired
from ockham.report.reading import RecordedRun, RecordedRuns

#: A setting is at the edge of what it was searched over within this share of the interval, on its scale.
EDGE = 0.05

#: Of the best result at a budget: nine of ten searches are between these quantiles.
QUANTILES = (0.05, 0.95)

Space = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Arm:
    """An arm with what confirms its best setting, the objectives of its search in the order of the trials, and its space."""

    name: str
    confirmed: Configuration
    searched: tuple[float, ...]
    space: Space

    @property
    def trials(self) -> int:
        return len(self.searched)

    @cached_property
    def edges(self) -> list[str]:
        """The settings whose best value lies at the edge of what was searched, as `optimizer.lr 0.1 (0.0001 to 0.1)`."""
        values = self.confirmed.runs[0].values
        return [
            f"{name} {values[name]} ({_shown(extent)})"
            for name, extent in self.space.items()
            if name in values and _is_at_edge(values[name], extent)
        ]


@dataclass(frozen=True)
class Pair:
    """The first arm minus the second, over the seeds of the confirmation."""

    first: Arm
    second: Arm
    comparison: Comparison


@dataclass(frozen=True)
class Arms:
    """The arms of a comparison, the best first by `metric`, the one on the test set that goes with the objective."""

    ranked: tuple[Arm, ...]
    pairs: tuple[Pair, ...]
    """Every two arms, the better one first; their p values are corrected for all of them."""
    metric: str
    objective: str
    missing: tuple[str, ...]
    """Arms of which nothing was confirmed."""
    looks: int
    """How often the confirmation was looked at to decide whether seeds are added; 0 where their number was fixed."""

    @property
    def maximise(self) -> bool:
        return maximised(self.objective)

    @cached_property
    def tiers(self) -> list[list[Arm]]:
        """Arms that cannot be told from the best of their tier; that one is behind the best of the tier above."""
        tiers: list[list[Arm]] = []
        for arm in self.ranked:
            if tiers and not self.is_behind(arm, tiers[-1][0]):
                tiers[-1].append(arm)
            else:
                tiers.append([arm])
        return tiers

    def is_behind(self, arm: Arm, other: Arm) -> bool:
        """Whether the arm is behind one that is ranked above it beyond chance."""
        pair = next((pair for pair in self.pairs if pair.first is other and pair.second is arm), None)
        return pair is not None and pair.comparison.distinguishable and (pair.comparison.mean > 0) == self.maximise

    @property
    def budgets(self) -> list[int]:
        """Budgets up to that for which all arms with something to search have trials, each a tenth above the one before."""
        most = min((arm.trials for arm in self.ranked if arm.trials > 1), default=0)
        budgets = [1] if most else []
        while budgets and budgets[-1] < most:
            budgets.append(min(max(budgets[-1] + 1, round(budgets[-1] * 1.1)), most))
        return budgets


def arms_of(recorded: RecordedRuns) -> Arms | None:
    """The arms of the comparison among the runs; None where there is none, or nothing has been confirmed yet."""
    if len(recorded.comparisons) != 1:
        return None
    (comparison,) = recorded.comparisons
    spaces = comparison.spaces
    confirmed = {arm: [run for run in recorded.runs if (run.arm, run.stage) == (arm, "confirm")] for arm in spaces}
    results = {arm: analyse(runs) for arm, runs in confirmed.items()}
    objective = next((result.objective for arm, result in results.items() if confirmed[arm]), "val/acc")
    metric = objective.replace("val/", "test/")
    arms = []
    for (name, result), space in zip(results.items(), spaces.values(), strict=True):
        if result.finished and math.isfinite(result.finished[0].mean(metric)):
            searched = _searched([run for run in recorded.runs if (run.arm, run.stage) == (name, "search")])
            arms.append(Arm(name, result.finished[0], searched, space))
    if not arms:
        return None
    sign = -1 if maximised(objective) else 1
    ranked = tuple(sorted(arms, key=lambda arm: sign * arm.confirmed.mean(metric)))
    compared = [
        (first, second, difference)
        for first, second in combinations(ranked, 2)
        if (difference := paired(first.confirmed, second.confirmed, metric, looks=comparison.looks)) is not None
    ]
    family = corrected([difference for _, _, difference in compared])
    pairs = tuple(Pair(first, second, one) for (first, second, _), one in zip(compared, family, strict=True))
    missing = tuple(name for name in spaces if name not in [arm.name for arm in arms])
    return Arms(ranked, pairs, metric, objective, missing, comparison.looks)


def _searched(runs: Sequence[RecordedRun]) -> tuple[float, ...]:
    """The mean objective of each configuration in the order of the search; NaN of one that did not come to its end."""
    by_key: dict[str, list[RecordedRun]] = {}
    for run in runs:
        by_key.setdefault(run.configuration_key, []).append(run)
    means = []
    for members in by_key.values():
        values = [run.metrics["objective"] for run in members if run.state == "finished"]
        means.append(sum(values) / len(values) if len(values) == len(members) else math.nan)
    return tuple(means)


@dataclass(frozen=True)
class AtBudget:
    """What a search of so many trials would have found for an arm: its best on validation, with the middle nine tenths of
    searches; and how likely it would have been ahead of all other arms."""

    arm: Arm
    trials: int
    expected: float
    low: float
    high: float
    probability_best: float


def at_budgets(arms: Arms) -> list[AtBudget]:
    """For every budget up to that of the comparison, over all choices of so many of the trials (core.statistics.best_of).

    An arm with a single setting has it at every budget. A trial without a result counts as worse than all others.
    """
    sign = 1 if arms.maximise else -1
    values = [[sign * value if math.isfinite(value) else -math.inf for value in arm.searched] for arm in arms.ranked]
    found = []
    for budget in arms.budgets:
        probabilities = probabilities_best([of_arm if len(of_arm) > 1 else of_arm * budget for of_arm in values], budget)
        for arm, of_arm, probability in zip(arms.ranked, values, probabilities, strict=True):
            ordered = np.sort(of_arm if len(of_arm) > 1 else of_arm * budget)
            mass = best_of(len(ordered), budget)
            finite = np.isfinite(ordered) & (mass > 0)
            expected = float((mass[finite] * ordered[finite]).sum() / mass[finite].sum()) if finite.any() else math.nan
            low, high = (float(ordered[np.searchsorted(np.cumsum(mass), q - 1e-12)]) for q in QUANTILES)
            low, high = sorted((sign * low, sign * high))
            found.append(AtBudget(arm, budget, sign * expected, low, high, probability))
    return found


def _is_at_edge(text: str, extent: Mapping[str, Any]) -> bool:
    """Whether a value is within EDGE of an end of its interval, or the first or last of three listed numbers or more."""
    try:
        value = float(text)
        if "values" in extent:
            listed = sorted({float(one) for one in extent["values"]})
            return len(listed) > 2 and value in (listed[0], listed[-1])
        low, high = float(extent["low"]), float(extent["high"])
    except ValueError:  # what is no number has no edge
        return False
    if extent["log"]:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return not EDGE < (value - low) / (high - low) < 1 - EDGE


def _shown(extent: Mapping[str, Any]) -> str:
    if "values" in extent:
        return ", ".join(str(value) for value in extent["values"])
    return f"{extent['low']:g} to {extent['high']:g}" + (", logarithmic" if extent["log"] else "")


def shown_space(space: Space) -> str:
    """`optimizer.lr 0.001 to 1, logarithmic; reg 1, 2`, or that there was nothing to search."""
    return "; ".join(f"{name} {_shown(extent)}" for name, extent in space.items()) or "nothing to search"

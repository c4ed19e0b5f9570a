"""What a search samples: dimensions, which depend on the options that are chosen in each group."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ockham.errors import UserError
from ockham.identity import NOT_COMPUTED, computed, digest
from ockham.sweep.axes import Axis, parse_axes
from ockham.sweep.command_line import Check, Combination, CommandLine, check_values
from ockham.sweep.jobs import Job, Replicate, configuration_jobs

Point = Mapping[str, int | float]
"""By dimension: the number itself, or the index among listed values."""

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
    def of(cls, line: CommandLine, check: Check, *, may_be_empty: bool = False) -> "SearchSpace":
        """What the command sweeps, and, of the groups that it names, the ranges that the chosen options declare.

        Raises UserError where that is nothing, unless it `may_be_empty`, or where a seed would be searched for.
        """
        for axis in line.axes:
            if axis.is_swept and axis.name in ("seed", "fold"):
                raise UserError(f"a search would choose the luckiest {axis.name}: use seeds=[...] or cv=k, which are averaged")
        by_choice = {}
        for combination in line.combinations:
            declared = _declared(line, combination)
            check_values(combination.content, [*combination.fitting, *(dimension.axis for dimension in declared)], check)
            given = tuple(Dimension(axis.name, axis) for axis in combination.fitting)
            by_choice[combination.chosen] = (*given, *declared)
        space = cls(line, by_choice)
        if not space.union and not may_be_empty:
            raise UserError(
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
        dimensions = [*self.groups, *(dimension for chosen in self.by_choice.values() for dimension in chosen)]
        return {dimension.name: dimension for dimension in dimensions if dimension.axis.is_swept}

    def chosen(self, point: Point) -> tuple[str, ...]:
        return tuple(group.assigned(point.get(group.name, 0))[0] for group in self.groups)

    def describe(self) -> str:
        """A hash of the space: equal where a search may continue."""
        bases = {" ".join(combination.chosen): digest(computed(combination.content)) for combination in self.line.combinations}
        ranges = {
            " ".join(chosen): [
                [d.name, list(d.axis.texts), vars(d.axis.interval) if d.axis.interval else None]
                for d in dimensions
                if d.name.partition(".")[0] not in NOT_COMPUTED
            ]
            for chosen, dimensions in self.by_choice.items()
        }
        return digest({"bases": bases, "ranges": ranges})

    def jobs(self, point: Point, replicates: Sequence[Replicate], *, first: int) -> list[Job]:
        """The jobs of the configuration at `point`; what its choices do not have is left out."""
        chosen = self.chosen(point)
        combination = next(combination for combination in self.line.combinations if combination.chosen == chosen)
        texts = {group.axis.name: text for group, text in zip(self.groups, chosen, strict=True)}
        values = {}
        for dimension in self.by_choice[chosen]:
            text, value = dimension.assigned(point.get(dimension.name, 0))
            texts[dimension.axis.name], values[dimension.axis.name] = text, value
        overrides = self.line.in_order(texts)
        return configuration_jobs(combination.content, values, overrides, replicates, choices=combination.choices, first=first)


def _declared(line: CommandLine, combination: Combination) -> list[Dimension]:
    """The ranges of the options of the groups that the command names, but of settings that it gives itself.

    Where a group is searched, the same setting is a dimension of its own under each option: a learning rate of SGD says
    nothing about one of Adam.
    """
    given = {axis.name for axis in line.axes}
    text_of = {axis.name: (axis, text) for axis, text in zip(line.groups, combination.chosen, strict=True)}
    dimensions = []
    for key, text in combination.ranges:
        group = key.partition(".")[0]
        if group not in text_of or key in given:
            continue
        axis, option = text_of[group]
        shared = group == "reg" or not axis.is_swept
        (range_axis,) = parse_axes([f"{key}={text}"])
        dimensions.append(Dimension(key if shared else f"{option}: {key}", range_axis))
    return dimensions

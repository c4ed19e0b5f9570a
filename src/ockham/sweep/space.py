"""From the overrides of a sweep to its axes, and to the jobs of a grid, which is conditional by itself."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Protocol

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from ockham import schema
from ockham.errors import UserError
from ockham.identity import configuration_key, digest, run_key
from ockham.sweep.composition import Compose, compose_all


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    `key` identifies what it computes: jobs with one key are one job. `configuration` is the same without the seed and the
    fold, so that it names the row of summary.csv that the job counts for; `replicate` are the overrides of seed and fold.
    `content` is the configuration in plain containers.
    """

    number: int
    overrides: tuple[str, ...]
    key: str
    configuration: str
    replicate: tuple[str, ...]
    content: Mapping[str, Any] = field(compare=False, repr=False)


def plain_text(override: Override) -> str:
    """The override as text; a sweep with a single value, as the command line makes of plain settings, without its choice()."""
    if override.is_sweep_override() and override.is_discrete_sweep():
        texts = list(override.sweep_string_iterator())
        if len(texts) == 1:
            return f"{override.get_key_element()}={texts[0]}"
    return str(override.input_line)


@dataclass(frozen=True)
class Replicate:
    """One repetition of every configuration: its seed, its fold, or both; nothing where there is a single one."""

    overrides: tuple[str, ...]
    values: Mapping[str, int]


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`, both included; on a logarithmic scale, or whole, where so asked."""

    low: float
    high: float
    log: bool
    integer: bool


@dataclass(frozen=True)
class Axis:
    """One override of the command line, with every value that it takes: the text for Hydra, and the value itself.

    With an `interval` there are no texts, and the values are its ends. `ordered` values come from a range.
    """

    name: str
    element: str
    always: bool
    texts: tuple[str, ...]
    values: tuple[Any, ...]
    ordered: bool = False
    interval: Interval | None = None

    @classmethod
    def parse(cls, override: Override, parser: OverridesParser) -> "Axis":
        """Raises UserError for an interval whose ends make no sense."""
        name, element = override.key_or_group, override.get_key_element()
        always = override.is_add() or override.is_force_add() or override.is_delete()
        swept = override.value() if override.is_sweep_override() else None
        if isinstance(swept, IntervalSweep):
            interval = _interval(swept, override.input_line)
            return cls(name, element, always, (), (interval.low, interval.high), interval=interval)
        listed = [f"{element}={text}" for text in override.sweep_string_iterator()] if swept is not None else None
        texts = tuple(listed or [str(override.input_line)])
        values = tuple(parsed.value() for parsed in parser.parse_overrides(list(texts)))
        return cls(name, element, always, texts, values, ordered=isinstance(swept, RangeSweep))

    @property
    def is_swept(self) -> bool:
        return len(self.texts) > 1 or self.interval is not None


def _interval(swept: IntervalSweep, line: str | None) -> Interval:
    low, high, log = swept.start, swept.end, "log" in swept.tags
    if low is None or high is None or not low < high or (log and low <= 0):
        raise UserError(f"{line} is not possible: the ends of an interval rise, and are above 0 on a logarithmic scale")
    return Interval(low, high, log, integer=isinstance(low, int) and isinstance(high, int))


@dataclass(frozen=True)
class Combination:
    """A choice of one option in each group: what it composes to, and which settings of the command line exist there."""

    chosen: tuple[str, ...]
    content: schema.Content
    fitting: tuple[Axis, ...]
    ranges: tuple[tuple[str, str], ...]
    """What the options declare for a search: (setting, what a command line would say)."""


@dataclass(frozen=True)
class CommandLine:
    """The overrides of a sweep as axes, in their order, and every combination of the groups among them."""

    axes: tuple[Axis, ...]
    groups: tuple[Axis, ...]
    combinations: tuple[Combination, ...]

    @classmethod
    def parse(
        cls,
        overrides: Sequence[str],
        *,
        is_group: Callable[[str], bool],
        compose: Compose,
        check: Callable[[schema.Content], object] | None,
    ) -> "CommandLine":
        """Raises UserError for a setting that exists for none of the choices, or a value that is not possible."""
        parser = OverridesParser.create()
        parsed = {override.key_or_group: override for override in parser.parse_overrides(list(overrides))}
        axes = tuple(Axis.parse(override, parser) for override in parsed.values())
        groups = tuple(axis for axis in axes if is_group(axis.name))
        settings = [axis for axis in axes if axis not in groups]
        combinations = []
        for chosen, base in compose_all([axis.texts for axis in groups], compose):
            content = schema.without_ranges(base)
            fitting = tuple(axis for axis in settings if axis.always or _exists(content, axis.name))
            if check is not None:
                check_values(content, fitting, check)
            combinations.append(Combination(chosen, content, fitting, tuple(_ranges(base))))
        applied = {axis.name for combination in combinations for axis in combination.fitting}
        known = {path for combination in combinations for path, _ in schema.leaves(combination.content)}
        _check_applied([axis for axis in settings if axis.name not in applied], known)
        return cls(axes, groups, tuple(combinations))

    def in_order(self, texts: Mapping[str, str]) -> tuple[str, ...]:
        """The override texts of a job, by axis, in the order of the command line; others follow."""
        names = [axis.name for axis in self.axes]
        others = [name for name in texts if name not in names]
        return tuple(texts[name] for name in (*names, *others) if name in texts)

    @property
    def swept(self) -> tuple[str, ...]:
        return tuple(axis.name for axis in self.axes if axis.is_swept)


class Plan(Protocol):
    """The jobs of a sweep, as they are known by now, in the order of their numbers."""

    @property
    def jobs(self) -> tuple[Job, ...]: ...
    @property
    def swept(self) -> tuple[str, ...]: ...
    @property
    def duplicates(self) -> int: ...
    @property
    def total(self) -> int:
        """How many jobs there will be."""

    def identity(self) -> str:
        """Equal where a sweep may be continued."""

    def state(self) -> dict[str, Any]:
        """What sweep.json keeps beside the jobs."""

    def restore(self, stored: Mapping[str, Any]) -> None:
        """Take up the state that stands in sweep.json."""

    def batches(self, jobs: Sequence[Job]) -> list[Sequence[Job]]:
        """These jobs by what became known together: only such jobs may train together, or a restart would differ."""

    def more(self) -> Sequence[Job]:
        """Further jobs to run; none where all are there."""


@dataclass(frozen=True)
class Grid:
    """The jobs of a grid in order, the swept keys, and how many duplicates were dropped."""

    jobs: tuple[Job, ...]
    swept: tuple[str, ...]
    duplicates: int

    @property
    def total(self) -> int:
        return len(self.jobs)

    def identity(self) -> str:
        """A hash of the jobs: what they compute, not how it was worded."""
        return digest({"jobs": [job.key for job in self.jobs]})

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, stored: Mapping[str, Any]) -> None:
        pass

    def batches(self, jobs: Sequence[Job]) -> list[Sequence[Job]]:
        return [jobs]

    def more(self) -> Sequence[Job]:
        """No jobs but those known from the start."""
        return ()


def grid(lines: Sequence[CommandLine], replicates: Sequence[Replicate]) -> Grid:
    """All combinations of the overrides of each line, in the order of the command line, groups before settings.

    A setting that does not exist for a job's choices of groups does not apply to that job; jobs that come out equal are run
    once. Each configuration is run once for each of the `replicates`.
    Raises UserError for an interval, which only a search can sample.
    """
    seen: dict[str, Job] = {}
    total = 0
    for line in lines:
        for combination, texts, values in _picks(line):
            for job in replicated(combination.content, values, texts, replicates):
                total += 1
                seen.setdefault(job.key, replace(job, number=len(seen)))
    swept = dict.fromkeys(name for line in lines for name in line.swept)
    # What each of several grids fixes at a value of its own varies among them.
    fixed = [{axis.name: axis.texts for axis in line.axes} for line in lines]
    swept |= dict.fromkeys(name for own in fixed for name in own if any(other.get(name) != own[name] for other in fixed))
    return Grid(tuple(seen.values()), with_replicates(tuple(swept), replicates), total - len(seen))


def _picks(line: CommandLine) -> Iterator[tuple[Combination, tuple[str, ...], dict[str, Any]]]:
    """Every combination of values of a line: with the overrides of the job, and its values by setting."""
    for axis in line.axes:
        if axis.interval is not None:
            raise UserError(f"{axis.name} is an interval, which a grid cannot list: use range or a list, or search=random")
    for combination in line.combinations:
        chosen = {axis.name: text for axis, text in zip(line.groups, combination.chosen, strict=True)}
        for picked in product(*(list(zip(axis.texts, axis.values, strict=True)) for axis in combination.fitting)):
            texts = {axis.name: text for axis, (text, _) in zip(combination.fitting, picked, strict=True)}
            values = {axis.name: value for axis, (_, value) in zip(combination.fitting, picked, strict=True)}
            yield combination, line.in_order(chosen | texts), values


def replicated(
    plain: Mapping[str, Any],
    values: Mapping[str, Any],
    overrides: Sequence[str],
    replicates: Sequence[Replicate],
    *,
    first: int = 0,
) -> list[Job]:
    """The jobs of one configuration, numbered from `first`: `plain` with `values` put in, once for each of the replicates."""
    jobs = []
    for index, replicate in enumerate(replicates):
        content = with_values(plain, {**values, **replicate.values})
        line = (*overrides, *replicate.overrides)
        jobs.append(Job(first + index, line, run_key(content), configuration_key(content), replicate.overrides, content))
    return jobs


def with_replicates(swept: Sequence[str], replicates: Sequence[Replicate]) -> tuple[str, ...]:
    """The swept keys, those of the replicates among them."""
    return tuple(dict.fromkeys([*swept, *(key for replicate in replicates for key in replicate.values)]))


def _exists(content: schema.Content, path: str) -> bool:
    node: Any = content
    for key in path.split("."):
        if not isinstance(node, Mapping) or key not in node:
            return False
        node = node[key]
    return True


def _ranges(content: schema.Content, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The declared ranges of a configuration as (setting, what a command line would say)."""
    for key, node in content.items():
        if key == schema.RANGES:
            yield from ((f"{prefix}{name}", str(text)) for name, text in node.items())
        elif isinstance(node, Mapping):
            yield from _ranges(node, f"{prefix}{key}.")


def check_values(content: schema.Content, axes: Sequence[Axis], check: Callable[[schema.Content], object]) -> None:
    """Every value of every axis by itself, which is linear in their number where the jobs are not."""
    first = {axis.name: axis.values[0] for axis in axes}
    check(with_values(content, first))
    for axis in axes:
        for value in axis.values[1:]:
            check(with_values(content, {**first, axis.name: value}))


def with_values(content: schema.Content, values: Mapping[str, Any]) -> dict[str, Any]:
    """The nested settings with values put at dotted paths; what stays is shared with the original."""
    changed = dict(content)
    for path, value in values.items():
        *parents, last = path.split(".")
        node = changed
        for parent in parents:
            node[parent] = dict(node.get(parent, {}))
            node = node[parent]
        node[last] = value
    return changed


def _check_applied(unused: Sequence[Axis], known: set[str]) -> None:
    for axis in unused:
        nearest = difflib.get_close_matches(axis.name, sorted(known), n=1, cutoff=0.5)
        hint = f": did you mean {nearest[0]}?" if nearest else ""
        raise UserError(f"{axis.name} is a setting of none of the choices in this sweep{hint}")


def replicates(seeds: int | Sequence[int] | None, cv: int | None) -> list[Replicate]:
    """Every seed, times every fold."""
    seed_list: Iterator[int] | Sequence[int] = range(seeds) if isinstance(seeds, int) else seeds or ()
    by_seed: list[dict[str, int]] = [{"seed": seed} for seed in seed_list] or [{}]
    by_fold: list[dict[str, int]] = [{"cv": cv, "fold": fold} for fold in range(cv)] if cv else [{}]
    repeated = [{**seed, **fold} for seed, fold in product(by_seed, by_fold)]
    return [Replicate(tuple(f"{key}={value}" for key, value in values.items()), values) for values in repeated]

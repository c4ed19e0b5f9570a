"""A grid: every combination of the listed values, conditional by itself, known from the start."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from ockham.errors import UserError
from ockham.identity import digest
from ockham.sweep.command_line import Combination, CommandLine
from ockham.sweep.jobs import Job, Replicate, configuration_jobs, swept_keys


@dataclass(frozen=True)
class Grid:
    """The jobs of a grid in order, the swept keys, and how many duplicates were dropped."""

    jobs: tuple[Job, ...]
    swept: tuple[str, ...]
    duplicates: int
    space_by_name: Mapping[str, Mapping[str, Any]]
    """The values of each swept setting."""
    waits_for_results = False

    @property
    def total(self) -> int:
        return len(self.jobs)

    def foreseen(self) -> Sequence[Job]:
        return self.jobs

    def identity(self) -> str:
        """A hash of the jobs: what they compute, not how it was worded."""
        return digest({"jobs": [job.key for job in self.jobs]})

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, stored: Mapping[str, Any]) -> None:
        pass

    def batches(self, jobs: Sequence[Job]) -> list[Sequence[Job]]:
        return [jobs]

    def more(self, *, slots: int) -> Sequence[Job]:
        """No jobs but those known from the start."""
        return ()


def grid(lines: Sequence[CommandLine], replicates: Sequence[Replicate], *, first: int = 0) -> Grid:
    """All combinations of the overrides of each line, in the order of the command line, groups before settings.

    A setting that does not exist for a job's choices of groups does not apply to that job; jobs that come out equal are run
    once. Each configuration is run once for each of the `replicates`. Jobs are numbered from `first` on.
    Raises UserError for an interval, which only a search can sample.
    """
    seen: dict[str, Job] = {}
    total = 0
    for line in lines:
        for combination, texts, values in _picks(line):
            for job in configuration_jobs(combination.content, values, texts, replicates, choices=combination.choices):
                total += 1
                seen.setdefault(job.key, replace(job, number=first + len(seen)))
    swept = dict.fromkeys(name for line in lines for name in line.swept)
    # What each of several grids fixes at a value of its own varies among them.
    fixed = [{axis.name: axis.texts for axis in line.axes} for line in lines]
    swept |= dict.fromkeys(name for texts in fixed for name in texts if any(other.get(name) != texts[name] for other in fixed))
    space = {axis.name: axis.extent for line in lines for axis in line.axes if axis.is_swept}
    return Grid(tuple(seen.values()), swept_keys(tuple(swept), replicates), total - len(seen), space)


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

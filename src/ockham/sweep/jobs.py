"""What a sweep runs: its jobs, and what every plan of jobs offers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal, Protocol

from ockham import schema
from ockham.identity import configuration_key, run_key


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    `key` identifies what it computes: jobs with one key are one job. `configuration_key` is the same without the seed and
    the fold, so that it names the row of summary.csv that the job counts for; `replicate` are the overrides of seed and fold.
    `content` is the configuration in plain containers, `choices` the option in each group of conf/. In a comparison `arm` names
    what is compared, and `stage` whether the job belongs to the search of its best setting or to the confirmation of that.
    """

    number: int
    overrides: tuple[str, ...]
    key: str
    configuration_key: str
    replicate: tuple[str, ...]
    content: Mapping[str, Any] = field(compare=False, repr=False)
    choices: Mapping[str, Any] = field(compare=False, repr=False)
    arm: str = ""
    stage: Literal["", "search", "confirm"] = ""


@dataclass(frozen=True)
class Replicate:
    """One repetition of every configuration: its seed, its fold, or both; nothing where there is a single one."""

    overrides: tuple[str, ...]
    values: Mapping[str, int]


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

    @property
    def waits_for_results(self) -> bool:
        """Whether more() is asked only when all jobs so far have ended."""

    def foreseen(self) -> Sequence[Job]:
        """The jobs that are known before any has run. Nothing is written."""

    def identity(self) -> str:
        """Equal where a sweep may be continued."""

    def state(self) -> dict[str, Any]:
        """What sweep.json keeps beside the jobs."""

    def restore(self, stored: Mapping[str, Any]) -> None:
        """Take up the state that stands in sweep.json."""

    def batches(self, jobs: Sequence[Job]) -> list[Sequence[Job]]:
        """These jobs by what became known together: only such jobs may train together, or a restart would differ."""

    def more(self, *, slots: int) -> Sequence[Job]:
        """Further jobs to run on so many slots; none where all are there."""


def make_replicates(seeds: int | Sequence[int] | None, cv: int | None) -> list[Replicate]:
    """Every seed, times every fold."""
    seed_list: Iterator[int] | Sequence[int] = range(seeds) if isinstance(seeds, int) else seeds or ()
    by_seed: list[dict[str, int]] = [{"seed": seed} for seed in seed_list] or [{}]
    by_fold: list[dict[str, int]] = [{"cv": cv, "fold": fold} for fold in range(cv)] if cv else [{}]
    repeated = [{**seed, **fold} for seed, fold in product(by_seed, by_fold)]
    return [Replicate(tuple(f"{key}={value}" for key, value in values.items()), values) for values in repeated]


def configuration_jobs(
    plain: schema.Content,
    values: Mapping[str, Any],
    overrides: Sequence[str],
    replicates: Sequence[Replicate],
    *,
    choices: Mapping[str, Any],
    first: int = 0,
) -> list[Job]:
    """The jobs of one configuration, numbered from `first`: `plain` with `values` put in, once for each of the replicates.

    `choices` are the options that `plain` was composed of.
    """
    jobs = []
    for index, replicate in enumerate(replicates):
        content = with_values(plain, {**values, **replicate.values})
        line = (*overrides, *replicate.overrides)
        keys = run_key(content), configuration_key(content)
        jobs.append(Job(first + index, line, *keys, replicate.overrides, content, choices))
    return jobs


def swept_keys(swept: Sequence[str], replicates: Sequence[Replicate]) -> tuple[str, ...]:
    """The swept keys, those of the replicates among them."""
    return tuple(dict.fromkeys([*swept, *(key for replicate in replicates for key in replicate.values)]))


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

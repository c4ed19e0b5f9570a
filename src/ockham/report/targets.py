"""Times to a target: how many runs of each configuration met it, and when; over several workloads, who is how far behind."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ockham.core.survival import Survival, profile_score, ratios, survival
from ockham.core.target import Target, parse_target
from ockham.record.folder import FINAL, TARGET_SECONDS
from ockham.report.analysis import ABSENT, Configuration, Results
from ockham.report.reading import RecordedRun

#: What time is counted in -> what it is called.
AXES = {
    "steps": "optimizer steps",
    "samples": "samples",
    "flops": "floating-point operations",
    "seconds": "train seconds",
}

#: Groups whose options and settings are the workload: what is solved rather than what solves it.
OF_WORKLOAD = ("data", "model")


@dataclass(frozen=True)
class TimesToTarget:
    """How long the runs of a configuration took to meet its target, by axis; an axis is absent where it is not known of all.

    A run that has ended without it (the whole length, diverged, pruned, stopped early) never meets it; one that failed, or
    still runs, is censored: it was only seen until then.
    """

    configuration: Configuration
    target: Target
    by_axis: Mapping[str, Survival]
    #: The longest that a run was trained without meeting it, by axis; absent where all met it or ended for good before.
    lengths: Mapping[str, float]

    @cached_property
    def num_met(self) -> int:
        return int(self.by_axis["steps"].events.sum())


@dataclass(frozen=True)
class Race:
    """Configurations with one target and workload, the quickest first by restricted mean of steps.

    `until` is the shortest length among them by axis: means are restricted to it.
    """

    workload: tuple[str, ...]
    target: Target
    times: tuple[TimesToTarget, ...]
    until: Mapping[str, float]


@dataclass(frozen=True)
class Profile:
    """Of one solver, its time on each workload over that of the quickest there, and AlgoPerf's score."""

    solver: str
    ratios: tuple[float, ...]

    @property
    def score(self) -> float:
        return profile_score(self.ratios)


def races(results: Results) -> list[Race]:
    """All configurations that have a target, by workload and target, in the order of the results."""
    groups: dict[tuple[tuple[str, ...], Target], list[TimesToTarget]] = {}
    keys = workload_keys(results)
    for configuration in results.configurations:
        times = times_to_target(configuration)
        if times is not None:
            workload = tuple(configuration.values[key] for key in keys)
            groups.setdefault((workload, times.target), []).append(times)
    return [_race(workload, target, times) for (workload, target), times in groups.items()]


def workload_keys(results: Results) -> list[str]:
    return [key for key in results.swept if key.partition(".")[0] in OF_WORKLOAD]


def _race(workload: tuple[str, ...], target: Target, times: Sequence[TimesToTarget]) -> Race:
    until = {axis: _until(axis, times) for axis in AXES if any(axis in each.by_axis for each in times)}
    ranked = sorted(times, key=lambda each: each.by_axis["steps"].restricted_mean(until["steps"])[0])
    return Race(workload, target, tuple(ranked), until)


def _until(axis: str, times: Sequence[TimesToTarget]) -> float:
    """The shortest length; where all runs met the target, the longest that one took."""
    lengths = [each.lengths[axis] for each in times if axis in each.lengths]
    if lengths:
        return min(lengths)
    return max((float(time) for each in times if axis in each.by_axis for time in each.by_axis[axis].times), default=0.0)


def times_to_target(configuration: Configuration) -> TimesToTarget | None:
    """None where the configuration has no target, or no run of it has been measured yet."""
    text = configuration.runs[0].settings.get("target")
    runs = [run for run in configuration.runs if run.epochs]
    if text is None or not runs:
        return None
    target = parse_target(str(text))
    by_axis, lengths = {}, {}
    for axis in AXES:
        times, happened, length = [], [], 0.0
        for run in runs:
            time, is_met = _time(run, target, axis)
            times.append(time)
            happened.append(is_met)
            if not is_met and not _ended_early(run):
                length = max(length, _spent(run, axis))
        if not any(map(math.isnan, times)):
            by_axis[axis] = survival(times, happened)
            if length > 0:
                lengths[axis] = length
    return TimesToTarget(configuration, target, by_axis, lengths)


def _time(run: RecordedRun, target: Target, axis: str) -> tuple[float, bool]:
    """Until the target was met, and that it was; otherwise how long it was not, infinite for a run that has ended."""
    position = target.first(run.epochs)
    if position is None:
        return (math.inf if run.state in FINAL else _spent(run, axis)), False
    if axis == "steps":
        return run.epochs[position]["step"], True
    if axis == "seconds":
        return (run.cost.get(TARGET_SECONDS, math.nan) if run.cost.get("shared") == 1 else math.nan), True
    return run.metrics.get(f"target/{axis}", math.nan), True


def _spent(run: RecordedRun, axis: str) -> float:
    """Until the last evaluation of the run; NaN where that is not known."""
    if axis == "steps":
        return run.epochs[-1]["step"]
    if axis == "seconds":
        return run.cost.get("train_seconds", math.nan) if run.cost.get("shared") == 1 else math.nan
    return run.metrics.get(axis, math.nan)


def _ended_early(run: RecordedRun) -> bool:
    """Whether the run ended for good before the length that it was given: longer ones of its kind tell as much of it."""
    return run.state in ("diverged", "pruned") or any(path.startswith("reg.early_stopping.") for path in run.settings)


def profiles(results: Results, found: Sequence[Race]) -> list[Profile]:
    """The solvers over the workloads, the best score first; empty with fewer than two of either.

    A solver is what differs besides the workload: the options, or where there are none the settings. Its time on a workload is
    the smallest median of steps over seeds among its configurations.
    """
    others = [key for key in results.swept if key not in workload_keys(results)]
    keys = [key for key in others if "." not in key] or others
    times: dict[str, dict[tuple[str, ...], float]] = {}
    for race in found:
        for each in race.times:
            values = each.configuration.values
            solver = ", ".join(values[key] for key in keys if values[key] != ABSENT)
            of_solver = times.setdefault(solver, {})
            median = each.by_axis["steps"].median()[0]
            of_solver[race.workload] = min(of_solver.get(race.workload, math.inf), median)
    workloads = list(dict.fromkeys(race.workload for race in found))
    if len(workloads) < 2 or len(times) < 2:
        return []
    table = ratios([[of_solver.get(workload, math.inf) for workload in workloads] for of_solver in times.values()])
    of_solvers = [Profile(solver, tuple(map(float, row))) for solver, row in zip(times, table, strict=True)]
    return sorted(of_solvers, key=lambda profile: -profile.score)

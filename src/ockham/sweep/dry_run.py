"""What a dry run prints of the jobs: where they lie, and what they will cost."""

import csv
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ockham.core.pace import duration
from ockham.identity import computed, digest
from ockham.record.folder import RunFolder
from ockham.sweep.comparison import Comparison
from ockham.sweep.folder import SweepFolder
from ockham.sweep.fusion import Fusion
from ockham.sweep.jobs import Job, Plan
from ockham.sweep.operations import Operations
from ockham.sweep.progress import name, varied

#: So many of the sweeps beside this one, the newest first, are looked at for what training took there.
MOST_EARLIER = 20
#: Of an accuracy between seeds, on tens of thousands, thousands and hundreds of images, where no earlier sweep says it.
USUAL_DEVIATIONS = (0.001, 0.003, 0.01)
#: What a sweep that is damaged, or of another version, may bring: nothing is known of it then.
UNREADABLE = (OSError, ValueError, LookupError, TypeError, ZeroDivisionError, YAMLError, OmegaConfBaseException)


def dry_run(plan: Plan, folder: SweepFolder, fusion: Fusion) -> str:
    """The jobs that are known before any has run, their folders, whether they are finished already, which train together, and
    their cost."""
    jobs = plan.foreseen()
    lines = [f"  #{job.number:<4} {folder.state(job) or 'waiting':<9} {' '.join(job.overrides)}" for job in jobs]
    if jobs:
        by_number = {job.number: job for job in jobs}
        for group in fusion.partition(jobs):
            task = [by_number[number] for number in group]
            lines.append(f"  group of {len(task)}: {name(task)}  {varied(task, plan.swept)}")
        cost = estimate(jobs, folder, slots=fusion.slots)
    else:
        cost = f"  {plan.total} jobs of a search, which chooses them as results come in; swept: {', '.join(plan.swept)}"
    if isinstance(plan, Comparison):
        lines.append(_confirmation(plan, folder))
    return "\n".join([*lines, f"  folders: {folder.path}/<number>", cost])


def _confirmation(plan: Comparison, folder: SweepFolder) -> str:
    """How well the seeds of the confirmation will tell arms apart, at the spread between seeds of earlier sweeps, or some
    that are usual."""
    confirm, arms = plan.confirm, len(plan.arms)
    content = plan.arms[0].plan.foreseen()[0].content if plan.arms[0].plan.foreseen() else None
    known = _earlier_deviation(folder, plan.metric, content) if content is not None else None
    lines = []
    for deviation in [known] if known is not None else USUAL_DEVIATIONS:
        # Arms share seeds, and what they share cancels: this is what a difference spreads by where they share nothing.
        of_difference = math.sqrt(2) * deviation
        blocks = confirm.blocks_needed(arms, of_difference)
        if confirm.resolve is None:
            shown = f"{confirm.block} seeds know a difference to +-{confirm.half_width(1, arms, of_difference):.2g}"
        elif blocks is None:
            shown = f"{len(confirm.replicates)} seeds do not suffice to know every difference to +-{confirm.resolve:g}"
        else:
            shown = f"about {blocks * confirm.block} seeds of each arm know every difference to +-{confirm.resolve:g}"
        lines.append(f"  confirmation: where {plan.metric} deviates by {deviation:.2g} between seeds, {shown}")
    lines[-1] += f" (as in an earlier sweep in {folder.path.parent})" if known is not None else " (guesses)"
    return "\n".join(lines)


def _earlier_deviation(folder: SweepFolder, metric: str, content: Mapping[str, Any]) -> float | None:
    """The standard deviation of the metric between seeds of one configuration, pooled over the newest sweep beside this one on
    the same data with the same model that has several."""
    for plan in _earlier(folder):
        with suppress(*UNREADABLE):
            swept = json.loads(plan.read_text())["swept"]
            if _trained(_content(plan, "0")) != _trained(content):
                continue
            by_configuration: dict[tuple[str, ...], list[float]] = {}
            with (plan.parent / "results.csv").open() as lines:
                for row in csv.DictReader(lines):
                    if row.get(metric):
                        key = tuple(row[name] for name in swept if name not in ("seed", "fold"))
                        by_configuration.setdefault(key, []).append(float(row[metric]))
            several = [values for values in by_configuration.values() if len(values) > 1]
            if several:
                squares = sum((len(values) - 1) * statistics.variance(values) for values in several)
                return math.sqrt(squares / sum(len(values) - 1 for values in several))
    return None


def estimate(jobs: Sequence[Job], folder: SweepFolder, *, slots: int) -> str:
    """Optimizer steps and floating-point operations of all jobs; the time that so many took in earlier sweeps on the same data
    with the same model, where there are any."""
    steps, flops, seconds = 0, 0.0, 0.0
    operations, rates = Operations(), _earlier_rates(folder)
    for job in jobs:
        training = operations.of(job.content)
        steps, flops = steps + training.steps, flops + training.flops
        seconds += rates.get(_trained(job.content), math.nan) * training.flops
    text = f"  {steps:,} optimizer steps, {flops:.3g} floating-point operations in training"
    if math.isnan(seconds):
        return text
    return f"{text}; about {duration(seconds / slots)} on {slots} slots, at the pace of earlier sweeps in {folder.path.parent}"


def _earlier_rates(folder: SweepFolder) -> dict[str, float]:
    """Seconds of training for an operation in the sweeps beside this one, the newest for each data and model.

    A member of a group has its share of the group's time, so that the sum over jobs is the time that slots were busy.
    """
    rates: dict[str, float] = {}
    for plan in _earlier(folder):
        with suppress(*UNREADABLE):
            swept = json.loads(plan.read_text())["swept"]
            if any(key.partition(".")[0] in ("data", "model") for key in swept):
                continue
            costs, results = (_numbers(plan.parent / file, column) for file, column in
                              (("costs.csv", "train_seconds"), ("results.csv", "flops")))  # fmt: skip
            known = [job for job in costs if job in results]
            rate = sum(costs[job] for job in known) / sum(results[job] for job in known)
            rates.setdefault(_trained(_content(plan, known[0])), rate)
    return rates


def _earlier(folder: SweepFolder) -> list[Path]:
    """The plans of the sweeps beside this one that have results, the newest first."""
    plans = [file for file in folder.path.parent.glob("*/sweep.json") if (file.parent / "costs.csv").exists()]
    return sorted(plans, key=lambda file: file.stat().st_mtime, reverse=True)[:MOST_EARLIER]


def _content(plan: Path, job: str) -> dict[str, Any]:
    """The configuration of a job of the sweep."""
    config = OmegaConf.to_container(OmegaConf.load(RunFolder(plan.parent / job).config_file), resolve=True)
    return cast("dict[str, Any]", config)


def _numbers(table: Path, column: str) -> dict[str, float]:
    """A column of the table by job, as far as it is filled."""
    with table.open() as lines:
        return {row["job"]: float(row[column]) for row in csv.DictReader(lines) if row[column]}


def _trained(content: Mapping[str, Any]) -> str:
    """Equal for runs of which an operation takes about as long."""
    return digest({path: value for path, value in computed(content).items() if path.startswith(("data.", "model."))})

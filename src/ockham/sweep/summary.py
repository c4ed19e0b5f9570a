"""Configurations over their seeds and folds: mean, and a 95% interval."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ockham.core.selection import maximised
from ockham.core.statistics import t_interval
from ockham.sweep.jobs import Plan

#: What is averaged; the rest of a configuration's metrics stands in results.csv.
AVERAGED = ("objective", "val/acc", "val/loss", "test/acc", "test/loss")


def summarise(plan: Plan, results: Sequence[Mapping[str, Any]], *, objective: str) -> list[dict[str, Any]]:
    """A row a configuration, the best first.

    Those without a finished run come last, and before them those of which a part was pruned or failed: the mean of what is
    left of them is not that of all their seeds.
    """
    members: dict[str, list[Mapping[str, Any]]] = {}
    for job, result in zip(plan.jobs, results, strict=True):
        members.setdefault(job.configuration, []).append(result)
    rows = [_row(plan, replicates) for replicates in members.values()]
    sign = -1 if maximised(objective) else 1
    return sorted(
        rows, key=lambda row: (row["n"] == 0, row["n"] < row["of"], sign * row["objective"] if row["n"] else 0, row["job"])
    )


def _row(plan: Plan, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    finished = [result for result in results if result["state"] == "finished"]
    row: dict[str, Any] = {"job": results[0]["job"]}
    row |= {key: results[0][key] for key in plan.swept if key not in ("seed", "cv", "fold")}
    row |= {"n": len(finished), "of": len(results)}
    for name in AVERAGED:
        values = [float(result[name]) for result in finished]
        low, high = t_interval(values)
        row[name] = statistics.fmean(values) if values else ""
        row[f"{name} low"] = "" if math.isnan(low) else low
        row[f"{name} high"] = "" if math.isnan(high) else high
    return row

"""Configurations over their seeds and folds: mean, and a 95% interval; and what a sweep prints of them at its end.

Test results stand in results.csv, the record of each run. Configurations are not compared by them: summary.csv and the screen
show them of the selected one only.
"""

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ockham.core.files import read_sealed_json
from ockham.core.selection import maximised
from ockham.record.screen import printable, repeating_command, shown_path
from ockham.sweep.jobs import Job

#: What is averaged; the rest of a configuration's metrics stands in results.csv.
AVERAGED = ("objective", "val/acc", "val/loss")

#: So many configurations are printed.
MOST_PRINTED = 10


def summarise(
    results: Sequence[tuple[Job, Mapping[str, Any]]], *, swept: Sequence[str], objective: str
) -> list[dict[str, Any]]:
    """A row a configuration, the best first, from each job with its row of results.csv.

    Those without a finished run come last, and before them those of which a part was pruned or failed: the mean of what is
    left of them is not that of all their seeds. The last column holds the numbers of all jobs of the configuration.
    """
    by_configuration: dict[str, list[Mapping[str, Any]]] = {}
    for job, result in results:
        by_configuration.setdefault(job.configuration_key, []).append(result)
    rows = [_row(swept, replicates) for replicates in by_configuration.values()]
    sign = -1 if maximised(objective) else 1

    def rank(row: Mapping[str, Any]) -> tuple[bool, bool, bool, float, int]:
        known = bool(row["n"]) and math.isfinite(row["objective"])
        return (not row["n"], not known, row["n"] < row["of"], sign * row["objective"] if known else 0.0, row["job"])

    return sorted(rows, key=rank)


def _row(swept: Sequence[str], results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    from ockham.core.statistics import t_interval  # late: SciPy is no part of planning

    finished = [result for result in results if result["state"] == "finished"]
    row: dict[str, Any] = {"job": results[0]["job"]}
    row |= {key: results[0][key] for key in swept if key not in ("seed", "cv", "fold")}
    row |= {"n": len(finished), "of": len(results)}
    for name in AVERAGED:
        values = [float(result[name]) for result in finished]
        low, high = t_interval(values)
        row[name] = statistics.fmean(values) if values else ""
        row[f"{name} low"] = "" if math.isnan(low) else low
        row[f"{name} high"] = "" if math.isnan(high) else high
    row["jobs"] = " ".join(str(result["job"]) for result in results)
    return row


def _shown_interval(low: str, high: str, *, is_share: bool) -> str:
    from ockham.core.statistics import bounded  # late: SciPy is no part of planning

    if not low:
        return ""
    interval = (float(low), float(high))
    return " - ".join(f"{end:.4f}" for end in (bounded(interval) if is_share else interval))


def sweep_result(folder: Path, *, objective: str) -> str:
    """The best configurations on validation; of the first of them the test result, and the command that repeats it."""
    finished = [row for row in _read(folder / "summary.csv") if int(row["n"])]
    if not finished:
        return f"  no job is finished; see {shown_path(folder)}"
    rows, best = finished[:MOST_PRINTED], finished[0]
    swept = list(best)[1 : list(best).index("n")]
    table = [["job", *swept, "n", objective, "95% interval"]]
    for row in rows:
        interval = _shown_interval(row["objective low"], row["objective high"], is_share=maximised(objective))
        table.append([row["job"], *(row[key] for key in swept), row["n"], f"{float(row['objective']):.4f}", interval])
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    lines += [f"and {len(finished) - len(rows)} more: summary.csv"] if len(finished) > len(rows) else []
    results = _read(folder / "results.csv")
    repeats = [row for row in results if row["job"] in best["jobs"].split() and row["state"] == "finished"]
    jobs = read_sealed_json(folder / "sweep.json")["jobs"]
    notes = dict.fromkeys(row["note"] for row in results if row["note"])
    overrides = next(job["overrides"] for job in jobs if str(job["number"]) == repeats[0]["job"])
    return "\n".join(
        [
            *(f"  {line}" for line in lines),
            "",
            f"  best     {repeating_command(overrides)}",
            *_test_lines(repeats),
            f"  tables   {shown_path(folder)}/*.csv",
            *(f"  note     {printable(note)}" for note in notes),
        ]
    )


def _test_lines(repeats: Sequence[Mapping[str, str]]) -> list[str]:
    """The test result of the selected configuration, where the test set was evaluated."""
    if not all(row["test/acc"] for row in repeats):
        return []
    accuracy, loss = (statistics.fmean(float(row[name]) for row in repeats) for name in ("test/acc", "test/loss"))
    return [f"  test     accuracy {accuracy:.4f}, loss {loss:.4f}: of the best on validation"]


def _read(file: Path) -> list[dict[str, str]]:
    with file.open() as lines:
        return list(csv.DictReader(lines))

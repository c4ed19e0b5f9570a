"""All epochs of all runs as one tidy table, for pandas and its like."""

from pathlib import Path

from ockham.core.files import write_atomic
from ockham.core.measures import MEASURES, measured_columns
from ockham.core.tables import csv_table
from ockham.errors import UserError
from ockham.record.folder import EPOCH_SCALARS
from ockham.report.reading import RecordedRuns


def export_epochs(recorded: RecordedRuns, path: Path) -> int:
    """Write a csv with a row an epoch and run: what the run is, its options and overrides, the scalars; returns the rows.

    Raises UserError for another ending than .csv.
    """
    if path.suffix != ".csv":
        raise UserError(f"--export {path}: the table is written as csv; name a file that ends in .csv")
    keys = list(dict.fromkeys(key for run in recorded.runs for key in run.values))
    written = {name for run in recorded.runs if run.epochs for name in run.epochs[0]}
    scalars = [*EPOCH_SCALARS, *(name for name in measured_columns(MEASURES) if name in written)]
    head = ["folder", "configuration", "state", "stage", "seed", "fold", "note", *keys, "epoch", "step", *scalars]
    rows = []
    for run in recorded.runs:
        facts = [str(run.path), run.configuration_key, run.state, run.stage, *run.replicate, run.note]
        facts += [run.values.get(key, "") for key in keys]
        for epoch in run.epochs:
            rows.append([*facts, int(epoch["epoch"]), int(epoch["step"]), *(epoch.get(name, "") for name in scalars)])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, csv_table(head, rows))
    return len(rows)

"""All epochs of all runs as one tidy table, for pandas and its like."""

import csv
import io
from pathlib import Path

from ockham.core.files import write_atomic
from ockham.errors import UserError
from ockham.record.folder import EPOCH_SCALARS
from ockham.report.reading import Runs


def export_epochs(runs: Runs, path: Path) -> int:
    """Write a csv with a row an epoch and run: folder, state, seed, fold, options and overrides, scalars; returns the rows.

    Raises UserError for another ending than .csv.
    """
    if path.suffix != ".csv":
        raise UserError(f"--export {path}: the table is written as csv; name a file that ends in .csv")
    keys = list(dict.fromkeys(key for run in runs.runs for key in run.values))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["folder", "configuration", "state", "seed", "fold", *keys, "epoch", "step", *EPOCH_SCALARS])
    count = 0
    for run in runs.runs:
        own = [run.path, run.configuration, run.state, *run.replicate, *(run.values.get(key, "") for key in keys)]
        for epoch in run.epochs:
            writer.writerow([*own, int(epoch["epoch"]), int(epoch["step"]), *(epoch.get(name, "") for name in EPOCH_SCALARS)])
            count += 1
    write_atomic(path, text.getvalue().encode())
    return count

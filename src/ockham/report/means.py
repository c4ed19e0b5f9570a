"""The mean of each configuration over its seeds, as runs of their own in TensorBoard."""

import re
import shutil
import statistics
from pathlib import Path

from ockham.core.statistics import t_interval
from ockham.record.events import MOST_POINTS, write_mean
from ockham.record.folder import EPOCH_SCALARS
from ockham.report.analysis import Configuration, Results

FOLDER = "mean"


def write_means(results: Results, sweep: Path) -> None:
    """Write `<sweep>/mean/<configuration>` for each configuration with two finished runs or more, anew each time."""
    shutil.rmtree(sweep / FOLDER, ignore_errors=True)
    for configuration in results.finished:
        epochs = _mean(configuration) if configuration.n > 1 else []
        if epochs:
            write_mean(sweep / FOLDER / re.sub(r"[^\w.=+-]+", "_", configuration.label), epochs)


def _mean(configuration: Configuration) -> list[dict[str, float]]:
    """Means after each epoch that all finished runs have, with the ends of the interval of the scores on validation."""
    rows = []
    for epochs in configuration.curves(MOST_POINTS):
        row = {"step": epochs[0]["step"]}
        for name in EPOCH_SCALARS:
            values = [epoch[name] for epoch in epochs]
            row[name] = statistics.fmean(values)
            if name in ("val/acc", "val/loss"):
                row[f"band/{name}/low"], row[f"band/{name}/high"] = t_interval(values)
        rows.append(row)
    return rows

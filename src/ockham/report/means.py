"""The mean of each configuration over its seeds, as runs of their own in TensorBoard."""

import re
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from ockham.core.measures import MEASURES, measured_columns
from ockham.core.statistics import t_interval
from ockham.record.events import MOST_POINTS, write_mean
from ockham.record.folder import EPOCH_SCALARS
from ockham.report.analysis import Configuration, Results

FOLDER = "mean"


Epochs = Sequence[Mapping[str, float]]


def means(results: Results) -> dict[str, Epochs]:
    """Of each configuration with two finished runs or more the mean epochs, by its label."""
    by_label = {configuration.label: _mean(configuration) for configuration in results.finished if configuration.n > 1}
    return {label: epochs for label, epochs in by_label.items() if epochs}


def write_means(means: Mapping[str, Epochs], sweep: Path) -> None:
    """Write `<sweep>/mean/<configuration>` for each of them, anew each time."""
    shutil.rmtree(sweep / FOLDER, ignore_errors=True)
    for label, epochs in means.items():
        write_mean(sweep / FOLDER / re.sub(r"[^\w.=+-]+", "_", label), epochs)


def _mean(configuration: Configuration) -> list[dict[str, float]]:
    """Means after each epoch that all finished runs have, with the ends of the interval of the scores on validation."""
    rows = []
    for epochs in configuration.curves(MOST_POINTS):
        row = {"step": epochs[0]["step"]}
        for name in (*EPOCH_SCALARS, *(name for name in measured_columns(MEASURES) if name in epochs[0])):
            values = [epoch[name] for epoch in epochs]
            row[name] = statistics.fmean(values)
            if name in ("val/acc", "val/loss"):
                row[f"band/{name}/low"], row[f"band/{name}/high"] = t_interval(values)
        rows.append(row)
    return rows

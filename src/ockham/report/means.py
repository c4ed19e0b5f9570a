"""The mean of each configuration over its seeds, as runs of their own in TensorBoard."""

import re
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ockham.core.measures import MEASURES, measured_columns
from ockham.core.statistics import t_interval
from ockham.record.events import HPARAM_METRICS, MOST_POINTS, write_mean
from ockham.record.folder import EPOCH_SCALARS
from ockham.report.analysis import Configuration, Results

FOLDER = "mean"

#: TensorBoard shows no run where there are more than 40: with the pictures of the best run these are as many.
MOST_MEANS = 39


Epochs = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Mean:
    """Of a configuration over its seeds and folds: epochs, final metrics, and the name of the folder of one of its runs."""

    label: str
    epochs: Epochs
    metrics: Mapping[str, float]
    folder: str


def means(results: Results) -> list[Mean]:
    """The means of the best configurations, also of those with a single run."""
    found = []
    for configuration in results.finished:
        epochs = _mean(configuration)
        if epochs:
            metrics = {name: configuration.mean(name) for name in HPARAM_METRICS}
            found.append(Mean(configuration.label, epochs, metrics, configuration.finished[0].path.name))
    return found[:MOST_MEANS]


def write_means(means: Sequence[Mean], folder: Path, hparams: Mapping[str, Mapping[str, str | float | bool]]) -> None:
    """Write `<folder>/mean/<configuration>` for each of them, anew each time; `hparams` are those of each mean by its label."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    for mean in means:
        name = re.sub(r"[^\w.=+-]+", "_", mean.label)
        write_mean(folder / FOLDER / name, mean.epochs, hparams[mean.label], mean.metrics)


def _mean(configuration: Configuration) -> list[dict[str, float]]:
    """Means after each epoch that all finished runs have, with the ends of the interval of the scores on validation, where it
    is known."""
    rows = []
    for epochs in configuration.curves(MOST_POINTS):
        row = {"step": epochs[0]["step"]}
        for name in (*EPOCH_SCALARS, *(name for name in measured_columns(MEASURES) if name in epochs[0])):
            values = [epoch[name] for epoch in epochs]
            row[name] = statistics.fmean(values)
            if name in ("val/acc", "val/loss") and len(values) > 1:
                row[f"band/{name}/low"], row[f"band/{name}/high"] = t_interval(values)
        rows.append(row)
    return rows

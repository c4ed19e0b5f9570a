"""Ockham: controlled experiments on optimizers and regularizers.

import ockham

runs = ockham.read("outputs/sweeps/first")
runs.groupby(["optimizer", "reg"])["val/acc"].agg(["mean", "count"])
epochs = ockham.read_epochs("outputs/sweeps/first")
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__version__ = "0.1.0"


def read(*folders: str | Path) -> "pd.DataFrame":
    """Every run at and below the folders (runs, sweeps, or folders of them) as a row, also runs that train at the moment.

    Columns: `folder`, `configuration` (equal for repetitions of one), `state`; of a comparison `arm` and `stage` (`search` or
    `confirm`: the first is no evidence); `seed`, `fold`, `judged_by`, `note`, `reason` (why it failed); the option in each
    group (`optimizer`, `reg`, ...); every setting by dotted path (`optimizer.lr`), lists as text; the keys of metrics.json and
    of cost.json. What a run has not is missing (NaN or None).

    Raises UserError where a folder does not exist, or pandas is not installed (the extra `pandas`); warns of a run folder that
    cannot be read, and leaves it out.
    """
    from ockham.report import frames, reading  # late: the command line and workers import this package too

    return frames.frame_of_runs(reading.read([Path(folder) for folder in folders]))


def read_epochs(*folders: str | Path) -> "pd.DataFrame":
    """Every epoch of the runs that `read` finds as a row: the columns of the run but its results, then those of metrics.csv."""
    from ockham.report import frames, reading

    return frames.frame_of_epochs(reading.read([Path(folder) for folder in folders]))

"""Runs and their epochs as tables of pandas, where that is installed."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ockham.errors import UserError
from ockham.record.folder import COSTS, EPOCH_SCALARS, FINAL_METRICS
from ockham.report.reading import GROUPS, RecordedRun, RecordedRuns

if TYPE_CHECKING:
    import pandas as pd

#: What is known of a run before its settings.
FACTS = ("folder", "configuration", "state", "arm", "stage", "seed", "fold", "judged_by", "note", "reason")

Row = tuple[dict[str, Any], dict[str, Any]]
"""What a run is, and what came of it."""


def frame_of_runs(recorded: RecordedRuns) -> "pd.DataFrame":
    """A row a run: FACTS, the option in each group, every setting by dotted path; its final figures and costs."""
    rows = [(_settings(run), {**run.metrics, **run.cost}) for run in recorded.runs]
    return _frame(recorded, rows, (*FINAL_METRICS, *COSTS))


def frame_of_epochs(recorded: RecordedRuns) -> "pd.DataFrame":
    """A row an epoch: FACTS, options and settings of its run; `epoch`, `step`, and what was measured then."""
    rows: list[Row] = []
    for run in recorded.runs:
        settings = _settings(run)
        rows += [(settings, {**epoch, "epoch": int(epoch["epoch"]), "step": int(epoch["step"])}) for epoch in run.epochs]
    return _frame(recorded, rows, ("epoch", "step", *EPOCH_SCALARS))


def _settings(run: RecordedRun) -> dict[str, Any]:
    identity = (str(run.path), run.configuration_key, run.state, run.arm, run.stage)
    facts = dict(zip(FACTS, (*identity, *run.replicate, run.objective, run.note, run.reason), strict=True))
    options = {group: run.values.get(group) for group in (*GROUPS, "reg")}
    settings = {path: _cell(value) for path, value in run.settings.items() if not _is_shown_otherwise(path)}
    return {**facts, **options, **settings}


def _is_shown_otherwise(path: str) -> bool:
    """A setting that is one of FACTS, or a class, which the option of its group names."""
    return path in ("seed", "fold", "objective") or path.endswith("._target_")


def _cell(value: Any) -> Any:
    """A list as text: pandas groups by what can be hashed."""
    return str(value) if isinstance(value, list) else value


def _frame(recorded: RecordedRuns, rows: list[Row], results: Sequence[str]) -> "pd.DataFrame":
    """The rows; FACTS and `results` are columns also where no row has them. Warns of folders that could not be read.

    Raises UserError without pandas.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise UserError("tables of runs need the package pandas: pip install 'ockham[pandas]'") from error
    for path, problem in recorded.problems:
        warnings.warn(f"{path} is left out: {problem}", stacklevel=4)
    settings = dict.fromkeys([*FACTS, *(key for row, _ in rows for key in row)])
    columns = dict.fromkeys([*settings, *results, *(key for _, row in rows for key in row)])
    return pd.DataFrame([{**of_run, **of_results} for of_run, of_results in rows], columns=list(columns))

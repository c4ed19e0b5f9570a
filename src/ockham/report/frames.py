"""Runs and their epochs as tables of pandas, where that is installed."""

import warnings
from typing import TYPE_CHECKING, Any

from ockham.errors import UserError
from ockham.record.folder import COSTS, EPOCH_SCALARS, FINAL_METRICS
from ockham.report.reading import GROUPS, RecordedRun, RecordedRuns

if TYPE_CHECKING:
    import pandas as pd

#: What is known of a run before its settings.
FACTS = ("folder", "configuration", "state", "stage", "seed", "fold", "judged_by", "note", "reason")


def frame_of_runs(recorded: RecordedRuns) -> "pd.DataFrame":
    """A row a run: FACTS, the option in each group, every setting by dotted path, FINAL_METRICS, COSTS."""
    rows = [{**_settings(run), **run.metrics, **run.cost} for run in recorded.runs]
    return _frame(recorded, rows, (*FINAL_METRICS, *COSTS))


def frame_of_epochs(recorded: RecordedRuns) -> "pd.DataFrame":
    """A row an epoch of a run: FACTS, options and settings of its run, `epoch`, `step`, EPOCH_SCALARS."""
    rows = [
        {**_settings(run), **epoch, "epoch": int(epoch["epoch"]), "step": int(epoch["step"])}
        for run in recorded.runs
        for epoch in run.epochs
    ]
    return _frame(recorded, rows, ("epoch", "step", *EPOCH_SCALARS))


def _settings(run: RecordedRun) -> dict[str, Any]:
    seed, fold = run.replicate
    facts = (str(run.path), run.configuration_key, run.state, run.stage, seed, fold, run.objective, run.note, run.reason)
    options = {group: run.values.get(group) for group in (*GROUPS, "reg")}
    settings = {path: _cell(value) for path, value in run.settings.items() if not _is_shown_otherwise(path)}
    return {**dict(zip(FACTS, facts, strict=True)), **options, **settings}


def _is_shown_otherwise(path: str) -> bool:
    """A setting that is one of FACTS, or a class, which the option of its group names."""
    return path in ("seed", "fold", "objective") or path.endswith("._target_")


def _cell(value: Any) -> Any:
    """A list as text: pandas groups by what can be hashed."""
    return str(value) if isinstance(value, list) else value


def _frame(recorded: RecordedRuns, rows: list[dict[str, Any]], last: tuple[str, ...]) -> "pd.DataFrame":
    """The rows under FACTS, what else they have, and `last`. Warns of folders that could not be read.

    Raises UserError without pandas.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise UserError("tables of runs need the package pandas: pip install 'ockham[pandas]'") from error
    for path, problem in recorded.problems:
        warnings.warn(f"{path} is left out: {problem}", stacklevel=4)
    between = dict.fromkeys(key for row in rows for key in row if key not in FACTS and key not in last)
    return pd.DataFrame(rows, columns=[*FACTS, *between, *last])

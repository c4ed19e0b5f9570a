"""Runs from their folders into MLflow or Weights & Biases, after the fact: what a run is, its curves, its final figures."""

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ockham.errors import UserError
from ockham.identity import digest
from ockham.record.screen import error_screen
from ockham.report.reading import RecordedRun, RecordedRuns, read

DESCRIPTION = """\
Copy runs and sweeps into another tracker, after the fact.

  $PROGRAM outputs/sweeps/<name> --to mlflow     into MLFLOW_TRACKING_URI, or else mlflow.db in the folder
  $PROGRAM outputs/sweeps/<name> --to wandb      into wandb/ in the folder, offline; `wandb sync` uploads it

Each run has its settings, its curves against optimizer steps, its final figures as final/<name>, and as tags what it is. MLflow
has a run once, however often it is exported; Weights & Biases gets it under the same id again.
"""

T = TypeVar("T")

#: Entries of one request to MLflow.
METRICS_AT_ONCE, PARAMETERS_AT_ONCE = 1000, 100


def main(words: Sequence[str], *, program: str) -> None:
    """Do what the words after `program` ask for. A mistake ends the process with exit code 2."""
    description = DESCRIPTION.replace("$PROGRAM", program)
    parser = argparse.ArgumentParser(program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a sweep, a run, or a folder of them")
    parser.add_argument("--to", choices=list(TRACKERS), required=True, help="the tracker")
    arguments = parser.parse_args(words)
    try:
        recorded = read([arguments.folder])
        if not recorded.runs:
            raise UserError(f"{arguments.folder}: no run has begun there")
        place = TRACKERS[arguments.to](recorded, arguments.folder)
    except (UserError, OSError) as error:
        print(error_screen(str(error)), file=sys.stderr)
        sys.exit(2)
    print(place)


def to_mlflow(recorded: RecordedRuns, folder: Path) -> str:
    """An experiment with the name of the folder; says where it is.

    Raises UserError without MLflow.
    """
    try:
        import mlflow
    except ImportError as error:
        raise UserError("--to mlflow needs the package mlflow: pip install 'ockham[mlflow]'") from error
    name = folder.resolve().name
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / 'mlflow.db').resolve()}"
    client = mlflow.MlflowClient(tracking_uri=uri)
    known = client.get_experiment_by_name(name)
    experiment = client.create_experiment(name) if known is None else known.experiment_id
    for run in recorded.runs:
        if not client.search_runs([experiment], f"tags.`ockham.run` = '{_identifier(run)}'"):
            _write_to_mlflow(client, experiment, run)
    return f"experiment {name} in {uri}"


def _write_to_mlflow(client: Any, experiment: str, run: RecordedRun) -> None:
    from mlflow.entities import Metric, Param

    tags = {f"ockham.{key}": text for key, text in _tags(run).items()}
    created = client.create_run(experiment, run_name=_name(run), tags=tags)
    key = created.info.run_id
    for parameters in _parts(list(run.settings.items()), PARAMETERS_AT_ONCE):
        client.log_batch(key, params=[Param(path, str(value)) for path, value in parameters])
    points = [(step, name, value) for step, scalars in _curves(run) for name, value in scalars.items()]
    last = int(run.epochs[-1]["step"]) if run.epochs else 0
    points += [(last, name, value) for name, value in _final(run).items()]
    for metrics in _parts(points, METRICS_AT_ONCE):
        client.log_batch(key, metrics=[Metric(name, value, 0, step) for step, name, value in metrics])
    status = {"finished": "FINISHED", "running": "RUNNING", "pruned": "KILLED"}.get(run.state, "FAILED")
    if status != "RUNNING":
        client.set_terminated(key, status=status)


def _parts(entries: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (entries[begin : begin + size] for begin in range(0, len(entries), size))


def to_wandb(recorded: RecordedRuns, folder: Path) -> str:
    """A project with the name of the folder, in files that `wandb sync` uploads; says where they are.

    Raises UserError without wandb.
    """
    try:
        import wandb
    except ImportError as error:
        raise UserError("--to wandb needs the package wandb: pip install 'ockham[wandb]'") from error
    for run in recorded.runs:
        written = wandb.init(
            project=folder.resolve().name,
            name=_name(run),
            id=_identifier(run),
            group=run.configuration_key,
            config={**run.settings, **{f"ockham.{key}": text for key, text in _tags(run).items()}},
            dir=folder,
            mode="offline",
            settings=wandb.Settings(silent=True, console="off"),
        )
        for step, scalars in _curves(run):
            written.log(scalars, step=step)
        written.summary.update(_final(run))
        written.finish(exit_code=0 if run.state in ("finished", "pruned") else 1)
    wandb.teardown()  # the process that writes the files is still at it after `finish`
    return f"{folder / 'wandb'}: wandb sync uploads it"


#: Writes the runs to a tracker, beside the folder where it keeps files; returns where they are.
TRACKERS: dict[str, Callable[[RecordedRuns, Path], str]] = {"mlflow": to_mlflow, "wandb": to_wandb}


def _identifier(run: RecordedRun) -> str:
    """The same for the same run in the same folder, however often it is exported."""
    return digest({"configuration": run.configuration_key, "replicate": run.replicate, "folder": str(run.path.resolve())})


def _name(run: RecordedRun) -> str:
    return "/".join(run.path.resolve().parts[-2:])


def _tags(run: RecordedRun) -> dict[str, str]:
    """What a run is, and its options by group; what it has not is left out."""
    seed, fold = run.replicate
    tags = {"run": _identifier(run), "configuration": run.configuration_key, "state": run.state, "arm": run.arm}
    tags |= {"stage": run.stage, "note": run.note, "seed": _text(seed), "fold": _text(fold)}
    tags |= {group: text for group, text in run.values.items() if "." not in group}
    return {key: text for key, text in tags.items() if text}


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _curves(run: RecordedRun) -> Iterator[tuple[int, dict[str, float]]]:
    for epoch in run.epochs:
        yield int(epoch["step"]), _finite({name: value for name, value in epoch.items() if name != "step"})


def _final(run: RecordedRun) -> dict[str, float]:
    return _finite({f"final/{name}": value for name, value in {**run.metrics, **run.cost}.items()})


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    """Without what is no number: databases refuse it."""
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}

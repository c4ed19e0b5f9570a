"""What MLflow and Weights & Biases hold after an export, read back from their files."""

import json
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ockham.errors import UserError
from ockham.record.folder import EPOCH_SCALARS
from ockham.report.reading import RecordedRun, RecordedRuns
from ockham.report.trackers import to_mlflow, to_wandb
from recorded import run


@pytest.fixture
def recorded() -> RecordedRuns:
    """A finished run with two evaluations, and one that diverged, whose last loss is no number."""
    return RecordedRuns([evaluated(0, "finished", 0.25), evaluated(1, "diverged", float("nan"))])


def evaluated(seed: int, state: str, loss: float) -> RecordedRun:
    one = run({"optimizer": "adam", "reg": "none"}, 0.9, seed=seed, state=state)
    epochs = [
        {"epoch": 1.0, "step": 7.0, **dict.fromkeys(EPOCH_SCALARS, 0.5)},
        {"epoch": 2.0, "step": 14.0, **dict.fromkeys(EPOCH_SCALARS, 0.5), "val/loss": loss},
    ]
    metrics = one.metrics if state == "finished" else {}
    settings = {"optimizer.lr": 1e-3, "model.hidden": [16], "seed": seed}
    return replace(one, path=Path("sweep") / str(seed), epochs=epochs, metrics=metrics, settings=settings, note="a try")


@pytest.mark.filterwarnings("ignore:.*noload.*")  # MLflow asks SQLAlchemy for what that calls old
def test_mlflow_holds_each_run_once(recorded: RecordedRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "first"
    folder.mkdir()
    for _ in range(2):
        assert to_mlflow(recorded, folder) == f"experiment first in sqlite:///{folder / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("first").experiment_id])
    finished, diverged = sorted(runs, key=lambda one: one.data.tags["ockham.seed"])
    assert (finished.info.status, diverged.info.status) == ("FINISHED", "FAILED")
    assert (finished.info.run_name, finished.data.tags["ockham.optimizer"]) == ("sweep/0", "adam")
    assert finished.data.tags["ockham.note"] == "a try"
    assert finished.data.params == {"optimizer.lr": "0.001", "model.hidden": "[16]", "seed": "0"}
    assert finished.data.metrics["final/val/acc"] == 0.9
    history = client.get_metric_history(finished.info.run_id, "val/loss")
    assert [(point.step, point.value) for point in history] == [(7, 0.5), (14, 0.25)]
    assert [point.step for point in client.get_metric_history(diverged.info.run_id, "val/loss")] == [7]


def records(file: Path) -> Iterator[Any]:
    """The records of an offline run: LevelDB's log format with a header of seven bytes, of protocol buffers."""
    from wandb.proto import wandb_internal_pb2

    content, position, whole = file.read_bytes(), 7, b""
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        whole += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def test_wandb_holds_settings_curves_and_final_figures(recorded: RecordedRuns, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    folder = tmp_path / "first"
    folder.mkdir()
    to_wandb(RecordedRuns(recorded.runs[:1]), folder)
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    by_kind: dict[str, list[Any]] = {}
    for record in records(file):
        by_kind.setdefault(record.WhichOneof("record_type"), []).append(record)
    began = by_kind["run"][0].run
    assert (began.project, began.display_name) == ("first", "sweep/0")
    config = {entry.key or entry.nested_key[0]: json.loads(entry.value_json) for entry in began.config.update}
    assert (config["optimizer.lr"], config["model.hidden"], config["ockham.optimizer"]) == (1e-3, [16], "adam")
    curves = []
    for record in by_kind["history"]:
        values = {entry.key or entry.nested_key[0]: json.loads(entry.value_json) for entry in record.history.item}
        curves.append((values["_step"], values["val/loss"]))
    assert curves == [(7, 0.5), (14, 0.25)]
    summary = {
        entry.key or entry.nested_key[0]: json.loads(entry.value_json)
        for record in by_kind["summary"]
        for entry in record.summary.update
    }
    assert summary["final/val/acc"] == 0.9


@pytest.mark.parametrize(("export", "package"), [(to_mlflow, "mlflow"), (to_wandb, "wandb")])
def test_without_the_package_the_extra_is_named(
    export: Any, package: str, recorded: RecordedRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"pip install 'ockham\[{package}\]'"):
        export(recorded, tmp_path)

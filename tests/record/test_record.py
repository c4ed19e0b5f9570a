"""The run folder: what is in it, and that nothing half-written is taken for whole."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra.types import RunMode
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto import event_pb2

from ockham.core.files import write_atomic
from ockham.core.measures import MEASURES, measured_finally
from ockham.record.checkpoint import FORMAT, Checkpoint
from ockham.record.cost import peak_memory_bytes
from ockham.record.events import HPARAM_METRICS, TEST_METRICS
from ockham.record.folder import COSTS, EPOCH_SCALARS, FINAL_METRICS, HIGHEST_LOSS, RunFolder, State, divergence
from ockham.record.hydra_files import write_hydra_files, yaml_text

RunSmall = Callable[..., RunFolder]
README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


def test_a_finished_run_holds_everything(small_run: RunSmall) -> None:
    folder = small_run("reg=[l1,l2]")
    metrics, cost, status = folder.metrics(), folder.cost(), folder.status()
    assert tuple(metrics) == FINAL_METRICS
    assert tuple(cost) == COSTS
    assert all(isinstance(value, (int, float)) for value in [*metrics.values(), *cost.values()])
    assert status["state"] == "finished"
    assert status["attempt"] == 1
    assert status["pid"] == os.getpid()
    assert status["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert re.fullmatch(r"[0-9a-f]{40}", status["code"]["commit"] or "0" * 40)
    assert metrics["gap/loss"] == metrics["val/loss"] - metrics["train/loss"]
    assert metrics["gap/acc"] == metrics["train/acc"] - metrics["val/acc"]
    assert metrics["parameters"] == 784 * 16 + 16 + 16 * 10 + 10
    assert metrics["samples"] == 200 * 4
    assert metrics["flops"] == (4 * (784 * 16 + 16 * 10) + 2 * 16 * 10 - 2 * 16 * 10 + 2 * 160) * 200 * 4
    weights = Checkpoint.load(folder.best_checkpoint).model
    matrices = torch.cat([weights[name].flatten().double() for name in ("hidden.0.linear.weight", "output.weight")])
    assert metrics["weight_norm"] == pytest.approx(float(matrices.norm()), rel=1e-12)
    expected = 1e-3 * matrices.abs().sum() + 1e-4 * matrices.square().sum()
    assert metrics["penalty"] == pytest.approx(float(expected), rel=1e-5)
    rows = folder.epochs()
    assert tuple(rows[0]) == ("epoch", "step", *EPOCH_SCALARS)
    assert [row["step"] for row in rows] == [7, 14, 21, 28]


def test_the_readme_explains_every_metric() -> None:
    keys = (*FINAL_METRICS, *measured_finally(MEASURES), *COSTS, "train/objective", "lr")
    missing = [key for key in keys if f"`{key}`" not in README]
    assert not missing


def test_tensorboard_shows_the_rows_of_metrics_csv(small_run: RunSmall) -> None:
    folder = small_run("logger=tensorboard")
    events = EventAccumulator(str(folder.path), size_guidance={"images": 0}).Reload()
    for tag in EPOCH_SCALARS:
        shown = [(event.step, event.value) for event in events.Scalars(tag)]
        expected = [(int(row["step"]), pytest.approx(row[tag], rel=1e-6)) for row in folder.epochs()]
        assert shown == expected, tag
    assert len(events.Scalars("samples_per_second")) == 4
    for name, tag in (HPARAM_METRICS | TEST_METRICS).items():
        (final,) = events.Scalars(tag)
        assert (final.step, final.value) == (28, pytest.approx(folder.metrics()[name], rel=1e-6))
    images = set(events.Tags()["images"])
    assert images == {"test/confusion", "test/confidently_wrong", "model/first_layer"}
    assert "custom_scalars__config__" in events.Tags()["tensors"]


def test_an_evaluation_is_one_record_of_tensorboard(small_run: RunSmall) -> None:
    folder = small_run("logger=tensorboard")
    (file,) = folder.path.glob("events.out.tfevents.*")
    records = [event_pb2.Event.FromString(record) for record in RawEventFileLoader(str(file)).Load()]
    evaluations = [{value.tag for value in record.summary.value} for record in records if record.step in (7, 14, 21, 28)]
    assert [tags for tags in evaluations if "val/acc" in tags] == [{*EPOCH_SCALARS, "samples_per_second"}] * 4


def test_hparams_are_read_back_by_tensorboard(small_run: RunSmall) -> None:
    from tensorboard.plugins.hparams import plugin_data_pb2

    folder = small_run("logger=tensorboard", "reg=l2")
    events = EventAccumulator(str(folder.path)).Reload()
    plugin = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    started = plugin_data_pb2.HParamsPluginData.FromString(plugin).session_start_info.hparams
    assert (started["optimizer"].string_value, started["reg"].string_value) == ("adam", "l2"), "the options' names"
    assert started["optimizer.lr"].number_value == 1e-3
    assert started["reg.l2.strength"].number_value == 1e-4
    assert started["model.hidden"].string_value == "[16]"
    ended = events.SummaryMetadata("_hparams_/session_end_info").plugin_data.content
    assert plugin_data_pb2.HParamsPluginData.FromString(ended).session_end_info.status == 1  # STATUS_SUCCESS


def test_a_cut_row_is_left_out_and_later_ones_are_dropped_on_resume(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for epoch in range(1, 4):
        folder.append_epoch(epoch, epoch * 10, dict.fromkeys(EPOCH_SCALARS, 0.5))
    with (tmp_path / "metrics.csv").open("ab") as file:
        file.write(b"4,40,0.5,0")
    assert [row["epoch"] for row in folder.epochs()] == [1, 2, 3]
    folder.write_epochs([(epoch, epoch * 10, dict.fromkeys(EPOCH_SCALARS, 0.5)) for epoch in (1, 2)])
    assert [row["epoch"] for row in folder.epochs()] == [1, 2]
    folder.append_epoch(3, 30, dict.fromkeys(EPOCH_SCALARS, 0.25))
    assert folder.epochs()[-1]["train/loss"] == 0.25


def test_writes_replace_the_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "status.json"
    write_atomic(file, b"old")
    write_atomic(file, b"new")
    assert file.read_bytes() == b"new"
    assert [path.name for path in file.parent.iterdir()] == ["status.json"]


def test_what_a_killed_writer_left_beside_a_file_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    of_dead, of_living = (tmp_path / f".status.json.{socket.gethostname()}.{pid}.partial" for pid in (dead.pid, os.getppid()))
    elsewhere = tmp_path / f".status.json.another.{dead.pid}.partial"
    for file in (of_dead, of_living, elsewhere):
        file.touch()
    write_atomic(tmp_path / "status.json", b"new")
    assert [file.exists() for file in (of_dead, of_living, elsewhere)] == [False, True, True]


def test_the_configuration_is_written_last_so_that_a_crash_before_it_is_mended(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for _ in range(2):  # the second time after a crash: hydra.yaml alone was there
        write_hydra_files(folder, config={"seed": 0}, hydra={"job": {}}, overrides=["seed=0"])
        written = sorted((tmp_path / ".hydra").iterdir(), key=lambda file: file.stat().st_mtime_ns)
        assert sorted(file.name for file in written) == ["config.yaml", "hydra.yaml", "overrides.yaml"]
        assert written[-1].name == "config.yaml"
        (tmp_path / ".hydra" / "config.yaml").unlink()
        (tmp_path / ".hydra" / "overrides.yaml").unlink()


@pytest.mark.parametrize("state", ["finished", "pruned", "diverged"])
def test_the_rows_of_a_run_that_is_not_continued_are_on_disk_before_its_state(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synchronised: list[tuple[str, int]] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        synchronised.append((path.name.split(".json")[0].lstrip("."), path.stat().st_size))
        fsync(descriptor)

    folder = RunFolder(tmp_path)
    folder.begin("key")
    folder.append_epoch(1, 10, dict.fromkeys(EPOCH_SCALARS, 0.5))
    monkeypatch.setattr(os, "fsync", noted)
    folder.end(state)
    assert [name for name, _ in synchronised] == ["metrics.csv", "status"]
    assert synchronised[0][1] == (tmp_path / "metrics.csv").stat().st_size


def test_what_was_asked_for_is_written_as_omegaconf_does_and_reads() -> None:
    """Also texts that yaml would take for something else, what two settings share in memory, and the modes of Hydra."""
    shared = {"0x1": "=", "kv_sep": ["1e-3", "1e3", "null", "yes", "~", ""]}
    texts = ["???", "${now:%Y}", "a: b", " x", "straße", "two\nlines", "'", "l" * 200, "12:30:45", "2026-01-01"]
    content = {"b": 1e-05, "a": [1, -2.5, float("inf"), float("nan"), True, None], "texts": texts, "one": shared, "two": shared}
    content |= {"empty": {}, "none": [], "mode": RunMode.MULTIRUN}
    text = yaml_text(content).decode()
    assert text == OmegaConf.to_yaml(OmegaConf.create(content), sort_keys=True)
    read = OmegaConf.to_container(OmegaConf.create(text))
    assert repr(sorted(read.items())) == repr(sorted((content | {"mode": "MULTIRUN"}).items()))


def test_checkpoints_hold_tensors_and_plain_containers(small_run: RunSmall) -> None:
    folder = small_run("optimizer=adam")
    for path in (folder.last_checkpoint, folder.best_checkpoint):
        content = torch.load(path, weights_only=True)
        assert content["format"] == FORMAT
    assert torch.load(folder.best_checkpoint, weights_only=True)["optimizer"] is None


@pytest.mark.parametrize("damage", ["cut", "foreign", "absent"])
def test_a_damaged_checkpoint_is_named(small_run: RunSmall, damage: str) -> None:
    folder = small_run()
    path = folder.best_checkpoint
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:500])
    elif damage == "foreign":
        torch.save({"state_dict": {}}, path)
    else:
        path.unlink()
    with pytest.raises(ValueError, match=r"best\.ckpt (cannot be read|has no checksum|does not exist)"):
        Checkpoint.load(path)


def test_status_tells_why_a_run_failed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.begin("key")
    folder.end("failed", error="out of memory", kind="MemoryError", overrides=["optimizer=adam", "reg=l2"])
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["error"] == {"message": "out of memory", "type": "MemoryError", "overrides": "optimizer=adam reg=l2"}
    folder.begin("key")
    assert (folder.state, folder.status()["attempt"], folder.status()["error"]) == ("running", 2, None)


@pytest.mark.parametrize(
    ("objective", "loss", "reason"),
    [
        (0.5, 0.5, None),
        (1e12, 2.3, None),  # a strong penalty, not a divergence
        (0.5, HIGHEST_LOSS, None),
        (0.5, 1.7e301, "val/loss is 1.7e+301, more than any training has"),
        (float("nan"), 0.5, "train/objective is nan"),
        (0.5, float("inf"), "val/loss is inf"),
    ],
)
def test_a_loss_that_no_training_has_is_divergence(objective: float, loss: float, reason: str | None) -> None:
    described = divergence({"train/objective": objective, "val/loss": loss})
    assert (described or "").startswith(reason or "")
    assert (described is None) == (reason is None)


def test_the_highest_loss_is_where_single_precision_loses_the_nat() -> None:
    highest = torch.tensor(HIGHEST_LOSS)
    assert highest + 1 == highest
    assert highest / 2 + 1 != highest / 2


def test_a_finite_loss_beyond_all_bounds_is_no_result(small_run: RunSmall) -> None:
    folder = small_run("optimizer.lr=1e8", "trainer.max_epochs=1")
    assert folder.state == "diverged"
    assert "more than any training has" in folder.status()["error"]["message"]


def test_peak_memory_is_that_of_the_process_or_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2**20 < peak_memory_bytes(torch.device("cpu")) < 2**40
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    monkeypatch.setattr(sys, "platform", "win32")
    assert peak_memory_bytes(torch.device("cpu")) == 0

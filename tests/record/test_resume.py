"""A run that is interrupted and continued leaves what an uninterrupted one leaves, bit for bit."""

import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from tensorboard.summary.writer.event_file_writer import AtomicCounter

import ockham.lit
from cases import CASES
from comparison import assert_same_run, scalars
from conftest import ROOT, SMALL, make_spec
from ockham.execute import execute
from ockham.lit import fit
from ockham.record.checkpoint import Checkpoint
from ockham.record.folder import RunFolder

BASE = tuple(override for override in SMALL if override not in ("logger=csv", "model.hidden=[16]"))

RESUMED = [
    *(("optimizer", option) for option in CASES["optimizer"]),
    *(("reg", option) for option in CASES["reg"]),
    *(("schedule", option) for option in ("plateau", "cosine", "one_cycle", "wsd", "cosine_restarts")),
    *(("data", option) for option in ("mnist1d", "digits")),
    *(("augment", option) for option in ("mixup", "cutmix", "flip_crop", "random_erasing", "trivial_augment")),
    *(("model", option) for option in ("cnn", "resnet")),
]


class Crash(pl.Callback):
    """Ends the process's work in the middle of the third epoch."""

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, index: int) -> None:
        if module.finished_epochs == 2:
            raise MemoryError("crashed for the test")


@pytest.mark.parametrize(("group", "option"), RESUMED)
def test_a_continued_run_is_the_uninterrupted_one(
    group: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ockham.record.ledger.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    # Pictures take most of a short run, and are no part of what is compared.
    monkeypatch.setattr("ockham.record.final.final_pictures", lambda *arguments: {})
    chosen = [f"{group}={option}", *CASES[group][option]]
    hidden = [] if any(override.startswith("model=") for override in chosen) else ["model.hidden=[16]"]
    overrides = (*BASE, *hidden, *chosen)
    whole, broken = (make_spec(tmp_path / name, *overrides) for name in ("whole", "broken"))
    execute(whole)
    with monkeypatch.context() as crashing:
        crashing.setattr(ockham.lit, "fit", partial(fit, callbacks=[Crash()]))
        with pytest.raises(MemoryError):
            execute(broken)
    assert broken.folder.status()["state"] == "failed"
    assert Checkpoint.load(broken.folder.last_checkpoint).epoch == 2
    execute(broken)
    assert broken.folder.status()["attempt"] == 2
    assert_same_run(whole.folder, broken.folder)
    if option == "early_stopping":
        assert whole.folder.metrics()["last_epoch"] <= 4
    else:
        assert len(whole.folder.epochs()) == 4


def test_an_attempt_without_a_checkpoint_leaves_no_trace_in_the_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ockham.record.ledger.SECONDS_BETWEEN_CHECKPOINTS", 1e9)
    monkeypatch.setattr("ockham.record.final.final_pictures", lambda *arguments: {})
    whole, broken = (make_spec(tmp_path / name, *BASE, "model.hidden=[16]") for name in ("whole", "broken"))
    execute(whole)
    with monkeypatch.context() as crashing:
        crashing.setattr(ockham.lit, "fit", partial(fit, callbacks=[Crash()]))
        with pytest.raises(MemoryError):
            execute(broken)
    assert not broken.folder.last_checkpoint.exists()
    assert "MemoryError: crashed for the test" in broken.folder.log_file.read_text()
    execute(broken)
    assert_same_run(whole.folder, broken.folder)


def test_attempts_within_one_second_are_read_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Event files of a second sort as text: the tenth of a process comes before its ninth."""
    monkeypatch.setattr("ockham.record.final.final_pictures", lambda *arguments: {})
    monkeypatch.setattr("tensorboard.summary.writer.event_file_writer._global_uid", AtomicCounter(9))
    monkeypatch.setattr("ockham.record.ledger.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    spec = make_spec(tmp_path / "run", *BASE, "model.hidden=[16]")
    with monkeypatch.context() as crashing:
        crashing.setattr(ockham.lit, "fit", partial(fit, callbacks=[Crash()]))
        with pytest.raises(MemoryError):
            execute(spec)
    execute(spec)
    assert [step for step, _ in scalars(spec.folder)["val/loss"]] == [7, 14, 21, 28]
    assert [step for step, _ in scalars(spec.folder)["test/acc"]] == [28]


def test_figures_of_the_end_stand_once_after_a_kill_between_them_and_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have the step of the last row, from which a continued run would write on."""
    monkeypatch.setattr("ockham.record.final.final_pictures", lambda *arguments: {})
    whole, killed = (make_spec(tmp_path / name, *BASE, "model.hidden=[16]") for name in ("whole", "killed"))
    execute(whole)
    execute(killed)
    (killed.folder.path / "metrics.json").unlink()
    killed.folder.update_status(state="running", ended=None)
    execute(killed)
    assert_same_run(whole.folder, killed.folder)


def test_a_run_that_is_pruned_keeps_one_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ockham.record.ledger.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    monkeypatch.setattr("ockham.execute.single.pruner", lambda *arguments: lambda costs: len(costs) == 3)
    spec = make_spec(tmp_path / "run", *SMALL)
    execute(spec)
    assert spec.folder.state == "pruned"
    assert sorted(file.name for file in (spec.folder.path / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_two_identical_runs_are_identical(tmp_path: Path) -> None:
    specs = [make_spec(tmp_path / name, *SMALL, "reg=[dropout,input_noise]", "augment=mixup") for name in "ab"]
    for spec in specs:
        execute(spec)
    assert_same_run(specs[0].folder, specs[1].folder, events=False)


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "train.py", *arguments], cwd=ROOT, text=True, **options)


def test_a_killed_run_continues_from_the_command_line(tmp_path: Path) -> None:
    settings = [*SMALL, "trainer.max_epochs=150", "reg=dropout"]
    killed, whole = RunFolder(tmp_path / "killed"), make_spec(tmp_path / "whole", *settings)
    process = start(*settings, f"hydra.run.dir={killed.path}", stdout=subprocess.DEVNULL)
    while not killed.last_checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert killed.state == "running"
    config = killed.config_file.read_bytes()
    continued = start(f"resume={killed.path}", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, errors = continued.communicate()
    assert continued.returncode == 0, errors
    assert "continuing after epoch" in out
    assert killed.config_file.read_bytes() == config
    execute(whole)
    assert_same_run(whole.folder, killed, events=False)

"""The life of a run in its folder: what is damaged, cut or refused on the way is named, and nothing is lost."""

import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

import ockham.lit
from comparison import assert_same_run
from conftest import ROOT, SMALL, make_spec
from faults.one_process import run_all
from ockham import build
from ockham.core.files import DamagedFileError
from ockham.errors import UserError
from ockham.execute import RunSpec, execute, execute_group
from ockham.fused import group
from ockham.lit import fit
from ockham.record import cost, ledger
from ockham.record.checkpoint import Checkpoint
from ockham.record.folder import RunFolder

RunSmall = Callable[..., RunFolder]


class CrashAfter(pl.Callback):
    """Ends the process's work in the epoch after so many."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, index: int) -> None:
        if module.finished_epochs == self.epochs:
            raise MemoryError("crashed for the test")


@pytest.fixture
def crashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunSpec]:
    """A run that wrote a checkpoint after each of three epochs and crashed in the fourth."""
    monkeypatch.setattr(ledger, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)

    def crash(name: str, *overrides: str) -> RunSpec:
        spec = make_spec(tmp_path / name, *SMALL, *overrides)
        with monkeypatch.context() as crashing:
            crashing.setattr(ockham.lit, "fit", partial(fit, callbacks=[CrashAfter(3)]))
            with pytest.raises(MemoryError):
                execute(spec)
        return spec

    return crash


@pytest.fixture
def whole(tmp_path: Path) -> RunFolder:
    spec = make_spec(tmp_path / "whole", *SMALL)
    execute(spec)
    return spec.folder


def flip(path: Path, chance: random.Random) -> None:
    """A byte in the middle half, where the tensors are."""
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content) // 4, 3 * len(content) // 4)] ^= 1 << chance.randrange(8)
    path.write_bytes(bytes(content))


def test_a_damaged_checkpoint_is_noticed_and_the_state_before_it_taken(
    crashed: Callable[..., RunSpec], whole: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ockham")
    chance = random.Random(0)
    for attempt in range(3):
        caplog.clear()
        spec = crashed(f"run{attempt}")
        flip(spec.folder.last_checkpoint, chance)
        with pytest.raises(DamagedFileError, match=r"last\.ckpt"):
            Checkpoint.load(spec.folder.last_checkpoint)
        execute(spec)
        assert "last.ckpt is damaged" in caplog.text or "last.ckpt cannot be read" in caplog.text
        assert "continuing after epoch 2" in caplog.text
        assert_same_run(whole, spec.folder, events=False)


def test_without_a_whole_state_the_run_begins_anew(
    crashed: Callable[..., RunSpec], whole: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    spec = crashed("run")
    for path in (spec.folder.last_checkpoint, spec.folder.previous_checkpoint):
        path.write_bytes(b"")
    execute(spec)
    assert caplog.text.count("cannot be read") == 2
    assert_same_run(whole, spec.folder, events=False)


def test_a_run_of_an_earlier_version_is_refused_and_kept(crashed: Callable[..., RunSpec]) -> None:
    spec = crashed("run")
    torch.save({"format": 1, "epoch": 3, "model": {}}, spec.folder.last_checkpoint)
    before = spec.folder.last_checkpoint.read_bytes()
    with pytest.raises(UserError, match="earlier version"):
        execute(spec)
    assert spec.folder.last_checkpoint.read_bytes() == before


def test_a_damaged_best_checkpoint_is_named_and_written_again(crashed: Callable[..., RunSpec], whole: RunFolder) -> None:
    spec = crashed("run")
    flip(spec.folder.best_checkpoint, random.Random(1))
    with pytest.raises(UserError, match=r"best\.ckpt"):
        Checkpoint.load(spec.folder.best_checkpoint)
    execute(spec)
    assert_same_run(whole, spec.folder, events=False)


@pytest.mark.parametrize("damage", ["rows lost", "cut within a row", "gone", "other numbers"])
def test_metrics_csv_is_restored_from_what_the_checkpoint_knows(
    crashed: Callable[..., RunSpec], whole: RunFolder, damage: str
) -> None:
    spec = crashed("run")
    file = spec.folder.path / "metrics.csv"
    lines = file.read_bytes().splitlines(keepends=True)
    if damage == "rows lost":
        file.write_bytes(b"".join(lines[:2]))
    elif damage == "cut within a row":
        file.write_bytes(b"".join(lines)[:-30])
    elif damage == "gone":
        file.unlink()
    else:
        file.write_bytes(b"".join(lines).replace(b"0.", b"1."))
    execute(spec)
    assert_same_run(whole, spec.folder, events=False)


def test_a_finished_run_keeps_no_state_before_the_last(crashed: Callable[..., RunSpec]) -> None:
    spec = crashed("run")
    assert spec.folder.previous_checkpoint.exists()
    execute(spec)
    assert {path.name for path in spec.folder.last_checkpoint.parent.iterdir()} == {"best.ckpt", "last.ckpt"}


def test_a_damaged_checkpoint_of_a_group_is_named_and_the_state_before_it_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(group, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    specs = {
        name: [make_spec(tmp_path / name / str(n), *SMALL, f"optimizer={o}") for n, o in enumerate(("sgd", "adam"))]
        for name in ("whole", "broken")
    }
    execute_group(specs["whole"], tmp_path / "whole-group")
    train_interval = group.Group._train_interval

    def crash_in_the_fourth(self: Any) -> None:
        if self.step == 21:
            raise MemoryError("crashed for the test")
        train_interval(self)

    with monkeypatch.context() as crashing:
        crashing.setattr(group.Group, "_train_interval", crash_in_the_fourth)
        with pytest.raises(MemoryError):
            execute_group(specs["broken"], tmp_path / "group")
    assert [spec.folder.state for spec in specs["broken"]] == ["failed"] * 2
    (checkpoint,) = (tmp_path / "group").glob("[0-9]*.ckpt")
    flip(checkpoint, random.Random(2))
    execute_group(specs["broken"], tmp_path / "group")
    assert f"{checkpoint} is damaged" in caplog.text or f"{checkpoint} cannot be read" in caplog.text
    for one, other in zip(*specs.values(), strict=True):
        assert_same_run(one.folder, other.folder, events=False)
        assert other.folder.cost()["shared"] == 2


def test_a_run_that_cannot_be_built_has_a_status(tmp_path: Path) -> None:
    spec = make_spec(tmp_path / "run", *SMALL, "model.hidden=[4]", "optimizer=muon", "model.hidden=[]")
    with pytest.raises(UserError, match="hidden layers"):
        execute(spec)
    status = spec.folder.status()
    assert (status["state"], status["error"]["type"]) == ("failed", "UserError")
    assert "hidden layers" in status["error"]["message"]
    assert "Traceback" in spec.folder.log_file.read_text()


def test_a_member_that_cannot_be_built_fails_by_itself(tmp_path: Path) -> None:
    wrong = ["optimizer=muon", "model.hidden=[]"]
    specs = [
        make_spec(tmp_path / str(n), *SMALL, *overrides)
        for n, overrides in enumerate((["model.hidden=[]"], wrong, ["seed=1", wrong[1]]))
    ]
    execute_group(specs, tmp_path / "group")
    assert [spec.folder.state for spec in specs] == ["finished", "failed", "finished"]
    assert "hidden layers" in specs[1].folder.status()["error"]["message"]


def test_pruning_is_asked_when_all_members_have_written_their_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [make_spec(tmp_path / str(n), *SMALL, f"seed={n}") for n in range(3)]
    seen: list[list[int]] = []

    def prune(costs: Any) -> bool:
        seen.append([len(spec.folder.epochs()) for spec in specs])
        return False

    monkeypatch.setattr("ockham.execute.group.pruner", lambda *arguments: prune)
    execute_group(specs, tmp_path / "group")
    assert seen == [[epoch] * 3 for epoch in (1, 2, 3) for _ in range(3)]


def test_peak_memory_is_that_of_the_run(small_run: RunSmall) -> None:
    device = torch.device("cpu")
    large = torch.ones(400 * 2**20 // 4)
    with_large = cost.peak_memory_bytes(device)
    del large
    cost.reset_peak_memory(device)
    if sys.platform != "linux":
        pytest.skip("the peak of a process is known for its whole life only")
    assert cost.peak_memory_bytes(device) < with_large - 200 * 2**20
    assert small_run().cost()["peak_memory_bytes"] < with_large - 200 * 2**20


def test_the_git_state_is_asked_once_a_process() -> None:
    from ockham.record import folder

    folder.code_version.cache_clear()
    first = folder.code_version()
    assert folder.code_version() is first
    if (ROOT / ".git").exists():
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert first["commit"] == commit.strip()


@pytest.mark.parametrize("content", ["", "[]", "{", "\ud800"])
def test_a_damaged_status_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "status.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match=r"status\.json is damaged"):
        _ = RunFolder(tmp_path).state


# -- from the command line -----------------------------------------------------------------------------------------------

COMMAND = [*(word for word in SMALL if not word.startswith("model.hidden")), "model.hidden=[64]"]


def train(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "train.py", *COMMAND, *arguments]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False, **options)


def test_a_full_disk_is_one_screen_and_the_run_continues_when_there_is_room(tmp_path: Path) -> None:
    run, reference = RunFolder(tmp_path / "run"), make_spec(tmp_path / "reference", *COMMAND)

    def little_room() -> None:  # a limit on the size of a file stands for the disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    refused = train(f"hydra.run.dir={run.path}", preexec_fn=little_room)
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert refused.stderr.startswith("error: OSError: [Errno 27] File too large")
    assert "with room to write the same command, or resume=<the folder>, continues" in refused.stderr
    assert len(refused.stderr.splitlines()) <= 3
    assert run.status()["state"] == "failed"
    assert not list(run.path.rglob("*.partial"))
    assert train(f"hydra.run.dir={run.path}").returncode == 0
    execute(reference)
    assert_same_run(reference.folder, run, events=False)


def test_a_folder_that_is_removed_while_a_run_works_in_it_is_one_screen(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [word for word in COMMAND if not word.startswith("logger=")]
    command = [sys.executable, "train.py", *words, "trainer.max_epochs=10000", f"hydra.run.dir={run}"]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not list(run.glob("events.out.tfevents.*")):
        assert process.poll() is None
        time.sleep(0.05)
    run.rename(tmp_path / "elsewhere")
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 1, errors
    assert "Traceback" not in errors
    assert errors.partition("\n")[2].startswith("error: FileNotFoundError: "), errors  # after what sets max_epochs again
    assert "the same command begins or continues it" in errors
    assert len(errors.splitlines()) <= 4


def test_a_folder_that_is_moved_at_any_moment_is_no_second_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a record in each of two folders would look like two runs. The moments are those at which files are written."""
    monkeypatch.setattr(ledger, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    monkeypatch.setattr("ockham.record.final.final_pictures", lambda *arguments: {})
    fsync = os.fsync

    def move_at(moment: int, run: Path) -> int:
        """Execute a run whose folder goes away at that write; returns how many writes there were."""
        writes = 0

        def moving(descriptor: int) -> None:
            nonlocal writes
            fsync(descriptor)
            if writes == moment:
                run.rename(run.with_name("elsewhere"))
            writes += 1

        spec = make_spec(run, *SMALL, "logger=tensorboard", "trainer.max_epochs=2")
        with monkeypatch.context() as writing:
            writing.setattr(os, "fsync", moving)
            execute(spec)
        return writes

    (tmp_path / "whole").mkdir()
    num_writes = move_at(-1, tmp_path / "whole" / "run")
    assert num_writes > 8
    for moment in range(num_writes):
        run = tmp_path / str(moment) / "run"
        with pytest.raises(FileNotFoundError):
            move_at(moment, run)
        assert not run.exists(), f"the folder was made anew after it was moved at write {moment} of {num_writes}"


def test_an_emptied_configuration_is_written_again_by_the_command(tmp_path: Path, crashed: Callable[..., RunSpec]) -> None:
    """What a kill leaves while Hydra writes the file."""
    first = train(f"hydra.run.dir={tmp_path / 'whole'}")
    assert first.returncode == 0, first.stderr
    spec = crashed("run", "model.hidden=[64]")
    whole = RunFolder(tmp_path / "whole")
    spec.folder.config_file.write_bytes(b"")
    mistakes = {
        "repeat the command": [f"resume={spec.folder.path}"],
        "another run": [*COMMAND, f"hydra.run.dir={spec.folder.path}", "optimizer.lr=0.5"],
    }
    (tmp_path / "mistakes").mkdir()
    for expected, left in run_all(mistakes, tmp_path / "mistakes").items():
        assert left.code == 2
        assert expected in left.errors
    again = train(f"hydra.run.dir={spec.folder.path}")
    assert again.returncode == 0, again.stderr
    assert spec.folder.config_file.read_bytes() == whole.config_file.read_bytes()
    assert_same_run(whole, spec.folder, events=False)


def test_what_is_built_last_is_still_after_the_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder says that the run has begun before anything of it is built."""
    spec = make_spec(tmp_path / "run", *SMALL)
    states: list[str | None] = []
    build_run = build.run

    def watched(*arguments: Any, **options: Any) -> Any:
        states.append(spec.folder.state)
        return build_run(*arguments, **options)

    monkeypatch.setattr(build, "run", watched)
    execute(spec)
    assert states == ["running"]
    assert json.loads((spec.folder.path / "status.json").read_text())["state"] == "finished"

"""A finished run that becomes longer is the run that had the greater length from the start, or is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from comparison import assert_same_run
from conftest import SMALL, make_spec
from ockham.errors import UserError
from ockham.execute import execute
from ockham.record.folder import RunFolder
from ockham.record.ledger import RunSpec
from ockham.record.resume import continued_config, stored_config

#: With pictures of two epochs, and events.
BASE = tuple(override for override in SMALL if override != "logger=csv")


def lengthened(spec: RunSpec, override: str) -> RunSpec:
    """The run of `python train.py resume=<its folder> <override>`."""
    return replace(spec, config=stored_config(spec.folder, [override], trust=[]), overrides=(override,))


@pytest.mark.parametrize(
    "overrides",
    [
        ["schedule=constant"],
        ["schedule=inverse_sqrt", "schedule.warmup_steps=3", "optimizer=momentum", "reg=dropout"],
        ["schedule=plateau", "schedule.patience=0", "optimizer.lr=0.05", "augment=shift"],
    ],
)
def test_a_lengthened_run_is_the_one_that_was_longer_from_the_start(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ockham.record.final.final_pictures", lambda *arguments: {})
    short = make_spec(tmp_path / "short", *BASE, *overrides, "trainer.max_epochs=2")
    long = make_spec(tmp_path / "long", *BASE, *overrides, "trainer.max_epochs=4")
    execute(short)
    assert short.folder.state == "finished"
    execute(lengthened(short, "trainer.max_epochs=4"))
    execute(long)
    assert (short.folder.state, short.folder.status()["attempt"]) == ("finished", 2)
    assert_same_run(short.folder, long.folder)


UNBOUNDED = ("max_steps: 14", "max_steps: null")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunSpec:
    """A run of two epochs of seven steps, under a schedule that could go on."""
    spec = make_spec(tmp_path_factory.mktemp("finished") / "run", *SMALL, "trainer.max_epochs=2", "trainer.max_steps=14")
    execute(spec)
    return spec


@pytest.mark.parametrize(
    ("changes", "override", "reason"),
    [
        ([], "trainer.max_epochs=2", "holds a finished run"),
        ([], "trainer.max_epochs=1", "has 2 epochs, 14 steps already: set a greater length"),
        ([("schedules.Constant", "schedules.Cosine")], "trainer.max_steps=28", "has 2 epochs"),
        ([("schedules.Constant", "schedules.Cosine"), UNBOUNDED], "trainer.max_epochs=4", "from its first step"),
        ([("ockham.schedules.Constant", "mine.Constant"), UNBOUNDED], "trainer.max_epochs=4", "from its first step"),
        ([("reg: {}", "reg: {magnitude_pruning: {rounds: 1}}"), UNBOUNDED], "trainer.max_epochs=4", "into trainings"),
        ([("max_epochs: 2", "max_epochs: 9"), UNBOUNDED], "trainer.max_epochs=10", "early stopping"),
        ([("reg: {}", "reg: {swa: {_target_: ockham.reg.SWA}}"), UNBOUNDED], "trainer.max_epochs=4", "reg=swa"),
        ([], "optimizer.lr=1", "would make it another run"),
    ],
)
def test_what_cannot_be_lengthened_is_refused_and_left_as_it_is(
    changes: list[tuple[str, str]], override: str, reason: str, finished: RunSpec
) -> None:
    stored = finished.folder.config_file.read_text()
    changed = stored
    for before, after in changes:
        assert before in changed
        changed = changed.replace(before, after)
    finished.folder.config_file.write_text(changed)
    finished.folder.update_status(files={})  # as if it had been so from the beginning
    try:
        with pytest.raises(UserError, match=reason):
            stored_config(finished.folder, [override], trust=[])
        assert finished.folder.config_file.read_text() == changed
        assert finished.folder.state == "finished"
    finally:
        finished.folder.config_file.write_text(stored)


def test_a_run_whose_last_epoch_was_cut_is_not_lengthened(tmp_path: Path) -> None:
    spec = make_spec(tmp_path / "run", *SMALL, "trainer.max_steps=10")
    execute(spec)
    with pytest.raises(UserError, match="was cut by trainer.max_steps"):
        continued_config(spec.folder, ["trainer.max_steps=20"], trust=[])


def test_a_run_of_a_sweep_is_not_lengthened(finished: RunSpec) -> None:
    plan = finished.folder.path.parent / "sweep.json"
    plan.write_text("{}")
    try:
        with pytest.raises(UserError, match="is part of a sweep"):
            continued_config(RunFolder(finished.folder.path), ["trainer.max_epochs=4"], trust=[])
    finally:
        plan.unlink()

"""trainer.evaluate_every: rows of metrics.csv at steps, of the same training as without it."""

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

import ockham.lit
from comparison import assert_equal, assert_same_run, scalars
from conftest import SMALL, make_spec
from ockham.errors import UserError
from ockham.execute import RunSpec, execute, execute_group
from ockham.fused import group, updates
from ockham.lit import fit
from ockham.record.checkpoint import Checkpoint
from ockham.record.folder import RunFolder
from ockham.record.resume import stored_config

RunSmall = Callable[..., RunFolder]

#: Seven steps an epoch, 28 of the run; what draws in every way that there is.
NOISY = [
    ["optimizer=adam", "reg=[dropout,input_noise]"],
    ["optimizer=momentum", "reg=[dropconnect,gaussian_dropout]", "seed=1"],
    ["optimizer=schedule_free_sgd", "optimizer.lr=0.1", "reg=dropout", "seed=1"],
    ["optimizer=momentum", "reg=[dropout,gradient_noise,swa]", "reg.swa.start=0.3"],
]


def train_both_ways(folder: Path, members: Sequence[Sequence[str]], *common: str) -> tuple[list[RunSpec], list[RunSpec]]:
    """The members alone, and as a group."""
    alone, fused = (
        [make_spec(folder / name / str(n), *SMALL, *common, *member) for n, member in enumerate(members)]
        for name in ("alone", "fused")
    )
    for spec in alone:
        execute(spec)
    execute_group(fused, folder / "group")
    return alone, fused


def steps_of(folder: RunFolder) -> list[tuple[int, int]]:
    """(epoch, step) of each row."""
    return [(int(row["epoch"]), int(row["step"])) for row in folder.epochs()]


@pytest.mark.parametrize(
    ("every", "rows"),
    [
        (3, [(1, 3), (1, 6), (2, 9), (2, 12), (3, 15), (3, 18), (3, 21), (4, 24), (4, 27), (4, 28)]),
        (10, [(2, 10), (3, 20), (4, 28)]),
        (14, [(2, 14), (4, 28)]),
        (100, [(4, 28)]),
    ],
)
def test_evaluating_at_other_steps_changes_no_weight(every: int, rows: list[tuple[int, int]], tmp_path: Path) -> None:
    """Interval shorter and longer than an epoch, alone and in a group: where both are evaluated they say the same."""
    common = ["augment=mixup", "measure=[weight_distance]"]
    whole, whole_group = train_both_ways(tmp_path / "epochs", NOISY, *common)
    other, other_group = train_both_ways(tmp_path / "steps", NOISY, *common, f"trainer.evaluate_every={every}")
    for by_epoch, by_step in zip([*whole, *whole_group], [*other, *other_group], strict=True):
        assert steps_of(by_step.folder) == rows
        last = [Checkpoint.load(spec.folder.last_checkpoint) for spec in (by_epoch, by_step)]
        assert_equal(last[0].model, last[1].model, "model")
        assert_equal(last[0].optimizer, last[1].optimizer, "optimizer")
        assert last[0].samples == last[1].samples == 800
        by_steps = {row["step"]: row for row in by_epoch.folder.epochs()}
        shared = [row for row in by_step.folder.epochs() if row["step"] in by_steps]
        assert shared
        for row in shared:
            expected = by_steps[row["step"]]
            assert {**row, "train/objective": 0} == {**expected, "train/objective": 0}
        metrics = by_step.folder.metrics()
        selected = next(row for row in by_step.folder.epochs() if row["step"] == metrics["best_step"])
        assert (metrics["val/acc"], metrics["best_epoch"]) == (selected["val/acc"], selected["epoch"])
        assert metrics["val/acc"] == max(row["val/acc"] for row in by_step.folder.epochs())


def test_an_interval_of_an_epoch_is_the_default(tmp_path: Path) -> None:
    default = train_both_ways(tmp_path / "default", NOISY[:2])
    seven = train_both_ways(tmp_path / "seven", NOISY[:2], "trainer.evaluate_every=7")
    for one, other in zip([*default[0], *default[1]], [*seven[0], *seven[1]], strict=True):
        assert_same_run(one.folder, other.folder, events=False)


def test_the_objective_is_the_mean_over_the_interval(small_run: RunSmall) -> None:
    each = small_run("trainer.evaluate_every=1", "reg=dropout", name="each").epochs()
    some = small_run("trainer.evaluate_every=10", "reg=dropout", name="some").epochs()
    sizes = [32, 32, 32, 32, 32, 32, 8] * 4
    for begin, end, row in zip((0, 10, 20), (10, 20, 28), some, strict=True):
        weighted = sum(size * step["train/objective"] for size, step in zip(sizes[begin:end], each[begin:end], strict=True))
        assert row["train/objective"] == pytest.approx(weighted / sum(sizes[begin:end]), rel=1e-12)


def test_members_equal_single_runs(tmp_path: Path) -> None:
    members = [
        *NOISY,
        ["optimizer=sgd", "schedule=plateau", "schedule.patience=0", "schedule.min_delta=10"],
        ["optimizer=sgd", "optimizer.lr=1e-9", "reg=early_stopping", "reg.early_stopping.patience=2"],
        ["optimizer=sgd", "optimizer.lr=1e30"],
    ]
    alone, fused = train_both_ways(tmp_path, members, "trainer.precision=64-true", "trainer.evaluate_every=4")
    for one, other in zip(alone, fused, strict=True):
        assert one.folder.state == other.folder.state
        assert len(one.folder.epochs()) == len(other.folder.epochs())
        for row, same in zip(one.folder.epochs(), other.folder.epochs(), strict=True):
            assert row == pytest.approx(same, rel=1e-9, abs=1e-9)
        assert one.folder.metrics() == pytest.approx(other.folder.metrics(), rel=1e-9, abs=1e-9)
    plateau, stopped, diverged = (spec.folder for spec in alone[-3:])
    rates = [row["lr"] for row in plateau.epochs()]
    assert rates == pytest.approx([0.1, *(0.1**n for n in range(1, 7))]), "a reduction after each evaluation but the first"
    assert steps_of(stopped) == [(1, 4), (2, 8), (2, 12)], "two evaluations without an improvement"
    assert steps_of(diverged) == [(1, 4)]
    assert diverged.status()["error"]["message"].endswith("after step 4")


class CrashAt(pl.Callback):
    """Ends the process's work once so many steps are done."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, index: int) -> None:
        if module.finished_steps >= self.steps:
            raise MemoryError("crashed for the test")


RESUMED = {
    "within an epoch": (3, 12, ["reg=[dropout,input_noise]", "augment=mixup"]),
    "averages and measures": (3, 18, ["optimizer=schedule_free_adamw", "reg=dropconnect", "measure=[update_norm,sharpness]"]),
    "over epochs": (10, 20, ["reg=dropout", "schedule=plateau", "schedule.patience=0"]),
    "two passes": (3, 12, ["reg=[dropout,sam]"]),
    "around the step": (3, 18, ["optimizer=momentum", "reg=[dropout,gradient_noise,lookahead]"]),
    "several trainings": (7, 21, ["reg=[dropout,magnitude_pruning]", "reg.magnitude_pruning.rounds=1"]),
    "several trainings by steps": (2, 20, ["reg=[dropout,magnitude_pruning]", "reg.magnitude_pruning.rounds=1"]),
    "batch norm and spectral norm": (5, 10, ["model.batch_norm=true", "reg=[dropout,spectral_norm]"]),
}


@pytest.mark.parametrize("case", RESUMED)
def test_a_continued_run_is_the_uninterrupted_one(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ockham.record.ledger.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    monkeypatch.setattr("ockham.record.final.final_pictures", lambda *arguments: {})
    every, steps, overrides = RESUMED[case]
    base = [override for override in SMALL if override != "logger=csv"]
    whole, broken = (
        make_spec(tmp_path / name, *base, f"trainer.evaluate_every={every}", *overrides) for name in ("whole", "broken")
    )
    execute(whole)
    with monkeypatch.context() as crashing:
        crashing.setattr(ockham.lit, "fit", partial(fit, callbacks=[CrashAt(steps)]))
        with pytest.raises(MemoryError):
            execute(broken)
    assert Checkpoint.load(broken.folder.last_checkpoint).step == steps
    execute(broken)
    assert broken.folder.status()["attempt"] == 2
    assert_same_run(whole.folder, broken.folder)
    assert [step for step, _ in scalars(broken.folder)["val/loss"]] == [step for _, step in steps_of(broken.folder)]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("form", ["native", "rules"])
def test_a_group_that_is_killed_after_every_evaluation_leaves_the_same_bytes(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that shrinks, whose member that drew the noise of its seed leaves."""
    monkeypatch.setattr(group, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    monkeypatch.setattr(updates, "SECONDS_TO_COMPILE", 1e9 if form == "native" else 0.0)
    monkeypatch.setattr("ockham.fused.compiled.compiled", lambda sources: [source.function for source in sources])
    monkeypatch.setattr(updates, "SECONDS_TO_COMPILE_GRADIENTS", 0.0)
    members = [
        *[["optimizer=sgd", f"optimizer.lr={lr}", "reg=dropout"] for lr in ("1e30", "1e29")],
        ["optimizer=sgd", "optimizer.lr=1e-9", "reg=[dropout,early_stopping]", "reg.early_stopping.patience=1"],
        *NOISY,
    ]
    common = ["trainer.evaluate_every=3", "augment=mixup", "measure=[update_norm,calibration]"]
    whole, broken = (
        [make_spec(tmp_path / name / str(n), *SMALL, *common, *member) for n, member in enumerate(members)] for name in "ab"
    )
    execute_group(whole, tmp_path / "a-group")
    save, kills = group.Group._save, []

    def save_and_die(self: Any) -> None:
        save(self)
        kills.append(self.step)
        raise Killed

    monkeypatch.setattr(group.Group, "_save", save_and_die)
    for _ in range(20):
        with contextlib.suppress(Killed):
            execute_group(broken, tmp_path / "b-group")
            break
    assert kills == [3, 6, 9, 12, 15, 18, 21, 24, 27]
    for one, other in zip(whole, broken, strict=True):
        assert one.folder.state == other.folder.state
        assert (one.folder.path / "metrics.csv").read_bytes() == (other.folder.path / "metrics.csv").read_bytes()
        if one.folder.state == "finished":
            assert_same_run(one.folder, other.folder, events=False)


def test_a_full_batch_is_evaluated_every_so_many_epochs(tmp_path: Path) -> None:
    base = [o for o in SMALL if not o.startswith(("data.batch_size", "trainer.max_epochs"))]
    spec = make_spec(tmp_path / "run", *base, "optimizer=gd", "trainer.max_epochs=25", "trainer.evaluate_every=10")
    execute(spec)
    assert steps_of(spec.folder) == [(10, 10), (20, 20), (25, 25)]
    assert spec.folder.metrics()["samples"] == 25 * 200


def test_a_finished_run_is_not_lengthened_and_one_that_was_interrupted_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = "trainer.evaluate_every=5"
    finished = make_spec(tmp_path / "finished", *SMALL, every)
    execute(finished)
    with pytest.raises(UserError, match="evaluated after its last step"):
        stored_config(finished.folder, ["trainer.max_epochs=6"], trust=[])
    monkeypatch.setattr("ockham.record.ledger.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    broken = make_spec(tmp_path / "broken", *SMALL, every)
    longer = make_spec(tmp_path / "longer", *SMALL, every, "trainer.max_epochs=6")
    with monkeypatch.context() as crashing:
        crashing.setattr(ockham.lit, "fit", partial(fit, callbacks=[CrashAt(10)]))
        with pytest.raises(MemoryError):
            execute(broken)
    broken.config.merge_with(stored_config(broken.folder, ["trainer.max_epochs=6"], trust=[]))
    execute(broken)
    execute(longer)
    assert_same_run(longer.folder, broken.folder, events=False)


def test_streams_are_stored_within_an_epoch_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ockham.record.ledger.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    stored = {}
    for every in (5, 7):
        spec = make_spec(tmp_path / str(every), *SMALL, "reg=dropout", f"trainer.evaluate_every={every}")
        with monkeypatch.context() as crashing:
            crashing.setattr(ockham.lit, "fit", partial(fit, callbacks=[CrashAt(every)]))
            with pytest.raises(MemoryError):
                execute(spec)
        stored[every] = Checkpoint.load(spec.folder.last_checkpoint).streams
    assert stored[7] is None
    assert stored[5]
    assert all(isinstance(state, torch.Tensor) for stream in stored[5].values() for state in stream.values())

"""When a run first meets its target: counted in what it writes, alone, in a group, and after a resume."""

from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import SMALL, compose, make_spec
from ockham import schema
from ockham.cli import _with_quoted_text
from ockham.command.arguments import parse
from ockham.core.target import parse_target
from ockham.errors import UserError
from ockham.execute import execute, execute_group
from ockham.record.folder import TARGET_METRICS, RunFolder

#: At a learning rate with which it is met after three of four epochs.
TARGET = ("optimizer.lr=3e-3", "target='val/acc>=0.4'")


def expected(folder: RunFolder) -> dict[str, float]:
    """What is counted, from the rows of metrics.csv."""
    rows, metrics = folder.epochs(), folder.metrics()
    first = parse_target("val/acc>=0.4").first(rows)
    assert first is not None
    share = rows[first]["step"] / metrics["steps"]  # whole epochs, all of one size
    return {f"target/{name}": metrics[name] * share for name in ("steps", "samples", "flops")}


def counted(folder: RunFolder) -> dict[str, float]:
    return {name: folder.metrics()[name] for name in TARGET_METRICS}


def test_a_run_counts_until_its_target(small_run: Callable[..., RunFolder]) -> None:
    whole, stopped = small_run(*TARGET, name="whole"), small_run(*TARGET, "stop_at_target=true", name="stopped")
    first = parse_target("val/acc>=0.4").first(whole.epochs())
    assert first is not None
    assert 0 < first < 3, "the target is met in between, so that there is something to count"
    assert counted(whole) == pytest.approx(expected(whole))
    assert counted(stopped) == counted(whole)
    assert whole.metrics()["last_epoch"] == 4
    assert stopped.metrics()["last_epoch"] == first + 1
    assert stopped.epochs() == whole.epochs()[: first + 1]
    assert 0 < whole.cost()["target_seconds"] < whole.cost()["train_seconds"]
    assert stopped.cost()["target_seconds"] == stopped.cost()["train_seconds"]


def test_what_is_not_reached_is_absent(small_run: Callable[..., RunFolder]) -> None:
    folder = small_run("target='val/loss<=1e-3'", "stop_at_target=true")
    assert not set(TARGET_METRICS) & set(folder.metrics())
    assert "target_seconds" not in folder.cost()
    assert folder.metrics()["last_epoch"] == 4


def test_members_of_a_group_end_at_their_targets_as_alone(tmp_path: Path) -> None:
    targets = (TARGET, ("target='val/loss<=1e-3'",))
    specs = [make_spec(tmp_path / f"grouped-{i}", *SMALL, *target, "stop_at_target=true") for i, target in enumerate(targets)]
    execute_group(specs, tmp_path / "checkpoints")
    for i, target in enumerate(targets):
        alone = make_spec(tmp_path / f"alone-{i}", *SMALL, *target, "stop_at_target=true")
        execute(alone)
        assert specs[i].folder.metrics() == pytest.approx(alone.folder.metrics(), rel=1e-5)
        assert ("target_seconds" in specs[i].folder.cost()) == (i == 0)


def test_a_longer_run_keeps_when_its_target_was_met(small_run: Callable[..., RunFolder], tmp_path: Path) -> None:
    folder = small_run(*TARGET)
    seconds, before = folder.cost()["target_seconds"], counted(folder)
    folder.update_status(state="running")
    execute(make_spec(folder.path, *SMALL, *TARGET, "trainer.max_epochs=5"))
    assert folder.metrics()["last_epoch"] == 5
    assert counted(folder) == before
    assert folder.cost()["target_seconds"] == seconds


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stop_at_target=true"], "has no target to stop at"),
        (["target='val/acc<=0.5'"], "an accuracy rises to it"),
        (["target='val/acc>=0.5'", "stop_at_target=true", "reg=magnitude_pruning"], "before all is removed"),
    ],
)
def test_what_cannot_be_meant_is_a_mistake(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        schema.check(schema.container(compose(*overrides)))


def test_a_target_needs_no_quotes_beside_those_of_the_shell() -> None:
    word = _with_quoted_text("target=val/acc>=0.95")
    assert parse(word).value() == "val/acc>=0.95"
    assert _with_quoted_text("target=null") == "target=null"

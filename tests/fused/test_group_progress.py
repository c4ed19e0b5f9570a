"""What a group says of itself while it trains."""

import logging
from pathlib import Path

import pytest

from conftest import SMALL, make_spec
from ockham.execute import execute_group
from ockham.fused import group
from ockham.record.progress import GroupProgress


def test_a_group_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """After each epoch in its file, and in a line: what the records of its members hold by then."""
    monkeypatch.setattr(group, "SECONDS_BETWEEN_LINES", 0.0)
    written: list[GroupProgress] = []
    write = GroupProgress.write

    def write_and_read(progress: GroupProgress, folder: Path) -> None:
        write(progress, folder)
        stored = GroupProgress.read(tmp_path / "checkpoints")
        assert stored is not None
        written.append(stored)

    monkeypatch.setattr(GroupProgress, "write", write_and_read)
    members = [["optimizer.lr=1e-3"], ["optimizer.lr=1e-2"], ["optimizer=sgd", "optimizer.lr=1e30"]]
    specs = [make_spec(tmp_path / str(number), *SMALL, *overrides) for number, overrides in enumerate(members)]
    with caplog.at_level(logging.INFO, "ockham"):
        execute_group(specs, tmp_path / "checkpoints")
    assert [progress.epoch for progress in written] == [1, 2, 3, 4]
    assert [progress.training for progress in written] == [2, 2, 2, 0], "the third diverges in its first epoch"
    accuracies = [[row["val/acc"] for row in spec.folder.epochs()] for spec in specs[:2]]
    for progress in written:
        best = [max(values[: progress.epoch]) for values in accuracies]
        assert (progress.num_epochs, progress.best) == (4, max(best))
        assert best[int(str(progress.best_run))] == max(best)
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("epoch ")]
    assert lines[0] == f"epoch 1/4, 2 of 3 runs go on, best val/acc {written[0].best:.4f} (#{written[0].best_run})"
    assert [line.endswith(" s left") for line in lines] == [False, True, True, False]

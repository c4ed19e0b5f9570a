"""Comparing what two runs left behind."""

from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ockham.record.checkpoint import Checkpoint
from ockham.record.folder import RunFolder


def assert_equal(first: Any, second: Any, place: str) -> None:
    """Deep equality of containers and tensors, bit for bit."""
    assert type(first) is type(second), place
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), place
    elif isinstance(first, dict):
        assert list(first) == list(second), place
        for key in first:
            assert_equal(first[key], second[key], f"{place}/{key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), place
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_equal(one, other, f"{place}/{index}")
    else:
        assert first == second, place


def scalars(folder: RunFolder) -> dict[str, list[tuple[int, float]]]:
    """Every scalar that TensorBoard shows for the run, but the throughput."""
    events = EventAccumulator(str(folder.path)).Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags if tag != "samples_per_second"}


def assert_same_run(first: RunFolder, second: RunFolder, *, events: bool = True) -> None:
    for name in ("metrics.csv", "metrics.json"):
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes(), name
    for one, other in ((first.last_checkpoint, second.last_checkpoint), (first.best_checkpoint, second.best_checkpoint)):
        assert_equal(vars(Checkpoint.load(one)), vars(Checkpoint.load(other)), one.name)
    if events:
        assert scalars(first) == scalars(second)

"""Runs as a report reads them, without a folder."""

import json
from pathlib import Path

from ockham.report.reading import RecordedRun


def run(values: dict[str, str], objective: float, *, seed: int = 0, state: str = "finished", **metrics: float) -> RecordedRun:
    """A run as it is read, without a folder."""
    names = ("objective", "val/acc", "val/loss", "train/acc", "test/acc", "test/loss")
    numbers = dict.fromkeys(names, objective) | {"zero_fraction": 0.0, "steps": 10.0, "flops": 1e9, **metrics}
    return RecordedRun(
        path=Path("somewhere"),
        state=state,
        values=values,
        overrides=tuple(f"{key}={text}" for key, text in values.items()),
        configuration_key=json.dumps(values),
        replicate=(seed, None),
        objective="val/acc",
        metrics=numbers,
        cost={"train_seconds": 1.0},
        epochs=[],
        reason=None,
    )

"""Times to a target over runs made in memory, against counts by hand."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ockham.core.statistics import t_interval
from ockham.record.folder import EPOCH_SCALARS
from ockham.report.analysis import analyse
from ockham.report.page import write_report
from ockham.report.reading import RecordedRun, RecordedRuns
from ockham.report.target_sections import target_sections
from ockham.report.targets import profiles, races
from recorded import run


def trained(values: dict[str, str], curve: Sequence[float], *, seed: int = 0, state: str = "finished") -> RecordedRun:
    """A run with these accuracies after each hundred steps, and the target 0.9."""
    first = next((epoch for epoch, value in enumerate(curve, start=1) if value >= 0.9), None)
    metrics = {"steps": 100.0 * len(curve), "samples": 3200.0 * len(curve), "flops": 1e6 * len(curve)}
    metrics |= (
        {} if first is None else {"target/steps": 100.0 * first, "target/samples": 3200.0 * first, "target/flops": 1e6 * first}
    )
    one = run({**values, "reg": "none"}, max(curve), seed=seed, state=state, **metrics)
    epochs = [
        {**dict.fromkeys(EPOCH_SCALARS, 0.5), "epoch": float(epoch), "step": 100.0 * epoch, "val/acc": value}
        for epoch, value in enumerate(curve, start=1)
    ]
    return replace(one, epochs=epochs, settings={"target": "val/acc>=0.9"}, metrics=one.metrics if state == "finished" else {})


SLOW, QUICK, NEVER = (0.5, 0.6, 0.7, 0.95), (0.5, 0.91, 0.8, 0.7), (0.5, 0.6, 0.7, 0.8)


def test_times_are_counted_as_by_hand() -> None:
    runs = [trained({"optimizer": "adam"}, curve, seed=seed) for seed, curve in enumerate((QUICK, QUICK, SLOW))]
    runs += [trained({"optimizer": "sgd"}, curve, seed=seed) for seed, curve in enumerate((SLOW, NEVER, NEVER))]
    (race,) = races(analyse(runs))
    assert race.until["steps"] == 400
    adam, sgd = race.times
    assert (adam.configuration.values["optimizer"], adam.num_met) == ("adam", 3)
    assert adam.by_axis["steps"].median()[0] == 200
    assert sgd.by_axis["steps"].median()[0] == math.inf
    mean, low, high = adam.by_axis["steps"].restricted_mean(400)
    assert mean == pytest.approx((200 + 200 + 400) / 3)
    assert (low, high) == pytest.approx(t_interval([200, 200, 400]))
    assert list(adam.by_axis["flops"].times) == [2e6, 4e6]
    table = target_sections(analyse(runs))[0].table
    assert table is not None
    assert [cell.text for cell in table.rows[1]][:3] == ["sgd", "1 of 3", "not reached"]


def test_what_ended_never_meets_it_and_what_runs_was_seen_until_now() -> None:
    curves = [(QUICK, "finished"), (NEVER[:1], "diverged"), (NEVER[:1], "running"), (NEVER[:3], "failed")]
    runs = [trained({"optimizer": "adam"}, curve, seed=seed, state=state) for seed, (curve, state) in enumerate(curves)]
    (race,) = races(analyse(runs))
    steps = race.times[0].by_axis["steps"]
    assert steps.at_risk.tolist() == [3], "of four the one that runs was seen for 100 steps only"
    assert steps.share_at(200) == pytest.approx(2 / 3)
    assert race.until["steps"] == 300, "a run that diverged shortens nothing"
    assert "flops" in race.times[0].by_axis or "flops" not in race.until


def test_profiles_over_data_sets_by_hand() -> None:
    curves = {("mnist", "adam"): QUICK, ("mnist", "sgd"): SLOW, ("digits", "adam"): NEVER, ("digits", "sgd"): SLOW}
    runs = [
        trained({"data": data, "optimizer": optimizer}, curve, seed=seed)
        for (data, optimizer), curve in curves.items()
        for seed in range(3)
    ]
    results = analyse(runs)
    found = {profile.solver: profile for profile in profiles(results, races(results))}
    assert sorted(found["adam"].ratios) == [1, math.inf]
    assert sorted(found["sgd"].ratios) == [1, 2]
    assert found["adam"].score == pytest.approx(1 / 2)
    assert found["sgd"].score == pytest.approx((1 + 2 / 3) / 2)


def test_the_page_has_the_section_and_its_figures(tmp_path: Path) -> None:
    curves = {("mnist", "adam"): QUICK, ("mnist", "sgd"): SLOW, ("digits", "adam"): QUICK, ("digits", "sgd"): SLOW}
    runs = [
        trained({"data": data, "optimizer": optimizer}, curve, seed=seed)
        for (data, optimizer), curve in curves.items()
        for seed in range(3)
    ]
    write_report(RecordedRuns(runs), "races", tmp_path, pictures=["png"])
    text = (tmp_path / "report.md").read_text()
    assert "## Time to target" in text
    assert "## Over all workloads" in text
    assert (tmp_path / "report" / "target-curves.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "report" / "profiles.png").exists()
    without = [replace(one, settings={}) for one in runs]
    assert target_sections(analyse(without)) == []

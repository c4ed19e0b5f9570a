"""Comparisons: equal budgets, no test set and no seed of the confirmation in the search, and the same after a restart."""

import json
import math
import re
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ockham.errors import UserError
from ockham.record.folder import RunFolder
from ockham.report.arms import arms_of
from ockham.report.reading import evidence, read, searched
from ockham.sweep.comparison import (
    Arm,
    Comparison,
    Confirmation,
    arm_lines,
    check_budgets,
    confirmation_seeds,
    trials_of_equal_cost,
)
from ockham.sweep.folder import SweepFolder
from ockham.sweep.grid import grid
from ockham.sweep.jobs import Job, make_replicates
from sweeps import command_line, sweep, table

COMPARED = (
    "compare=optimizer",
    "optimizer=sgd,adam",
    "reg=none,l2",
    "search=random",
    "search.trials=3",
    "confirm=3",
    "seeds=2",
)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared") / "sweep"
    code, out, errors = sweep(folder, *COMPARED, "report=true")
    assert code == 0, out + errors
    assert "seeds that no search saw" in out
    return folder


def plan_of(folder: Path) -> dict:
    content: dict = json.loads((folder / "sweep.json").read_text())
    return content


def files_of(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in ("metrics.csv", "metrics.json")}


def test_every_arm_has_its_budget_and_its_confirmation(compared: Path) -> None:
    rows = table(compared, "results.csv")
    for arm in ("sgd", "adam"):
        of_arm = [row for row in rows if row["arm"] == arm]
        assert {row["optimizer"] for row in of_arm} == {arm}
        assert [row["stage"] for row in of_arm] == ["search"] * 6 + ["confirm"] * 3
        assert {row["seed"] for row in of_arm if row["stage"] == "search"} == {"0", "1"}
        assert {row["seed"] for row in of_arm if row["stage"] == "confirm"} == {"2", "3", "4"}


def test_the_best_setting_on_validation_is_confirmed(compared: Path) -> None:
    rows = table(compared, "results.csv")
    settings = ("optimizer.lr", "reg", "reg.l2.strength")
    for arm in ("sgd", "adam"):
        scores: dict[tuple[str, ...], list[float]] = {}
        for row in rows:
            if (row["arm"], row["stage"]) == (arm, "search"):
                scores.setdefault(tuple(row[key] for key in settings), []).append(float(row["val/acc"]))
        best = max(scores, key=lambda setting: sum(scores[setting]))
        confirmed = {tuple(row[key] for key in settings) for row in rows if (row["arm"], row["stage"]) == (arm, "confirm")}
        assert confirmed == {best}


def test_no_search_run_evaluates_the_test_set(compared: Path) -> None:
    recorded = read([compared])
    assert (len(searched(recorded)), len(evidence(recorded))) == (12, 6)
    assert not any(name.startswith("test/") for run in searched(recorded) for name in run.metrics)
    assert all({"test/acc", "test/loss"} <= run.metrics.keys() for run in evidence(recorded))
    # Nor by a table or the page.
    assert all(not row["test/acc"] for row in table(compared, "results.csv") if row["stage"] == "search")
    assert {row["n"] for row in table(compared, "summary.csv")} == {"3"}
    assert {row["n"] for row in table(compared, "search.csv")} == {"2"}


def test_a_search_run_is_the_same_run_but_for_the_test_set(compared: Path, tmp_path: Path) -> None:
    """Leaving the test set out changes no other figure."""
    number = next(job["number"] for job in plan_of(compared)["jobs"] if job["stage"] == "search")
    job = plan_of(compared)["jobs"][number]
    alone = [text for text in job["overrides"] if text != "test=false"]
    code, out, errors = sweep(tmp_path / "alone", *alone, "fuse=off")
    assert code == 0, out + errors
    without, whole = (RunFolder(path).metrics() for path in (compared / str(number), tmp_path / "alone" / "0"))
    assert whole.keys() - without.keys() == {"test/loss", "test/acc"}
    assert all(whole[key] == pytest.approx(value, rel=1e-4) for key, value in without.items())


def test_a_comparison_continues_where_it_was(compared: Path, tmp_path: Path) -> None:
    """Whatever of it is missing, the same command leads to the same files."""
    jobs = plan_of(compared)["jobs"]
    confirming = [job["number"] for job in jobs if job["stage"] == "confirm"]
    for name, gone in (("part", [3, *confirming]), ("confirmation", confirming[1:])):
        folder = Path(shutil.copytree(compared, tmp_path / name))
        for number in gone:
            shutil.rmtree(folder / str(number))
        if name != "confirmation":  # as it was before the selection
            content = plan_of(folder)
            content |= {"selected": {}, "jobs": [job for job in jobs if job["stage"] == "search"]}
            content["groups"] = [group for group in content["groups"] if group[0] not in confirming]
            (folder / "sweep.json").write_text(json.dumps(content))
        code, out, errors = sweep(folder, *COMPARED)
        assert code == 0, out + errors
        for number in range(len(jobs)):
            assert files_of(folder / str(number)) == files_of(compared / str(number)), (name, number)
        assert plan_of(folder)["selected"] == plan_of(compared)["selected"]


def test_the_page_opens_with_the_answer(compared: Path) -> None:
    arms = arms_of(read([compared]))
    assert arms is not None
    page = (compared / "report.md").read_text()
    first = arms.ranked[0]
    opening = page.split("## ")[1]
    together = "is first: " in opening or f"share the first place: {first.name} has the best mean, " in opening
    assert together, opening
    assert f"test accuracy {first.confirmed.mean('test/acc'):.4f}" in opening
    common = dict(re.findall(r"^\| ([\w.]+) \| (.*) \|$", page.split("## Settings in common")[1], flags=re.MULTILINE))
    assert common["data.train_samples"] == "200"
    assert "optimizer" not in common, "it is what is compared"
    assert common["seeds"] == ", ".join(sorted({str(run.replicate[0]) for run in evidence(read([compared]))}))
    assert page.index("The arms") < page.index("The search")


@cache
def lines(*overrides: str) -> dict:
    return arm_lines([command_line(*overrides)], ["optimizer"])


def comparison(folder: Path, *overrides: str, confirm: Confirmation | None = None) -> Comparison:
    arms: list[Arm] = []
    for name, parts in lines(*overrides).items():
        arms.append(Arm(name, grid(parts, make_replicates(None, None), first=sum(arm.plan.total for arm in arms))))
    plan = Comparison(
        arms,
        SweepFolder(folder),
        names=["optimizer"],
        objective="val/acc",
        confirm=confirm or Confirmation(tuple(make_replicates([7, 8], None)), 2),
        first=sum(arm.plan.total for arm in arms),
    )
    plan.folder.begin(list(overrides), plan)
    return plan


def end(plan: Comparison, job: Job, objective: float | None, state: str = "finished") -> None:
    folder = plan.folder.run_folder(job)
    folder.path.mkdir()
    folder.begin(job.key)
    if objective is not None:
        (folder.path / "metrics.json").write_text(json.dumps({"objective": objective, "test/acc": objective}))
    folder.end(state)  # type: ignore[arg-type]


def test_with_a_budget_of_operations_dearer_arms_have_fewer_trials() -> None:
    """Two passes a step, half the trials; of an odd number what fits, and one at the least."""
    by_arm = arm_lines([command_line("data=digits", "optimizer=sgd", "reg=none,l2,sam", "test=false")], ["reg"])
    assert trials_of_equal_cost(by_arm, 7) == {"none": 7, "l2": 7, "sam": 3}
    assert trials_of_equal_cost(by_arm, 1) == {"none": 1, "l2": 1, "sam": 1}
    for varied in ("reg=none,sam", "model.hidden=[8],[16]"):
        mixed = arm_lines([command_line("data=digits", "optimizer=sgd,adam", varied, "test=false")], ["optimizer"])
        with pytest.raises(UserError, match="needs trials of one cost within an arm, and those of sgd take"):
            trials_of_equal_cost(mixed, 7)


GRID = ("optimizer=sgd,adam", "optimizer.lr=0.1,0.01,0.001", "test=false")


def test_nothing_is_confirmed_before_all_searches_have_ended(tmp_path: Path) -> None:
    plan = comparison(tmp_path, *GRID)
    jobs = plan.jobs
    assert [(job.number, job.stage) for job in jobs] == [(number, "search") for number in range(6)]
    for job in jobs[:-1]:
        end(plan, job, 0.5 + job.number / 100)
        assert not plan.more(slots=2)
    end(plan, jobs[-1], None, "diverged")
    confirming = plan.more(slots=2)
    assert [(job.arm, job.replicate) for job in confirming] == [
        ("sgd", ("seed=7",)), ("sgd", ("seed=8",)), ("adam", ("seed=7",)), ("adam", ("seed=8",)),
    ]  # fmt: skip
    assert {job.content["optimizer"]["lr"] for job in confirming if job.arm == "sgd"} == {0.001}
    assert {job.content["optimizer"]["lr"] for job in confirming if job.arm == "adam"} == {
        0.01
    }  # the best that did not diverge
    assert all(job.content["test"] and "test=false" not in job.overrides for job in confirming)
    assert [job.number for job in plan.jobs] == list(range(10))
    assert not plan.more(slots=2)
    # Another process that comes later has the same plan.
    later = comparison(tmp_path, *GRID)
    assert [(job.number, job.key, job.stage) for job in later.jobs] == [(job.number, job.key, job.stage) for job in plan.jobs]


def test_an_arm_that_never_ends_well_is_left_out(tmp_path: Path) -> None:
    plan = comparison(tmp_path, *GRID)
    for job in plan.jobs:
        end(plan, job, 0.5 if job.arm == "sgd" else None, "finished" if job.arm == "sgd" else "failed")
    assert {job.arm for job in plan.more(slots=2)} == {"sgd"}


@pytest.mark.parametrize(("spread", "most"), [(0.001, 1), (0.025, 3), (0.2, 4)])
def test_seeds_are_added_until_the_difference_is_known(tmp_path: Path, spread: float, most: int) -> None:
    """Against the interval by hand: Student's at the level 0.05 * 6 / (pi look)^2, as far as the resolution to each side."""
    seeds = Confirmation(tuple(make_replicates(list(range(1, 41)), None)), block=10, resolve=0.02)
    plan = comparison(tmp_path, "optimizer=sgd,adam", "test=false", confirm=seeds)
    chance = np.random.default_rng(0)
    for job in plan.jobs:
        end(plan, job, 0.5)
    scores: dict[str, list[float]] = {"sgd": [], "adam": []}
    looks = 0
    while added := plan.more(slots=2):
        looks += 1
        assert [job.arm for job in added] == ["sgd"] * 10 + ["adam"] * 10
        assert not plan.more(slots=2)  # while they run
        for job in added:
            scores[job.arm].append(0.5 + spread * float(chance.normal()))
            end(plan, job, scores[job.arm][-1])
        differences = np.subtract(*scores.values())
        quantile = stats.t.ppf(1 - 0.05 * 6 / (math.pi * looks) ** 2 / 2, len(differences) - 1)
        is_known = quantile * differences.std(ddof=1) / math.sqrt(len(differences)) <= 0.02
        assert len(plan.jobs) == 2 + 20 * looks
        if is_known:
            assert not plan.more(slots=2)
            break
    assert looks == plan.looks
    assert looks == 4 or is_known
    assert (looks == 1) == (most == 1)
    later = comparison(tmp_path, "optimizer=sgd,adam", "test=false", confirm=seeds)
    assert [(job.number, job.key) for job in later.jobs] == [(job.number, job.key) for job in plan.jobs]


def test_arms_of_unequal_budgets_are_refused() -> None:
    parts = arm_lines(
        [command_line("optimizer=sgd,momentum", "optimizer.lr=0.1,0.2", "optimizer.momentum=0.5,0.9")], ["optimizer"]
    )
    arms = [Arm(name, grid(of_arm, make_replicates(None, None))) for name, of_arm in parts.items()]
    with pytest.raises(UserError, match="sgd 2, momentum 4"):
        check_budgets(arms)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["compare=optimizer"], "name several, as in optimizer="),
        (["compare=optimizer", "optimizer=sgd"], "has one arm"),
        (["compare=optimiser", "optimizer=sgd,adam"], "compare=optimiser has nothing to compare"),
        (["compare=optimizer", "optimizer=sgd,adam", "test=true"], "test changes nothing with compare"),
        (["compare=optimizer", "optimizer=sgd,adam", "seed=0,1"], "use seeds="),
        (["compare=optimizer", "optimizer=sgd,adam", "confirm=[0,1]"], "holds seed 0, which the search sees"),
        (["compare=optimizer", "optimizer=sgd,adam", "confirm=1"], "confirm=1"),
        (["optimizer=sgd,adam", "confirm=3"], "add compare="),
        (["compare=optimizer", "optimizer=sgd,adam", "confirm=auto"], "say how well with resolve="),
        (["compare=optimizer", "optimizer=sgd,adam", "resolve=0.1"], "set confirm=auto"),
        (["compare=optimizer,reg", "optimizer=sgd,adam"], "compare=[optimizer,reg]"),
        (["compare=optimizer.lr", "search=random", "optimizer.lr=interval(0.1,1)"], "is an interval"),
    ],
)
def test_mistakes_are_told(overrides: list[str], said: str, tmp_path: Path) -> None:
    code, out, errors = sweep(tmp_path / "sweep", *overrides)
    assert code == 2
    assert said in errors
    assert "Traceback" not in out + errors
    assert not (tmp_path / "sweep").exists()


def test_seeds_of_the_confirmation_follow_those_of_the_search() -> None:
    assert confirmation_seeds(3, [0, 4]) == [5, 6, 7]
    assert confirmation_seeds([9, 2], [0]) == [9, 2]


def test_a_comparison_prunes_within_an_arm_and_never_a_confirmation(tmp_path: Path) -> None:
    code, out, errors = sweep(
        tmp_path / "sweep", "compare=optimizer", "optimizer=sgd,adam", "search=random", "search.trials=4", "confirm=2",
        "prune=asha", "prune.min_epochs=1", "prune.reduction=2", "executor.slots=1", "executor.threads=1",
    )  # fmt: skip
    assert code == 0, out + errors
    rows = table(tmp_path / "sweep", "results.csv")
    assert {row["state"] for row in rows if row["stage"] == "confirm"} == {"finished"}
    assert {row["state"] for row in rows if row["stage"] == "search"} == {"finished", "pruned"}
    # The best of each arm is never pruned, also not of an arm that is behind the other.
    for arm in ("sgd", "adam"):
        assert "finished" in {row["state"] for row in rows if (row["arm"], row["stage"]) == (arm, "search")}

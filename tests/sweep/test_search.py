"""Searches: what is sampled, that nothing is evaluated twice, that a search continues where it was, and pruning."""

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import qmc

from conftest import ROOT
from ockham import schema
from ockham.record.folder import FINAL_METRICS, RunFolder
from ockham.sweep.folder import SweepFolder
from ockham.sweep.fusion import Fusion
from ockham.sweep.jobs import Job, make_replicates
from ockham.sweep.samplers import INDEPENDENT, LEARNING, suggest
from ockham.sweep.search import Search
from ockham.sweep.searchspace import SearchSpace
from sweeps import command_line, sweep, table

SAMPLERS = [*INDEPENDENT, *LEARNING]
GROUPS = ("optimizer=sgd,momentum,adam", "reg=none,l1,[l1,dropout]")


@cache
def space_of(*overrides: str) -> SearchSpace:
    return SearchSpace.of(command_line(*overrides), schema.check)


def search_in(
    folder: Path,
    sampler: str,
    *overrides: str,
    trials: int = 12,
    seeds: Any = None,
    batch: int | None = None,
    prunes: bool = False,
) -> Search:
    search = Search(
        space_of(*overrides),
        SweepFolder(folder),
        sampler=sampler,
        num_trials=trials,
        seed=3,
        replicates=make_replicates(seeds, None),
        objective="val/acc",
        batch_size=batch,
        prunes=prunes,
    )
    search.folder.begin(list(overrides), search)
    return search


def settings(job: Job) -> dict[str, str]:
    return dict(override.split("=", 1) for override in job.overrides)


def test_a_search_may_continue_with_another_note() -> None:
    plain = space_of(*GROUPS)
    assert space_of(*GROUPS, "note='the second'").describe() == plain.describe()
    assert space_of(*GROUPS, "seed=7").describe() != plain.describe()


def objective(values: Mapping[str, str]) -> float:
    """A landscape with its best at Adam and a learning rate of 2e-3."""
    return 1.0 - 0.1 * abs(math.log(float(values["optimizer.lr"]) / 2e-3)) - 0.1 * (values.get("optimizer") != "adam")


def begin(search: Search, job: Job) -> RunFolder:
    run_folder = search.folder.run_folder(job)
    run_folder.path.mkdir(parents=True)
    run_folder.begin(job.key)
    return run_folder


def finish(search: Search, job: Job, *, state: str = "finished") -> None:
    """Leave the folder that a run would leave."""
    run_folder = begin(search, job)
    if state == "finished":
        run_folder.write_metrics({**dict.fromkeys(FINAL_METRICS, 0.0), "objective": objective(settings(job))})
    run_folder.end(state)  # type: ignore[arg-type]


def run_to_the_end(search: Search) -> list[Job]:
    jobs: list[Job] = []
    while more := search.more(slots=1):
        for job in more:
            finish(search, job)
        jobs += more
    return jobs


# -- the space -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_over_groups_is_conditional_by_itself(sampler: str, tmp_path: Path) -> None:
    jobs = run_to_the_end(search_in(tmp_path, sampler, *GROUPS))
    assert len(jobs) == 12
    assert len({job.key for job in jobs}) == 12
    for values in map(settings, jobs):
        assert ("optimizer.momentum" in values) == (values["optimizer"] == "momentum")
        assert ("reg.l1.strength" in values) == ("l1" in values["reg"])
        assert ("reg.dropout.rate" in values) == ("dropout" in values["reg"])
        low, high = {"sgd": (1e-2, 1), "momentum": (1e-3, 0.2), "adam": (1e-4, 1e-2)}[values["optimizer"]]
        assert low <= float(values["optimizer.lr"]) <= high
    assert {values["reg"] for values in map(settings, jobs)} == {"none", "l1", "[l1,dropout]"}


def test_what_the_command_gives_comes_before_what_options_declare(tmp_path: Path) -> None:
    overrides = ("optimizer=adam,sgd", "reg=l2", "optimizer.lr=0.01", "reg.l2.strength=tag(log,interval(1e-3,1e-2))")
    jobs = run_to_the_end(search_in(tmp_path, "random", *overrides))
    assert {settings(job)["optimizer.lr"] for job in jobs} == {"0.01"}
    assert all(1e-3 <= float(settings(job)["reg.l2.strength"]) <= 1e-2 for job in jobs)
    # Groups that the command does not name are not searched, nor are their settings.
    assert set().union(*map(settings, jobs)) == {"optimizer", "reg", "optimizer.lr", "optimizer.eps", "reg.l2.strength"}


def test_ranges_lists_and_whole_numbers_mean_what_they_mean_in_a_grid(tmp_path: Path) -> None:
    overrides = (
        "data.batch_size=range(16,19)",
        "model.hidden=[8],[8,8]",
        "optimizer.lr=0.1",
        "data.train_samples=int(interval(100,103))",
    )
    jobs = run_to_the_end(search_in(tmp_path, "random", *overrides, trials=1000))
    by_job = [settings(job) for job in jobs]
    assert {values["data.batch_size"] for values in by_job} == {"16", "17", "18"}
    assert {values["model.hidden"] for values in by_job} == {"[8]", "[8,8]"}
    assert {values["data.train_samples"] for values in by_job} == {"100", "101", "102", "103"}
    # The space is finite: each configuration once, and then no more.
    assert len(jobs) == 3 * 2 * 4
    assert jobs[0].content["model"]["hidden"] in ([8], [8, 8])


def test_a_logarithmic_interval_is_even_in_the_logarithm() -> None:
    space = space_of("optimizer.lr=tag(log,interval(1e-4,1))", "optimizer.weight_decay=interval(0,1)")
    points = [suggest("random", space, seed=0, draw=draw, observations=()) for draw in range(400)]
    exponents = np.log10([point["optimizer.lr"] for point in points])
    assert np.histogram(exponents, bins=4, range=(-4, 0))[0].min() > 70
    assert np.histogram([point["optimizer.weight_decay"] for point in points], bins=4)[0].min() > 70


def test_qmc_is_scipys_sobol_sequence() -> None:
    space = space_of("optimizer.lr=interval(0.5,1.5)", "optimizer.weight_decay=interval(0,1)")
    expected = qmc.Sobol(2, scramble=True, rng=7).random(16)
    points = [suggest("qmc", space, seed=7, draw=draw, observations=()) for draw in range(16)]
    drawn = [[point["optimizer.lr"] - 0.5, point["optimizer.weight_decay"]] for point in points]
    np.testing.assert_allclose(drawn, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("optimizer.lr=0.1",), "nothing to search"),
        (("optimizer=sgd,adam", "seed=0,1"), "luckiest seed"),
        (("optimizer.lr=interval(1,0.1)",), "the ends of an interval rise"),
        (("optimizer.lr=tag(log,interval(0,1))",), "above 0 on a logarithmic scale"),
        (("optimizer.lr=interval(-1,1)",), "optimizer.lr=-1.0 is not possible"),
    ],
)
def test_a_space_that_makes_no_sense_is_a_mistake(overrides: Sequence[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        space_of(*overrides)


#: Where an option makes sense by itself in no run of the defaults: what is said with it.
WITH_THEM = {"r_drop": ["reg=[dropout,r_drop]"], "stochastic_depth": ["reg=stochastic_depth", "model=resnet"]}


def test_every_declared_range_holds_the_default_and_passes_the_schema() -> None:
    for group in ("optimizer", "reg", "schedule", "model"):
        # `external` asks for a name, and declares nothing.
        options = sorted({path.stem for path in (ROOT / "conf" / group).glob("*.yaml")} - {"external", *WITH_THEM})
        more = ["model.activation=sigmoid"] if group == "reg" else []
        with_them = WITH_THEM.values() if group == "reg" else []
        for words in ([f"{group}={','.join(options)}", *more], *with_them):
            space = command_line(*words)
            for combination in space.combinations:
                for key, _ in combination.ranges:
                    path = key.split(".")
                    node: Any = combination.content
                    for part in path:
                        node = node[part]  # the setting exists
            SearchSpace.of(space, schema.check)


# -- samplers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 4, 5])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_continues_as_if_it_had_not_been_broken_off(sampler: str, batch: int, tmp_path: Path) -> None:
    whole = run_to_the_end(search_in(tmp_path / "whole", sampler, *GROUPS, seeds=2, batch=batch))
    broken: list[Job] = []
    while len(broken) < 24:  # as by a new process for each batch, on a machine with other slots, in another order
        search = search_in(tmp_path / "broken", sampler, *GROUPS, seeds=2, batch=None if broken else batch)
        for job in reversed(search.more(slots=3)):
            finish(search, job)
        broken = list(search.jobs)
    assert [job.overrides for job in broken] == [job.overrides for job in whole]
    assert [job.number for job in broken] == list(range(24))


@pytest.mark.parametrize("sampler", LEARNING)
def test_searchers_learn(sampler: str, tmp_path: Path) -> None:
    """What a search tries late is better than random draws, on a landscape that is known."""
    space = ("optimizer=adam", "optimizer.lr=tag(log,interval(1e-6,1))", "optimizer.weight_decay=interval(0,1)")
    trials = 16 if sampler == "gp" else 30
    searched = run_to_the_end(search_in(tmp_path / "searched", sampler, *space, trials=trials))[trials // 2 :]
    drawn = run_to_the_end(search_in(tmp_path / "random", "random", *space, trials=100))
    learned, random_draws = (np.mean([objective(settings(job)) for job in jobs]) for jobs in (searched, drawn))
    assert learned > random_draws + 0.1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_runs_that_fail_diverge_or_go_on_do_not_stop_a_search(sampler: str, tmp_path: Path) -> None:
    search = search_in(tmp_path, sampler, *GROUPS)
    states = ["finished", "diverged", "failed", "running", "finished"]
    jobs: list[Job] = []
    while more := search.more(slots=1):
        for job in more:
            state = states[job.number % len(states)]
            if state == "running":
                begin(search, job)
            else:
                finish(search, job, state=state)
        jobs += more
    assert len(jobs) == 12


@pytest.mark.parametrize("state", ["diverged", "failed"])
def test_a_trial_without_a_result_counts_as_the_worst(state: str, tmp_path: Path) -> None:
    search = search_in(tmp_path, "tpe", *GROUPS, trials=4)
    first, second, third, fourth = (search.more(slots=1)[0] for _ in range(4))
    finish(search, third, state=state)
    costs = [observation.cost for observation in search._observations()]
    assert costs == [None, None, 0.0, None], "nothing is known to compare it with"
    finish(search, first)
    finish(search, second)
    search.folder.run_folder(fourth).path.mkdir()
    (search.folder.run_folder(fourth).path / "status.json").write_text("[]")
    worst = max(-objective(settings(job)) for job in (first, second))
    costs = [observation.cost for observation in search._observations()[2:]]
    assert costs == [worst, worst], "damaged files count as a failure"


# -- what trains together ------------------------------------------------------------------------------------------------


def tasks_of(search: Search, *, slots: int) -> list[list[int]]:
    """The numbers of the jobs that train together in what the search asks for next."""
    fusion = Fusion(search.folder, mode="on", slots=slots)
    jobs = search.more(slots=slots)
    return [[job.number for job in task] for batch in search.batches(jobs) for task in fusion.tasks(batch)]


@pytest.mark.parametrize("sampler", INDEPENDENT)
def test_trials_that_depend_on_no_result_are_planned_whole_and_fused(sampler: str, tmp_path: Path) -> None:
    search = search_in(tmp_path, sampler, *GROUPS, seeds=2)
    tasks = tasks_of(search, slots=2)
    assert sorted(number for task in tasks for number in task) == list(range(24))
    assert [len(task) for task in tasks] == [12, 12]
    assert not search.more(slots=2)
    # More trials are another batch: the groups of the first stay what they were.
    longer = search_in(tmp_path, sampler, *GROUPS, seeds=2, trials=16)
    assert sorted(number for task in tasks_of(longer, slots=2) for number in task) == list(range(24, 32))
    assert [job.overrides for job in longer.jobs[:24]] == [job.overrides for job in search.jobs]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_pruned_trials_are_asked_for_one_by_one(sampler: str, tmp_path: Path) -> None:
    search = search_in(tmp_path, sampler, *GROUPS, seeds=2, prunes=True)
    assert not search.waits_for_results
    assert not search.foreseen()
    assert tasks_of(search, slots=2) == [[0, 1]]
    assert tasks_of(search, slots=2) == [[2, 3]]


@pytest.mark.parametrize("sampler", LEARNING)
def test_a_learning_search_fuses_a_batch(sampler: str, tmp_path: Path) -> None:
    search = search_in(tmp_path, sampler, *GROUPS, trials=6, batch=4)
    assert search.waits_for_results
    assert sorted(tasks_of(search, slots=2)) == [[0, 1], [2, 3]]
    assert sorted(tasks_of(search, slots=2)) == [[4, 5]]
    points = [tuple(sorted(trial.point.items())) for trial in search.trials]
    assert len(set(points)) == 6
    by_slots = search_in(tmp_path / "by slots", sampler, *GROUPS)
    assert len(by_slots.more(slots=3)) == 3


def test_a_search_from_the_command_line(tmp_path: Path) -> None:
    arguments = ("optimizer=sgd,adam", "reg=none,l2", "search=tpe", "search.trials=4", "seeds=2")
    code, out, errors = sweep(tmp_path / "sweep", *arguments)
    assert (code, errors) == (0, "")
    assert "(8 of 8)" in out
    rows = table(tmp_path / "sweep", "summary.csv")
    assert [row["n"] for row in rows] == ["2"] * 4
    assert "optimizer.lr" in rows[0]
    trials = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["trials"]
    assert len(trials) == 4
    code, out, _ = sweep(tmp_path / "sweep", *arguments)
    assert code == 0
    assert "8 of 8 jobs are finished already" in out
    code, _, errors = sweep(tmp_path / "sweep", *arguments, "optimizer.lr=0.1")
    assert code == 2
    assert "+ optimizer.lr=0.1" in errors

"""Which jobs a grid has."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest

from conftest import compose, with_hydra
from ockham import schema
from ockham.identity import run_key
from ockham.sweep.composition import compose_all
from ockham.sweep.grid import Grid, grid
from ockham.sweep.jobs import make_replicates
from sweeps import CONDITIONAL, command_line


def plan(*overrides: str, seeds: Any = None, cv: int | None = None) -> Grid:
    return grid([command_line(*overrides)], make_replicates(seeds, cv))


def test_several_grids_are_one_sweep() -> None:
    lines = [command_line("reg=none,l2", *overrides) for overrides in (
        ["optimizer=sgd", "optimizer.lr=0.1,0.2,0.5"], ["optimizer=adam", "optimizer.lr=1e-3,1e-2"], ["optimizer=adam"]
    )]  # fmt: skip
    planned = grid(lines, make_replicates(2, None))
    assert len(planned.jobs) == 2 * 2 * (3 + 2)
    assert planned.duplicates == 2 * 2, "the default of adam is among its values"
    assert [job.number for job in planned.jobs] == list(range(20))
    assert set(planned.swept) == {"reg", "optimizer", "optimizer.lr", "seed"}


def test_a_grid_is_conditional_by_itself() -> None:
    planned = plan(*CONDITIONAL)
    assert len(planned.jobs) == 2 * (1 + 2 + 2) * 3
    assert [job.number for job in planned.jobs] == list(range(30))
    assert len({job.key for job in planned.jobs}) == 30
    assert len({job.configuration_key for job in planned.jobs}) == 10
    for job in planned.jobs:
        names = {override.partition("=")[0] for override in job.overrides}
        chosen = next(override for override in job.overrides if override.startswith("reg="))
        assert {name for name in names if name.startswith("reg.")} == (
            set() if chosen == "reg=none" else {f"{chosen.replace('=', '.')}.strength"}
        )


def test_each_job_knows_the_options_that_hydra_chose_for_it() -> None:
    """Also those of groups that only an experiment names."""
    for job in plan("experiment=mnist_dropout,image_folder_cnn", "reg=dropout,[dropout,l1]", "seed=0,1", "data.root=x").jobs:
        choices, _ = with_hydra(job.overrides)
        assert dict(job.choices) == choices


def test_each_job_composes_to_what_its_key_says() -> None:
    for job in plan(*CONDITIONAL, "model.hidden=[8],[8,8]").jobs:
        assert run_key(schema.container(with_hydra(job.overrides)[1])) == job.key


@pytest.mark.parametrize(
    ("options", "apart"),
    [
        ((("optimizer=sgd", "optimizer=adam", "optimizer=muon"), ("reg=none", "reg=[l1,l2]", "reg=dropout")), True),
        # gd and the data sets both set the batch size.
        ((("optimizer=sgd", "optimizer=gd", "optimizer=adam"), ("data=mnist5k", "data=image_folder", "data=cifar10")), False),
        # An experiment chooses in other groups.
        (
            (("experiment=mnist_dropout", "experiment=image_folder_cnn"), ("reg=none", "reg=l1"), ("model=mlp", "model=cnn")),
            False,
        ),
    ],
)
def test_combinations_are_what_hydra_composes(options: Sequence[Sequence[str]], apart: bool) -> None:
    asked: list[Sequence[str]] = []

    def counted(chosen: Sequence[str]) -> Any:
        asked.append(chosen)
        return compose(*chosen)

    composed = dict(compose_all(options, counted))
    every = list(product(*options))
    assert list(composed) == every
    for chosen in every:
        assert composed[chosen] == schema.resolved(compose(*chosen))
    assert (len(asked) < len(every)) == apart


def test_duplicates_are_run_once() -> None:
    planned = plan("reg=[l1,l2],[l2,l1],none", "optimizer.lr=0.001,1e-3")
    assert [job.overrides for job in planned.jobs] == [
        ("reg=[l1,l2]", "optimizer.lr=0.001"),
        ("reg=none", "optimizer.lr=0.001"),
    ]
    assert planned.duplicates == 4


def test_hydras_sweep_syntax_keeps_its_meaning() -> None:
    values = {
        "seed=range(1,4)": ["1", "2", "3"],
        "model.hidden=[8],[8,4]": ["[8]", "[8,4]"],
        "optimizer.lr=choice(0.1,0.2)": ["0.1", "0.2"],
        "optimizer=glob(ada*)": ["adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "adan"],
    }
    for override, expected in values.items():
        assert [job.overrides[0].partition("=")[2] for job in plan(override).jobs] == expected


def test_a_setting_of_no_choice_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="reg.l2.strenght is a setting of none .* did you mean reg.l2.strength"):
        plan("reg=l1,l2", "reg.l2.strenght=1,2")
    with pytest.raises(ValueError, match="optimizer.lr=-1 is not possible"):
        plan("optimizer.lr=0.1,-1", "seed=0,1")
    with pytest.raises(ValueError, match="is an interval, which a grid cannot list"):
        plan("optimizer.lr=interval(0.1,1)")


def test_seeds_and_folds_repeat_each_configuration() -> None:
    planned = plan("optimizer=sgd,adam", seeds=[0, 7], cv=3)
    assert len(planned.jobs) == 2 * 2 * 3
    assert planned.jobs[4].overrides == ("optimizer=sgd", "seed=7", "cv=3", "fold=1")
    assert len({job.configuration_key for job in planned.jobs}) == 2
    assert planned.swept == ("optimizer", "seed", "cv", "fold")

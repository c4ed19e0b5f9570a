"""One answer to what is the same configuration."""

import pytest

from conftest import compose
from ockham import schema
from ockham.identity import configuration_key, run_key


def keys(*overrides: str) -> tuple[str, str]:
    content = schema.container(compose(*overrides))
    return run_key(content), configuration_key(content)


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer=adam", "optimizer.lr=0.001"],
        ["reg=none"],
        ["logger=csv"],
        ["note=mine"],
        ["trust=[mine]", "sweep=name", "seeds=3", "prune=asha", "executor=inline", "fuse=off", "report=false"],
    ],
)
def test_other_words_for_the_same_run(words: list[str]) -> None:
    assert keys(*words) == keys()


@pytest.mark.parametrize(
    "words", [["optimizer.lr=0.01"], ["objective=val/loss"], ["cv=5", "fold=0"], ["data.train_samples=100"]]
)
def test_another_configuration(words: list[str]) -> None:
    assert not set(keys(*words)) & set(keys())


def test_seeds_and_folds_are_replicates() -> None:
    first, second = keys("cv=3", "fold=0", "seed=1"), keys("cv=3", "fold=2", "seed=7")
    assert first[0] != second[0]
    assert first[1] == second[1]


def test_the_place_of_data_counts_only_where_it_decides_what_they_are() -> None:
    assert keys("data=mnist", "data.root=a") == keys("data=mnist", "data.root=b")
    assert keys("data=image_folder", "data.root=a") != keys("data=image_folder", "data.root=b")


def test_what_a_run_folder_holds_is_what_was_composed() -> None:
    """Hydra stores the ranges that options declare too, and reading yaml gives back other types of numbers."""
    config = compose("optimizer.lr=1", "reg=l1")
    assert run_key(schema.resolved(config)) == run_key(schema.container(compose("optimizer.lr=1.0", "reg=l1")))

"""Overrides as axes: parsed once, with the values that Hydra makes of their texts."""

import pytest
from omegaconf import OmegaConf

from conftest import compose
from ockham.cli import _with_sweep_folder
from ockham.errors import UserError
from ockham.sweep.axes import Axis, listed_twice, parse_axes


def axis(override: str) -> Axis:
    (parsed,) = parse_axes([override])
    return parsed


@pytest.mark.parametrize(
    ("override", "number"),
    [
        ("optimizer.lr=1e-3,0.01,1", 3),
        ("optimizer.betas=[0.9,0.99],[0.5,0.999]", 2),
        ("+data.root='a, b',\"it's\",some where", 3),
        ("+data.root=null,[null]", 2),
        ("data.batch_size=range(16,64,16)", 3),
        ("optimizer.lr=range(0.1,0.35,0.1)", 3),
        ("+optimizer.more={a:1,b:['x',true]}", 1),
        ("data.shape=shuffle([784],[28,28])", 2),
        ("optimizer.lr=0.5", 1),
    ],
)
def test_values_are_what_hydra_composes_from_the_texts(override: str, number: int) -> None:
    parsed = axis(override)
    assert len(parsed.texts) == number
    for text, value in zip(parsed.texts, parsed.values, strict=True):
        composed = OmegaConf.to_container(compose("optimizer=adam", text))
        group, key = parsed.name.split(".")
        assert composed[group][key] == value  # type: ignore[index, call-overload]


@pytest.mark.parametrize(
    "plain",
    [
        "trainer.max_epochs=null",
        "data.root='a, b'",
        "data.root='123'",
        "data.root=some where",
        "model.hidden=[8,4]",
        "data.batch_size=int(8.5)",
        "reg.l2.strength=1e-3",
    ],
)
def test_a_plain_setting_that_is_listed_twice_stays_what_it_is(plain: str) -> None:
    assert axis(listed_twice(plain)) == axis(plain)


def test_values_that_the_user_repeats_are_several() -> None:
    assert axis("seed=1,1,1,1,1,1").texts == ("seed=1",) * 6
    assert axis("optimizer.lr=0.001,1e-3").is_swept
    assert axis(listed_twice("data.root=")).values == ("",)


def test_the_last_of_two_overrides_of_a_setting_counts() -> None:
    axes = parse_axes(["seed=1,2", "cv=5", "seed=3"])
    assert [(axis.name, axis.values) for axis in axes] == [("cv", (5,)), ("seed", (3,))]


def test_an_interval_without_sense_is_a_mistake() -> None:
    with pytest.raises(UserError, match="the ends of an interval rise"):
        axis("optimizer.lr=interval(1,0.1)")


def test_only_ockhams_sweeper_sees_plain_settings_listed_twice() -> None:
    arguments = ["-m", "optimizer.lr=0.1", "seed=0,1", "reg=l2"]
    assert _with_sweep_folder(arguments) == ["-m", "optimizer.lr=0.1,0.1", "seed=0,1", "reg=l2"]
    assert _with_sweep_folder([*arguments, "hydra/sweeper=basic"]) == [*arguments, "hydra/sweeper=basic"]

"""The configuration files, against the tables that must name them."""

import re
from functools import cache

import pytest
from omegaconf import OmegaConf

from cases import CASES
from conftest import ROOT, compose, composed, with_hydra
from ockham import schema
from ockham.fused.partition import why_alone

README = (ROOT / "README.md").read_text()


def options(group: str) -> set[str]:
    return {file.stem for file in (ROOT / "conf" / group).glob("*.yaml")}


@cache
def content(group: str, option: str) -> schema.Content:
    """What the option composes to under the overrides of its row in the cases."""
    return schema.container(compose(f"{group}={option}", *CASES[group][option]))


def readme_rows(group: str) -> dict[str, str]:
    """The table of the group in the README: option -> what it says."""
    section = re.search(rf"^### {group}\n(.*?)(?=^##)", README, re.MULTILINE | re.DOTALL)
    assert section, f"README.md has no section for {group}"
    return dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section[1], re.MULTILINE))


def default_of(group: str) -> str:
    """The option of conf/train.yaml."""
    defaults = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "train.yaml"))["defaults"]
    (option,) = [entry[group] for entry in defaults if isinstance(entry, dict) and group in entry]
    return option[0] if isinstance(option, list) else option


@pytest.mark.parametrize("group", CASES)
def test_every_yaml_has_a_row_in_the_cases_and_in_the_readme(group: str) -> None:
    assert set(CASES[group]) == options(group)
    rows = readme_rows(group)
    assert set(rows) == options(group), f"README.md and conf/{group} differ"
    assert [option for option, text in rows.items() if "the default" in text] == [default_of(group)]


def test_the_readme_has_a_table_for_every_group_and_no_other() -> None:
    section = README.partition("## Options")[2].partition("## The run folder")[0]
    assert set(re.findall(r"^### (\w+)", section, re.MULTILINE)) == set(CASES)


def test_settings_that_the_readme_names_exist() -> None:
    """`group.key` for the options of a group, `reg.<name>.key` for regularizers; with a + they are new."""
    groups = "|".join(CASES)
    named = set(re.findall(rf"(?<![\w/.`+])`?((?:{groups})\.[a-z_0-9]+(?:\.[a-z_0-9]+)?)(?==|`| \(| |,)", README))
    known = {path for group in CASES for option in options(group) for path, _ in schema.leaves(content(group, option))}
    assert len(named) > 20
    assert not named - known, "README.md names settings that no option has"


def test_what_is_not_fused_is_what_its_table_says() -> None:
    section = (ROOT / "docs" / "fused.md").read_text().partition("## What is not fused")[2]
    named: set[str] = set()
    for cell in re.findall(r"^\| ([^|]*`\w+=\w+`[^|]*) \|", section, re.MULTILINE):
        group = re.search(r"`(\w+)=", cell)
        assert group
        named |= {f"{group[1]}={option.partition('=')[2] or option}" for option in re.findall(r"`([\w=]+)`", cell)}
    alone = {
        f"{group}={option}"
        for group in ("model", "optimizer", "schedule", "reg")
        for option in options(group)
        if why_alone(content(group, option)) is not None
    }
    assert named == alone


def test_the_readme_says_which_optimizers_are_fused() -> None:
    fused = {option for option, text in readme_rows("optimizer").items() if text.endswith("| yes")}
    assert fused == {option for option in options("optimizer") if why_alone(content("optimizer", option)) is None}


def test_no_group_is_without_cases() -> None:
    groups = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()}
    assert groups - {"hydra", "experiment"} == set(CASES)


@pytest.mark.parametrize("group", CASES)
def test_every_setting_is_checked_by_the_schema(group: str) -> None:
    for option in options(group):
        settings = [path for path, _ in schema.leaves(content(group, option)) if "_target_" not in path]
        unchecked = [path for path in settings if schema.field_of(path) not in schema.FIELDS]
        assert not unchecked, f"{group}={option} has settings that schema.FIELDS does not know: {unchecked}"


@pytest.mark.parametrize(("group", "option"), [(group, option) for group, rows in CASES.items() for option in rows])
def test_defaults_pass_the_schema(group: str, option: str) -> None:
    schema.check(content(group, option))


@pytest.mark.parametrize("experiment", sorted(options("experiment")))
def test_experiments_compose_and_tell_their_cost_and_result(experiment: str) -> None:
    settings = schema.container(compose(f"experiment={experiment}"))
    schema.check(settings | {"data": {**settings["data"], "root": "images"}})
    header = (ROOT / "conf" / "experiment" / f"{experiment}.yaml").read_text()
    assert re.search(r"^# python train\.py .*experiment=", header, re.MULTILINE)
    assert re.search(r"^# .*(minutes|seconds|s), .*test", header, re.MULTILINE)


@pytest.mark.parametrize(
    "overrides",
    [
        ("reg=[dropout,l1]", "optimizer.lr=1e-3", "model.hidden=[3,4]", "trainer.max_steps=null", "note='a=b, c'"),
        ("experiment=mnist_dropout", "seed=3", "data.batch_size=full", "trust=[outside]"),
        ("optimizer=external", "optimizer.name=nero", "+optimizer.x=1"),
    ],
)
def test_the_tests_compose_what_hydra_composes(overrides: tuple[str, ...]) -> None:
    (choices, config), (expected_choices, expected) = composed(overrides), with_hydra(overrides)
    assert choices == expected_choices
    assert OmegaConf.to_yaml(config) == OmegaConf.to_yaml(expected)


def test_the_order_of_regularizers_does_not_change_the_configuration() -> None:
    one, other = (OmegaConf.to_container(compose(f"reg=[{names}]"))["reg"] for names in ("l2,dropout", "dropout,l2"))
    assert one == other


def test_activations_of_schema_and_models_agree() -> None:
    from ockham.models.layers import ACTIVATIONS

    assert set(schema.ACTIVATIONS) == set(ACTIVATIONS)

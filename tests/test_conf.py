"""The configuration files, against the tables that must name them."""

import re

import pytest
from omegaconf import OmegaConf

from cases import CASES
from conftest import ROOT, compose
from ockham import schema

README = (ROOT / "README.md").read_text()


def options(group: str) -> set[str]:
    return {file.stem for file in (ROOT / "conf" / group).glob("*.yaml")}


@pytest.mark.parametrize("group", CASES)
def test_every_yaml_has_a_row_in_the_cases_and_in_the_readme(group: str) -> None:
    assert set(CASES[group]) == options(group)
    missing = [option for option in options(group) if not re.search(rf"^\| `{option}` \|", README, re.MULTILINE)]
    assert not missing, f"README.md has no row for {group}: {missing}"


def test_no_group_is_without_cases() -> None:
    groups = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()}
    assert groups - {"hydra", "experiment"} == set(CASES)


@pytest.mark.parametrize("group", CASES)
def test_every_setting_is_checked_by_the_schema(group: str) -> None:
    for option in options(group):
        settings = [path for path, _ in schema.leaves(schema.container(compose(f"{group}={option}"))) if "_target_" not in path]
        unchecked = [path for path in settings if schema.field_of(path) not in schema.FIELDS]
        assert not unchecked, f"{group}={option} has settings that schema.FIELDS does not know: {unchecked}"


@pytest.mark.parametrize(("group", "option"), [(group, option) for group, rows in CASES.items() for option in rows])
def test_defaults_pass_the_schema(group: str, option: str) -> None:
    schema.check(schema.container(compose(f"{group}={option}", *CASES[group][option])))


@pytest.mark.parametrize("experiment", sorted(options("experiment")))
def test_experiments_compose_and_tell_their_cost_and_result(experiment: str) -> None:
    schema.check(schema.container(compose(f"experiment={experiment}", "data.root=images")))
    header = (ROOT / "conf" / "experiment" / f"{experiment}.yaml").read_text()
    assert re.search(r"^# python train\.py .*experiment=", header, re.MULTILINE)
    assert re.search(r"^# .*(minutes|seconds|s), .*test", header, re.MULTILINE)


def test_the_order_of_regularizers_does_not_change_the_configuration() -> None:
    one, other = (OmegaConf.to_container(compose(f"reg=[{names}]"))["reg"] for names in ("l2,dropout", "dropout,l2"))
    assert one == other


def test_activations_of_schema_and_models_agree() -> None:
    from ockham.models.layers import ACTIVATIONS

    assert set(schema.ACTIVATIONS) == set(ACTIVATIONS)

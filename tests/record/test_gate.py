"""What stands in a folder, whoever wrote it, names no class of its own choice."""

import json
from pathlib import Path

import pytest

from conftest import make_spec
from faults.one_process import run_all
from ockham.build import optimizer_of
from ockham.errors import UserError
from ockham.record.resume import checked_overrides, stored_config
from ockham.sweep.folder import FORMAT, SweepFolder

FILE = Path("sweep.json")


@pytest.mark.parametrize(
    "override",
    [
        "hydra.launcher._target_=evil.Launcher",
        "+hydra.callbacks.evil._target_=evil.Callback",
        "hydra/launcher=evil",
        "optimizer@hydra.launcher=adam",
        "--config-dir=/tmp/evil",
        "-m",
        "experiment=../../evil",
        "+experiment=/tmp/evil",
        "experiment=[mnist_dropout,/tmp/evil]",
        "optimizer.lr=${oc.env:HOME}",
        'grids=[["optimizer=adam"],["trust=[evil]","optimizer._target_=evil.Evil"]]',
        'grids=[["hydra.launcher._target_=evil.Launcher"]]',
        'grids=[["experiment=../../evil"]]',
        'grids=[[["trust=[evil]"]]]',
        "grids=evil",
    ],
)
def test_an_override_that_reaches_beyond_the_settings_is_refused(override: str) -> None:
    with pytest.raises(UserError, match=r"sweep\.json holds"):
        checked_overrides([override], FILE)


def test_settings_pass_and_trust_is_left_behind() -> None:
    kept = ["optimizer=adam,sgd", "reg=[l2,dropout]", "data.root=/data/images", "seeds=3", 'grids=[["optimizer=adam"]]']
    assert checked_overrides([*kept, "trust=[evil]", "++trust=[evil]"], FILE) == kept


def test_a_foreign_sweep_cannot_widen_the_allowlist(tmp_path: Path) -> None:
    plan = {"format": FORMAT, "arguments": ['grids=[["trust=[evil]","optimizer._target_=evil.Evil"]]'], "jobs": []}
    (tmp_path / "sweep.json").write_text(json.dumps(plan))
    with pytest.raises(UserError, match="grids that set trust"):
        SweepFolder(tmp_path).arguments()


def test_a_foreign_run_cannot_widen_the_allowlist(tmp_path: Path) -> None:
    spec = make_spec(tmp_path / "run", "trust=[evil]", "optimizer._target_=evil.Evil")
    config = stored_config(spec.folder, [], trust=[])
    assert config.trust == []
    with pytest.raises(UserError, match=r"evil\.Evil is outside the packages"):
        optimizer_of(config)


HOSTILE = {
    "launcher": "hydra/launcher=basic",
    "callback": "+hydra.callbacks.x._target_=os.system",
    "environment": "data.root=${oc.env:HOME}",
    "flag": "--config-dir=/tmp",
    "grids": 'grids=[["trust=[evil]","optimizer._target_=evil.Evil"]]',
}


def test_a_hostile_sweep_folder_is_refused_at_the_command_line(tmp_path: Path) -> None:
    for name, argument in HOSTILE.items():
        (tmp_path / f"sweep-{name}").mkdir()
        plan = {"format": FORMAT, "arguments": ["seed=0,1", argument], "swept": [], "jobs": []}
        (tmp_path / f"sweep-{name}" / "sweep.json").write_text(json.dumps(plan))
    for name, left in run_all({name: [f"resume={tmp_path}/sweep-{name}"] for name in HOSTILE}, tmp_path).items():
        assert left.code == 2, name
        assert "which is not taken from a folder" in left.errors, name
        assert left.files == [], name

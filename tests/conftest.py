"""What the tests share: composed configurations, small runs, and the real data where it is there."""

import os
import signal
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path

import hydra
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from ockham.execute import RunSpec, execute
from ockham.record.folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("OCKHAM_TEST_DATA", ROOT.parent / "shared" / "data"))

# A shell ignores Ctrl-C in what it starts in the background, and commands inherit that from the tests, which press it.
signal.signal(signal.SIGINT, signal.default_int_handler)

#: A run of a second: 200 training images, a small network, four epochs.
SMALL = (
    "data.train_samples=200",
    "data.batch_size=32",
    "model.hidden=[16]",
    "schedule=constant",
    "trainer.max_epochs=4",
    "logger=csv",
)


def small(*overrides: str) -> list[str]:
    """SMALL, without what the overrides set again, and these: the words of a command, which says nothing twice."""
    again = {override.partition("=")[0] for override in overrides}
    return [*(word for word in SMALL if word.partition("=")[0] not in again), *overrides]


def compose(*overrides: str) -> DictConfig:
    """The configuration of `python train.py <overrides>`."""
    return composed(overrides)[1]


def composed(overrides: Sequence[str]) -> tuple[dict[str, str], DictConfig]:
    """The options by group, and the configuration of a run.

    Hydra takes a tenth of a second for each, and most runs of the tests choose the same options: it composes those, and the
    values are set as it would set them.
    """
    groups = tuple(override for override in overrides if (ROOT / "conf" / override.lstrip("+").partition("=")[0]).is_dir())
    values = OverridesParser.create().parse_overrides([override for override in overrides if override not in groups])
    whole = any(value.is_delete() or value.is_add() or value.key_or_group.startswith("hydra.") for value in values)
    choices, config = deepcopy(with_hydra(tuple(overrides) if whole else groups))
    for value in () if whole else values:
        OmegaConf.update(config, value.key_or_group, value.value())
    OmegaConf.set_struct(config, False)
    return choices, config


@cache
def with_hydra(overrides: tuple[str, ...]) -> tuple[dict[str, str], DictConfig]:
    """The same from Hydra itself."""
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = hydra.compose("train", list(overrides), return_hydra_config=True)
    choices = {str(group): str(option) for group, option in config.hydra.runtime.choices.items()}
    with open_dict(config):
        del config["hydra"]
    return choices, config


def make_spec(folder: Path, *overrides: str) -> RunSpec:
    """The run of `python train.py <overrides>` in this folder, with the files that Hydra would write."""
    choices, config = composed(overrides)
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    (folder / ".hydra" / "config.yaml").write_text(OmegaConf.to_yaml(config))
    return RunSpec(config, choices, overrides, RunFolder(folder))


@pytest.fixture
def small_run(tmp_path: Path) -> Callable[..., RunFolder]:
    """Executes SMALL with further overrides in a folder of its own; returns that folder."""

    def run(*overrides: str, name: str = "run") -> RunFolder:
        spec = make_spec(tmp_path / name, *SMALL, *overrides)
        execute(spec)
        return spec.folder

    return run


@pytest.fixture
def mnist_root() -> Path:
    root = DATA / "mnist"
    if not root.is_dir():
        pytest.skip("the official MNIST files are not here: set OCKHAM_TEST_DATA to the folder above mnist/")
    return root


@pytest.fixture
def float64():
    """Parameters and images in double precision."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)

"""What the tests share: composed configurations, small runs, and the real data where it is there."""

import os
import signal
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path

import hydra
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

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
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return hydra.compose("train", list(overrides))


@cache  # Hydra takes a quarter of a second for each, and many runs of the tests are asked for several times
def composed(overrides: tuple[str, ...]) -> tuple[dict[str, str], DictConfig, str]:
    """The options by group, the configuration of a run, and the text of its file."""
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = hydra.compose("train", list(overrides), return_hydra_config=True)
    choices = {str(group): str(option) for group, option in config.hydra.runtime.choices.items()}
    run_config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    return choices, run_config, OmegaConf.to_yaml(run_config)


def make_spec(folder: Path, *overrides: str) -> RunSpec:
    """The run of `python train.py <overrides>` in this folder, with the files that Hydra would write."""
    choices, config, text = composed(overrides)
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    (folder / ".hydra" / "config.yaml").write_text(text)
    return RunSpec(deepcopy(config), choices, overrides, RunFolder(folder))


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

"""Continuing a run from its folder. No torch here: a mistake is told at once.

The configuration is read from the folder as data: it never widens the allowlist, and no Hydra setting is taken from it.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ockham.core.files import write_atomic
from ockham.errors import UserError
from ockham.record.folder import RunFolder

#: What may change when a run continues; all other settings would make it another run.
CHANGEABLE = ("trainer.max_epochs", "trainer.max_steps", "trainer.accelerator", "data.root")


def run_folder(path: str) -> RunFolder:
    """The folder of a run that can be read. Raises UserError, with the runs nearby, where it is none."""
    folder = RunFolder(path)
    if not folder.config_file.exists():
        what = "is no run folder: it has no .hydra/config.yaml" if folder.path.is_dir() else "does not exist"
        nearby = sorted(found.parent.parent for found in _parents(folder.path).glob("**/.hydra/config.yaml"))[-3:]
        known = "".join(f"\n  {found}" for found in nearby)
        raise UserError(f"{path} {what}" + (f"; the newest runs near it:{known}" if known else ""))
    return folder


def _parents(path: Path) -> Path:
    """The nearest existing folder above the path, or the path's own place if that would be the whole disk."""
    existing = next((parent for parent in path.parents if parent.is_dir()), Path())
    return (
        existing if existing.resolve().name in ("outputs", "runs", "sweeps") or "outputs" in existing.parts else Path("outputs")
    )


def check_resumable(folder: RunFolder) -> None:
    """Raises UserError where the folder already holds a run that has ended for good."""
    if folder.state == "finished":
        raise UserError(
            f"{folder.path} holds a finished run: choose another hydra.run.dir, or look at it with tensorboard --logdir "
            f"{folder.path}"
        )
    if folder.state == "pruned":
        raise UserError(f"{folder.path} holds a run that its sweep pruned: run its overrides alone, without prune")
    if folder.state == "diverged":
        raise UserError(f"{folder.path} holds a run that diverged: choose another hydra.run.dir, and a smaller optimizer.lr")


def read_config(folder: RunFolder) -> DictConfig:
    """The stored configuration, as data. Raises UserError where it is damaged."""
    try:
        config = OmegaConf.load(folder.config_file)
        assert isinstance(config, DictConfig)
        content = OmegaConf.to_container(config)
    except (OmegaConfBaseException, yaml.YAMLError, OSError, AssertionError, UnicodeDecodeError) as error:
        raise UserError(f"{folder.config_file} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict) or "optimizer" not in content:
        raise UserError(
            f"{folder.config_file} holds no configuration of a run: repeat the command that began the run, with "
            f"hydra.run.dir={folder.path}, which writes it again"
        )
    if "${" in str(content):  # an interpolation may read the environment; Hydra stores none that ours need
        raise UserError(f"{folder.config_file} holds an interpolation, which is not read from a run folder")
    return config


def is_readable(folder: RunFolder) -> bool:
    """Whether the folder holds a whole configuration; a crash while Hydra writes it leaves a part of one, or nothing."""
    try:
        read_config(folder)
    except UserError:
        return False
    return True


def stored_config(folder: RunFolder, overrides: Iterable[str], *, trust: Sequence[str]) -> DictConfig:
    """The configuration that the run in the folder was started with, and the few settings that may differ now.

    `overrides` are those of the present command line. Raises UserError for one that would make it another run.
    """
    config = read_config(run_folder(str(folder.path)))
    config.trust = list(trust)
    config.resume = None
    changed = False
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if key in ("resume", "trust"):
            continue
        if key not in CHANGEABLE:
            raise UserError(
                f"{override} would make it another run than the one in {folder.path}: leave it out (a continued run may "
                f"change {', '.join(CHANGEABLE)}), or start a new run without resume"
            )
        OmegaConf.update(config, key, yaml.safe_load(value))
        changed = True
    if changed:
        write_atomic(folder.config_file, OmegaConf.to_yaml(config).encode())
    return config


def stored_choices(folder: RunFolder) -> dict[str, str]:
    """The option chosen in each group, from .hydra/hydra.yaml; empty where that file is absent or damaged."""
    try:
        stored: Any = yaml.safe_load((folder.path / ".hydra" / "hydra.yaml").read_text())
        return {str(group): str(option) for group, option in stored["hydra"]["runtime"]["choices"].items()}
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        return {}  # the names are only shown

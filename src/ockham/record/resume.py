"""Continuing a run or a sweep from its folder. No torch here: a mistake is told at once.

What stands in a folder is read as data, whoever wrote it: `read_config` and `checked_overrides` are the gate that all of it
goes through. It never widens the allowlist of classes, and no setting of Hydra is taken from it.
"""

import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ockham.core.files import write_atomic
from ockham.errors import UserError
from ockham.identity import CONTINUED_WITH
from ockham.record.folder import RunFolder

#: What may change when a run continues; all other settings would make it another run.
LENGTHS = ("trainer.max_epochs", "trainer.max_steps")
CHANGEABLE = (*CONTINUED_WITH, "note")

#: A configuration has fewer brackets, and fewer levels.
MOST_OPENINGS, MOST_LEVELS = 200, 20

#: An option of a group that is a path to somewhere else.
OTHER_PLACES = re.compile(r"\.\.|(^|[^\w-])/")

#: Schedules whose factor at a step does not depend on how many follow: a longer run begins with the steps of a shorter one.
REGARDLESS_OF_LENGTH = tuple(f"ockham.schedules.{name}" for name in ("Constant", "InverseSqrt", "Plateau"))


def run_folder(path: str) -> RunFolder:
    """The folder of a run that can be read. Raises UserError, with the runs nearby, where it is none."""
    folder = RunFolder(path)
    if not os.path.exists(folder.config_file):  # false for a name that no file can have, unlike Path.exists
        problem = "is no run folder: it has no .hydra/config.yaml" if os.path.isdir(folder.path) else "does not exist"
        nearby = sorted(file.parent.parent for file in _parents(folder.path).glob("**/.hydra/config.yaml"))[-3:]
        listed = "".join(f"\n  {run}" for run in nearby)
        raise UserError(f"{path} {problem}" + (f"; the newest runs near it:{listed}" if listed else ""))
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
            f"{folder.path}; resume={folder.path} trainer.max_epochs=<more> makes it longer"
        )
    if folder.state == "pruned":
        raise UserError(f"{folder.path} holds a run that its sweep pruned: run its overrides alone, without prune")
    if folder.state == "diverged":
        raise UserError(f"{folder.path} holds a run that diverged: choose another hydra.run.dir, and a smaller optimizer.lr")


def read_config(folder: RunFolder) -> DictConfig:
    """The stored configuration, as data. Raises UserError where it is damaged."""
    folder.check_request()
    try:
        check_plain_yaml(folder.config_file)
        config = OmegaConf.load(folder.config_file)
        assert isinstance(config, DictConfig)
        content = OmegaConf.to_container(config)
    except UserError:
        raise
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


def check_plain_yaml(file: Path) -> None:
    """Raises UserError for a text in which parts stand for other parts, or that is nested deeper than any configuration.

    Read as they are, a few lines of such a text fill the memory. Ockham and Hydra write no anchors.
    """
    text = file.read_text()
    if "&" not in text and sum(text.count(opening) for opening in ("[", "{", "- -")) < MOST_OPENINGS:
        return
    depth = 0
    for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > MOST_LEVELS:
            raise UserError(f"{file} holds no configuration of a run: it is nested in a way that none is")


def is_readable(folder: RunFolder) -> bool:
    """Whether the folder holds a whole configuration; a crash while Hydra writes it leaves a part of one, or nothing."""
    try:
        read_config(folder)
    except UserError:
        return False
    return True


def checked_overrides(overrides: Iterable[Any], file: Path) -> list[str]:
    """Overrides that stand in a file of a folder, without `trust`, which only the command line of this process gives.

    Raises UserError for those that Ockham would not have stored: settings of Hydra, which name classes that nobody checks,
    options outside conf/, interpolations, and `trust` within grids.
    """
    parser, accepted = OverridesParser.create(), []
    for text in map(str, overrides):
        try:
            override = parser.parse_override(text)
        except HydraException as error:
            raise UserError(f"{file} holds {text}, which is not taken from a folder: it is no setting") from error
        key, value = override.key_or_group, text.partition("=")[2]
        outside = "." not in key and key not in ("grids", "note") and OTHER_PLACES.search(value)
        if "${" in text or "@" in text.partition("=")[0] or key.startswith("hydra") or outside:
            raise UserError(f"{file} holds {text}, which is not taken from a folder")
        if key == "trust":
            continue
        if key == "grids" and value != "null":
            _check_grids(override.value(), file)
        accepted.append(text)
    return accepted


def _check_grids(grids: Any, file: Path) -> None:
    if not (isinstance(grids, list) and all(isinstance(grid, list) for grid in grids)):
        raise UserError(f"{file} holds grids that are no lists of overrides")
    for grid in grids:
        if len(checked_overrides(grid, file)) < len(grid):
            raise UserError(f"{file} holds grids that set trust, which is not taken from a folder: give it on the command line")


def stored_config(folder: RunFolder, overrides: Iterable[str], *, trust: Sequence[str]) -> DictConfig:
    """As `continued_config`; what differs now is stored, and a finished run that has become longer is no longer finished."""
    config, before = continued_config(folder, overrides, trust=trust), read_config(folder)
    if _differ(config, before, CHANGEABLE):
        status = folder.status()
        if status:
            state = {"state": "running", "ended": None} if status["state"] == "finished" else {}
            folder.update_status(**state, files={})  # which are about to change
        write_atomic(folder.config_file, OmegaConf.to_yaml(config).encode())
    return config


def continued_config(folder: RunFolder, overrides: Iterable[str], *, trust: Sequence[str]) -> DictConfig:
    """The configuration that the run in the folder was started with, and the few settings that may differ now.

    `overrides` are those of the present command line. Raises UserError for one that would make it another run, and where
    there is nothing left to train.
    """
    before = read_config(run_folder(str(folder.path)))
    config = before.copy()
    config.trust = list(trust)
    config.resume = None
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key in ("resume", "trust"):
            continue
        if key not in CHANGEABLE:
            raise UserError(
                f"{override} would make it another run than the one in {folder.path}: leave it out (a continued run may "
                f"change {', '.join(CHANGEABLE)}), or start a new run without resume"
            )
        OmegaConf.update(config, key, OverridesParser.create().parse_override(override).value())
    if _differ(config, before, LENGTHS):
        _check_new_length(folder, before, config)
    else:
        check_resumable(folder)
    return config


def _differ(first: DictConfig, second: DictConfig, keys: Iterable[str]) -> bool:
    return any(OmegaConf.select(first, key) != OmegaConf.select(second, key) for key in keys)


def _check_new_length(folder: RunFolder, before: DictConfig, after: DictConfig) -> None:
    """Raises UserError where what has been trained is not how a run of the new length would have begun."""
    rows = folder.epochs()
    epochs, steps = (int(rows[-1][column]) if rows else 0 for column in ("epoch", "step"))
    if folder.state != "finished":
        check_resumable(folder)
    elif epochs < (before.trainer.max_epochs or math.inf) and steps < (before.trainer.max_steps or math.inf):
        raise UserError(f"{folder.path} was ended by early stopping or its target after epoch {epochs}: no length changes that")
    elif before.trainer.evaluate_every is not None:
        raise UserError(
            f"{folder.path} was evaluated after its last step, which a longer run with trainer.evaluate_every may not be: "
            "start a new run"
        )
    if (folder.path.parent / "sweep.json").exists():
        raise UserError(f"{folder.path} is part of a sweep, whose runs are compared at one length: start a new run instead")
    if not rows:
        return
    if epochs >= (after.trainer.max_epochs or math.inf) or steps >= (after.trainer.max_steps or math.inf):
        raise UserError(f"{folder.path} has {epochs} epochs, {steps} steps already: set a greater length")
    if "magnitude_pruning" in before.reg:
        raise UserError(
            f"reg=magnitude_pruning divides the length of {folder.path} into trainings: a longer one would have been another; "
            f"start a new run"
        )
    if before.schedule.get("_target_") not in REGARDLESS_OF_LENGTH:
        raise UserError(
            f"the learning rates of {folder.path} depend on the length of the run: a longer one would have been another from "
            f"its first step; start a new run, or use schedule=constant, inverse_sqrt or plateau for one to be lengthened"
        )
    if any(settings.get("_target_") == "ockham.reg.SWA" for settings in before.reg.values()):
        raise UserError(
            f"reg=swa in {folder.path} averages from a fraction of the run on: a longer one would have averaged other weights; "
            f"start a new run"
        )
    if steps == before.trainer.max_steps and (epochs == 1 or steps != epochs * rows[0]["step"]):
        raise UserError(f"the last epoch of {folder.path} was cut by trainer.max_steps and cannot go on: start a new run")


def stored_choices(folder: RunFolder) -> dict[str, str]:
    """The option chosen in each group, from .hydra/hydra.yaml; empty where that file is absent or damaged."""
    try:
        check_plain_yaml(folder.path / ".hydra" / "hydra.yaml")
        stored: Any = yaml.safe_load((folder.path / ".hydra" / "hydra.yaml").read_text())
        return {str(group): str(option) for group, option in stored["hydra"]["runtime"]["choices"].items()}
    except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # the names are only shown

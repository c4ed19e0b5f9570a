"""Sweeps from the command line, and what they leave behind."""

import csv
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from conftest import ROOT, composed, small
from ockham import schema
from ockham.sweep.axes import parse_axes
from ockham.sweep.command_line import CommandLine
from ockham.sweep.composition import CHOICES

CONDITIONAL = (
    "optimizer=sgd,adam",
    "reg=none,l1,l2",
    "reg.l1.strength=1e-5,1e-4",
    "reg.l2.strength=1e-4,1e-3",
    "seed=0,1,2",
)


def command_line(*overrides: str) -> CommandLine:
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()

    def compose(chosen: Sequence[str]) -> DictConfig:
        choices, config = composed(chosen)
        merged = OmegaConf.merge(config, {CHOICES: choices})
        assert isinstance(merged, DictConfig)
        return merged

    return CommandLine.of(
        parse_axes(overrides, loader),
        is_group=lambda key: bool(loader.get_group_options(key)),
        compose=compose,
        check=schema.check,
    )


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "train.py", "-m", *small("report=false", *arguments), f"hydra.sweep.dir={folder}"]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def sweep(folder: Path, *arguments: str) -> tuple[int, str, str]:
    process = start(folder, *arguments)
    out, errors = process.communicate()
    return process.returncode, out, errors


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open() as file:
        return list(csv.DictReader(file))

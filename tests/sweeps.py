"""Sweeps from the command line, and what they leave behind."""

import csv
import subprocess
import sys
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra

from conftest import ROOT, SMALL, compose
from ockham import schema
from ockham.sweep.axes import parse_axes
from ockham.sweep.command_line import CommandLine

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
    return CommandLine.of(
        parse_axes(overrides, loader),
        is_group=lambda key: bool(loader.get_group_options(key)),
        compose=lambda chosen: compose(*chosen),
        check=schema.check,
    )


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "train.py", "-m", *SMALL, "report=false", *arguments, f"hydra.sweep.dir={folder}"]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def sweep(folder: Path, *arguments: str) -> tuple[int, str, str]:
    process = start(folder, *arguments)
    out, errors = process.communicate()
    return process.returncode, out, errors


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open() as file:
        return list(csv.DictReader(file))

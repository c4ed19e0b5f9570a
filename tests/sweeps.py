"""Sweeps from the command line, and what they leave behind."""

import csv
import subprocess
import sys
from pathlib import Path

from conftest import ROOT, SMALL, compose
from ockham import schema
from ockham.sweep.space import CommandLine

GROUPS = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()}


def command_line(*overrides: str) -> CommandLine:
    return CommandLine.parse(
        overrides,
        is_group=lambda key: key in GROUPS,
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

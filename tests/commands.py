"""Runs commands one after the other in a process of its own: a start takes a second, and a mistake does not need one.

Reads a JSON object from stdin: command -> words. Each runs in a folder of its own below the working directory; prints a JSON
object of what it left: exit code, stderr, the files, and whether torch was imported by then.
"""

import contextlib
import io
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Left(NamedTuple):
    """What a command left behind."""

    code: int
    errors: str
    files: list[str]
    imported_torch: bool


def run_all(commands: dict[str, list[str]], folder: Path) -> dict[str, Left]:
    """Every command in a folder of its own below `folder`, all in one process; the first that trains imports torch for all."""
    result = subprocess.run(
        [sys.executable, __file__], cwd=folder, input=json.dumps(commands), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return {name: Left(*left) for name, left in json.loads(result.stdout).items()}


def run(words: list[str], folder: Path) -> Left:
    folder.mkdir()
    os.chdir(folder)
    sys.argv = [str(ROOT / "train.py"), *words]
    errors, code = io.StringIO(), 0
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as ended:
            code = int(ended.code or 0)
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
    return Left(code, errors.getvalue(), files, "torch" in sys.modules)


if __name__ == "__main__":
    start = Path.cwd()
    commands = json.loads(sys.stdin.read())
    print(json.dumps({name: run(words, start / str(place)) for place, (name, words) in enumerate(commands.items())}))

"""Runs commands one after the other in a process of its own: a start takes a second, and a mistake does not need one.

Reads a JSON object from stdin: command -> words. Each runs in a folder of its own below the working directory; prints, last,
a JSON object of what it left: exit code, what it printed, the files, whether torch was imported by then, and CPU seconds.
"""

import contextlib
import io
import json
import os
import runpy
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Left(NamedTuple):
    """What a command left behind. An exit code of None: it ended with an exception, which `errors` has."""

    code: int | None
    errors: str
    output: str
    files: list[str]
    imported_torch: bool
    cpu_seconds: float


def run_all(
    commands: Mapping[str, Sequence[str]], folder: Path, environment: Mapping[str, str] | None = None
) -> dict[str, Left]:
    """Every command in a folder of its own below `folder`, by its place in `commands`, all in one process.

    The first that trains imports torch for all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    result = subprocess.run(
        [sys.executable, "-P", __file__],
        cwd=folder,
        input=json.dumps({name: list(words) for name, words in commands.items()}),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    assert result.returncode == 0, result.stderr
    last = result.stdout.splitlines()[-1]  # before it stands what libraries print past Python's stdout
    return {name: Left(*left) for name, left in json.loads(last).items()}


def run(words: Sequence[str], folder: Path) -> Left:
    """The command `python train.py <words>` in this process and this folder, which is new."""
    folder.mkdir()
    os.chdir(folder)
    sys.argv = [str(ROOT / "train.py"), *words]
    output, errors = io.StringIO(), io.StringIO()
    code: int | None = 0
    began = time.process_time()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as ended:
            code = int(ended.code or 0)
        except BaseException:
            traceback.print_exc()
            code = None
    seconds = time.process_time() - began
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
    return Left(code, errors.getvalue(), output.getvalue(), files, "torch" in sys.modules, seconds)


def here(words: Sequence[str], folder: Path) -> Left:
    """The same, and the working directory is what it was."""
    before = Path.cwd()
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        return run(words, folder)
    finally:
        os.chdir(before)


if __name__ == "__main__":
    start = Path.cwd()
    commands = json.loads(sys.stdin.read())
    print(json.dumps({name: run(words, start / str(place)) for place, (name, words) in enumerate(commands.items())}))

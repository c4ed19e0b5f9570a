"""Who imports what, and what is not imported where it would cost time."""

import ast
import subprocess
import sys

import pytest

from conftest import ROOT

SOURCE = ROOT / "src" / "ockham"

#: Part -> the parts of ockham that it may import; a part is a folder or module below src/ockham.
#: errors may be imported everywhere.
ALLOWED = {
    "core": set(),
    "rng": set(),
    "schedules": {"core"},
    "data": {"core", "rng"},
    "models": {"core"},
    "optim": {"core"},
    "reg": {"core", "rng"},
    "run": {"core", "rng", "data", "reg", "schedules"},
    "record": {"core", "rng", "data", "reg", "run", "schema", "identity"},
    "command": {"schema"},
    "lit": {"core", "rng", "data", "reg", "optim", "run", "record"},
    "fused": {"core", "rng", "data", "reg", "optim", "run", "record", "build"},
    "report": {"core", "record", "schema", "identity"},
    "schema": {"core", "optim"},
    "identity": {"core", "schema"},
    "build": {"core", "rng", "data", "models", "optim", "reg", "run", "schedules", "schema"},
    # A run asks by itself whether its sweep prunes it; a sweep starts runs.
    "execute": {"core", "data", "fused", "lit", "record", "run", "schema", "build", "sweep"},
    "sweep": {"core", "schema", "identity", "record", "build", "fused", "report", "execute"},
    "cli": {"command", "schema", "identity", "record", "sweep"},
    "evaluate": {"core", "data", "run", "schema", "build", "record", "report"},
    "train": {"core", "command", "record", "cli", "execute", "report", "evaluate"},
}


def imported_parts(part: str) -> set[str]:
    """The parts of ockham that the code of a part imports, anywhere in it."""
    files = [SOURCE / f"{part}.py"] if (SOURCE / f"{part}.py").exists() else sorted((SOURCE / part).rglob("*.py"))
    assert files, part
    imported = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "ockham":
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ockham."):
                imported.add(node.module.split(".")[1])
    return imported - {part, "errors"}


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_follow_the_design(part: str) -> None:
    assert imported_parts(part) <= ALLOWED[part]


@pytest.mark.parametrize("part", ["core", "rng", "schedules", "data", "models", "optim", "reg", "lit"])
def test_no_object_sees_the_configuration(part: str) -> None:
    files = [SOURCE / f"{part}.py"] if (SOURCE / f"{part}.py").exists() else sorted((SOURCE / part).rglob("*.py"))
    for file in files:
        assert "omegaconf" not in file.read_text(), f"{file.name} knows DictConfig"


def test_instantiation_happens_in_one_file() -> None:
    users = {file.name for file in SOURCE.rglob("*.py") if "importlib.import_module" in file.read_text()}
    assert users == {"build.py"}


def test_the_command_line_does_not_wait_for_torch() -> None:
    code = "import sys; sys.path.insert(0, 'src'); import ockham.train, ockham.sweep.main; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "scipy", "altair", "optuna", "rich", "tensorboard"} & set(loaded)


def test_a_default_run_does_not_import_the_events_before_its_first_step() -> None:
    code = "import sys; sys.path.insert(0, 'src'); import ockham.execute; sys.exit('tensorboard.summary' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=False).returncode == 0


def test_statistics_do_not_import_all_of_scipy_stats() -> None:
    code = "import sys; sys.path.insert(0, 'src'); import ockham.core.statistics; sys.exit('scipy.stats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0

"""An installed Ockham: the wheel in an environment of its own, used from a folder that knows nothing of the repository."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from conftest import ROOT, SMALL
from ockham import __version__
from ockham.record.folder import RunFolder
from sweeps import table

#: What a build takes of the repository.
SOURCES = ("src", "conf", "pyproject.toml", "README.md", "LICENSE")

#: An option of the user's own.
SLOW = "# SGD with small steps.\n_target_: torch.optim.SGD\nlr: 1e-3\nweight_decay: 0\n"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            # Bytecode comes and goes while other tests run.
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def build(sources: Path, kind: str) -> Path:
    """The wheel of what lies in `sources`, made by the build backend without a network."""
    code = f"import hatchling.build, sys; print(hatchling.build.{kind}(sys.argv[1]))"
    folder = sources / kind
    folder.mkdir()
    built = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=sources, capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    return folder / built


@pytest.fixture(scope="module")
def ockham(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `ockham` of an environment that holds the wheel alone; what it depends on is read from this one's folder."""
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    binaries = environment / ("Scripts" if os.name == "nt" else "bin")
    pip = [sys.executable, "-m", "pip", "--python", str(binaries / "python"), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(build(sources, "build_wheel"))], check=True)
    (packages,) = environment.glob("**/site-packages")
    # A path in a .pth is not searched for further .pth files: an Ockham that is installed here for development is not seen.
    (packages / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    return binaries / "ockham"


def run(ockham: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run([str(ockham), *words], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_an_installed_ockham_sweeps_where_it_is_called_and_looks_at_it(ockham: Path, tmp_path: Path) -> None:
    """One sweep with an option of the user's own, which its workers must find as well; then what is done with its folder."""
    (tmp_path / "mine" / "optimizer").mkdir(parents=True)
    (tmp_path / "mine" / "optimizer" / "slow.yaml").write_text(SLOW)
    command = (
        "-m",
        *SMALL,
        "optimizer=adam,slow",
        "fuse=off",
        "sweep=first",
        "executor.slots=1",
        "executor.threads=1",
        "--config-dir",
        "mine",
    )
    swept = run(ockham, tmp_path, *command)
    assert swept.returncode == 0, swept.stderr
    folder = tmp_path / "outputs" / "sweeps" / "first"
    assert {row["optimizer"]: row["state"] for row in table(folder, "results.csv")} == {"adam": "finished", "slow": "finished"}
    assert RunFolder(folder / "0").status()["code"] == {"commit": None, "dirty": None}
    assert "best     ockham data.train_samples=200" in swept.stdout
    assert "ockham data.train_samples=200" in (folder / "report.html").read_text()

    best = next(row for row in table(folder, "results.csv") if row["optimizer"] == "adam")
    evaluated = run(ockham, tmp_path, "evaluate", "outputs/sweeps/first")
    assert evaluated.returncode == 0, evaluated.stderr
    assert evaluated.stdout.split() == [
        *("run", str(Path("outputs/sweeps/first") / best["folder"])),
        *("test/loss", best["test/loss"], "test/acc", best["test/acc"]),
    ]

    compared = run(ockham, tmp_path, "report", "outputs/sweeps/first", "--compare", "optimizer=adam", "optimizer=slow")
    assert compared.returncode == 0, compared.stderr
    assert "over 1 shared seeds" in compared.stdout

    shutil.rmtree(folder / "1")
    resumed = run(ockham, tmp_path, "resume=outputs/sweeps/first", "report=false", "--config-dir", "mine")
    assert resumed.returncode == 0, resumed.stderr
    assert RunFolder(folder / "1").state == "finished"


def test_an_installed_ockham_trains_one_run_and_continues_it(ockham: Path, tmp_path: Path) -> None:
    trained = run(ockham, tmp_path, *SMALL, "trainer.max_epochs=1", "hydra.run.dir=mine")
    assert trained.returncode == 0, trained.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"mine"}
    longer = run(ockham, tmp_path, "resume=mine", "trainer.max_epochs=2")
    assert longer.returncode == 0, longer.stderr
    assert RunFolder(tmp_path / "mine").metrics()["last_epoch"] == 2


def test_its_help_and_its_mistakes_speak_of_the_command(ockham: Path, tmp_path: Path) -> None:
    text = run(ockham, tmp_path, "--help").stdout
    for part in (
        "  ockham optimizer=adam reg=l2",
        "  ockham report ",
        "  ockham evaluate ",
        "  optimizer: adadelta, adafactor, adagrad",
    ):
        assert part in text
    assert "train.py" not in text
    assert run(ockham, tmp_path, "report", "--help").stdout.startswith("usage: ockham report ")
    mistaken = run(ockham, tmp_path, "optimizer=adm")
    assert (mistaken.returncode, mistaken.stderr.splitlines()[1]) == (2, "  did you mean optimizer=adam?")
    assert list(tmp_path.iterdir()) == []


def test_the_wheel_holds_every_option_and_an_editable_install_none(sources: Path, ockham: Path) -> None:
    names = zipfile.ZipFile(next((sources / "build_wheel").iterdir())).namelist()
    conf = {f"ockham/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert {name for name in names if name.startswith("ockham/conf/")} == conf
    editable = zipfile.ZipFile(build(sources, "build_editable"))
    assert not [name for name in editable.namelist() if name.endswith((".py", ".yaml"))]
    (path,) = [name for name in editable.namelist() if name.endswith(".pth")]
    assert Path(editable.read(path).decode().strip()) == sources / "src"


def test_the_tour_runs_where_only_the_wheel_is_installed(ockham: Path, tmp_path: Path) -> None:
    """The code of docs/tour.ipynb, cell after cell, and what it then knows."""
    cells = json.loads((ROOT / "docs" / "tour.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    known = "print(runs['state'].value_counts().to_dict(), len(epochs), [len(ax.lines) for ax in axes])"
    environment = os.environ | {"MPLBACKEND": "agg", "PATH": os.pathsep.join([str(ockham.parent), os.environ["PATH"]])}
    environment.pop("PYTHONPATH", None)
    command = [str(ockham.parent / "python"), "-c", "\n".join([*code, known])]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "{'finished': 12} 96 [2, 2]"


def test_what_is_cited_is_this_version() -> None:
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()

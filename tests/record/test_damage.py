"""What lies in a run folder is what the run wrote, or it is named; nothing leads out of the folder."""

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from conftest import SMALL, make_spec
from faults.one_process import run_all
from ockham import evaluate
from ockham.core.files import DamagedFileError
from ockham.errors import UserError
from ockham.execute import execute
from ockham.record.checkpoint import best_checkpoint
from ockham.record.events import EventWriter
from ockham.record.folder import RunFolder
from ockham.record.resume import read_config, stored_choices
from ockham.record.screen import error_screen
from ockham.report.reading import read


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two finished runs."""
    folder = tmp_path_factory.mktemp("trained")
    commands = {name: [*SMALL, f"seed={name}", f"hydra.run.dir={folder}/{name}"] for name in "01"}
    assert {left.code for left in run_all(commands, folder / "commands").values()} == {0}
    return {name: folder / name for name in "01"}


@pytest.fixture
def copied(trained: dict[str, Path], tmp_path: Path) -> RunFolder:
    return RunFolder(shutil.copytree(trained["0"], tmp_path / "run"))


def with_another_digit(file: Path) -> None:
    text = file.read_text()
    place = next(place for place, letter in enumerate(text) if letter.isdecimal())
    file.write_text(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])


@pytest.mark.parametrize(
    "name", ["metrics.json", "metrics.csv", "cost.json", "status.json", ".hydra/config.yaml", ".hydra/hydra.yaml"]
)
@pytest.mark.parametrize("damage", ["digit", "of another run"])
def test_another_number_is_not_shown(damage: str, name: str, copied: RunFolder, trained: dict[str, Path]) -> None:
    assert read([copied.path]).problems == []
    if damage == "digit":
        with_another_digit(copied.path / name)
    else:
        shutil.copyfile(trained["1"] / name, copied.path / name)
    recorded = read([copied.path])
    assert recorded.runs == []
    ((path, problem),) = recorded.problems
    assert path == copied.path
    assert name in problem or damage == "of another run"  # with another status every other file is another one


def test_a_run_is_written_again_as_the_problem_says(copied: RunFolder, trained: dict[str, Path]) -> None:
    with_another_digit(copied.path / "metrics.json")
    with pytest.raises(DamagedFileError, match=r"delete .*status\.json and repeat the command"):
        copied.metrics()
    (copied.path / "status.json").unlink()
    spec = make_spec(copied.path, *SMALL, "seed=0")
    execute(spec)
    assert (copied.path / "metrics.json").read_bytes() == (trained["0"] / "metrics.json").read_bytes()


def test_weights_of_another_run_are_not_evaluated(
    copied: RunFolder, trained: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copyfile(RunFolder(trained["1"]).best_checkpoint, copied.best_checkpoint)
    with pytest.raises(DamagedFileError, match=r"best\.ckpt belongs to another run"):
        best_checkpoint(copied, read_config(copied))
    with pytest.raises(SystemExit, match="2"):
        evaluate.main([str(copied.path)], program="evaluate")
    assert "belongs to another run" in capsys.readouterr().err


def test_a_run_does_not_continue_from_the_state_of_another(
    copied: RunFolder, trained: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    (copied.path / "status.json").unlink()
    shutil.copyfile(RunFolder(trained["1"]).last_checkpoint, copied.last_checkpoint)
    execute(make_spec(copied.path, *SMALL, "seed=0"))
    assert "last.ckpt belongs to another run" in caplog.text
    assert (copied.path / "metrics.csv").read_bytes() == (trained["0"] / "metrics.csv").read_bytes()


def test_the_plan_of_another_sweep_is_named(trained: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(trained["0"], tmp_path / "0")
    for key, problems in ((RunFolder(trained["0"]).status()["run_key"], []), ("other", ["sweep.json plans another run"])):
        (tmp_path / "sweep.json").write_text(json.dumps({"jobs": [{"number": 0, "key": key}]}))
        assert [reason[: len("sweep.json plans another run")] for _, reason in read([tmp_path]).problems] == problems


# -- from elsewhere ------------------------------------------------------------------------------------------------------


def laughs(text: str) -> str:
    return text + "\na: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


BOMBS: list[Callable[[str], str]] = [
    laughs,
    lambda text: f"{text}\nself: &s [*s]\n",
    lambda text: f"{text}\ndeep: {'[' * 20000}{']' * 20000}\n",
    lambda text: f"{text}\ndeep:\n  {'- ' * 9000}x\n",
]


#: By Ockham, or by PyYAML, which has a limit of its own from 6.1 on.
NESTED = "nested in a way that none is|while increasing flow level"


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_configuration_that_would_grow_is_refused(bomb: Callable[[str], str], copied: RunFolder) -> None:
    copied.update_status(files={})
    for name in ("config", "hydra"):
        file = copied.path / ".hydra" / f"{name}.yaml"
        file.write_text(bomb(file.read_text()))
    with pytest.raises(UserError, match=NESTED):
        read_config(copied)
    assert stored_choices(copied) == {}
    assert re.search(NESTED, read([copied.path]).problems[0][1])


def test_an_ampersand_is_no_anchor(copied: RunFolder) -> None:
    copied.update_status(files={})
    config = read_config(copied)
    config.note = "black & white *stars*"
    copied.config_file.write_text(OmegaConf.to_yaml(config))
    assert read_config(copied).note == config.note


def test_a_checkpoint_that_would_grow_is_refused(copied: RunFolder) -> None:
    content = torch.load(copied.best_checkpoint, weights_only=True)
    torch.save({**content, "model": {"w": torch.zeros(1).expand(10**12)}}, copied.best_checkpoint)
    with pytest.raises(DamagedFileError, match="larger than what is stored"):
        best_checkpoint(copied, read_config(copied))
    with zipfile.ZipFile(copied.best_checkpoint, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**6))
    with pytest.raises(DamagedFileError, match="is compressed"):
        best_checkpoint(copied, read_config(copied))


@pytest.mark.parametrize("name", ["train.log", "metrics.csv", "checkpoints", ".lock", "checkpoints/last.ckpt"])
def test_nothing_is_written_through_a_link(name: str, copied: RunFolder, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    (copied.path / "status.json").unlink()
    path = copied.path / name
    if path.exists():
        shutil.move(path, target)
    else:
        target.write_text("mine")
    path.symlink_to(target)
    before = target.read_bytes() if target.is_file() else sorted(target.iterdir())
    with pytest.raises(UserError, match="is a link"):
        execute(make_spec(copied.path, *SMALL, "seed=0"))
    assert before == (target.read_bytes() if target.is_file() else sorted(target.iterdir()))


def test_a_link_is_told_before_anything_is_written(copied: RunFolder, tmp_path: Path) -> None:
    (copied.path / "status.json").unlink()
    log = shutil.move(copied.log_file, tmp_path / "elsewhere")
    before = Path(log).read_bytes()
    copied.log_file.symlink_to(log)
    (left,) = run_all({"again": [*SMALL, "seed=0", f"hydra.run.dir={copied.path}"]}, tmp_path / "commands").values()
    assert left.code == 2
    assert "train.log is a link" in left.errors
    assert Path(log).read_bytes() == before


def test_a_terminal_obeys_no_name() -> None:
    shown = error_screen("the folder \x1b[2J\x1b]0;title\x07 is gr\u00f6\u00dfer", notes=["a\rb", "\x9b31m\u202e"])
    assert shown == "error: the folder \\x1b[2J\\x1b]0;title\\x07 is größer\n  a\\rb\n  \\x9b31m\\u202e"


def test_a_clock_that_was_set_back_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["events.out.tfevents.4000000000.host.1.0", "events.out.tfevents.4000000007.host.1.1", "events.out.tfevents.x"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    events = EventWriter(tmp_path, {"lr": 0.1}, past_step=0)
    events.row(1, 7, {"val/loss": 1.0})
    events.close()
    files = sorted(file.name for file in tmp_path.iterdir() if file.name.split(".")[3].isdecimal())
    assert len(files) == 3
    assert [name.rpartition(".")[2] for name in files[:2]] == ["0", "1"], (
        "earlier attempts sort before this one, in their order"
    )
    assert not any(name.startswith("events.out.tfevents.4") for name in files)

"""The scripts, run as a user runs them; folders from elsewhere run nothing."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from conftest import ROOT
from ockham.core import tensorfile
from ockham.data import Mnist5k
from ockham.record.folder import RunFolder

RunSmall = Callable[..., RunFolder]


def without_checks(folder: RunFolder) -> None:
    """Whoever means harm leaves no checksums, and says of no checkpoint which run it is of."""
    folder.update_status(files={})
    content = tensorfile.load(folder.best_checkpoint)
    tensorfile.save(folder.best_checkpoint, {key: value for key, value in content.items() if key != "run"})


def evaluate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/evaluate.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("reg", ["none", "spectral_norm", "dropconnect"])
def test_evaluate_prints_what_metrics_json_says(small_run: RunSmall, reg: str) -> None:
    folder = small_run(f"reg={reg}")
    result = evaluate(str(folder.path))
    assert result.returncode == 0, result.stderr
    printed = dict(line.split() for line in result.stdout.splitlines())
    assert {key: float(value) for key, value in printed.items()} == {
        key: folder.metrics()[key] for key in ("test/loss", "test/acc")
    }


def test_evaluate_classifies_image_files(small_run: RunSmall, tmp_path: Path) -> None:
    folder = small_run("data.train_samples=null")
    test = Mnist5k().load().test
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(20):
        Image.fromarray(test.images[number, 0].numpy()).save(pictures / f"{number:02d}.png")
    colour = np.repeat(test.images[20, 0].numpy()[..., None], 3, axis=2)
    Image.fromarray(colour).resize((56, 56)).save(pictures / "20.png")
    result = evaluate(str(folder.path), "--images", str(pictures))
    assert result.returncode == 0, result.stderr
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [Path(path).name for path, *_ in rows] == [f"{number:02d}.png" for number in range(21)]
    right = sum(int(label) == int(test.labels[number]) for number, (_, label, _) in enumerate(rows))
    assert right >= 18
    assert all(0 < float(probability) <= 1 for *_, probability in rows)


@pytest.mark.parametrize(
    ("setting", "target"),
    [
        ("model._target_", "os.system"),
        ("model._target_", "torch.nn.modules.module.warnings.warn"),
        ("model._target_", "torch.hub.load"),
        ("model._target_", "torch.nn.Module.__init__"),
        ("optimizer._target_", "subprocess.Popen"),
        ("data._target_", "builtins.exec"),
        ("data._target_", "ockham.build.importlib"),
        ("data._target_", "ockham.record.folder.subprocess"),
    ],
)
def test_a_hostile_configuration_runs_nothing(small_run: RunSmall, setting: str, target: str) -> None:
    folder = small_run()
    config = OmegaConf.load(folder.config_file)
    OmegaConf.update(config, setting, target)
    config.trust = [target.partition(".")[0], "os", "builtins"]  # a folder cannot widen the allowlist
    OmegaConf.save(config, folder.config_file)
    without_checks(folder)
    if setting.startswith("optimizer"):
        (folder.path / "status.json").unlink()
        command = [sys.executable, "train.py", f"resume={folder.path}"]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    else:
        result = evaluate(str(folder.path))
    assert result.returncode == 2, result.stderr
    assert f"{setting}={target}" in result.stderr
    assert "Traceback" not in result.stderr


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (self.path,))  # type: ignore[return-value]


def test_a_hostile_checkpoint_runs_nothing(small_run: RunSmall, tmp_path: Path) -> None:
    folder = small_run()
    folder.best_checkpoint.write_bytes(pickle.dumps(Payload(tmp_path / "touched")))
    result = evaluate(str(folder.path))
    assert result.returncode == 2
    assert "cannot be read: it holds more than tensors and plain containers" in result.stderr
    assert not (tmp_path / "touched").exists()


def test_a_configuration_with_an_interpolation_is_refused(small_run: RunSmall) -> None:
    folder = small_run()
    config = OmegaConf.load(folder.config_file)
    config.data.batch_size = "${oc.env:HOME}"
    OmegaConf.save(config, folder.config_file)
    without_checks(folder)
    result = evaluate(str(folder.path))
    assert result.returncode == 2
    assert "holds an interpolation" in result.stderr


def test_evaluate_names_a_folder_that_is_none(tmp_path: Path) -> None:
    result = evaluate(str(tmp_path))
    assert result.returncode == 2
    assert "is no run folder" in result.stderr


def test_torture_cuts_the_power_of_runs_and_writes_its_rows(tmp_path: Path) -> None:
    document = tmp_path / "reliability.md"
    other = "| kill | single: parent | 9 | 8 | 3 | 2026-01-01 |"
    document.write_text(
        f"before\n<!-- torture: begin -->\n| a |\n| --- |\n{other}\n| power | old | 1 | 0 | 0 | x |\n<!-- torture: end -->\n"
    )
    command = [
        sys.executable,
        "scripts/torture.py",
        "--parts=power",
        "--count=2",
        "--seed=5",
        f"--folder={tmp_path}",
        "--write",
    ]
    result = subprocess.run([*command, str(document)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = [line for line in document.read_text().splitlines() if line.startswith("|")][2:]
    assert rows[0] == other
    assert [row.rsplit(" | ", 1)[0] for row in rows[1:]] == ["| power | single | 1 | 1 | 5", "| power | group | 1 | 1 | 5"]
    assert document.read_text().startswith("before\n")

"""ockham.read against the files of a sweep that really ran; its note, wherever it is to stand."""

import html
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import ockham
from conftest import ROOT, SMALL
from ockham.errors import UserError
from ockham.record.folder import EPOCH_SCALARS, FINAL_METRICS, RunFolder
from ockham.record.resume import continued_config
from sweeps import table

#: Of whatever a person may write: what Hydra takes for lists, calls and quotes, and for a place elsewhere.
NOTE = "first try, lr of the paper (0.1): it's ../wide = fine"


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a sweep of four runs of two configurations, with what it printed."""
    folder = tmp_path_factory.mktemp("noted") / "sweep"
    words = ("-m", *SMALL, "optimizer=sgd,adam", "seeds=2", f"note={NOTE}", "executor=inline", f"hydra.sweep.dir={folder}")
    result = subprocess.run([sys.executable, "train.py", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return folder, result.stdout


def test_a_row_a_run_with_settings_and_results(swept: tuple[Path, str]) -> None:
    folder, _ = swept
    runs = ockham.read(folder)
    assert list(runs["folder"]) == [str(folder / number) for number in "0123"]
    assert list(zip(runs["optimizer"], runs["seed"], strict=True)) == [("sgd", 0), ("sgd", 1), ("adam", 0), ("adam", 1)]
    assert set(runs["state"]) == {"finished"}
    assert set(runs["stage"]) == {""}
    assert runs["configuration"].nunique() == 2
    assert list(runs["optimizer.lr"].groupby(runs["optimizer"]).first()[["adam", "sgd"]]) == [1e-3, 0.1]
    assert set(runs["model.hidden"]) == {"[16]"}
    for row, written in zip(runs.to_dict("records"), table(folder, "results.csv"), strict=True):
        assert {name: row[name] for name in FINAL_METRICS} == {name: float(written[name]) for name in FINAL_METRICS}
    means = runs.groupby("optimizer")["val/acc"].mean()
    of_summary = {row["optimizer"]: float(row["val/acc"]) for row in table(folder, "summary.csv")}
    assert means.to_dict() == pytest.approx(of_summary)


def test_a_row_an_epoch_with_the_settings_of_its_run(swept: tuple[Path, str]) -> None:
    folder, _ = swept
    epochs = ockham.read_epochs(folder / "0", folder / "3")
    assert list(epochs["epoch"]) == [1, 2, 3, 4] * 2
    assert list(epochs["optimizer"]) == ["sgd"] * 4 + ["adam"] * 4
    rows = [row for number in "03" for row in RunFolder(folder / number).epochs()]
    expected = pd.DataFrame(rows).astype({"epoch": int, "step": int})
    pd.testing.assert_frame_equal(epochs[["epoch", "step", *EPOCH_SCALARS]], expected)


def test_what_is_not_there_is_missing_and_what_cannot_be_read_is_named(swept: tuple[Path, str], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(swept[0], tmp_path / "copy"))
    plan = json.loads((folder / "sweep.json").read_text())
    for job, stage in zip(plan["jobs"], ("search", "search", "confirm", "confirm"), strict=True):
        job |= {"arm": "sgd", "stage": stage}
    (folder / "sweep.json").write_text(json.dumps(plan))
    (folder / "1" / "metrics.json").unlink()
    RunFolder(folder / "1").end("failed", error="out of memory")
    (folder / "3" / "status.json").write_text("{")
    with pytest.warns(UserWarning, match=r"copy.3 is left out: .*status.json is damaged") as warned:
        runs = ockham.read(folder)
    assert warned[0].filename == __file__
    assert list(runs["stage"]) == ["search", "search", "confirm"]
    assert list(runs["arm"]) == ["sgd"] * 3
    assert list(runs["state"]) == ["finished", "failed", "finished"]
    assert list(runs["val/acc"].isna()) == [False, True, False]
    assert runs["reason"][1] == "out of memory"


def test_a_folder_that_is_none_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere is no folder"):
        ockham.read(tmp_path / "nowhere")
    empty = ockham.read(tmp_path)
    assert len(empty) == 0
    assert {"folder", "seed", "val/acc"} <= set(empty.columns)


def test_without_pandas_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match=r"pip install 'ockham\[pandas\]'"):
        ockham.read(tmp_path)


def test_a_note_stands_in_the_status_the_tables_the_screen_and_the_page(swept: tuple[Path, str]) -> None:
    folder, printed = swept
    assert RunFolder(folder / "2").status()["note"] == NOTE
    assert [row["note"] for row in table(folder, "results.csv")] == [NOTE] * 4
    assert set(ockham.read(folder)["note"]) == {NOTE}
    assert f"  note     {NOTE}\n" in printed
    assert f"Noted: {html.escape(NOTE).replace('&#x27;', '&#39;')}" in (folder / "report.html").read_text()
    assert "note=" not in printed.partition("best  ")[2], "the command that repeats a run repeats no remark"


def test_a_run_that_continues_may_get_another_note(swept: tuple[Path, str], tmp_path: Path) -> None:
    folder = RunFolder(shutil.copytree(swept[0] / "0", tmp_path / "run"))
    config = continued_config(folder, [r"note='it\'s longer'", "trainer.max_epochs=9"], trust=[])
    assert (config.note, config.trainer.max_epochs) == ("it's longer", 9)

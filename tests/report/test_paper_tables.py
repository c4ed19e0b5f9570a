"""Tables for papers, READMEs and programs, and the page that is watched, over runs made in memory."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from ockham.core.statistics import compare, t_interval
from ockham.errors import UserError
from ockham.report import command_line
from ockham.report.analysis import analyse
from ockham.report.page import PICTURES, write_report
from ockham.report.reading import RecordedRun, RecordedRuns
from ockham.report.tables import latex, markdown, results_as_json, score_table
from ockham.report.watch import watch
from recorded import run

BEST, CLOSE, BEHIND = (0.95, 0.951, 0.949, 0.952), (0.949, 0.953, 0.946, 0.952), (0.91, 0.9, 0.92, 0.907)


def seeded(optimizer: str, reg: str, scores: tuple[float, ...], **settings: str) -> list[RecordedRun]:
    values = {"optimizer": optimizer, "reg": reg, **settings}
    return [run(values, score, seed=seed, **{"test/acc": score - 0.01}) for seed, score in enumerate(scores)]


@pytest.fixture
def runs() -> list[RecordedRun]:
    """Two optimizers by two regularizers, without the pair sgd and max_norm; adam and none at two learning rates."""
    return [
        *seeded("adam", "none", BEST, **{"optimizer.lr": "1e-3"}),
        *seeded("adam", "none", BEHIND, **{"optimizer.lr": "1e-1"}),
        *seeded("adam", "max_norm", CLOSE),
        *seeded("sgd", "none", BEHIND),
    ]


def shown(scores: tuple[float, ...], sign: str) -> str:
    low, high = t_interval(scores)
    return f"{sum(scores) / len(scores):.4f} {sign} {(high - low) / 2:.4f}"


def test_latex_has_the_best_of_each_cell_and_bold_what_is_close(runs: list[RecordedRun]) -> None:
    assert not compare(BEST, CLOSE).distinguishable
    text = latex(score_table(analyse(runs), ["rows=optimizer", "columns=reg"], metric="val/acc"))
    lines = text.splitlines()[1:]
    pm = "$\\pm$"
    assert lines == [
        "\\begin{tabular}{lrr}",
        "\\toprule",
        "optimizer & none & max\\_norm \\\\",
        "\\midrule",
        f"adam & \\textbf{{{shown(BEST, pm)}}} & \\textbf{{{shown(CLOSE, pm)}}} \\\\",
        f"sgd & {shown(BEHIND, pm)} & -- \\\\",
        "\\bottomrule",
        "\\end{tabular}",
    ]


def test_markdown_with_one_setting_and_another_metric(runs: list[RecordedRun]) -> None:
    text = markdown(score_table(analyse(runs), ["rows=optimizer"], metric="test/acc"))
    best = shown(tuple(score - 0.01 for score in BEST), "\u00b1")
    assert text.splitlines()[:3] == ["| optimizer | test/acc |", "| --- | ---: |", f"| adam | **{best}** |"]
    by_lr = score_table(analyse(runs), ["rows=optimizer.lr"], metric="val/acc")
    assert by_lr.row_names == ["", "1e-3", "1e-1"], "numbers by size"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["columns=reg"], "rows=<setting>"),
        (["rows=optimizer", "lines=reg"], "names no table"),
        (["rows=model"], "there are optimizer, reg"),
    ],
)
def test_what_names_no_table_is_a_mistake(runs: list[RecordedRun], words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        score_table(analyse(runs), words, metric="val/acc")


def test_json_holds_the_results_and_no_test_result_but_of_the_best(runs: list[RecordedRun]) -> None:
    runs = [*runs, replace(runs[0], state="failed", metrics={}, configuration_key="other")]
    content = json.loads(results_as_json(RecordedRuns(runs), show_test=False))
    best, *others = content["configurations"]
    assert best["settings"] == {"optimizer": "adam", "reg": "none", "optimizer.lr": "1e-3"}
    low, high = t_interval(BEST)
    assert best["metrics"]["val/acc"] == pytest.approx({"mean": sum(BEST) / 4, "low": low, "high": high})
    assert "test/acc" in best["metrics"]
    assert not any("test/acc" in other["metrics"] for other in others)
    assert [other["n"] for other in others] == [4, 4, 4, 0]
    assert others[-1]["metrics"] == {}
    assert best["p_best"] is None
    assert others[1]["p_best"] < 0.05 < others[0]["p_best"]
    asked = json.loads(results_as_json(RecordedRuns(runs), show_test=True))
    assert "test/acc" in asked["configurations"][1]["metrics"]


def test_figures_are_written_in_every_format(runs: list[RecordedRun], tmp_path: Path) -> None:
    write_report(RecordedRuns(runs), "all", tmp_path, pictures=PICTURES)
    begins = {"png": b"\x89PNG", "svg": b"<svg", "pdf": b"%PDF"}
    for kind, beginning in begins.items():
        assert (tmp_path / "report" / f"matrix.{kind}").read_bytes().startswith(beginning)
    assert "(report/matrix.png)" in (tmp_path / "report.md").read_text()
    write_report(RecordedRuns(runs), "all", tmp_path, pictures=["svg"])
    assert "(report/matrix.svg)" in (tmp_path / "report.md").read_text()
    write_report(RecordedRuns(runs), "all", tmp_path, pictures=["pdf"])
    assert "![" not in (tmp_path / "report.md").read_text(), "Markdown shows no PDF"


def test_a_watched_page_reloads_itself_until_all_has_ended(runs: list[RecordedRun], tmp_path: Path) -> None:
    running = [replace(runs[0], state="running", metrics={}), *runs[1:]]
    looks = [RecordedRuns(), RecordedRuns(running), RecordedRuns(runs, waiting=1), RecordedRuns(runs), RecordedRuns(runs)]
    remaining, pages = iter(looks), []

    def write(recorded: RecordedRuns, refresh: int | None) -> list[Path]:
        files = write_report(recorded, "watched", tmp_path, refresh=refresh)
        pages.append((tmp_path / "report.html").read_text().split("<style>")[0])
        return files

    files = watch(lambda: next(remaining), write, wait=lambda seconds: None)
    assert ['http-equiv="refresh"' in page for page in pages] == [True, True, True, False]
    assert tmp_path / "report.html" in files
    assert list(remaining) == []


def test_ctrl_c_leaves_a_page_that_stands_still(runs: list[RecordedRun]) -> None:
    running, asked = RecordedRuns([replace(runs[0], state="running", metrics={})]), []

    def write(recorded: RecordedRuns, refresh: int | None) -> list[Path]:
        asked.append(refresh)
        return []

    def interrupted(seconds: float) -> None:
        assert math.isfinite(seconds)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch(lambda: running, write, wait=interrupted)
    assert asked == [20, None]


def test_the_command_prints_tables_and_refuses_two_things_at_once(
    runs: list[RecordedRun], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(command_line, "read", lambda folders: RecordedRuns(runs))
    command_line.main([str(tmp_path), "--markdown", "rows=optimizer", "columns=reg"], program="ockham report")
    assert capsys.readouterr().out.startswith("| optimizer | none | max_norm |\n")
    command_line.main([str(tmp_path), "--json"], program="ockham report")
    assert json.loads(capsys.readouterr().out)["objective"] == "val/acc"
    for words, message in (
        (["--json", "--latex", "rows=optimizer"], "--latex and --json ask for two things"),
        (["--markdown", "rows=seed"], "is no setting that differs"),
        (["--json", "--pictures", "svg"], "--json and --pictures ask for two things"),
    ):
        with pytest.raises(SystemExit, match="2"):
            command_line.main([str(tmp_path), *words], program="ockham report")
        assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

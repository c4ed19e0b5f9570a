"""Reports are read back from sweeps that really ran; what they calculate is compared with the same by hand."""

import base64
import csv
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from scipy import stats
from tensorboard import context
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

from conftest import ROOT, small
from faults.one_process import run_all
from ockham.core.statistics import compare, corrected, holm, t_interval
from ockham.record.events import MOST_POINTS, EventWriter
from ockham.record.folder import EPOCH_SCALARS, RunFolder
from ockham.report.analysis import analyse, behind_best, effects, importance, pareto
from ockham.report.drawing import Figure, mean_and_interval
from ockham.report.export import export_epochs
from ockham.report.figures import draw_figures, search_history
from ockham.report.means import means
from ockham.report.page import comparison_lines, library, write_report
from ockham.report.reading import RecordedRun, RecordedRuns, read
from ockham.sweep.summary import sweep_result
from recorded import run

MIXED = ("optimizer=sgd,adam", "reg=none,l1,dropout", "reg.l1.strength=1e-5,1e-2", "seeds=3", "logger=tensorboard")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def once(tmp_path_factory: pytest.TempPathFactory, name: str) -> Iterator[tuple[Path, bool]]:
    """A folder that all workers of a test run share, and whether this one is to fill it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(folder.with_suffix(".lock")):
        is_first = not folder.exists()
        folder.mkdir(exist_ok=True)
        yield folder, is_first


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of 24 runs with its report."""
    with once(tmp_path_factory, "swept") as (folder, is_first):
        if is_first:
            command = [
                "train.py",
                "-m",
                *small(*MIXED, "executor.slots=1", "executor.threads=1"),
                f"hydra.sweep.dir={folder / 'mixed'}",
            ]
            subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)
    return folder / "mixed"


@pytest.fixture
def copied(swept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(swept, tmp_path / "mixed"))


def script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/report.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open() as file:
        return list(csv.DictReader(file))


def seeded(accuracies: dict[str, list[float]]) -> list[RecordedRun]:
    """Runs over seeds of `optimizer reg` configurations, by their accuracies."""
    runs = []
    for name, values in accuracies.items():
        optimizer, reg = name.split()
        runs += [run({"optimizer": optimizer, "reg": reg}, value, seed=seed) for seed, value in enumerate(values)]
    return runs


def figure(name: str, runs: Sequence[RecordedRun]) -> Figure:
    (selected,) = [figure for figure in draw_figures(analyse(runs)) if figure.name == name]
    return selected


def rows_of(figure: Figure) -> list[dict[str, Any]]:
    """The rows of the first data set of a figure."""
    return next(iter(figure.specification["datasets"].values()))


# -- the page ------------------------------------------------------------------------------------------------------------


def test_a_sweep_ends_with_its_report(swept: Path) -> None:
    page, text = (swept / "report.html").read_text(), (swept / "report.md").read_text()
    best = table(swept, "summary.csv")[0]
    assert f"val/acc {float(best['objective']):.4f}" in text
    assert f"test accuracy {mean_test_accuracy(swept, best['jobs']):.4f}" in text
    low, high = float(best["objective low"]), float(best["objective high"])
    assert f"(95% interval {low:.4f} to {high:.4f}, n = 3)" in text
    assert f"optimizer={best['optimizer']}" in text.split("```")[1], "the command repeats the winner"
    assert "![" not in text, "pictures that are not there are not linked"
    assert not (swept / "report").exists()
    before_scripts = page.split("<script>")[0]
    assert before_scripts.count("http-equiv") == before_scripts.count('http-equiv="Content-Security-Policy"') == 1
    assert before_scripts.count("src=") == before_scripts.count('src="data:image/png;base64,'), "nothing is fetched"
    assert "@import" not in before_scripts


def test_the_best_run_is_drawn(swept: Path) -> None:
    images = EventAccumulator(str(swept / "tensorboard" / "best")).Reload().Tags()["images"]
    assert sorted(images) == ["model/first_layer", "test/confidently_wrong", "test/confusion"]
    others = [EventAccumulator(str(folder)).Reload().Tags()["images"] for folder in swept.iterdir() if folder.name.isdigit()]
    assert others == [[]] * 24


def test_weights_and_hardest_images_of_each_regularizer_stand_side_by_side(swept: Path) -> None:
    best = {}
    for row in table(swept, "summary.csv"):  # the best first
        best.setdefault(row["reg"], row["jobs"].split()[0])
    files = {reg: sorted((swept / "pictures" / job).iterdir()) for reg, job in best.items()}
    page = (swept / "report.html").read_text()
    for reg, of_reg in files.items():
        assert [file.name for file in of_reg] == ["confidently_wrong.png", "first_layer.png"]
        for file in of_reg:
            assert f'src="data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}" alt="{reg}, ' in page
    assert len(list((swept / "pictures").iterdir())) == 3


def test_the_library_of_the_page_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = library()
    assert "vegaEmbed" in made
    (kept,) = (tmp_path / "ockham").iterdir()
    assert kept.read_bytes()[32:] == made.encode()
    monkeypatch.delattr("vl_convert.javascript_bundle")
    assert library() == made


def test_figures_are_pictures_where_asked(swept: Path, tmp_path: Path) -> None:
    result = script(swept, "--output", tmp_path, "--pictures")
    assert result.returncode == 0, result.stderr
    pictures = sorted((tmp_path / "report").iterdir())
    names = {file.stem for file in pictures}
    assert names == {"curves", "matrix", "strength-reg-l1-strength", "sparsity", "parallel", "importance", "cost"} & names
    assert {"curves", "matrix", "strength-reg-l1-strength", "sparsity", "parallel", "importance"} <= names
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in pictures)
    text = (tmp_path / "report.md").read_text()
    assert {line.partition("(")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")} == {
        f"report/{name}.png" for name in names
    }
    assert {str(file) for file in pictures} <= set(result.stdout.splitlines())


def mean_test_accuracy(sweep: Path, jobs: str) -> float:
    values = [float(row["test/acc"]) for row in table(sweep, "results.csv") if row["job"] in jobs.split()]
    return sum(values) / len(values)


def test_test_results_are_shown_of_the_selected_one_only_unless_asked(swept: Path, tmp_path: Path) -> None:
    summary = table(swept, "summary.csv")
    assert not [name for name in summary[0] if "test" in name]
    assert all(len(row["jobs"].split()) == 3 for row in summary)
    printed = sweep_result(swept, objective="val/acc").splitlines()
    assert "test/acc" not in printed[0]
    (line,) = [line for line in printed if line.startswith("  test ")]
    assert line.startswith(f"  test     accuracy {mean_test_accuracy(swept, summary[0]['jobs']):.4f}, loss ")
    assert "test/acc" in table(swept, "results.csv")[0], "the record of each run stays whole"
    for asked in (False, True):
        write_report(read([swept]), "swept", tmp_path, show_test=asked)
        head = next(
            line for line in (tmp_path / "report.md").read_text().splitlines() if line.startswith("| optimizer | reg |")
        )
        assert ("test/acc" in head) == asked


def test_a_single_run_has_no_sections_without_data(swept: Path, tmp_path: Path) -> None:
    write_report(read([swept / "0"]), "one", tmp_path, pictures=["png"])
    titles = [line for line in (tmp_path / "report.md").read_text().splitlines() if line.startswith("## ")]
    assert titles == ["## The answer", "## Learning curves", "## Configurations", "## Settings in common"]


@pytest.mark.parametrize("jobs", [["0"], ["0", "3"]])
def test_figures_without_intervals_have_no_layer_for_them(swept: Path, jobs: list[str]) -> None:
    figures = draw_figures(analyse(read([swept / job for job in jobs]).runs))
    (curves,) = [figure for figure in figures if figure.name == "curves"]
    assert all("layer" not in chart for chart in curves.specification["hconcat"])


def test_what_is_broken_is_named_and_left_out(copied: Path, tmp_path: Path) -> None:
    for number in range(24):
        RunFolder(copied / str(number)).update_status(files={})  # as of an earlier version, which kept no checksums
    (copied / "0" / "status.json").write_text("not json")
    (copied / "1" / "metrics.json").write_bytes(b"\xff\xfe")
    (copied / "2" / ".hydra" / "config.yaml").write_text("a: [1")
    with (copied / "3" / "metrics.csv").open("a") as file:
        file.write("5,140,0.3,0")  # cut by a crash: the rest counts
    (copied / "4" / "metrics.csv").write_text("epoch,step\nx,y\n")
    (copied / "5" / "metrics.json").unlink()
    shutil.rmtree(copied / "6")
    (copied / "7" / "status.json").write_text("[]")
    (copied / "8" / "metrics.json").write_text('{"objective": 0.5}')
    (copied / "9" / "metrics.json").write_text("[1]")
    (copied / "10" / "cost.json").write_text("3")
    (copied / "11" / "status.json").write_text('{"state": "failed", "error": "a text"}')
    (copied / "12" / "metrics.json").write_text('{"objective": "high"}')
    (copied / "13" / "status.json").write_text("{}")
    broken = ("0", "1", "2", "4", "5", "7", "8", "9", "10", "11", "12", "13")
    recorded = read([copied])
    assert {path.name for path, _ in recorded.problems} == set(broken)
    reasons = {path.name: reason for path, reason in recorded.problems}
    assert "status.json is damaged: it holds no settings" in reasons["7"]
    assert reasons["8"].startswith("metrics.json lacks train/acc, val/acc")
    assert recorded.waiting == 1
    assert len(recorded.runs) == 24 - len(broken) - 1
    result = script(copied, "--output", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    text = (tmp_path / "out" / "report.md").read_text()
    left_out = text.partition("## Left out")[2]
    assert all(f"mixed/{number} " in left_out for number in broken)
    assert f"{len(broken)} unreadable" in text
    assert "1 waiting" in text


def test_failed_and_diverged_runs_are_listed_with_their_reason(copied: Path, tmp_path: Path) -> None:
    RunFolder(copied / "3").end("diverged", error="val/loss is nan after epoch 2")
    RunFolder(copied / "4").end("failed", error="<script>alert(1)</script>")
    write_report(read([copied]), "copied", tmp_path)
    assert "val/loss is nan after epoch 2" in (tmp_path / "report.md").read_text()
    for name in ("report.html", "report.md"):
        text = (tmp_path / name).read_text()
        assert "<script>alert(1)" not in text
        assert "&lt;script&gt;alert(1)" in text


def test_values_from_folders_are_text_wherever_they_stand(tmp_path: Path) -> None:
    hostile = "<!--<script><img src=x onerror=alert(1)>|`"
    runs = [run({"optimizer": "adam", "reg": reg}, 0.9, seed=seed) for reg in ("none", hostile) for seed in range(3)]
    runs = [replace(one, path=Path("javascript:alert(1)"), overrides=(f"{hostile}```",)) for one in runs]
    write_report(RecordedRuns(runs), hostile, tmp_path)
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    assert "<img" not in page
    assert "<img" not in text.replace(text.split("````")[1], ""), "but in the block of code, which is none"
    assert 'href="javascript:' not in page
    assert "<!--" not in page


def test_a_sweep_that_was_removed_is_no_folder_with_a_page(swept: Path, tmp_path: Path) -> None:
    recorded = read([swept])
    with pytest.raises(FileNotFoundError):
        write_report(recorded, "removed", tmp_path / "removed")
    assert not (tmp_path / "removed").exists()


def test_an_empty_folder_is_a_mistake(tmp_path: Path) -> None:
    for folder, message in ((tmp_path, "no run has begun"), (tmp_path / "absent", "is no folder")):
        result = script(folder)
        assert (result.returncode, result.stdout) == (2, "")
        assert message in result.stderr
        assert "Traceback" not in result.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not here: apt install chromium")
def test_the_page_works_in_a_browser(swept: Path) -> None:
    from playwright.sync_api import sync_playwright

    errors: list[str] = []
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page()
        page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: errors.append(request.url) if request.url.startswith("http") else None)
        page.goto(f"file://{swept / 'report.html'}")
        figures_drawn = page.locator(".figure")
        for index in range(figures_drawn.count()):
            figures_drawn.nth(index).locator("svg path").first.wait_for(state="attached")
        assert figures_drawn.count() >= 6
        names = page.locator(".figure[role=graphics-document]").evaluate_all("all => all.map(one => one.ariaLabel)")
        assert names[0].startswith("Learning curves. The 8 best configurations.")
        assert "Vega visualization" not in names

        opacities = page.locator("#figure-curves .mark-line path").evaluate_all
        assert len(set(opacities("all => all.map(path => path.getAttribute('opacity'))"))) == 1
        page.locator("#figure-curves .role-legend-label text").first.click()
        assert len(set(opacities("all => all.map(path => path.getAttribute('opacity'))"))) == 2, "the others have faded"

        page.evaluate("document.body.append(Object.assign(new Image(), {src: 'http://localhost:9/a.png'}))")
        script = "Object.assign(document.createElement('script'), {textContent: 'window.injected = true'})"
        page.evaluate(f"document.body.append({script})")
        page.wait_for_function("() => performance.getEntriesByType('paint').length > 0")
        assert page.evaluate("window.injected") is None
        blocked = [error for error in errors if "Content Security Policy" in error and "has been blocked" in error]
        assert len(blocked) == 2, errors
        assert set(errors) - set(blocked) <= {"http://localhost:9/a.png"}, "which the browser names, and does not send"
        errors.clear()

        def column(name: str) -> list[str]:
            heads = page.locator("#configurations-table th").all_text_contents()
            cells = page.locator(f"#configurations-table tbody tr:visible td:nth-child({heads.index(name) + 1})")
            return cells.all_text_contents()

        assert column("val/acc") == sorted(column("val/acc"), reverse=True)
        page.locator("#configurations-table th button", has_text="val/loss").press("Enter")
        losses = [float(text) for text in column("val/loss")]
        assert losses == sorted(losses)
        page.locator("#configurations-table th", has_text="val/loss").click()
        assert [float(text) for text in column("val/loss")] == losses[::-1]
        folders = page.locator("#configurations-table tbody tr td:last-child")
        page.locator("#configurations-table th", has_text="folders").click()
        numbers = [int(text.split()[0].rpartition("/")[2]) for text in folders.all_text_contents()]
        assert numbers == sorted(numbers)
        seeds = folders.first.locator("a").evaluate_all("all => all.map(link => link.getAttribute('href'))")
        assert seeds == ["0", "1", "2"], "each seed has a link"
        page.locator("input[data-filter=configurations-table]").fill("sgd dropout")
        assert column("optimizer") == ["sgd"]
        assert column("reg") == ["dropout"]

        page.set_viewport_size({"width": 390, "height": 800})
        page.wait_for_function("document.querySelector('#figure-curves svg').getBoundingClientRect().right <= 390")
        ends = "all => all.map(one => one.getBoundingClientRect().right)"
        assert max(page.locator("td, th, svg, p, img").evaluate_all(ends)) <= 390, "nothing is off the screen of a phone"
        page.emulate_media(color_scheme="dark")
        text = "document.querySelector('#figure-curves .role-axis-label text')"
        colours = page.evaluate(
            f"[document.body, {text}].map(one => getComputedStyle(one))"
            ".map((style, place) => place ? style.fill : style.backgroundColor)"
        )
        assert colours == ["rgb(22, 24, 28)", "rgb(228, 230, 234)"]
        page.emulate_media(media="print")
        assert page.locator(".wide").evaluate_all("all => all.map(box => getComputedStyle(box).overflowX)").count(
            "visible"
        ) == (page.locator(".wide").count()), "nothing of a table is hidden on paper"
        browser.close()
    assert errors == []


# -- comparisons and what is calculated ----------------------------------------------------------------------------------


def test_compare_pairs_seeds(swept: Path) -> None:
    rows = [row for row in table(swept, "results.csv") if row["optimizer"] == "adam"]
    a, b = ([float(row["objective"]) for row in rows if row["reg"] == reg] for reg in ("none", "dropout"))
    expected = compare(a, b)
    result = script(swept, "--compare", "optimizer=adam,reg=none", "optimizer=adam,reg=dropout")
    assert result.returncode == 0, result.stderr
    assert f"difference {expected.mean:+.4f} [{expected.low:+.4f}, {expected.high:+.4f}] over 3 shared seeds" in result.stdout
    assert (
        f"paired t p {expected.p:.3g}, sign-flip p {expected.sign_flip_p:.3g} (with 3 pairs never below 0.25)" in result.stdout
    )
    assert f"P(first higher) {expected.probability_higher:.2f}" in result.stdout


@pytest.mark.parametrize(
    ("side", "message"), [("reg=l3", "there are: reg=dropout, reg=l1, reg=none"), ("l2", "name options as setting=value")]
)
def test_compare_names_what_there_is(swept: Path, side: str, message: str) -> None:
    result = script(swept, "--compare", side, "reg=none")
    assert result.returncode == 2
    assert message in result.stderr


def test_compare_refuses_the_best_of_more_settings(swept: Path) -> None:
    sides = ("optimizer=adam,reg=none", "optimizer=adam,reg=l1")  # with one strength, and with two
    refused, compared = script(swept, "--compare", *sides), script(swept, "--compare", *sides, "--unequal")
    assert refused.returncode == 2
    assert "is the best of 1 configurations, optimizer=adam,reg=l1 of 2" in refused.stderr
    assert compared.returncode == 0, compared.stderr
    assert "over 3 shared seeds" in compared.stdout


def test_effects_take_the_best_setting_and_correct_for_their_number() -> None:
    accuracies = {
        "none": [0.90, 0.91, 0.92],
        "l1=1": [0.80, 0.81, 0.82],
        "l1=2": [0.93, 0.95, 0.94],
        "dropout": [0.90, 0.92, 0.91],
    }
    runs = []
    for name, values in accuracies.items():
        reg, _, strength = name.partition("=")
        settings = {"optimizer": "adam", "reg": reg} | ({"reg.l1.strength": strength} if strength else {})
        runs += [run(settings, value, seed=seed) for seed, value in enumerate(values)]
    judged = effects(analyse(runs))
    assert {(effect.regularizer, effect.chosen.values.get("reg.l1.strength")) for effect in judged} == {
        ("l1", "2"),
        ("dropout", ""),
    }
    by_reg = {effect.regularizer: effect for effect in judged}
    expected = corrected([compare(accuracies[name], accuracies["none"]) for name in ("l1=2", "dropout")])
    assert [by_reg[reg].comparison for reg in ("l1", "dropout")] == expected


#: Four configurations over five seeds: clearly behind the first, behind it by an interval that Holm's correction widens past
#: 0, and equal but for noise.
FAMILY = {
    "adam none": [0.90, 0.92, 0.91, 0.93, 0.94],
    "adam l2": [0.80, 0.81, 0.82, 0.82, 0.85],
    "adam l1": [0.893, 0.922, 0.896, 0.915, 0.921],
    "sgd none": [0.90, 0.91, 0.92, 0.925, 0.935],
}


def test_there_is_one_answer_to_what_is_behind(tmp_path: Path) -> None:
    results = analyse(seeded(FAMILY))
    best = FAMILY["adam none"]
    raw = {name: stats.ttest_rel(best, values).pvalue for name, values in FAMILY.items() if values is not best}
    adjusted = dict(zip(raw, holm(list(raw.values())), strict=True))
    assert raw["adam l1"] < 0.05 < adjusted["adam l1"], "the case in which interval and correction disagree"
    compared = behind_best(results, results.finished)
    by_name = {f"{c.values['optimizer']} {c.values['reg']}": comparison for c, comparison in compared}
    assert {name: comparison.p for name, comparison in by_name.items()} == pytest.approx(adjusted)
    assert {name for name, comparison in by_name.items() if comparison.distinguishable} == {"adam l2"}
    write_report(RecordedRuns(seeded(FAMILY)), "family", tmp_path)
    text, page = (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()
    for shown in (text, page):
        assert "Behind it beyond chance: 1 of 3 others" in shown
        assert "interval that excludes 0" not in shown
    effect = {e.regularizer: e.comparison for e in effects(results)}
    raw_effects = holm([raw["adam l1"], raw["adam l2"]])
    assert [effect["l1"].p, effect["l2"].p] == pytest.approx(raw_effects)
    for reg in ("l1", "l2"):
        section = text.partition("## Which regularizer helps?")[2].partition("## ")[0]
        (row,) = [line for line in section.splitlines() if line.startswith(f"| adam | {reg} |")]
        assert ("worse: p" in row) == effect[reg].distinguishable
    assert "With 5 pairs the p of the sign-flip test is never below 0.062" in text
    lines = comparison_lines(results, *(results.matching({"optimizer": "adam", "reg": reg})[0] for reg in ("none", "l2")))
    assert lines[-1] == f"better: p {raw['adam l2']:.2g}", "one comparison that was asked for by itself"


def test_single_runs_say_nothing_about_chance(tmp_path: Path) -> None:
    write_report(RecordedRuns([run({"optimizer": o, "reg": "none"}, 0.9) for o in ("adam", "sgd", "gd")]), "x", tmp_path)
    assert "cannot be said: it takes more seeds" in (tmp_path / "report.md").read_text()


def test_a_result_that_is_not_finite_is_no_winner_and_no_evidence(tmp_path: Path) -> None:
    runs = seeded({"adam none": [0.9, math.nan, 0.92], "sgd none": [0.5, 0.6, 0.55], "gd none": [0.5, 0.5, 0.56]})
    results = analyse(runs)
    assert [c.values["optimizer"] for c in results.configurations] == ["sgd", "gd", "adam"]
    lines = comparison_lines(results, *(results.matching({"optimizer": name})[0] for name in ("adam", "sgd")))
    assert lines[-1] == "not comparable: a result is not finite"
    assert "nan" not in " ".join(lines[1:])
    write_report(RecordedRuns(runs), "x", tmp_path)
    assert "Best on validation: sgd" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize("state", ["running", "failed", "diverged", "pruned"])
def test_there_are_figures_where_nothing_has_finished(state: str) -> None:
    """As beside a sweep that has just begun: of the figures none can be drawn, and none fails."""
    settings = [
        {"optimizer": optimizer, "reg": reg, "optimizer.lr": lr} for optimizer in "ab" for reg in "cd" for lr in ("1", "2")
    ]
    runs = [replace(run(values, 0.5, state=state), metrics={}) for values in settings]
    assert draw_figures(analyse(runs)) == []


def test_the_matrix_colours_what_exceeds_chance_only() -> None:
    names = [name for name in FAMILY if name != "sgd none"]
    rows = {f"{row['optimizer']} {row['reg']}": row["shade"] for row in rows_of(figure("matrix", seeded(FAMILY)))}
    best = sum(FAMILY["adam none"]) / 5
    assert {name: rows[name] for name in names} == pytest.approx(
        {"adam none": best, "adam l1": best, "adam l2": sum(FAMILY["adam l2"]) / 5}
    )
    assert rows["sgd none"] == pytest.approx(best)
    noise = {name: values for name, values in FAMILY.items() if name != "adam l2"} | {"sgd l1": FAMILY["sgd none"]}
    matrix = figure("matrix", seeded(noise))
    assert len({row["shade"] for row in rows_of(matrix)}) == 1
    assert '"scheme": "blues"' not in json.dumps(matrix.specification)


def cost_axes(runs: Sequence[RecordedRun]) -> list[str]:
    charts = figure("cost", runs).specification["concat"]
    return [chart["layer"][0]["encoding"]["x"]["field"] for chart in charts]


def test_seconds_are_compared_only_of_runs_that_had_their_process_to_themselves(tmp_path: Path) -> None:
    runs = [
        replace(
            run({"optimizer": name, "reg": "none"}, 0.9, steps=10.0 * place, samples=100.0 * place, flops=1e9),
            cost={"train_seconds": float(place)},
        )
        for place, name in enumerate(("gd", "sgd", "adam"), start=1)
    ]
    assert cost_axes(runs) == ["steps", "samples", "seconds"]
    shared = [replace(one, cost={**one.cost, "shared": 3.0}) for one in runs]
    assert cost_axes(shared) == ["steps", "samples"]
    assert "3 of 3 configurations did not" in figure("cost", shared).text
    mixed = [*shared[:1], *runs[1:]]
    assert cost_axes(mixed) == ["steps", "samples", "seconds"]
    specification = figure("cost", mixed).specification
    points = specification["datasets"][specification["concat"][2]["layer"][1]["data"]["name"]]
    assert {row["configuration"] for row in points} == {"sgd", "adam"}
    write_report(RecordedRuns(mixed), "x", tmp_path)
    lines = (tmp_path / "report.md").read_text().partition("## Configurations")[2].partition("## ")[0].splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    column = table[0].index("train s")
    assert {row[0]: row[column] for row in table[2:]} == {"gd": "\u2013", "sgd": "2.00", "adam": "3.00"}


def test_the_same_run_in_two_folders_is_no_further_evidence(swept: Path, copied: Path, tmp_path: Path) -> None:
    once, twice = (analyse(read(folders).runs) for folders in ([swept], [swept, copied]))
    assert [configuration.n for configuration in twice.configurations] == [3] * 8
    assert (once.repeated, twice.repeated) == (0, 24)
    assert [c.mean("objective") for c in once.configurations] == [c.mean("objective") for c in twice.configurations]
    assert script(swept, copied, "--output", tmp_path / "out").returncode == 0
    assert "48 runs: 48 finished. 24 repeat another one's configuration" in (tmp_path / "out" / "report.md").read_text()


def test_curves_end_with_the_last_epoch() -> None:
    epochs = [{"epoch": float(number)} for number in range(1, 31)]
    (configuration,) = analyse([replace(run({}, 0.9), epochs=epochs)]).configurations
    assert [rows[0]["epoch"] for rows in configuration.curves(30)] == list(range(1, 31))
    assert [rows[0]["epoch"] for rows in configuration.curves(8)] == [2, 6, 10, 14, 18, 22, 26, 30]


def test_incomplete_configurations_stand_behind_complete_ones() -> None:
    runs = [run({"reg": "none"}, 0.9, seed=0), run({"reg": "none"}, 0.9, seed=1)]
    runs += [run({"reg": "l2"}, 0.99, seed=0), run({"reg": "l2"}, 0.0, seed=1, state="diverged")]
    winner = analyse(runs).winner
    assert winner is not None
    assert winner.values["reg"] == "none"


@pytest.mark.parametrize(
    ("rows", "axis"), [([(1, 7), (2, 14)], "epoch"), ([(1, 4), (2, 8)], "epoch"), ([(1, 4), (1, 7)], "step")]
)
def test_curves_are_over_steps_where_runs_are_evaluated_at_steps(rows: list[tuple[int, int]], axis: str) -> None:
    epochs = [{**dict.fromkeys(EPOCH_SCALARS, 0.5), "epoch": epoch, "step": step} for epoch, step in rows]
    points = rows_of(figure("curves", [replace(run({"reg": "l2"}, 0.9), epochs=epochs)]))
    assert [point[axis] for point in points if point["split"] == "val"] == [row[axis == "step"] for row in rows]
    assert all(("epoch" in point, "step" in point) == (axis == "epoch", axis == "step") for point in points)


def test_the_course_of_a_search_has_each_trial_and_the_best_so_far(tmp_path: Path) -> None:
    accuracies = [0.5, 0.7, 0.6, 0.9, 0.8]
    runs = []
    for number, accuracy in enumerate(accuracies):
        one = run({"reg": "none", "optimizer.lr": str(number)}, accuracy, state="pruned" if number == 3 else "finished")
        epochs = [{**dict.fromkeys(("step", *EPOCH_SCALARS), 0.5), "epoch": 1.0, "val/acc": accuracy - 0.1}]
        runs.append(replace(one, path=tmp_path / str(number), epochs=epochs))
    (course,) = search_history(analyse(runs[::-1]), tmp_path)
    rows = rows_of(course)
    assert [row["score"] for row in rows] == pytest.approx([0.5, 0.7, 0.6, 0.8, 0.8]), "of the pruned one what it had reached"
    assert [row["best"] for row in rows] == [0.5, 0.7, 0.7, 0.7, 0.8]
    assert [row["state"] for row in rows] == [*["finished"] * 3, "pruned", "finished"]
    write_report(RecordedRuns(runs, searches=[tmp_path]), "search", tmp_path)
    text = (tmp_path / "report.md").read_text().partition("## Failed, diverged and pruned")[2]
    (line,) = [line for line in text.splitlines() if "| pruned |" in line]
    assert "| 0.8000 val/acc | 1 | others of the sweep were ahead |" in line
    assert "The course of the search" in (tmp_path / "report.html").read_text()


def test_a_setting_of_one_option_takes_nothing_of_what_the_option_brings() -> None:
    runs = [run({"reg": "none", "optimizer.lr": str(lr)}, 0.5 + 0.001 * lr) for lr in range(1, 7)]
    runs += [
        run({"reg": "l1", "reg.l1.strength": strength, "optimizer.lr": str(lr)}, 0.9 + 0.001 * lr)
        for lr in range(1, 7)
        for strength in ("1", "2", "3")
    ]
    shares = importance(analyse(runs))
    assert shares["reg"] > 0.9
    assert shares["reg.l1.strength"] < 0.05


def test_intervals_of_accuracies_are_drawn_up_to_1() -> None:
    interval = t_interval([0.9, 0.99, 1.0])
    assert interval[1] > 1
    assert mean_and_interval(0.96, interval, is_share=True) == {"mean": 0.96, "low": interval[0], "high": 1.0}
    assert mean_and_interval(0.96, interval)["high"] == interval[1]


def test_the_setting_that_decides_is_important() -> None:
    runs = [
        run({"optimizer": o, "reg.l2.strength": str(s)}, 0.5 + 0.1 * index + (s % 3) * 1e-4)
        for index, o in enumerate(("sgd", "adam", "rmsprop"))
        for s in (1, 2, 3, 4)
    ]
    shares = importance(analyse(runs))
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["optimizer"] > 0.9


def test_a_choice_of_many_is_as_important_as_it_is_and_takes_no_time_for_it() -> None:
    """25 choices: their subsets, of which fANOVA would count each, are millions."""
    runs = [
        run({"optimizer": f"optimizer {o}", "model.hidden": f"[{s},{s}]"}, 0.5 + 0.01 * ((7 * o) % 25) + s * 1e-5)
        for o in range(25)
        for s in (1, 2, 4, 8)
    ]
    shares = importance(analyse(runs))
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["optimizer"] > 0.9


def test_the_front_by_hand() -> None:
    assert pareto([(1, 0.5), (2, 0.3), (3, 0.4), (2, 0.2), (0.5, 0.9)]) == [4, 0, 3]


def test_the_strength_figure_holds_errors_of_both_splits(swept: Path) -> None:
    rows = rows_of(figure("strength-reg-l1-strength", read([swept]).runs))
    expected: dict[tuple[float, str], list[float]] = {}
    for row in table(swept, "results.csv"):
        if row["optimizer"] == "adam" and row["reg"] == "l1":
            for split in ("train", "val"):
                expected.setdefault((float(row["reg.l1.strength"]), split), []).append(1 - float(row[f"{split}/acc"]))
    plotted = {(row["strength"], row["split"]): row for row in rows if row["optimizer"] == "adam"}
    assert plotted.keys() == expected.keys()
    for key, values in expected.items():
        assert plotted[key]["mean"] == pytest.approx(sum(values) / 3)
        low, high = t_interval(values)
        assert (plotted[key]["low"], plotted[key]["high"]) == pytest.approx((max(low, 0), min(high, 1)))


def test_export_has_a_row_an_epoch(swept: Path, tmp_path: Path) -> None:
    file = tmp_path / "epochs.csv"
    assert script(swept, "--export", file).stdout == f"{24 * 4} epochs: {file}\n"
    rows = table(tmp_path, "epochs.csv")
    assert len(rows) == 24 * 4
    first = [row for row in rows if row["folder"].endswith("/0")]
    expected = RunFolder(swept / "0").epochs()
    assert [float(row["val/loss"]) for row in first] == [epoch["val/loss"] for epoch in expected]
    assert {row["reg.l1.strength"] for row in rows if row["reg"] == "l1"} == {"1e-05", "0.01"}
    with pytest.raises(ValueError, match="ends in .csv"):
        export_epochs(read([swept]), tmp_path / "epochs.parquet")


def test_exported_texts_are_no_formulas(tmp_path: Path) -> None:
    epochs = [dict.fromkeys(("epoch", "step", *EPOCH_SCALARS), -0.5)]
    values = {"name": '=HYPERLINK("http://x")', "shift": "-0.25", "list": "[-1,2]", "at": "@x", "+key": "+1e3"}
    export_epochs(RecordedRuns([replace(run(values, 0.9), epochs=epochs)]), tmp_path / "epochs.csv")
    (row,) = table(tmp_path, "epochs.csv")
    assert row["name"] == '\'=HYPERLINK("http://x")'
    assert (row["shift"], row["list"], row["at"], row["'+key"]) == ("-0.25", "[-1,2]", "'@x", "+1e3")
    assert row["val/loss"] == "-0.5"


def test_what_was_measured_has_columns_and_its_mean(tmp_path: Path) -> None:
    epoch = dict.fromkeys(("epoch", "step", *EPOCH_SCALARS), 0.5)
    measured = [
        replace(
            run({"reg": "l2"}, 0.9, seed=seed, sharpness=10.0 + seed, **{"test/ece": 0.03}),
            epochs=[{**epoch, "sharpness": 20.0 + seed}],
        )
        for seed in (0, 1)
    ]
    runs = [*measured, replace(run({"reg": "l1"}, 0.8), epochs=[epoch])]
    export_epochs(RecordedRuns(runs), tmp_path / "epochs.csv")
    rows = table(tmp_path, "epochs.csv")
    assert [row["sharpness"] for row in rows] == ["20.0", "21.0", ""]
    assert "val/ece" not in rows[0]
    assert {mean.label: mean for mean in means(analyse(runs))}["l2"].epochs[-1]["sharpness"] == 20.5
    write_report(RecordedRuns(runs), "measured", tmp_path)
    text = (tmp_path / "report.md").read_text()
    head = next(line for line in text.splitlines() if "| bootstrap |" in line)
    assert "| sharpness |" in head
    assert "test/ece" not in head, "test results are shown on request"
    assert "| 10.5 |" in text


# -- TensorBoard ---------------------------------------------------------------------------------------------------------


def hparams(folder: Path) -> tuple[Any, Sequence[Any]]:
    """The experiment and the session groups, as TensorBoard's own plugin answers."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(folder))
    plugin = backend_context.Context(base_plugin.TBContext(multiplexer=multiplexer, logdir=str(folder), data_provider=provider))
    request = context.RequestContext()
    metadata = plugin.hparams_metadata(request, "")
    known = plugin.hparams_from_data_provider(request, "", None)
    experiment = plugin.experiment_from_metadata(request, "", True, metadata, known)
    wanted = api_pb2.ListSessionGroupsRequest(start_index=0, slice_size=1000, allowed_statuses=[1])  # STATUS_SUCCESS
    return experiment, list_session_groups.Handler(request, plugin, "", wanted).run().session_groups


def test_the_hparams_tab_is_complete_for_a_mixed_sweep(swept: Path) -> None:
    experiment, groups = hparams(swept)
    types = {info.name: api_pb2.DataType.Name(info.type) for info in experiment.hparam_infos}
    assert types["optimizer.lr"] == types["reg.l1.strength"] == types["reg.dropout.rate"] == "DATA_TYPE_FLOAT64"
    assert types["optimizer.betas"] == types["model.hidden"] == "DATA_TYPE_STRING"
    assert [info.name for info in experiment.hparam_infos[:3]] == ["optimizer", "reg", "seed"], "what was swept is shown first"
    first = {info.name for info in experiment.hparam_infos if info.differs}
    assert first == {"optimizer", "reg", "seed"}
    groups = [group for group in groups if not group.sessions[0].name.startswith("tensorboard/")]
    assert len(groups) == 24
    assert {metric.name.tag for metric in experiment.metric_infos} == {"selected/val/acc", "selected/val/loss", "objective"}
    for group in groups:
        (session,) = group.sessions
        metrics = RunFolder(swept / session.name).metrics()
        shown = {value.name.tag: value.value for value in session.metric_values}
        assert shown["selected/val/acc"] == pytest.approx(metrics["val/acc"], rel=1e-6)
        assert not [tag for tag in EventAccumulator(str(swept / session.name)).Reload().Tags()["scalars"] if "test" in tag]
        assert shown["selected/val/loss"] == pytest.approx(metrics["val/loss"], rel=1e-6)
        assert set(group.hparams) <= set(types)
        for name, value in group.hparams.items():
            assert (
                value.WhichOneof("kind")
                == {"DATA_TYPE_FLOAT64": "number_value", "DATA_TYPE_STRING": "string_value"}[types[name]]
            )
        assert first <= set(group.hparams), "no blank in what is shown, for which parallel coordinates drop a run"
    assert {(group.hparams["optimizer"].string_value, group.hparams["reg"].string_value) for group in groups} == {
        (row["optimizer"], row["reg"]) for row in table(swept, "results.csv")
    }
    assert any("reg.l1.strength" in group.hparams for group in groups)
    assert any("reg.l1.strength" not in group.hparams for group in groups)


def test_configurations_have_a_mean_run_with_its_band(swept: Path) -> None:
    events = EventAccumulator(str(swept / "tensorboard" / "mean" / "adam_dropout")).Reload()
    members = [
        RunFolder(swept / row["folder"]).epochs()
        for row in table(swept, "results.csv")
        if (row["optimizer"], row["reg"]) == ("adam", "dropout")
    ]
    for position, (mean, low, high) in enumerate(
        zip(*(events.Scalars(tag) for tag in ("val/acc", "band/val/acc/low", "band/val/acc/high")), strict=True)
    ):
        values = [epochs[position]["val/acc"] for epochs in members]
        assert mean.step == members[0][position]["step"]
        assert mean.value == pytest.approx(sum(values) / 3, rel=1e-6)
        assert (low.value, high.value) == pytest.approx(t_interval(values), rel=1e-6)
    assert len(list((swept / "tensorboard" / "mean").iterdir())) == 2 * 4


def test_the_folder_for_tensorboard_has_a_run_a_configuration(swept: Path) -> None:
    _, groups = hparams(swept / "tensorboard")
    summary = {float(row["objective"]) for row in table(swept, "summary.csv")}
    shown = {value.value for group in groups for value in group.sessions[0].metric_values if value.name.tag == "objective"}
    assert len(groups) == 8
    assert sorted(shown) == pytest.approx(sorted(summary), rel=1e-6)
    assert not any("seed" in group.hparams for group in groups)


def test_tensorboard_is_given_no_more_runs_than_it_shows() -> None:
    epoch = dict.fromkeys(("epoch", "step", *EPOCH_SCALARS), 0.5)
    runs = [replace(run({"optimizer.lr": str(number)}, number / 100), epochs=[epoch]) for number in range(80)]
    shown = means(analyse(runs))
    assert [mean.label for mean in shown] == [f"lr {number}" for number in range(79, 40, -1)], "the best 39, and the pictures"


def test_long_runs_write_a_bounded_number_of_points(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path, {}, past_step=0, num_rows=1203)
    for epoch in range(1, 1204):
        writer.row(epoch, epoch * 10, {"val/acc": epoch / 1203})
    writer.close()
    points = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload().Scalars("val/acc")
    assert len(points) <= MOST_POINTS
    assert points[-1].step == 12030
    assert math.isclose(points[-1].value, 1)


# -- one configuration, however it was run -------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def alone_and_fused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one sweep of two jobs twice: each job by itself in `off`, both as one program in `on`."""
    common = ("optimizer.lr=1e-3,3e-3", "prune=median", "logger=tensorboard", "report=false", "executor=inline")
    with once(tmp_path_factory, "twice") as (folder, is_first):
        if is_first:
            sweeps = {
                fuse: ["-m", *small(*common), f"fuse={fuse}", f"hydra.sweep.dir={folder / fuse}"] for fuse in ("off", "on")
            }
            (folder / "commands").mkdir()
            assert {left.code for left in run_all(sweeps, folder / "commands").values()} == {0}
    return folder


def test_a_configuration_alone_and_in_a_group_is_one(alone_and_fused: Path, tmp_path: Path) -> None:
    off, on = (read([alone_and_fused / fuse]) for fuse in ("off", "on"))
    assert [one.configuration_key for one in off.runs] == [one.configuration_key for one in on.runs]
    assert [one.values for one in off.runs] == [one.values for one in on.runs]
    both = analyse([*off.runs, *on.runs])
    assert (len(both.configurations), both.repeated) == (2, 2)
    shown = {fuse: hparams(alone_and_fused / fuse) for fuse in ("off", "on")}
    assert shown["off"][0].hparam_infos == shown["on"][0].hparam_infos
    first, second = ({g.sessions[0].name: dict(g.hparams) for g in groups} for _, groups in shown.values())
    assert first == second


def test_the_command_of_the_best_run_repeats_it(alone_and_fused: Path, tmp_path: Path) -> None:
    sweep = alone_and_fused / "off"
    write_report(read([sweep]), "off", tmp_path)
    printed = sweep_result(sweep, objective="val/acc").partition("  best     ")[2].splitlines()[0]
    assert (tmp_path / "report.md").read_text().split("```")[1].strip() == printed
    assert "prune" not in printed
    program, *overrides = shlex.split(printed)
    assert program == "python"
    command = [sys.executable, *overrides, f"hydra.run.dir={tmp_path / 'again'}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    best = table(sweep, "summary.csv")[0]["job"]
    for name in ("metrics.json", "metrics.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (sweep / best / name).read_bytes()

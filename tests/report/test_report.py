"""Reports are read back from sweeps that really ran; what they calculate is compared with the same by hand."""

import csv
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tensorboard import context
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

from conftest import ROOT, SMALL
from ockham.core.statistics import compare, holm, t_interval
from ockham.record.events import MOST_POINTS, EventWriter
from ockham.record.folder import RunFolder
from ockham.report.analysis import effects, importance, pareto, results
from ockham.report.export import export_epochs
from ockham.report.figures import figures
from ockham.report.page import write_report
from ockham.report.reading import Run, read

MIXED = ("optimizer=sgd,adam", "reg=none,l1,dropout", "reg.l1.strength=1e-5,1e-2", "seeds=3", "logger=tensorboard")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of 24 runs with its report."""
    folder = tmp_path_factory.mktemp("swept") / "mixed"
    command = [sys.executable, "train.py", "-m", *SMALL, *MIXED, f"hydra.sweep.dir={folder}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture
def copied(swept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(swept, tmp_path / "mixed"))


def script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/report.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open() as file:
        return list(csv.DictReader(file))


def run(values: dict[str, str], objective: float, *, seed: int = 0, state: str = "finished", **metrics: float) -> Run:
    """A run as it is read, without a folder."""
    numbers = {
        "objective": objective,
        "val/acc": objective,
        "train/acc": objective,
        "zero_fraction": 0.0,
        "flops": 1e9,
        **metrics,
    }
    return Run(
        Path("somewhere"),
        state,
        values,
        (),
        json.dumps(values),
        (seed, None),
        "val/acc",
        numbers,
        {"train_seconds": 1.0},
        [],
        None,
    )


# -- the page ------------------------------------------------------------------------------------------------------------


def test_a_sweep_ends_with_its_report(swept: Path) -> None:
    page, text = (swept / "report.html").read_text(), (swept / "report.md").read_text()
    best = table(swept, "summary.csv")[0]
    assert f"val/acc {float(best['objective']):.4f}" in text
    assert f"test accuracy {float(best['test/acc']):.4f}" in text
    low, high = float(best["objective low"]), float(best["objective high"])
    assert f"(95% interval {low:.4f} to {high:.4f}, n = 3)" in text
    assert f"optimizer={best['optimizer']}" in text.split("```")[1], "the command repeats the winner"
    drawn = {file.stem for file in (swept / "report").iterdir()}
    assert drawn == {"curves", "matrix", "strength-reg-l1-strength", "sparsity", "parallel", "importance", "cost"} & drawn
    assert {"curves", "matrix", "strength-reg-l1-strength", "sparsity", "parallel", "importance"} <= drawn
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in (swept / "report").iterdir())
    for address in ("src=", "http-equiv", "@import"):
        assert address not in page.split("<script>")[0], "nothing is fetched"


def test_test_results_are_shown_of_the_selected_one_only_unless_asked(swept: Path, tmp_path: Path) -> None:
    for asked in (False, True):
        write_report(read([swept]), "swept", tmp_path, show_test=asked, pictures=False)
        head = next(
            line for line in (tmp_path / "report.md").read_text().splitlines() if line.startswith("| optimizer | reg |")
        )
        assert ("test/acc" in head) == asked


def test_a_single_run_has_no_sections_without_data(swept: Path, tmp_path: Path) -> None:
    write_report(read([swept / "0"]), "one", tmp_path, pictures=False)
    titles = [line for line in (tmp_path / "report.md").read_text().splitlines() if line.startswith("## ")]
    assert titles == ["## The answer", "## Learning curves", "## Configurations"]


@pytest.mark.parametrize("jobs", [["0"], ["0", "3"]])
def test_figures_without_intervals_have_no_layer_for_them(swept: Path, jobs: list[str]) -> None:
    drawn = figures(results(read([swept / job for job in jobs]).runs))
    (curves,) = [figure for figure in drawn if figure.name == "curves"]
    assert all("layer" not in chart for chart in curves.specification["hconcat"])


def test_what_is_broken_is_named_and_left_out(copied: Path, tmp_path: Path) -> None:
    (copied / "0" / "status.json").write_text("not json")
    (copied / "1" / "metrics.json").write_text('{"objective": "high"}')
    (copied / "2" / ".hydra" / "config.yaml").write_text("a: [1")
    with (copied / "3" / "metrics.csv").open("a") as file:
        file.write("5,140,0.3,0")  # cut by a crash: the rest counts
    (copied / "4" / "metrics.csv").write_text("epoch,step\nx,y\n")
    (copied / "5" / "metrics.json").unlink()
    shutil.rmtree(copied / "6")
    (copied / "7" / "status.json").write_text("[]")
    found = read([copied])
    assert {path.name for path, _ in found.problems} == {"0", "1", "2", "4", "5"}, "an empty status is a run that has not begun"
    assert found.waiting == 2
    assert len(found.runs) == 24 - 5 - 2
    result = script(copied, "--output", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    text = (tmp_path / "out" / "report.md").read_text()
    left_out = text.partition("## Left out")[2]
    assert all(f"mixed/{number} " in left_out for number in (0, 1, 2, 4, 5))
    assert "5 unreadable" in text
    assert "2 waiting" in text


def test_failed_and_diverged_runs_are_listed_with_their_reason(copied: Path, tmp_path: Path) -> None:
    RunFolder(copied / "3").end("diverged", error="val/loss is nan after epoch 2")
    RunFolder(copied / "4").end("failed", error="<script>alert(1)</script>")
    write_report(read([copied]), "copied", tmp_path, pictures=False)
    assert "val/loss is nan after epoch 2" in (tmp_path / "report.md").read_text()
    page = (tmp_path / "report.html").read_text()
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_an_empty_folder_is_a_mistake(tmp_path: Path) -> None:
    for folder, told in ((tmp_path, "no run has begun"), (tmp_path / "absent", "is no folder")):
        result = script(folder)
        assert (result.returncode, result.stdout) == (2, "")
        assert told in result.stderr
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

        def column(name: str) -> list[str]:
            heads = page.locator("#configurations-table th").all_text_contents()
            cells = page.locator(f"#configurations-table tbody tr:visible td:nth-child({heads.index(name) + 1})")
            return cells.all_text_contents()

        assert column("val/acc") == sorted(column("val/acc"), reverse=True)
        page.locator("#configurations-table th", has_text="val/loss").click()
        losses = [float(text) for text in column("val/loss")]
        assert losses == sorted(losses)
        page.locator("#configurations-table th", has_text="val/loss").click()
        assert [float(text) for text in column("val/loss")] == losses[::-1]
        page.locator("input[data-filter=configurations-table]").fill("sgd dropout")
        assert column("optimizer") == ["sgd"]
        assert column("reg") == ["dropout"]
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
    assert f"sign-flip p {expected.p:.3g}; P(first higher) {expected.probability_higher:.2f}" in result.stdout


@pytest.mark.parametrize(
    ("side", "told"), [("reg=l3", "there are: reg=dropout, reg=l1, reg=none"), ("l2", "name options as setting=value")]
)
def test_compare_names_what_there_is(swept: Path, side: str, told: str) -> None:
    result = script(swept, "--compare", side, "reg=none")
    assert result.returncode == 2
    assert told in result.stderr


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
    found = effects(results(runs))
    assert {(effect.regularizer, effect.chosen.values.get("reg.l1.strength")) for effect in found} == {
        ("l1", "2"),
        ("dropout", ""),
    }
    by_reg = {effect.regularizer: effect for effect in found}
    expected = [compare(accuracies[name], accuracies["none"]) for name in ("l1=2", "dropout")]
    assert by_reg["l1"].comparison == expected[0]
    assert [by_reg["l1"].p, by_reg["dropout"].p] == holm([comparison.p for comparison in expected])


def test_the_same_run_in_two_folders_is_no_further_evidence(swept: Path, copied: Path, tmp_path: Path) -> None:
    once, twice = (results(read(folders).runs) for folders in ([swept], [swept, copied]))
    assert [configuration.n for configuration in twice.configurations] == [3] * 8
    assert (once.repeated, twice.repeated) == (0, 24)
    assert [c.mean("objective") for c in once.configurations] == [c.mean("objective") for c in twice.configurations]
    assert script(swept, copied, "--output", tmp_path / "out").returncode == 0
    assert "48 runs: 48 finished. 24 repeat another one's configuration" in (tmp_path / "out" / "report.md").read_text()


def test_curves_end_with_the_last_epoch() -> None:
    epochs = [{"epoch": float(number)} for number in range(1, 31)]
    (configuration,) = results([replace(run({}, 0.9), epochs=epochs)]).configurations
    assert [rows[0]["epoch"] for rows in configuration.curves(30)] == list(range(1, 31))
    assert [rows[0]["epoch"] for rows in configuration.curves(8)] == [2, 6, 10, 14, 18, 22, 26, 30]


def test_incomplete_configurations_stand_behind_complete_ones() -> None:
    runs = [run({"reg": "none"}, 0.9, seed=0), run({"reg": "none"}, 0.9, seed=1)]
    runs += [run({"reg": "l2"}, 0.99, seed=0), run({"reg": "l2"}, 0.0, seed=1, state="diverged")]
    winner = results(runs).winner
    assert winner is not None
    assert winner.values["reg"] == "none"


def test_the_setting_that_decides_is_important() -> None:
    runs = [
        run({"optimizer": o, "reg.l2.strength": str(s)}, 0.5 + 0.1 * index + (s % 3) * 1e-4)
        for index, o in enumerate(("sgd", "adam", "rmsprop"))
        for s in (1, 2, 3, 4)
    ]
    shares = importance(results(runs))
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["optimizer"] > 0.9


def test_the_front_by_hand() -> None:
    assert pareto([(1, 0.5), (2, 0.3), (3, 0.4), (2, 0.2), (0.5, 0.9)]) == [4, 0, 3]


def test_the_strength_figure_holds_errors_of_both_splits(swept: Path) -> None:
    (figure,) = [own for own in figures(results(read([swept]).runs)) if own.name == "strength-reg-l1-strength"]
    (rows,) = figure.specification["datasets"].values()
    expected: dict[tuple[float, str], list[float]] = {}
    for row in table(swept, "results.csv"):
        if row["optimizer"] == "adam" and row["reg"] == "l1":
            for split in ("train", "val"):
                expected.setdefault((float(row["reg.l1.strength"]), split), []).append(1 - float(row[f"{split}/acc"]))
    own = {(row["strength"], row["split"]): row for row in rows if row["optimizer"] == "adam"}
    assert own.keys() == expected.keys()
    for key, values in expected.items():
        assert own[key]["mean"] == pytest.approx(sum(values) / 3)
        assert (own[key]["low"], own[key]["high"]) == pytest.approx(t_interval(values))


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
    first = {info.name for info in experiment.hparam_infos if info.differs}
    assert {info.name for info in experiment.hparam_infos[: len(first)]} == first, "what varies is shown first"
    assert {"optimizer.lr", "reg.l1.strength", "reg.dropout.rate", "seed"} <= first
    assert not first & {"data.shape", "model.hidden", "objective"}
    assert len(groups) == 24
    assert {metric.name.tag for metric in experiment.metric_infos} >= {"selected/val/acc", "test/acc", "test/loss", "objective"}
    for group in groups:
        (session,) = group.sessions
        metrics = RunFolder(swept / session.name).metrics()
        shown = {value.name.tag: value.value for value in session.metric_values}
        assert shown["test/acc"] == pytest.approx(metrics["test/acc"], rel=1e-6)
        assert shown["selected/val/loss"] == pytest.approx(metrics["val/loss"], rel=1e-6)
        assert set(group.hparams) <= set(types)
        for name, value in group.hparams.items():
            assert (
                value.WhichOneof("kind")
                == {"DATA_TYPE_FLOAT64": "number_value", "DATA_TYPE_STRING": "string_value"}[types[name]]
            )
    assert any("reg.l1.strength" in group.hparams for group in groups)
    assert any("reg.l1.strength" not in group.hparams for group in groups)


def test_configurations_have_a_mean_run_with_its_band(swept: Path) -> None:
    events = EventAccumulator(str(swept / "mean" / "adam_dropout")).Reload()
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
    assert len(list((swept / "mean").iterdir())) == 2 * 4


def test_long_runs_write_a_bounded_number_of_points(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path, {}, past_step=0, num_epochs=1203)
    for epoch in range(1, 1204):
        writer.epoch(epoch, epoch * 10, {"val/acc": epoch / 1203})
    writer.close()
    points = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload().Scalars("val/acc")
    assert len(points) <= MOST_POINTS
    assert points[-1].step == 12030
    assert math.isclose(points[-1].value, 1)

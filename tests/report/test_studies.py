"""The figures of studies: maps over two swept numbers, errors against a size, maps over a size and the epochs."""

import math
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import pytest
from scipy import stats

from ockham.core.statistics import t_interval
from ockham.report.analysis import analyse, number_of
from ockham.report.curves import learning_curves, measured_curves
from ockham.report.drawing import Figure
from ockham.report.heatmaps import Axis, error_by_epoch, heat_maps
from ockham.report.learning_rates import errors_by_learning_rate, good_rates
from ockham.report.page import _picture
from ockham.report.reading import RecordedRun
from ockham.report.sizes import errors_by_size
from recorded import run


def rows_with(figure: Figure, key: str) -> list[dict[str, Any]]:
    """The rows of all data sets of a figure that have the key."""
    return [row for rows in figure.specification["datasets"].values() for row in rows if key in row]


def cell(*, lr: str, decay: str, accuracy: float, seed: int = 0, **others: str) -> RecordedRun:
    return run({"optimizer": "adam", **others, "optimizer.lr": lr, "reg.l2.strength": decay}, accuracy, seed=seed)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0.1", 0.1),
        ("[64,64]", 64),
        ("[ 64, 64 ]", 64),
        ("[256]", 256),
        ("[64,32]", None),
        ("adam", None),
        ("", None),
        ("[]", None),
    ],
)
def test_settings_are_read_as_numbers(text: str, number: float | None) -> None:
    assert number_of(text) == number or (number is None and math.isnan(number_of(text)))


def test_cells_of_a_logarithmic_axis_meet_half_way_in_the_logarithm() -> None:
    edges = Axis("lr", [1e-3, 1e-2, 1e-1]).edges()
    assert edges[1e-2] == pytest.approx((10**-2.5, 10**-1.5))
    assert edges[1e-3] == pytest.approx((10**-3.5, 10**-2.5))
    assert Axis("epochs", [1, 2, 4]).edges()[2] == pytest.approx((1.5, 3)), "a narrow range is linear"


def test_zero_stands_a_step_below_the_smallest_on_a_logarithmic_axis() -> None:
    axis = Axis("decay", [0.0, 1e-4, 1e-3, 1e-2])
    assert axis.places == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2])
    assert axis.edges()[0.0] == pytest.approx((10**-5.5, 10**-4.5))


def test_a_heat_map_has_the_best_of_each_cell_and_grey_ones_without_a_result() -> None:
    lrs, decays = ("0.001", "0.01", "0.1"), ("1e-4", "1e-3", "1e-2")
    runs = [
        cell(lr=lr, decay=decay, accuracy=0.5 + 0.1 * i - 0.01 * j, seed=seed)
        for (i, lr), (j, decay), seed in product(enumerate(lrs), enumerate(decays), range(2))
    ]
    runs = [replace(run, state="diverged") if run.values["optimizer.lr"] == "0.1" else run for run in runs]
    runs += [cell(lr="0.01", decay="1e-4", accuracy=0.9, **{"model.activation": "tanh"})]
    runs += [cell(lr="0.01", decay="1e-3", accuracy=0.1, **{"model.activation": "tanh"})]
    (figure,) = heat_maps(analyse(runs))
    assert figure.name == "map-optimizer-lr-reg-l2-strength"
    values = {(row["x"], row["y"]): row["value"] for row in rows_with(figure, "value")}
    assert len(values) == 9
    assert values[1e-4, 1e-3] == pytest.approx(0.5), "error, the mean over seeds"
    assert values[1e-4, 1e-2] == pytest.approx(0.1), "the other activation is the better one"
    assert values[1e-3, 1e-2] == pytest.approx(0.41), "and here it is not"
    assert [values[decay, 0.1] for decay in (1e-4, 1e-3, 1e-2)] == [None] * 3
    assert figure.table[0] == ["optimizer.lr", "best reg.l2.strength"]
    assert figure.table[1][0] == "0.001"
    assert figure.table[1][1] == "1e-4: 0.5000 [0.5000, 0.5000] (n = 2)"
    assert figure.table[3] == ["0.1", ""]
    (ring,) = [rows[0] for rows in figure.specification["datasets"].values() if len(rows) == 1]
    assert (ring["left"], ring["bottom"]) == (1e-4, 1e-2)
    assert len(_picture(figure, "png")) > 1000


def test_a_result_that_nearly_diverged_leaves_colours_for_the_others() -> None:
    places = list(product(("0.001", "0.01", "0.1"), ("1e-4", "1e-3", "1e-2")))
    runs = [
        replace(cell(lr=lr, decay=decay, accuracy=1e4 if i == 8 else 1.0 + i), objective="val/loss")
        for i, (lr, decay) in enumerate(places)
    ]
    (figure,) = heat_maps(analyse(runs))
    domains = [color["scale"]["domain"] for color in encodings(figure.specification, "color") if "scale" in color]
    assert domains == [[1, 7]], "the best, and where the worst quarter begins"


def test_the_trials_of_a_random_search_are_no_map() -> None:
    assert not list(heat_maps(analyse([cell(lr=f"0.{i + 1}", decay=f"0.{9 - i}", accuracy=0.5) for i in range(8)])))


WIDTHS = (2, 8, 32, 128)


def of_width(width: int, seed: int) -> RecordedRun:
    """Errors 0.4, 0.2 and 0.6 after three epochs, and a bit more with width and seed; the second epoch is selected."""
    errors = [error + 0.001 * width + 0.01 * seed for error in (0.4, 0.2, 0.6)]
    epochs = [{"epoch": float(i + 1), "val/acc": 1 - error, "train/acc": 1 - error / 2} for i, error in enumerate(errors)]
    values = {"reg": "none", "model.hidden": f"[{width},{width}]"}
    return replace(run(values, 1 - errors[1], seed=seed), epochs=epochs)


def test_errors_against_a_size_are_those_of_the_last_and_of_the_selected_epoch() -> None:
    (figure,) = errors_by_size(analyse([of_width(width, seed) for width in WIDTHS for seed in range(3)]))
    rows = {(row["at"], row["split"], row["size"]): row for row in rows_with(figure, "at")}
    assert len(rows) == 2 * 2 * len(WIDTHS)
    last = rows["after the last epoch", "val", 8]
    low, high = stats.t.interval(0.95, 2, loc=0.618, scale=stats.sem([0.608, 0.618, 0.628]))
    assert (last["mean"], last["low"], last["high"]) == pytest.approx((0.618, low, high))
    assert rows["after the last epoch", "train", 8]["mean"] == pytest.approx(0.309)
    assert figure.table[0] == ["model.hidden", "val", "train"]
    assert figure.table[2][:2] == ["8", f"0.6180 [{low:.4f}, {high:.4f}] (n = 3)"]
    assert rows["at the selected epoch", "val", 8]["mean"] == pytest.approx(0.218)
    assert len(_picture(figure, "png")) > 1000


def test_sizes_that_are_no_numbers_or_not_one_to_one_have_no_figure() -> None:
    runs = [of_width(width, 0) for width in WIDTHS]
    deeper = replace(runs[0], values={"reg": "none", "model.hidden": "[2]"}, configuration_key="deeper")
    assert list(errors_by_size(analyse(runs)))
    assert not list(errors_by_size(analyse([*runs, deeper])))


def test_the_map_over_epochs_has_the_mean_error_of_each() -> None:
    (figure,) = error_by_epoch(analyse([of_width(width, seed) for width in WIDTHS for seed in range(3)]))
    values = {(row["x"], row["y"]): row["value"] for row in rows_with(figure, "value")}
    assert len(values) == 3 * len(WIDTHS)
    assert values[2, 32] == pytest.approx(0.242)
    assert values[3, 128] == pytest.approx(0.738)


def test_epochs_on_a_logarithmic_axis_are_the_first_the_last_and_few() -> None:
    epochs = [{"epoch": float(epoch), "val/acc": 0.5} for epoch in range(1, 1001)]
    (configuration,) = analyse([replace(of_width(2, 0), epochs=epochs)]).configurations
    shown = [rows[0]["epoch"] for rows in configuration.curves(31, logarithmic=True)]
    assert shown[:3] == [1, 2, 3]
    assert shown[-1] == 1000
    assert len(shown) <= 31
    ratios = [b / a for a, b in pairwise(shown[10:])]
    assert max(ratios) == pytest.approx(1000 ** (1 / 30), rel=0.1)


# -- learning rates ----------------------------------------------------------------------------------------------------------


def test_good_learning_rates_are_those_around_the_best_within_a_point() -> None:
    errors = {1e-4: 0.10, 1e-3: 0.059, 1e-2: 0.05, 1e-1: 0.06, 1.0: 0.9, 10.0: 0.055}
    assert good_rates(errors) == (1e-3, 1e-1), "10 is within a point too, beyond one that is not"
    assert good_rates({0.1: 0.2, 0.2: 0.1, 0.3: 0.3}) == (0.2, 0.2)


def test_the_curve_over_learning_rates_is_the_best_of_other_settings() -> None:
    runs = [
        run({"optimizer": optimizer, "reg": "none", "optimizer.lr": lr, "model.width": width}, score + 0.001 * seed, seed=seed)
        for optimizer in ("adam", "sgd")
        for lr, score in (("1e-3", 0.95), ("1e-2", 0.948), ("1e-1", 0.3))
        for width, seed in (("8", 0), ("8", 1), ("8", 2), ("4", 0))
    ]
    (figure,) = errors_by_learning_rate(analyse(runs))
    rows = [row for rows in figure.specification["datasets"].values() for row in rows if "mean" in row]
    assert len(rows) == 6
    assert {(row["lr"], row["n"]) for row in rows} == {(1e-3, 3), (1e-2, 3), (1e-1, 3)}
    (best,) = [row for row in rows if (row["options"], row["lr"]) == ("adam", 1e-3)]
    assert best["mean"] == pytest.approx(0.049)
    assert (best["low"], best["high"]) == pytest.approx(t_interval([0.05, 0.049, 0.048]))
    assert "adam 0.001 to 0.01, a factor of 10 (up to the end)" in figure.text
    two = [one for one in runs if one.values["optimizer.lr"] != "1e-1"]
    assert list(errors_by_learning_rate(analyse(two))) == []


def test_trials_of_a_search_over_several_settings_make_no_curve() -> None:
    values = zip(("1e-3", "1e-2", "1e-1"), ("0.9", "0.5", "0.1"), strict=True)
    runs = [run({"optimizer": "sgd", "reg": "none", "optimizer.lr": lr, "optimizer.momentum": m}, 0.9) for lr, m in values]
    assert list(errors_by_learning_rate(analyse(runs))) == []


def measured(lr: str, seed: int, *, optimizer: str = "gd", count: int = 3) -> RecordedRun:
    """A run that was evaluated every ten steps, of which 35 are an epoch, with its sharpness."""
    epochs = [
        {"epoch": float(i // 4 + 1), "step": 10.0 * i + 10, "sharpness": 10.0 * i + seed + 1}
        | dict.fromkeys(("val/acc", "val/loss", "train/acc", "train/loss"), 0.5)
        for i in range(count)
    ]
    values = {"optimizer": optimizer, "schedule": "constant", "optimizer.lr": lr}
    return replace(run(values, 0.5, seed=seed), epochs=epochs)


def test_what_is_measured_has_curves_and_sharpness_the_edge_of_stability() -> None:
    runs = [measured(lr, seed) for lr in ("0.1", "0.05") for seed in range(3)] + [measured("0.1", 0, optimizer="adam")]
    (figure,) = measured_curves(analyse(runs))
    rows = {(row["configuration"], row["step"]): row for row in rows_with(figure, "step")}
    row = rows["gd, lr 0.1", 20]
    low, high = stats.t.interval(0.95, 2, loc=12, scale=stats.sem([11, 12, 13]))
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((12, low, high))
    edges = {row["configuration"]: row["mean"] for row in rows_with(figure, "mean") if "step" not in row}
    assert edges == {"gd, lr 0.1": 20, "gd, lr 0.05": 40}, "of gradient descent alone"
    assert len(_picture(figure, "png")) > 1000


def test_the_axis_of_long_curves_is_logarithmic() -> None:
    for count, expected in ((299, None), (300, "log")):
        (figure,) = learning_curves(analyse([measured("0.1", seed, count=count) for seed in range(3)]))
        scales = [x["scale"]["type"] for x in encodings(figure.specification, "x") if "scale" in x]
        assert set(scales) == ({expected} if expected else set())


def encodings(chart: Any, channel: str) -> list[dict[str, Any]]:
    """A channel of all layers of a chart."""
    inner = [part for key in ("hconcat", "concat", "layer") for part in chart.get(key, [])]
    outer = [chart["encoding"][channel]] if channel in chart.get("encoding", {}) else []
    return [*outer, *(encoding for part in inner for encoding in encodings(part, channel))]

"""Curves over the epochs, or the steps: accuracy, loss, and what `measure` asks for."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import altair as alt

from ockham.core.measures import MEASURES, measured_columns
from ockham.core.statistics import t_interval
from ockham.report.analysis import ABSENT, Configuration, Results, number_of
from ockham.report.drawing import (
    FEWEST_FOR_BANDS,
    HEIGHT,
    MOST_CURVES,
    WIDTH,
    Figure,
    Rows,
    any_interval,
    chosen_in_legend,
    faded_unless,
    framed,
    inline_data,
    mean_and_interval,
    number_tip,
)  # fmt: skip

#: A curve needs no more points than this.
MOST_EVALUATIONS = 200
#: What so many evaluations show happens in orders of magnitude.
EVALUATIONS_FOR_A_LOGARITHMIC_AXIS = 300


def learning_curves(results: Results) -> Iterator[Figure]:
    """Accuracy and loss of the best configurations on both splits."""
    shown = _shown(results)
    if not shown:
        return
    charts = []
    chosen = chosen_in_legend("configuration")
    for quantity, title in (("acc", "accuracy"), ("loss", "loss")):
        rows = [
            {"split": split} | row
            for configuration in shown
            for split in ("train", "val")
            for row in _curve(configuration, f"{split}/{quantity}", shown)
        ]
        scale = alt.Scale(type="log") if quantity == "loss" else alt.Scale(zero=False)
        base = _base(rows, shown)
        line = base.mark_line().encode(
            y=alt.Y("mean:Q", scale=scale, title=title),
            strokeDash=alt.StrokeDash("split:N", sort=["val", "train"], legend=alt.Legend(orient="bottom")),
            opacity=faded_unless(chosen),
            tooltip=["configuration:N", "split:N", number_tip(time_axis(shown), form="d"), number_tip("mean", f"mean {title}")],
        )
        band = base.transform_filter("datum.split == 'val' && isValid(datum.low)").mark_area(strokeWidth=0)
        band = band.encode(y=alt.Y("low:Q", scale=scale, title=title), y2="high:Q", opacity=faded_unless(chosen, opacity=0.18))
        charts.append(band + line if any_interval(rows) else line)
    text = (
        f"The {len(shown)} best configurations. Lines are means over seeds, solid on validation and dashed on training images; "
        "bands are 95% intervals of the mean on validation, from three seeds on."
    )
    charts[0] = charts[0].add_params(chosen)  # both share one legend
    yield framed("curves", "Learning curves", text, alt.hconcat(*charts))


def measured_curves(results: Results) -> Iterator[Figure]:
    """The columns of `measure`; sharpness with 2 / lr, beyond which gradient descent on a quadratic diverges."""
    shown = _shown(results)
    columns = [name for name in measured_columns(MEASURES) if any(name in c.finished[0].epochs[0] for c in shown)]
    charts = []
    for column in columns:
        of = [configuration for configuration in shown if column in configuration.finished[0].epochs[0]]
        rows = [row for configuration in of for row in _curve(configuration, column, shown)]
        scale = alt.Scale(type="log") if all(row["mean"] > 0 for row in rows) else alt.Scale(zero=False)
        y = alt.Y("mean:Q", scale=scale, title=column)
        base = _base(rows, shown)
        layers = [
            base.mark_line().encode(
                y=y, tooltip=["configuration:N", number_tip(time_axis(shown), form="d"), number_tip("mean")]
            )
        ]
        if any_interval(rows):
            band = base.transform_filter("isValid(datum.low)").mark_area(opacity=0.18, strokeWidth=0)
            layers.insert(0, band.encode(y=alt.Y("low:Q", scale=scale, title=column), y2="high:Q"))
        edges: Rows = [{"configuration": c.label, "mean": _edge(c)} for c in of if math.isfinite(_edge(c))]
        if column == "sharpness" and edges:
            rule = alt.Chart(inline_data(edges)).mark_rule(strokeDash=[5, 4])
            layers.append(rule.encode(y=y, color=alt.Color("configuration:N")))
        charts.append(alt.layer(*layers))
    if charts:
        text = (
            f"What was measured of the {len(shown)} best configurations. Lines are means over seeds, bands 95% intervals of "
            "the mean, from three seeds on. A dashed line beside sharpness is 2 / lr of gradient descent."
        )
        yield framed("measured", "Measured", text, alt.concat(*charts, columns=2))


def _shown(results: Results) -> list[Configuration]:
    return [configuration for configuration in results.finished[:MOST_CURVES] if configuration.num_epochs]


def time_axis(configurations: Sequence[Configuration]) -> str:
    """Epochs, or steps where some were not evaluated once an epoch."""
    ends = [run.epochs[-1]["epoch"] == len(run.epochs) for c in configurations for run in c.finished if run.epochs]
    return "epoch" if all(ends) else "step"


def _is_long(configurations: Sequence[Configuration]) -> bool:
    return max(configuration.num_epochs for configuration in configurations) >= EVALUATIONS_FOR_A_LOGARITHMIC_AXIS


def _base(rows: Rows, shown: Sequence[Configuration]) -> Any:
    """The frame of curves of the configurations shown, which have the same colours everywhere."""
    legend = alt.Legend(orient="bottom", columns=2, symbolType="stroke", symbolOpacity=1, symbolStrokeWidth=3)
    scale = alt.Scale(type="log", nice=False) if _is_long(shown) else alt.Undefined
    return alt.Chart(inline_data(rows), width=WIDTH, height=HEIGHT).encode(
        x=alt.X(f"{time_axis(shown)}:Q", scale=scale, axis=alt.Axis(tickMinStep=1)),
        color=alt.Color("configuration:N", sort=[configuration.label for configuration in shown], legend=legend),
    )


def _curve(configuration: Configuration, name: str, shown: Sequence[Configuration]) -> Rows:
    """Mean and interval after each evaluation that every finished run has."""
    axis, rows = time_axis(shown), []
    for epochs in configuration.curves(MOST_EVALUATIONS, logarithmic=_is_long(shown)):
        values = [epoch[name] for epoch in epochs]
        interval = t_interval(values) if len(values) >= FEWEST_FOR_BANDS else (math.nan, math.nan)
        band = mean_and_interval(sum(values) / len(values), interval, is_share=name.endswith("/acc"))
        if not name.endswith("/acc") and band["low"] is not None and band["low"] <= 0:
            band["low"] = min(values)  # a logarithmic axis has no room below 0
        rows.append({"configuration": configuration.label, axis: int(epochs[0][axis]), **band})
    return rows


def _edge(configuration: Configuration) -> float:
    """2 / lr of gradient descent at a constant rate that is among the overrides; NaN of all others."""
    values = configuration.runs[0].values
    lr = number_of(values.get("optimizer.lr", ABSENT))
    is_plain = values.get("optimizer") == "gd" and values.get("schedule") == "constant"
    return 2 / lr if is_plain and lr > 0 else math.nan

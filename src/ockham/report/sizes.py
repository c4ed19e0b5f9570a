"""Errors against a size: of the model, or of the data."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import altair as alt

from ockham.core.statistics import t_interval
from ockham.report.analysis import Configuration, Results, is_logarithmic
from ockham.report.drawing import (
    FEWEST_FOR_BANDS,
    HEIGHT,
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
    with_interval,
)  # fmt: skip

#: Fewer sizes are a table rather than a curve.
FEWEST_SIZES = 4
LAST, SELECTED = "after the last epoch", "at the selected epoch"


def swept_sizes(results: Results) -> list[str]:
    """The swept settings of the model and the data that are numbers, and enough of them for a curve."""
    keys = [key for key in results.swept if key.startswith(("model.", "data."))]
    return [key for key in keys if len(results.numbers(key)) >= FEWEST_SIZES]


def errors_by_size(results: Results) -> Iterator[Figure]:
    """After the last epoch, which is what a size leads to, and at the selected one, which is what stopping early brings."""
    for key in swept_sizes(results):
        rows = [
            {"size": size, "options": options} | row
            for options, by_size in results.best_by_numbers(key).items()
            for (size,), configuration in by_size.items()
            for row in _errors(configuration)
        ]
        if not rows:
            continue
        text = (
            f"Error against {key}, solid on validation and dashed on training images, each with the noise of its labels. "
            "Bands are 95% intervals of the mean over seeds, from three on; of other settings the best at each size."
        )
        chosen = chosen_in_legend("options")
        last, selected = (_lines(key, results.numbers(key), rows, at, chosen) for at in (LAST, SELECTED))
        chart = alt.hconcat(last.add_params(chosen), selected).resolve_scale(y="shared")  # both share one legend
        yield framed(f"size-{key.replace('.', '-')}", f"Error against {key}", text, chart, _table(key, rows))


def _lines(key: str, sizes: Sequence[float], rows: Rows, at: str, chosen: Any) -> Any:
    """The errors at one of the epochs; those of options that are not chosen in the legend fade."""
    shown = [row for row in rows if row["at"] == at]
    scale = alt.Scale(type="log", nice=False) if is_logarithmic(sizes) else alt.Scale(zero=False)
    base = alt.Chart(inline_data(shown), width=WIDTH, height=HEIGHT, title=at).encode(
        x=alt.X("size:Q", scale=scale, title=key),
        color=alt.Color("options:N", title=None, legend=alt.Legend(orient="bottom", symbolOpacity=1)),
    )
    line = base.mark_line(point=alt.OverlayMarkDef(size=14)).encode(
        y=alt.Y("mean:Q", scale=alt.Scale(zero=False), title="error (1 - accuracy)"),
        strokeDash=alt.StrokeDash("split:N", sort=["val", "train"], legend=alt.Legend(orient="bottom", symbolType="stroke")),
        opacity=faded_unless(chosen),
        tooltip=["options:N", "split:N", number_tip("size", key, "~g"), number_tip("mean", "mean error"), "n:Q"],
    )
    band = base.transform_filter("datum.split == 'val' && isValid(datum.low)").mark_area(strokeWidth=0)
    band = band.encode(y=alt.Y("low:Q"), y2="high:Q", opacity=faded_unless(chosen, opacity=0.2))
    return band + line if any_interval(shown) else line


def _table(key: str, rows: Rows) -> list[list[str]]:
    """The errors after the last epoch by size, a column for each of the options and splits."""
    cells = {(row["size"], row["options"], row["split"]): row for row in rows if row["at"] == LAST}
    columns = [(options, split) for options in dict.fromkeys(row["options"] for row in rows) for split in ("val", "train")]
    table = [[key, *(f"{options}, {split}" if options else split for options, split in columns)]]
    for size in sorted({row["size"] for row in rows}):
        found = [cells.get((size, *column)) for column in columns]
        table.append([f"{size:g}", *(_shown(row) if row is not None else "" for row in found)])
    return table


def _shown(row: Mapping[str, Any]) -> str:
    low, high = (math.nan if row[end] is None else row[end] for end in ("low", "high"))
    return with_interval(row["mean"], (low, high), row["n"])


def _errors(configuration: Configuration) -> Rows:
    """The errors of a configuration on both splits, at both epochs."""
    rows: Rows = []
    for split in ("val", "train"):
        last = [1 - run.epochs[-1][f"{split}/acc"] for run in configuration.finished if run.epochs]
        selected = [1 - value for value in configuration.metric_values(f"{split}/acc")]
        for at, errors in ((LAST, last), (SELECTED, selected)):
            if errors:
                interval = t_interval(errors) if len(errors) >= FEWEST_FOR_BANDS else (math.nan, math.nan)
                row = {"at": at, "split": split, "n": len(errors)}
                rows.append(row | mean_and_interval(sum(errors) / len(errors), interval, is_share=True))
    return rows

"""Errors against a size: of the model, or of the data."""

import math
from collections.abc import Iterator

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
)  # fmt: skip

#: Fewer sizes are a table rather than a curve.
FEWEST_SIZES = 4


def swept_sizes(results: Results) -> list[str]:
    """The swept settings of the model and the data that are numbers, and enough of them for a curve."""
    keys = [key for key in results.swept if key.startswith(("model.", "data."))]
    return [key for key in keys if len(results.numbers(key)) >= FEWEST_SIZES]


def errors_by_size(results: Results) -> Iterator[Figure]:
    """After the last epoch, which is what a size leads to, and at the selected one, which is what stopping early brings."""
    for key in swept_sizes(results):
        sizes = results.numbers(key)
        scale = alt.Scale(type="log", nice=False) if is_logarithmic(sizes) else alt.Scale(zero=False)
        rows: Rows = []
        for options, by_size in results.best_by_numbers(key).items():
            for (size,), configuration in by_size.items():
                rows += [{"size": size, "options": options} | row for row in _errors(configuration)]
        x = alt.X("size:Q", scale=scale, title=key)
        y = alt.Y("mean:Q", scale=alt.Scale(zero=False), title="error (1 - accuracy)")
        chosen = chosen_in_legend("options")
        charts = []
        for at in ("after the last epoch", "at the selected epoch"):
            shown = [row for row in rows if row["at"] == at]
            base = alt.Chart(inline_data(shown), width=WIDTH, height=HEIGHT, title=at).encode(x=x)
            base = base.encode(color=alt.Color("options:N", title=None, legend=alt.Legend(orient="bottom", symbolOpacity=1)))
            dash = alt.StrokeDash("split:N", sort=["val", "train"], legend=alt.Legend(orient="bottom", symbolType="stroke"))
            line = base.mark_line(point=alt.OverlayMarkDef(size=14)).encode(
                y=y,
                strokeDash=dash,
                opacity=faded_unless(chosen),
                tooltip=["options:N", "split:N", number_tip("size", key, "~g"), number_tip("mean", "mean error"), "n:Q"],
            )
            band = base.transform_filter("datum.split == 'val' && isValid(datum.low)").mark_area(strokeWidth=0)
            band = band.encode(y=alt.Y("low:Q"), y2="high:Q", opacity=faded_unless(chosen, opacity=0.2))
            charts.append(band + line if any_interval(shown) else line)
        if not rows:
            continue
        text = (
            f"Error against {key}, solid on validation and dashed on training images, each with the noise of its labels. "
            "Bands are 95% intervals of the mean over seeds, from three on; of other settings the best at each size."
        )
        charts[0] = charts[0].add_params(chosen)  # both share one legend
        chart = alt.hconcat(*charts).resolve_scale(y="shared")
        yield framed(f"size-{key.replace('.', '-')}", f"Error against {key}", text, chart)


def _errors(configuration: Configuration) -> Rows:
    """The errors of a configuration on both splits, at both epochs."""
    rows: Rows = []
    for split in ("val", "train"):
        last = [1 - run.epochs[-1][f"{split}/acc"] for run in configuration.finished if run.epochs]
        selected = [1 - value for value in configuration.metric_values(f"{split}/acc")]
        for at, errors in (("after the last epoch", last), ("at the selected epoch", selected)):
            if errors:
                interval = t_interval(errors) if len(errors) >= FEWEST_FOR_BANDS else (math.nan, math.nan)
                row = {"at": at, "split": split, "n": len(errors)}
                rows.append(row | mean_and_interval(sum(errors) / len(errors), interval, is_share=True))
    return rows

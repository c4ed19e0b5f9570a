"""What all figures of a report are made of: data that Vega takes, bands, and the frame around a chart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from ockham.core.statistics import bounded

#: The interval of two seeds is so wide that it hides the curves.
FEWEST_FOR_BANDS = 3
WIDTH, HEIGHT = 420, 260
#: Curves of more configurations than this cannot be told apart.
MOST_CURVES = 8

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Figure:
    """A figure with what the reader should see in it; `name` is its file's. `table` has its numbers, the head first."""

    name: str
    title: str
    text: str
    specification: dict[str, Any]
    table: Sequence[Sequence[str]] = ()


def framed(name: str, title: str, text: str, chart: Any, table: Sequence[Sequence[str]] = ()) -> Figure:
    """The figure of an Altair chart, in the type and the colours of all."""
    chart = chart.properties(description=f"{title}. {text}")  # what a screen reader says in place of "Vega visualization"
    chart = chart.configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal", labelLimit=260)
    chart = chart.configure_legend(labelFontSize=12, titleFontSize=12, labelLimit=420).configure_view(stroke="#ddd")
    return Figure(name, title, text, chart.to_dict(), table)


def inline_data(rows: Rows) -> Any:
    """Rows for Vega, to which a number that is not finite is an absent one."""
    return alt.InlineData(values=[{key: _finite(value) for key, value in row.items()} for row in rows])


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def chosen_in_legend(field: str) -> Any:
    """A parameter for `add_params`: the entries of the legend of this field that were clicked, all where none was."""
    return alt.selection_point(name=f"chosen_{field}", fields=[field], bind="legend")


def faded_unless(chosen: Any, *, opacity: float = 1.0) -> Any:
    """The opacity of a mark that fades while others are chosen."""
    return alt.condition(chosen, alt.value(opacity), alt.value(0.08 * opacity))


def number_tip(field: str, title: str | None = None, form: str = ".4f") -> Any:
    return alt.Tooltip(f"{field}:Q", title=title or field, format=form)


def mean_and_interval(value: float, interval: tuple[float, float], *, is_share: bool = False) -> dict[str, float | None]:
    """A row's mean with the ends of its interval, as far as they are known.

    Of a share, such as an accuracy, they are drawn up to 0 and 1.
    """
    low, high = bounded(interval) if is_share else interval
    known = math.isfinite(low)
    return {"mean": value, "low": low if known else None, "high": high if known else None}


def any_interval(rows: Rows) -> bool:
    """Whether there is an interval to draw; a layer without data is a warning in the browser."""
    return any(row["low"] is not None for row in rows)


def with_interval(value: float, interval: tuple[float, float], n: int) -> str:
    """`0.5488 [0.5390, 0.5586] (n = 10)`; without what is between brackets where it is not known."""
    low, high = interval
    between = f" [{low:.4f}, {high:.4f}]" if math.isfinite(low) else ""
    return f"{value:.4f}{between} (n = {n})"

"""What all figures of a report are made of: data that Vega takes, bands, and the frame around a chart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

#: The interval of two seeds is so wide that it hides the curves.
FEWEST_FOR_BANDS = 3
WIDTH, HEIGHT = 420, 260

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
    chart = chart.configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal", labelLimit=260)
    chart = chart.configure_legend(labelFontSize=12, titleFontSize=12, labelLimit=420).configure_view(stroke="#ddd")
    return Figure(name, title, text, chart.to_dict(), table)


def inline_data(rows: Rows) -> Any:
    """Rows for Vega, to which a number that is not finite is an absent one."""
    return alt.InlineData(values=[{key: _finite(value) for key, value in row.items()} for row in rows])


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def mean_and_interval(value: float, interval: tuple[float, float]) -> dict[str, float | None]:
    low, high = interval
    known = math.isfinite(low)
    return {"mean": value, "low": low if known else None, "high": high if known else None}


def any_interval(rows: Rows) -> bool:
    """Whether there is an interval to draw; a layer without data is a warning in the browser."""
    return any(row["low"] is not None for row in rows)


def plus_minus(value: float, interval: tuple[float, float], n: int) -> str:
    """`0.5488 \u00b1 0.0098 (n = 10)`, with half the width of the interval where it is known."""
    low, high = interval
    half = f" \u00b1 {(high - low) / 2:.4f}" if math.isfinite(low) else ""
    return f"{value:.4f}{half} (n = {n})"

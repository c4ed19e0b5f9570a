"""How much the result depends on the learning rate, for each optimizer."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile

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

KEY = "optimizer.lr"
#: Fewer learning rates are a table rather than a curve.
FEWEST_RATES = 3
#: A learning rate is good where its error is within one point of the best.
POINT = 0.01


def good_rates(errors: Mapping[float, float]) -> tuple[float, float]:
    """The ends of the region around the best learning rate, of those tried, with errors within POINT of its."""
    rates = sorted(errors)
    best = min(rates, key=lambda rate: errors[rate])
    limit = errors[best] + POINT + 1e-9  # scores are multiples of one over the number of images

    def is_good(rate: float) -> bool:
        return errors[rate] <= limit

    position = rates.index(best)
    below, above = list(takewhile(is_good, rates[position::-1])), list(takewhile(is_good, rates[position:]))
    return below[-1], above[-1]


def errors_by_learning_rate(results: Results) -> Iterator[Figure]:
    """The error on validation against the learning rate, with the region within one point of the best."""
    rows: Rows = []
    regions: Rows = []
    for options, by_rate in results.best_by_numbers(KEY).items():
        errors = {rate: _errors(configuration) for (rate,), configuration in by_rate.items() if configuration.finished}
        means = {rate: sum(values) / len(values) for rate, values in errors.items()}
        if (
            len(errors) < FEWEST_RATES
            or _is_scattered(list(by_rate.values()), results)
            or not all(map(math.isfinite, means.values()))
        ):
            continue
        for rate, values in errors.items():
            interval = t_interval(values) if len(values) >= FEWEST_FOR_BANDS else (math.nan, math.nan)
            rows.append(
                {"lr": rate, "options": options, "n": len(values), **mean_and_interval(means[rate], interval, is_share=True)}
            )
        low, high = good_rates(means)
        regions.append({"options": options, "from": low, "to": high, "level": min(means.values()) + POINT})
    if not rows:
        return
    rates = [row["lr"] for row in rows]
    scale = alt.Scale(type="log", nice=False) if is_logarithmic(rates) else alt.Scale(zero=False)
    color = alt.Color("options:N", title=None, legend=alt.Legend(orient="bottom", columns=2, symbolOpacity=1))
    base = alt.Chart(inline_data(rows), width=WIDTH, height=HEIGHT)
    base = base.encode(x=alt.X("lr:Q", scale=scale, title=KEY, axis=alt.Axis(format="~g")), color=color)
    y = alt.Y("mean:Q", scale=alt.Scale(zero=False), title="error on validation (1 - accuracy)")
    chosen = chosen_in_legend("options")
    tooltip = ["options:N", number_tip("lr", KEY, "~g"), number_tip("mean", "mean error"), "n:Q"]
    chart = base.mark_line(point=True).encode(y=y, opacity=faded_unless(chosen), tooltip=tooltip).add_params(chosen)
    if any_interval(rows):
        band = base.transform_filter("isValid(datum.low)").mark_area(strokeWidth=0)
        low = alt.Y("low:Q", title="error on validation (1 - accuracy)")
        chart = band.encode(y=low, y2="high:Q", opacity=faded_unless(chosen, opacity=0.15)) + chart
    rule = alt.Chart(inline_data(regions)).mark_rule(strokeWidth=4, strokeCap="round")
    rule = rule.encode(opacity=faded_unless(chosen, opacity=0.6))
    chart += rule.encode(x=alt.X("from:Q", scale=scale), x2="to:Q", y="level:Q", color=color)
    listed = "; ".join(f"{row['options'] or 'all'} {_shown(row, errors_of=rows)}" for row in regions)
    text = (
        "Error against the learning rate, the best of other settings at each; bands are 95% intervals of the mean over seeds, "
        "from three on. The bar is where the error stays within one point of the best, among the rates that were tried: "
        f"{listed}. A wide region needs little tuning; one that touches the end of what was tried may be wider."
    )
    yield framed("learning-rate", "Sensitivity to the learning rate", text, chart)


def _is_scattered(best: Sequence[Configuration], results: Results) -> bool:
    """Whether other settings change from rate to rate with a single trial at each, as in a random search over several: a
    curve would show those as well."""
    others = [key for key in results.swept if "." in key and key != KEY]
    options = [key for key in results.swept if "." not in key]
    kinds = {tuple(configuration.values[key] for key in options) for configuration in best}
    tried = sum(tuple(configuration.values[key] for key in options) in kinds for configuration in results.configurations)
    differ = len({tuple(configuration.values[key] for key in others) for configuration in best}) > 1
    return differ and tried <= len(best)


def _errors(configuration: Configuration) -> list[float]:
    return [1 - value for value in configuration.metric_values("val/acc")]


def _shown(region: Mapping[str, float], *, errors_of: Rows) -> str:
    """`0.001 to 0.01, a factor of 10`, and whether it touches an end."""
    low, high = region["from"], region["to"]
    rates = [row["lr"] for row in errors_of if row["options"] == region["options"]]
    at_end = " (up to the end)" if low == min(rates) or high == max(rates) else ""
    return f"{low:g} to {high:g}, a factor of {high / low:.3g}{at_end}"

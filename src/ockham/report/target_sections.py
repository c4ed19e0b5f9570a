"""How times to a target are shown: a table, the share of runs that met it against what was spent, performance profiles."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from ockham.core.survival import MOST_RATIO, Survival, profile
from ockham.report.analysis import Results
from ockham.report.drawing import (
    FEWEST_FOR_BANDS,
    HEIGHT,
    MOST_CURVES,
    WIDTH,
    Figure,
    Rows,
    any_interval,
    framed,
    inline_data,
    number_tip,
)
from ockham.report.sections import NOTHING, Cell, Section, Table
from ockham.report.targets import AXES, Profile, Race, TimesToTarget, profiles, races


def target_sections(results: Results) -> list[Section]:
    """The sections on times to a target; none where no configuration has one."""
    found = races(results)
    if not found:
        return []
    figure = _curves(found)
    sections = [_table(found), Section(figure.name, figure.title, text=figure.text, figure=figure)]
    of_solvers = profiles(results, found)
    if of_solvers:
        sections.append(_profiles(of_solvers))
    return sections


def _table(found: Sequence[Race]) -> Section:
    is_one = len(found) == 1
    axes = [axis for axis in AXES if axis in _offered([each for race in found for each in race.times])]
    head = (
        *(() if is_one else ("workload", "target")),
        "configuration",
        "met it",
        *(f"median {axis}" for axis in axes),
        f"restricted mean {axes[0]}",
        "until",
    )
    rows = []
    for race in found:
        for each in race.times:
            cells = [] if is_one else [", ".join(race.workload) or NOTHING, str(race.target)]
            cells += [each.configuration.label, f"{each.num_met} of {each.by_axis['steps'].n}"]
            cells += [_median(each.by_axis.get(axis)) for axis in axes]
            mean, low, high = each.by_axis["steps"].restricted_mean(race.until["steps"])
            has_spread = high > low  # runs that are all alike are so by accident
            interval = f" [{_shown(max(low, 0))}, {_shown(min(high, race.until['steps']))}]" if has_spread else ""
            cells += [f"{_shown(mean)}{interval}", _shown(race.until["steps"])]
            rows.append([Cell(cell) for cell in cells])
    goal = f"to {found[0].target}" if is_one else "to each target"
    text = (
        f"Times {goal}, at the evaluations of each run. A run that ended without it, diverged or was pruned never meets it; "
        "one that failed or still runs counts as far as it was seen. The median is when half of the runs have met it, with the "
        "interval of Brookmeyer and Crowley; the restricted mean counts no more than the shortest length among those that are "
        "compared, and so is of all runs, also of those that never meet it."
    )
    return Section("target", "Time to target", text=text, table=Table(head, rows))


def _shown(value: float) -> str:
    return f"{value:.4g}" if value < 1e4 else f"{value:.3g}"


def _median(estimate: Survival | None) -> str:
    """`330 [220, 550]`; `not reached` where fewer than half met the target."""
    if estimate is None:
        return NOTHING
    median, low, high = estimate.median()
    if not math.isfinite(median):
        return "not reached"
    if estimate.n < FEWEST_FOR_BANDS:
        return _shown(median)
    return f"{_shown(median)} [{_shown(low)}, {_shown(high) if math.isfinite(high) else 'not reached'}]"


def _offered(times: Sequence[TimesToTarget]) -> list[str]:
    """The axes that are known of all and tell something: steps, and what is not in proportion to them."""
    offered = ["steps"]
    for axis in ("samples", "flops"):
        per_step = {
            f"{run.metrics[axis] / run.metrics['steps']:.3g}"
            for each in times
            for run in each.configuration.finished
            if axis in run.metrics and run.metrics["steps"] > 0
        }
        if len(per_step) > 1 and all(axis in each.by_axis for each in times):
            offered.append(axis)
    if all("seconds" in each.by_axis for each in times):
        offered.append("seconds")
    return offered


def _curves(found: Sequence[Race]) -> Figure:
    offered = _offered([each for race in found for each in race.times[:MOST_CURVES]])
    charts = [_chart(race, offered) for race in found]
    chart: Any = alt.concat(*charts, columns=2).resolve_scale(color="independent" if len(charts) > 1 else "shared")
    if len(offered) > 1:
        bind = alt.binding_radio(options=offered, labels=[f"{AXES[axis]} " for axis in offered], name="against ")
        chart = chart.add_params(alt.param("against", bind=bind, value="steps"))
    text = (
        f"The share of runs that have met the target against what they spent, of the {MOST_CURVES} quickest configurations. "
        "Bands are 95% intervals, from three seeds on (Kaplan and Meier's estimate with Greenwood's variance on the scale of "
        "log(-log); where all runs have ended, it is the empirical distribution)."
    )
    return framed("target-curves", "Share that met the target", text, chart)


def _chart(race: Race, offered: Sequence[str]) -> Any:
    shown = race.times[:MOST_CURVES]
    rows = [row for each in shown for axis in offered for row in _steps(each, axis, race.until[axis])]
    title = ", ".join([*filter(None, race.workload), str(race.target)])
    x_title = AXES["steps"] if len(offered) == 1 else "spent"
    legend = alt.Legend(orient="bottom", columns=2, title=None, symbolOpacity=1)
    base = alt.Chart(inline_data(rows), width=WIDTH, height=HEIGHT, title=title).encode(
        x=alt.X("spent:Q", title=x_title, scale=alt.Scale(nice=False), axis=alt.Axis(format="~s")),
        color=alt.Color("configuration:N", sort=[each.configuration.label for each in shown], legend=legend),
    )
    if len(offered) > 1:
        base = base.transform_filter("datum.axis == against")
    y_scale = alt.Scale(domain=[0, 1])
    line = base.mark_line(interpolate="step-after").encode(
        y=alt.Y("share:Q", title="share of runs that met it", scale=y_scale, axis=alt.Axis(format="%")),
        tooltip=["configuration:N", number_tip("spent", form=".4~s"), number_tip("share", "share that met it", ".1%")],
    )
    if not any_interval(rows):
        return line
    band = base.transform_filter("isValid(datum.low)").mark_area(interpolate="step-after", opacity=0.15, strokeWidth=0)
    return band.encode(y=alt.Y("low:Q", title="share of runs that met it", scale=y_scale), y2="high:Q") + line


def _steps(each: TimesToTarget, axis: str, until: float) -> Rows:
    """The corners of 1 - S from 0 on, the last at `until`, with the ends of its band."""
    estimate = each.by_axis[axis]
    low, high = estimate.band
    rows: Rows = [{"spent": 0.0, "share": 0.0, "low": None, "high": None}]
    for position, time in enumerate(estimate.times):
        is_known = estimate.n >= FEWEST_FOR_BANDS and math.isfinite(low[position])
        ends = {"low": 1 - float(high[position]), "high": 1 - float(low[position])} if is_known else {"low": None, "high": None}
        rows.append({"spent": float(time), "share": 1 - float(estimate.share[position]), **ends})
    rows = [row for row in rows if row["spent"] <= until]
    rows.append({**rows[-1], "spent": until})
    return [{"configuration": each.configuration.label, "axis": axis, **row} for row in rows]


def _profiles(of_solvers: Sequence[Profile]) -> Section:
    count = len(of_solvers[0].ratios)
    corners = sorted({ratio for one in of_solvers for ratio in one.ratios if ratio <= MOST_RATIO} | {1.0, MOST_RATIO})
    rows: Rows = [
        {"solver": one.solver, "ratio": ratio, "share": profile(one.ratios, ratio)} for one in of_solvers for ratio in corners
    ]
    legend = alt.Legend(orient="bottom", columns=2, title=None)
    chart = alt.Chart(inline_data(rows), width=WIDTH, height=HEIGHT).mark_line(interpolate="step-after")
    chart = chart.encode(
        x=alt.X("ratio:Q", title="steps to the target over those of the quickest", scale=alt.Scale(domain=[1, MOST_RATIO])),
        y=alt.Y("share:Q", title="share of workloads", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%")),
        color=alt.Color("solver:N", sort=[one.solver for one in of_solvers], legend=legend),
        tooltip=["solver:N", number_tip("ratio", form=".2f"), number_tip("share", "share of workloads", ".1%")],
    )
    text = (
        f"On which share of the {count} workloads (data sets and models) a solver meets the target within so many times the "
        "steps of the quickest there (Dolan and More 2002), by its median over seeds. The score is AlgoPerf's: the mean of "
        f"this share over ratios from 1 to {MOST_RATIO:g}, 1 for one that is quickest everywhere. Where several settings of a "
        "solver were tried, the quickest of each workload counts, which favours those that were tuned more."
    )
    head = ("solver", "score", "quickest on", "met the target on")
    table = Table(
        head,
        [
            [
                Cell(one.solver),
                Cell(f"{one.score:.3f}"),
                Cell(f"{sum(ratio == 1 for ratio in one.ratios)} of {count}"),
                Cell(f"{sum(math.isfinite(ratio) for ratio in one.ratios)} of {count}"),
            ]
            for one in of_solvers
        ],
    )
    figure = framed("profiles", "Over all workloads", text, chart)
    return Section(figure.name, figure.title, text=text, table=table, figure=figure)

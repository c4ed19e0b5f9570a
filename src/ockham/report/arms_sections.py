"""How a comparison is shown: the answer, the arms, every two of them, and what smaller budgets would have led to."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from ockham.record.screen import repeating_command
from ockham.report.analysis import verdict
from ockham.report.arms import Arm, Arms, at_budgets, shown_space
from ockham.report.drawing import HEIGHT, WIDTH, Rows, chosen_in_legend, faded_unless, framed, inline_data
from ockham.report.sections import NOTHING, Cell, Section, Table, shown_difference, shown_interval, shown_number

#: From so many trials on the axis of budgets is logarithmic.
MANY_TRIALS = 20


def answer_of(arms: Arms) -> str:
    """What is best, by how much, how sure, and what it cannot be told from, in a sentence or two."""
    best, *others = arms.ranked
    behind = [arm for arm in others if arms.is_behind(arm, best)]
    close = [arm for arm in others if arm not in behind]
    measured = f"{_name_of(arms.metric)} {shown_mean(best, arms.metric)} over {best.confirmed.n} seeds that no search saw"
    if close:
        text = f"{_listed([best, *close])} share the first place: {best.name} has the best mean, {measured}, "
        text += f"and {_listed(close)} cannot be told from it at this number of seeds."
    else:
        text = f"{best.name} is first: {measured}."
    if behind:
        nearest = next(pair for pair in arms.pairs if pair.first is best and pair.second is behind[0])
        by = shown_difference(nearest.comparison)
        text += f" {best.name} is ahead beyond chance of {_listed(behind)}"
        text += f": of {behind[0].name}, the nearest, by {by}." if len(behind) > 1 else f", by {by}."
    if arms.missing:
        text += f" No run of {', '.join(arms.missing)} came to its end."
    return text


def arm_sections(arms: Arms) -> list[Section]:
    """The sections of a comparison, in the order of the page."""
    sections = [_answer(arms), _arms(arms), _pairs(arms)]
    if len(arms.budgets) > 1:
        sections.append(_budgets(arms))
    return [section for section in sections if section.table is None or section.table.rows]


def lines_of(arms: Arms) -> list[str]:
    """The same for a terminal: a table of the arms, and the answer."""
    table = [["tier", "arm", arms.metric, "95% interval", "n", "best setting"]]
    for number, tier in enumerate(arms.tiers, start=1):
        for arm in tier:
            interval = shown_interval(arm.confirmed, arms.metric)
            mean = f"{arm.confirmed.mean(arms.metric):.4f}"
            table.append([str(number), arm.name, mean, interval, str(arm.confirmed.n), _setting(arm)])
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    return [*lines, "", answer_of(arms), *_edge_lines(arms)]


def shown_mean(arm: Arm, metric: str) -> str:
    return f"{shown_number(arm.confirmed.mean(metric), '.4f')} (95% interval {shown_interval(arm.confirmed, metric)})"


def _listed(arms: Sequence[Arm]) -> str:
    *first, last = (arm.name for arm in arms)
    return f"{', '.join(first)} and {last}" if first else last


def _name_of(metric: str) -> str:
    split, _, quantity = metric.partition("/")
    return f"{split} {'accuracy' if quantity == 'acc' else quantity}"


def _setting(arm: Arm) -> str:
    """The values that the search has chosen."""
    values = arm.confirmed.runs[0].values
    return ", ".join(f"{name} {values[name]}" for name in arm.space if name in values) or NOTHING


def _edge_lines(arms: Arms) -> list[str]:
    return [
        f"{arm.name}: {edge} is at the edge of what was searched; the best may lie beyond: widen it."
        for arm in arms.ranked
        for edge in arm.edges
    ]


def _answer(arms: Arms) -> Section:
    best = arms.ranked[0]
    text = (
        "Each arm was searched with the same budget, and judged on validation: no run of a search was scored on the test set. "
        "The best setting of each was then run again under seeds that no search saw, and these runs alone are compared, seed "
        "by seed. What a repeated search would have chosen is not in the intervals. The command repeats one run of the first."
    )
    command = repeating_command(best.confirmed.finished[0].overrides)
    return Section("winner", "The answer", answer=[answer_of(arms), *_edge_lines(arms)], command=command, text=text)


def _arms(arms: Arms) -> Section:
    head = (
        "tier",
        "arm",
        _name_of(arms.metric),
        "95% interval",
        "n",
        arms.objective,
        "best setting",
        "trials",
        "searched over",
    )
    rows = []
    for number, tier in enumerate(arms.tiers, start=1):
        for arm in tier:
            cells = [str(number), arm.name, shown_number(arm.confirmed.mean(arms.metric), ".4f")]
            cells += [shown_interval(arm.confirmed, arms.metric), str(arm.confirmed.n)]
            cells += [shown_number(arm.confirmed.mean("objective"), ".4f"), _setting(arm), str(arm.trials)]
            rows.append([*(Cell(text) for text in cells), Cell(shown_space(arm.space), long=True)])
    text = (
        "Arms of one tier cannot be told from the best of it, which is behind the best of the tier above (paired t test, "
        "Holm's correction for all pairs of arms); it may still not be told from the last ones of the tier above, which the "
        "table of pairs shows. All figures are of the confirmation, and of the epoch that is best on validation."
    )
    return Section("arms", "The arms", text=text, table=Table(head, rows))


def _pairs(arms: Arms) -> Section:
    head = (
        "first",
        "second",
        f"difference in {_name_of(arms.metric)}",
        "n",
        "p (t, Holm)",
        "p (sign-flip)",
        "P(higher)",
        "verdict",
    )
    rows = []
    for pair in arms.pairs:
        comparison = pair.comparison
        cells = [pair.first.name, pair.second.name, shown_difference(comparison), str(comparison.n)]
        cells += [shown_number(comparison.p, ".3g"), shown_number(comparison.sign_flip_p, ".3g")]
        cells += [shown_number(comparison.probability_higher, ".2f")]
        rows.append([*(Cell(text) for text in cells), Cell(verdict(comparison, maximise=arms.maximise), long=True)])
    text = (
        "Every two arms, paired by seed. What decides is p of the paired t test, corrected for all rows; the interval and the "
        "sign-flip test, which assumes no distribution, are of each row by itself, without correction. P(higher) is how likely "
        "a run of the first scores higher than one of the second. So many seeds would be needed to tell a difference of the "
        "size seen in four of five repetitions."
    )
    if arms.looks:
        text += (
            f" Seeds were added until the differences were known well enough: intervals and p are those of look {arms.looks}, "
            "wider and larger than of one look, so that all looks together are wrong with probability 5% at most (levels of "
            "6 / (pi look)^2 times 5%, a union bound)."
        )
    return Section("pairs", "Every two arms", text=text, table=Table(head, rows))


def _budgets(arms: Arms) -> Section:
    found = at_budgets(arms)
    rows = [
        {
            "arm": one.arm.name,
            "trials": one.trials,
            "expected": one.expected,
            "low": one.low,
            "high": one.high,
            "probability": one.probability_best,
        }
        for one in found
    ]
    order = [arm.name for arm in arms.ranked]
    chosen = chosen_in_legend("arm")
    expected = _expected(rows, order, arms, chosen).add_params(chosen)  # both share one legend
    chart = alt.hconcat(expected, _probabilities(rows, order, arms, chosen))
    ahead = [max((one for one in found if one.trials == n), key=lambda one: one.probability_best) for n in arms.budgets]
    first, last = ahead[0].arm.name, ahead[-1].arm.name
    if len({one.arm.name for one in ahead}) > 1:
        answer = (
            f"Which arm a search finds best on validation depends on the budget: after one trial it is most likely {first}, "
            f"after {arms.budgets[-1]} {last}."
        )
    else:
        answer = f"At every budget up to {arms.budgets[-1]} trials a search most likely finds {last} best on validation."
    text = (
        "The best on validation that a search of fewer trials would have found, expected over all choices of so many of the "
        "trials (Dodge et al. 2019, without replacement), with the middle nine tenths of them; and how likely each arm would "
        "have been ahead of all others. It is of search runs: it tells how much the choice depends on the budget, and is no "
        "evidence of which arm is better. Samplers that learn do not try in random order: there it is a rough picture."
    )
    figure = framed("budget", "Does it depend on the budget?", text, chart)
    return Section("budget", figure.title, answer=[answer], text=text, figure=figure)


def _expected(rows: Rows, order: Sequence[str], arms: Arms, chosen: Any) -> Any:
    base = alt.Chart(inline_data(rows), width=WIDTH, height=HEIGHT).encode(
        x=_trials(rows), color=alt.Color("arm:N", sort=order, legend=alt.Legend(orient="bottom", title=None, symbolOpacity=1))
    )
    scale = alt.Scale(zero=False)
    line = base.mark_line().encode(
        y=alt.Y("expected:Q", title=f"best {arms.objective} so far", scale=scale),
        opacity=faded_unless(chosen),
        tooltip=[
            alt.Tooltip("arm:N"),
            alt.Tooltip("trials:Q"),
            alt.Tooltip("expected:Q", format=".4f"),
            alt.Tooltip("low:Q", title="5%", format=".4f"),
            alt.Tooltip("high:Q", title="95%", format=".4f"),
        ],
    )
    known = [row for row in rows if all(map(math.isfinite, (row["low"], row["high"])))]
    if not known:
        return line
    band = base.transform_filter("isValid(datum.low) && isValid(datum.high)").mark_area()
    y = alt.Y("low:Q", title=f"best {arms.objective} so far", scale=scale)
    return band.encode(y=y, y2="high:Q", opacity=faded_unless(chosen, opacity=0.15)) + line


def _probabilities(rows: Rows, order: Sequence[str], arms: Arms, chosen: Any) -> Any:
    return (
        alt.Chart(inline_data(rows), width=WIDTH, height=HEIGHT)
        .mark_line()
        .encode(
            x=_trials(rows),
            y=alt.Y("probability:Q", title="probability to be the best", scale=alt.Scale(domain=[0, 1])),
            color=alt.Color("arm:N", sort=order, legend=alt.Legend(orient="bottom", title=None, symbolOpacity=1)),
            opacity=faded_unless(chosen),
            tooltip=[alt.Tooltip("arm:N"), alt.Tooltip("trials:Q"), alt.Tooltip("probability:Q", format=".2f")],
        )
    )


def _trials(rows: Rows) -> Any:
    most = max(row["trials"] for row in rows)
    scale = alt.Scale(type="log", nice=False) if most >= MANY_TRIALS else alt.Scale(domain=[1, most])
    return alt.X("trials:Q", title="trials", scale=scale, axis=alt.Axis(tickMinStep=1, format="d"))

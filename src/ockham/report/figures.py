"""The figures of a report, as Vega-Lite: drawn by the browser in the page, and to PNG by the same library."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import altair as alt

from ockham.core.statistics import t_interval
from ockham.report.analysis import (
    ABSENT,
    SPARSE,
    Configuration,
    Results,
    behind_best,
    importance,
    is_logarithmic,
    number_of,
    pareto,
)
from ockham.report.curves import learning_curves, measured_curves
from ockham.report.drawing import (
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
from ockham.report.heatmaps import error_by_epoch, heat_maps
from ockham.report.learning_rates import errors_by_learning_rate
from ockham.report.sizes import errors_by_size

#: Lines of more configurations than this cannot be told apart.
MOST_LINES = 300
#: How a trial may have ended -> its colour.
STATE_COLOURS = {
    "finished": "#4c72b0",
    "pruned": "#dd8452",
    "diverged": "#c44e52",
    "failed": "#8172b3",
    "running": "#aaa",
}


def draw_figures(results: Results) -> list[Figure]:
    """The figures for which there are data, in the order of the page."""
    makers: list[Callable[[Results], Iterator[Figure]]] = [
        learning_curves, measured_curves, errors_by_size, error_by_epoch, _matrix, errors_by_learning_rate, heat_maps,
        _strengths, _sparsity, _parallel, _importance, _costs,
    ]  # fmt: skip
    return [figure for make in makers for figure in make(results)]


# -- optimizer x regularizer ---------------------------------------------------------------------------------------------


def _matrix(results: Results) -> Iterator[Figure]:
    if not {"optimizer", "reg"} <= set(results.swept) or not results.finished:
        return
    rows = _matrix_rows(results)
    columns, lines = (len({row[axis] for row in rows}) for axis in ("reg", "optimizer"))
    base = alt.Chart(inline_data(rows), width=max(110 * columns, 240), height=46 * lines).encode(
        x=alt.X("reg:N", title=None, axis=alt.Axis(orient="top", labelAngle=0)), y=alt.Y("optimizer:N", title=None)
    )
    low, high = min(row["shade"] for row in rows), max(row["shade"] for row in rows)
    color: Any = alt.value("#dce6f2")
    ink: Any = alt.value("black")
    if low < high:
        color = alt.Color("shade:Q", title=results.objective, scale=alt.Scale(scheme="blues", reverse=not results.maximise))
        dark = f"datum.shade > {low * 0.4 + high * 0.6}" if results.maximise else f"datum.shade < {low * 0.6 + high * 0.4}"
        ink = alt.condition(dark, alt.value("white"), alt.value("black"))
    rectangles = base.mark_rect().encode(color=color, tooltip=[
            alt.Tooltip("best:N", title="best"), alt.Tooltip("text:N", title=results.objective),
            alt.Tooltip("half:N", title="interval"),
        ])  # fmt: skip
    value = base.mark_text(dy=-7, fontSize=13).encode(text="text:N", color=ink)
    half = base.mark_text(dy=9, fontSize=11).encode(text="half:N", color=ink)
    text = (
        f"{results.objective} of the best configuration of each pair, with the half width of its 95% interval over seeds. Each "
        "cell is the best of its strengths and learning rates, where several were tried. Noise has no colour: a cell differs "
        "in colour from the best cell only where it is behind it beyond chance (paired t test, corrected for all cells)."
    )
    yield framed("matrix", "Optimizer and regularizer", text, rectangles + value + half)


def _matrix_rows(results: Results) -> Rows:
    """A row a cell; its `shade` is its mean where it can be told from that of the best cell, otherwise that of the best."""
    cells = {pair: results.best(members) for pair, members in results.by("optimizer", "reg").items()}
    best = results.best(list(cells.values()))
    distinguishable = [cell for cell, comparison in behind_best(results, list(cells.values())) if comparison.distinguishable]
    rows: Rows = []
    for (optimizer, reg), cell in cells.items():
        mean, (low, high) = cell.mean("objective"), cell.interval("objective")
        half = f"\u00b1 {(high - low) / 2:.4f}" if math.isfinite(low) else f"n = {cell.n}"
        shade = mean if any(cell is other for other in distinguishable) else best.mean("objective")
        row = {"optimizer": optimizer, "reg": reg, "text": f"{mean:.4f}", "half": half, "best": cell.label, "shade": shade}
        rows.append(row)
    return rows


# -- strength ------------------------------------------------------------------------------------------------------------


def _strengths(results: Results) -> Iterator[Figure]:
    keys = [key for key in results.swept if key.startswith("reg.") and len(_by_number(results, key)) > 1]
    for key in keys:
        numbers = _by_number(results, key)
        colour_by = "optimizer" if "optimizer" in results.swept else None
        rows: Rows = []
        for number, members in numbers.items():
            by_optimizer: dict[str, list[Configuration]] = {}
            for member in members:
                by_optimizer.setdefault(member.values[colour_by] if colour_by else "", []).append(member)
            for optimizer, candidates in by_optimizer.items():
                best = results.best(candidates)
                for split in ("train", "val"):
                    errors = [1 - value for value in best.metric_values(f"{split}/acc")]
                    row = {"strength": number, "split": split, "optimizer": optimizer}
                    rows.append(row | mean_and_interval(sum(errors) / len(errors), t_interval(errors), is_share=True))
        chosen = chosen_in_legend("split")
        positive = [number for number in numbers if number > 0]
        scale = alt.Scale(type="symlog", constant=min(positive)) if is_logarithmic(positive) else alt.Scale(zero=False)
        base = alt.Chart(inline_data(rows)).encode(
            x=alt.X("strength:Q", scale=scale, title=key, axis=alt.Axis(values=sorted(numbers), format="~g")),
            color=alt.Color("split:N", sort=["val", "train"], scale=alt.Scale(range=["#c44e52", "#4c72b0"])),
        )
        line = base.mark_line(point=True).encode(
            y=alt.Y("mean:Q", title="error (1 - accuracy)", scale=alt.Scale(zero=False)),
            opacity=faded_unless(chosen),
            tooltip=[number_tip("strength", key, "~g"), "split:N", number_tip("mean", "mean error")],
        ).add_params(chosen)  # fmt: skip
        bars = base.transform_filter("isValid(datum.low)").mark_rule()
        bars = bars.encode(y="low:Q", y2="high:Q", opacity=faded_unless(chosen))
        layers = (bars + line if any_interval(rows) else line).properties(width=260 if colour_by else WIDTH, height=220)
        chart = layers.facet(facet=alt.Facet("optimizer:N", title=None), columns=3) if colour_by else layers
        text = (
            "Error on training and validation images against the strength: on the left the model may overfit (the lines are "
            "apart), on the right it underfits (both rise). Bars are 95% intervals over seeds; of other settings the best at "
            "each strength."
        )
        yield framed(f"strength-{key.replace('.', '-')}", f"Overfitting: {key}", text, chart)


def _by_number(results: Results, key: str) -> dict[float, list[Configuration]]:
    groups: dict[float, list[Configuration]] = {}
    for configuration in results.finished:
        number = configuration.number(key)
        if math.isfinite(number):
            groups.setdefault(number, []).append(configuration)
    return groups


def _sparsity(results: Results) -> Iterator[Figure]:
    rows: Rows = [
        {
            "zeros": configuration.mean("zero_fraction"),
            "accuracy": configuration.mean("val/acc"),
            "reg": configuration.runs[0].values["reg"],
            "configuration": configuration.label,
        }
        for configuration in results.finished
        if set(configuration.runs[0].values["reg"].split("+")) & set(SPARSE)
    ]
    if len({row["zeros"] for row in rows}) < 2:
        return
    chosen = chosen_in_legend("reg")
    chart = (
        alt.Chart(inline_data(rows), width=WIDTH, height=HEIGHT)
        .mark_point(filled=True, size=80)
        .encode(
            x=alt.X("zeros:Q", title="exact zeros among the weights", axis=alt.Axis(format="%")),
            y=alt.Y("accuracy:Q", title="val/acc", scale=alt.Scale(zero=False)),
            color=alt.Color("reg:N", title=None),
            opacity=faded_unless(chosen),
            tooltip=["configuration:N", number_tip("zeros", "exact zeros", ".1%"), number_tip("accuracy", "val/acc")],
        )
        .add_params(chosen)
    )
    yield framed(
        "sparsity", "Sparsity and accuracy", "Each point is a configuration; further right means fewer weights.", chart
    )


# -- settings ------------------------------------------------------------------------------------------------------------


def _parallel(results: Results) -> Iterator[Figure]:
    keys = [*results.swept, results.objective]
    if len(results.swept) < 2 or len(results.finished) < 3:
        return
    places = {key: _places([c.values[key] for c in results.finished]) for key in results.swept}
    shown = results.finished[:MOST_LINES]
    scores = [configuration.mean("objective") for configuration in shown]
    low, high = min(scores), max(scores)
    rows: Rows = []
    # The best are drawn last, above the others, and opaque: colours that shine through each other are those of no score.
    for index, (configuration, score) in reversed(list(enumerate(zip(shown, scores, strict=True)))):
        row = {"line": index, "score": score, "label": configuration.label}
        for key in results.swept:
            text = configuration.values[key]
            if text != ABSENT:
                rows.append({**row, "axis": key, "place": places[key][text]})
        rows.append({**row, "axis": results.objective, "place": (score - low) / (high - low) if high > low else 0.5})
    ticks: Rows = [{"axis": key, "place": place, "text": text} for key in results.swept for text, place in places[key].items()]
    ticks += [{"axis": results.objective, "place": place, "text": f"{v:.4f}"} for place, v in ((0, low), (1, high))]
    x = alt.X("axis:N", sort=keys, title=None, axis=alt.Axis(labelAngle=0, domain=False, ticks=False, grid=True))
    y = alt.Y("place:Q", axis=None, scale=alt.Scale(domain=[-0.04, 1.04]))
    # Without the ends of the scheme, which are hardly seen on a dark and on a white page.
    scale = alt.Scale(scheme=alt.SchemeParams(name="viridis", extent=[0.15, 0.95]), reverse=not results.maximise)
    lines = (
        alt.Chart(inline_data(rows))
        .mark_line(strokeWidth=1.5, point=alt.OverlayMarkDef(size=18, opacity=1))
        .encode(
            x=x,
            y=y,
            detail=alt.Detail("line:N"),
            color=alt.Color("score:Q", title=results.objective, scale=scale),
            tooltip=[alt.Tooltip("label:N", title="configuration"), number_tip("score", results.objective)],
        )
    )
    tick_labels = (
        alt.Chart(inline_data(ticks))
        .mark_text(align="left", dx=5, fontSize=11, fontWeight="bold")
        .encode(x=x, y=y, text="text:N")
    )
    halo = tick_labels.mark_text(align="left", dx=5, fontSize=11, stroke="white", strokeWidth=4, opacity=0.85)
    halo, tick_labels = halo.properties(name="halo"), tick_labels.properties(name="labels")  # of which the page knows
    chart = (lines + halo + tick_labels).properties(width=max(170 * len(keys), 420), height=300)
    text = (
        f"A line is a configuration, its colour {results.objective}, the best on top. It passes an axis without a dot where it "
        "does not have the setting."
    )
    yield framed("parallel", "All configurations", text, chart)


def _places(texts: Sequence[str]) -> dict[str, float]:
    """Where the values of an axis stand between 0 and 1: in the order of numbers, otherwise of the alphabet."""

    def key(text: str) -> tuple[int, float, str]:
        number = number_of(text)
        return (0, 0.0, text) if math.isnan(number) else (1, number, text)

    distinct = sorted(set(texts) - {ABSENT}, key=key)
    return {text: index / (len(distinct) - 1) if len(distinct) > 1 else 0.5 for index, text in enumerate(distinct)}


def _importance(results: Results) -> Iterator[Figure]:
    shares = importance(results)
    if not shares:
        return
    rows: Rows = [{"setting": key, "share": share} for key, share in shares.items()]
    chart = (
        alt.Chart(inline_data(rows), width=WIDTH, height=26 * len(rows))
        .mark_bar()
        .encode(
            x=alt.X("share:Q", title="share of the variance", axis=alt.Axis(format="%")),
            y=alt.Y("setting:N", sort=list(shares), title=None),
            tooltip=["setting:N", number_tip("share", form=".1%")],
        )
    )
    text = (
        f"How much of the variance of {results.objective} among configurations each setting explains: fANOVA (Hutter et al. "
        "2014) with Optuna's random forest. It tells what mattered within the values that were tried. A setting that only some "
        "options have stands at its middle value elsewhere: what an option brings counts for the option."
    )
    yield framed("importance", "What mattered", text, chart)


def search_history(results: Results, search: Path) -> Iterator[Figure]:
    """What the trials of a sweep that searched came to, in their order, and the best so far; of pruned ones what they had
    reached."""
    of_search = [c for c in results.configurations if c.runs[0].path.parent == search]
    by_arm: dict[str, list[Configuration]] = {}
    for configuration in sorted(of_search, key=lambda c: min(int(run.path.name) for run in c.runs)):
        by_arm.setdefault(configuration.runs[0].arm, []).append(configuration)
    rows = [row for arm, trials in by_arm.items() for row in _trials(results, arm, trials)]
    if len(rows) < 2:
        return
    chosen = chosen_in_legend("state")
    score = alt.Y("score:Q", title=results.objective, scale=alt.Scale(zero=False))
    base = alt.Chart(inline_data(rows), width=WIDTH, height=HEIGHT)
    x = alt.X("trial:Q", axis=alt.Axis(tickMinStep=1, format="d"))
    points = base.mark_point(filled=True, size=45).encode(
        x=x,
        y=score,
        color=alt.Color("state:N", sort=list(STATE_COLOURS), title=None, scale=_scale_of_states(rows)),
        opacity=faded_unless(chosen),
        tooltip=["configuration:N", "state:N", number_tip("trial", form="d"), number_tip("score", results.objective)],
    )
    best = base.mark_line(interpolate="step-after", color="#888").encode(x=x, y=alt.Y("best:Q", title=results.objective))
    layers = points.add_params(chosen) + best
    chart = layers.facet(facet=alt.Facet("arm:N", title=None), columns=2) if len(by_arm) > 1 else layers
    text = (
        f"Each point is a trial, {results.objective} over its seeds; of one that was pruned the best that it had reached. The "
        "line is the best so far of those that came to their end. Trials without a result have no point."
    )
    yield framed("history", "The course of the search", text, chart)


def _trials(results: Results, arm: str, trials: Sequence[Configuration]) -> Rows:
    choose = max if results.maximise else min
    rows: Rows = []
    best = math.nan
    for number, trial in enumerate(trials, start=1):
        state = next((state for state in STATE_COLOURS if state != "finished" and trial.states.get(state)), "finished")
        reached = [
            choose(scores)
            for run in trial.runs
            if (scores := [epoch[run.objective] for epoch in run.epochs if math.isfinite(epoch[run.objective])])
        ]
        score = trial.mean("objective")
        if state == "finished" and math.isfinite(score):
            best = score if math.isnan(best) else choose(best, score)
        elif state != "finished":
            score = sum(reached) / len(reached) if reached else math.nan
        rows.append({"arm": arm, "trial": number, "state": state, "score": score, "best": best, "configuration": trial.label})
    return rows


def _scale_of_states(rows: Rows) -> Any:
    shown = [state for state in STATE_COLOURS if any(row["state"] == state for row in rows)]
    return alt.Scale(domain=shown, range=[STATE_COLOURS[state] for state in shown])


# -- cost ----------------------------------------------------------------------------------------------------------------


#: Key of a row -> title of its axis.
COSTS = {
    "steps": "optimizer steps a run",
    "samples": "samples seen a run",
    "flops": "floating-point operations a run",
    "seconds": "train seconds a run, alone in its process",
}


def _costs(results: Results) -> Iterator[Figure]:
    rows: Rows = [
        {
            "steps": configuration.mean("steps"),
            "samples": configuration.mean("samples"),
            "flops": configuration.mean("flops"),
            "seconds": configuration.train_seconds,
            "error": 1 - configuration.mean("val/acc"),
            "optimizer": configuration.runs[0].values.get("optimizer", ""),
            "configuration": configuration.label,
        }
        for configuration in results.finished
    ]
    chosen = chosen_in_legend("optimizer")
    charts = [chart for cost in COSTS if (chart := _cost_chart(rows, cost, chosen)) is not None]
    if not charts:
        return
    charts[0].layer[1] = charts[0].layer[1].add_params(chosen)  # of the points, which have the legend that all share
    shared = sum(math.isnan(row["seconds"]) for row in rows)
    text = "Lower left is better; the dashed line joins what nothing beats in both. A cost that all share is left out. " + (
        f"Seconds compare only runs that had their process to themselves; {shared} of {len(rows)} configurations did not: "
        "runs that trained together have shares of one clock."
        if shared
        else "Every run had its process to itself; its seconds depend on what else the machine did."
    )
    yield framed("cost", "Accuracy and cost", text, alt.concat(*charts, columns=2))


def _cost_chart(rows: Rows, cost: str, chosen: Any) -> Any | None:
    """Error against one cost, for the configurations of which it is known; None where it is the same for all of them."""
    known = [row for row in rows if math.isfinite(row[cost]) and row[cost] > 0 and math.isfinite(row["error"])]
    if len({f"{row[cost]:.3g}" for row in known}) < 2:
        return None
    scale = alt.Scale(type="log") if is_logarithmic([row[cost] for row in known]) else alt.Scale(zero=False)
    x = alt.X(f"{cost}:Q", title=COSTS[cost], scale=scale, axis=alt.Axis(format="~s"))
    y = alt.Y("error:Q", title="error on validation (1 - accuracy)", scale=alt.Scale(zero=False))
    front = [known[index] for index in pareto([(row[cost], row["error"]) for row in known])]
    points = (
        alt.Chart(inline_data(known))
        .mark_point(filled=True, size=60)
        .encode(
            x=x,
            y=y,
            color=alt.Color("optimizer:N"),
            opacity=faded_unless(chosen, opacity=0.7),
            tooltip=["configuration:N", number_tip(cost, COSTS[cost], ".4~s"), number_tip("error")],
        )
    )
    line = alt.Chart(inline_data(front)).mark_line(interpolate="step-after", color="#888", strokeDash=[4, 3]).encode(x=x, y=y)
    return (line + points).properties(width=WIDTH, height=HEIGHT)

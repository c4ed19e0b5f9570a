"""Results for other documents and programs: a table of two settings in LaTeX or Markdown, or all of it as JSON."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ockham.core.selection import maximised
from ockham.core.statistics import corrected
from ockham.errors import UserError
from ockham.report.analysis import ABSENT, Configuration, Results, analyse, behind_best, paired
from ockham.report.arms import Arms, arms_of
from ockham.report.reading import RecordedRuns, evidence
from ockham.report.sections import NOTHING
from ockham.report.targets import TimesToTarget, times_to_target


@dataclass(frozen=True)
class ScoreTable:
    """A configuration for each pair of a row and a column, the best on validation, by a final metric."""

    rows: str
    columns: str | None
    metric: str
    cells: Mapping[tuple[str, str], Configuration]
    close: tuple[Configuration, ...]
    """The best by the metric, and those that cannot be told from it (paired t test, Holm's correction for all cells)."""

    @property
    def row_names(self) -> list[str]:
        return list(dict.fromkeys(row for row, _ in self.cells))

    @property
    def column_names(self) -> list[str]:
        return list(dict.fromkeys(column for _, column in self.cells))

    @property
    def head(self) -> list[str]:
        return [self.rows, *(column or self.metric for column in self.column_names)]

    @property
    def explanation(self) -> str:
        return (
            f"{self.metric}: mean over seeds, and half the width of its 95% interval; in bold what cannot be told from the "
            "best (paired t test, Holm's correction for all cells)"
        )


def score_table(results: Results, words: Sequence[str], *, metric: str) -> ScoreTable:
    """The table that `rows=optimizer` and, where there are two settings, `columns=reg` ask for.

    Raises UserError for other words, and for a setting that has one value only.
    """
    asked = dict(word.partition("=")[::2] for word in words)
    unknown = [word for word in words if word.partition("=")[0] not in ("rows", "columns")]
    if unknown or "rows" not in asked:
        raise UserError(f"{' '.join(words)} names no table: say rows=<setting>, and columns=<setting> for a second one")
    for setting in asked.values():
        if setting not in results.swept:
            raise UserError(
                f"{setting or 'nothing'} is no setting that differs among the runs: there are {', '.join(results.swept)}"
            )
    keys = [asked[name] for name in ("rows", "columns") if name in asked]
    best = {place: results.best(members) for place, members in results.by(*keys).items()}
    cells = {(place[0], place[1] if len(place) > 1 else ""): configuration for place, configuration in best.items()}
    ordered = dict(sorted(cells.items(), key=lambda item: _place(results, keys, item[0])))
    return ScoreTable(asked["rows"], asked.get("columns"), metric, ordered, _close(list(ordered.values()), metric))


def _place(results: Results, keys: Sequence[str], place: tuple[str, str]) -> list[tuple[float, int]]:
    """Numbers by size, other values in the order of the runs."""
    order = []
    for key, text in zip(keys, place, strict=False):
        numbers = results.numbers(key)
        texts = list(dict.fromkeys(run.values.get(key, ABSENT) for c in results.configurations for run in c.runs[:1]))
        order.append((float(text) if numbers and text != ABSENT and not text.startswith("[") else 0.0, texts.index(text)))
    return order


def _close(cells: Sequence[Configuration], metric: str) -> tuple[Configuration, ...]:
    sign = 1 if maximised(metric) else -1
    known = [cell for cell in cells if math.isfinite(cell.mean(metric))]
    if not known:
        return ()
    best = max(known, key=lambda cell: sign * cell.mean(metric))
    others = [cell for cell in known if cell is not best]
    pairs = [(cell, paired(best, cell, metric)) for cell in others]
    compared = [(cell, comparison) for cell, comparison in pairs if comparison is not None]
    family = corrected([comparison for _, comparison in compared])
    behind = {id(cell) for (cell, _), comparison in zip(compared, family, strict=True) if comparison.distinguishable}
    return tuple(cell for cell in known if id(cell) not in behind)


def latex(table: ScoreTable) -> str:
    """The table for LaTeX with the package booktabs."""
    lines = [f"% {table.explanation}", f"\\begin{{tabular}}{{l{'r' * len(table.column_names)}}}", "\\toprule"]
    lines += [_latex_row([_latex(name) for name in table.head]), "\\midrule"]
    for row in table.row_names:
        texts = _row(table, row, missing="--", sign="$\\pm$", bold=lambda text: f"\\textbf{{{text}}}")
        lines.append(_latex_row([_latex(row), *texts]))
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"])


def markdown(table: ScoreTable) -> str:
    """The table for Markdown, with what it shows below."""
    rows = [table.head, ["---", *["---:"] * len(table.column_names)]]
    for row in table.row_names:
        rows.append([row, *_row(table, row, missing=NOTHING, sign="\u00b1", bold=lambda text: f"**{text}**")])
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in rows]
    return "\n".join([*lines, "", f"{table.explanation[0].upper()}{table.explanation[1:]}."])


def _row(table: ScoreTable, row: str, *, missing: str, sign: str, bold: Callable[[str], str]) -> list[str]:
    texts = []
    for column in table.column_names:
        cell = table.cells.get((row, column))
        if cell is None or not math.isfinite(cell.mean(table.metric)):
            texts.append(missing)
            continue
        low, high = cell.interval(table.metric)
        half = f" {sign} {(high - low) / 2:.4f}" if math.isfinite(low) else ""
        text = f"{cell.mean(table.metric):.4f}{half}"
        texts.append(bold(text) if any(cell is close for close in table.close) else text)
    return texts


#: What LaTeX reads as something else than itself.
LATEX = {
    "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}  # fmt: skip


def _latex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + " \\\\"


# -- for programs --------------------------------------------------------------------------------------------------------


def results_as_json(recorded: RecordedRuns, *, show_test: bool) -> str:
    """All that the tables of the page say, as one JSON object; docs/results.md has its keys.

    Test results are of the selected configuration only, unless they are asked for. What is not known is null.
    """
    results, arms = analyse(evidence(recorded)), arms_of(recorded)
    compared = {id(configuration): comparison for configuration, comparison in behind_best(results, results.finished)}
    configurations = []
    for position, configuration in enumerate(results.configurations):
        shows_test = show_test or arms is not None or position == 0
        names = {name for run in configuration.finished for name in run.metrics if shows_test or not name.startswith("test/")}
        comparison = compared.get(id(configuration))
        times = times_to_target(configuration)
        configurations.append(
            {
                "settings": {key: text for key, text in configuration.values.items() if text != ABSENT},
                "n": configuration.n,
                "states": dict(configuration.states),
                "metrics": {name: _mean(configuration, name) for name in sorted(names)},
                "p_best": None if comparison is None else _known(comparison.p),
                "target": None if times is None else _target(times),
                "folders": [str(run.path) for run in configuration.runs],
            }
        )
    content = {
        "objective": results.objective,
        "swept": list(results.swept),
        "configurations": configurations,
        "comparison": None if arms is None else _comparison(arms),
        "waiting": recorded.waiting,
        "left_out": [{"folder": str(path), "problem": problem} for path, problem in recorded.problems],
    }
    return json.dumps(content, indent=2, allow_nan=False)


def _comparison(arms: Arms) -> dict[str, Any]:
    return {
        "metric": arms.metric,
        "tiers": [[arm.name for arm in tier] for tier in arms.tiers],
        "arms": {
            arm.name: {"n": arm.confirmed.n, "trials": arm.trials, **_mean(arm.confirmed, arms.metric)} for arm in arms.ranked
        },
        "pairs": [
            {
                "first": pair.first.name,
                "second": pair.second.name,
                "n": pair.comparison.n,
                "difference": _known(pair.comparison.mean),
                "low": _known(pair.comparison.low),
                "high": _known(pair.comparison.high),
                "p": _known(pair.comparison.p),
                "sign_flip_p": _known(pair.comparison.sign_flip_p),
            }
            for pair in arms.pairs
        ],
        "missing": list(arms.missing),
    }


def _target(times: TimesToTarget) -> dict[str, Any]:
    steps = times.by_axis["steps"]
    median, low, high = map(_known, steps.median())
    return {
        "target": str(times.target),
        "met": times.num_met,
        "of": steps.n,
        "steps": {"median": median, "low": low, "high": high},
    }


def _mean(configuration: Configuration, name: str) -> dict[str, float | None]:
    low, high = configuration.interval(name)
    return {"mean": _known(configuration.mean(name)), "low": _known(low), "high": _known(high)}


def _known(value: float) -> float | None:
    """JSON has no numbers that are not finite."""
    return value if math.isfinite(value) else None

"""The report: one page that opens offline, the same as Markdown, and its figures as PNG."""

import json
import math
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from ockham.core.files import write_atomic
from ockham.core.statistics import Comparison, bootstrap_interval
from ockham.errors import UserError
from ockham.report.analysis import Configuration, Effect, Results, against_best, effects, results, verdict
from ockham.report.figures import Figure, figures
from ockham.report.reading import Runs

PNG_SCALE = 2.0
NOTHING = "\u2013"
#: So many configurations are named where a sentence lists them.
MOST_NAMED = 5


@dataclass(frozen=True)
class Cell:
    text: str
    link: str = ""
    long: bool = False


@dataclass(frozen=True)
class Table:
    head: tuple[str, ...]
    rows: list[list[Cell]]


@dataclass
class Section:
    """A part of the page; what it has no content for is left empty."""

    name: str
    title: str
    answer: list[str] = field(default_factory=list)
    command: str = ""
    text: str = ""
    table: Table | None = None
    figure: Figure | None = None


def write_report(runs: Runs, name: str, output: Path, *, show_test: bool = False, pictures: bool = True) -> list[Path]:
    """Write report.html, report.md and the PNGs of the figures into `output`; returns the files. The title has the `name`.

    Test results are shown for the selected configuration only, unless asked: a table of test results invites choosing by it.
    Raises UserError where there is nothing to report on.
    """
    if not runs.runs and not runs.problems:
        raise UserError(f"{name}: no run has begun there")
    found = results(runs.runs)
    drawn = figures(found)
    sections = _sections(runs, found, drawn, output, show_test=show_test)
    title, counts = f"Report on {name}", _counts(runs, found)
    written = {output / "report.html": _html(title, counts, sections, drawn).encode()}
    written[output / "report.md"] = _markdown(title, counts, sections).encode()
    if pictures:
        written |= {output / "report" / f"{figure.name}.png": _png(figure) for figure in drawn}
    for path, content in written.items():
        write_atomic(path, content)
    return list(written)


def comparison_lines(found: Results, first: Configuration, second: Configuration) -> list[str]:
    """The comparison of two configurations in words. Raises UserError where they share no seed."""
    comparison = found.compare(first, second)
    if comparison is None:
        raise UserError(f"{first.label} and {second.label} share no seed: nothing can be paired")
    return [
        f"{found.objective}: {first.label} {first.mean('objective'):.4f}, {second.label} {second.mean('objective'):.4f}",
        f"difference {_difference(comparison)} over {comparison.n} shared seeds (mean and 95% interval, paired)",
        f"sign-flip p {comparison.p:.3g}; P(first higher) {comparison.probability_higher:.2f}",
        verdict(comparison, maximise=found.maximise),
    ]


def _difference(comparison: Comparison) -> str:
    interval = f" [{comparison.low:+.4f}, {comparison.high:+.4f}]" if comparison.n > 1 else ""
    return f"{comparison.mean:+.4f}{interval}"


def _interval(configuration: Configuration, name: str) -> str:
    low, high = configuration.interval(name)
    return f"{low:.4f} to {high:.4f}" if math.isfinite(low) else NOTHING


# -- sections ------------------------------------------------------------------------------------------------------------


def _sections(runs: Runs, found: Results, drawn: Sequence[Figure], output: Path, *, show_test: bool) -> list[Section]:
    sections = []
    if found.winner is not None:
        sections.append(_winner(found, found.winner))
    regularizers = effects(found)
    if regularizers:
        sections.append(_effects_section(found, regularizers))
    for figure in drawn:
        sections.append(Section(figure.name, figure.title, text=figure.text, figure=figure))
    sections += [_table_section(found, output, show_test=show_test)] if found.configurations else []
    unhappy = [run for run in runs.runs if run.state in ("failed", "diverged", "pruned")]
    if unhappy:
        rows = [
            [
                Cell(_short(run.path), _link(run.path, output)),
                Cell(run.state),
                Cell(" ".join(run.overrides)),
                Cell(run.reason or "", long=True),
            ]
            for run in unhappy
        ]
        sections.append(
            Section("unfinished", "Failed, diverged and pruned", table=Table(("run", "state", "overrides", "reason"), rows))
        )
    if runs.problems:
        rows = [[Cell(_short(path)), Cell(message, long=True)] for path, message in runs.problems]
        text = "These folders could not be read and are in no table or figure above."
        sections.append(Section("problems", "Left out", text=text, table=Table(("folder", "what is wrong"), rows)))
    return sections


def _winner(found: Results, winner: Configuration) -> Section:
    name, n = found.objective, winner.n
    interval = _interval(winner, "objective")
    answer = [
        f"Best on validation: {winner.label}. {name} {winner.mean('objective'):.4f}"
        + (f" (95% interval {interval}, n = {n})" if n > 1 else " (a single run: no interval)")
        + f"; test accuracy {winner.mean('test/acc'):.4f}, test loss {winner.mean('test/loss'):.4f}."
    ]
    compared = against_best(found)
    if compared:
        second, comparison, _ = compared[0]
        told = verdict(comparison, maximise=found.maximise)
        answer.append(f"Against the second, {second.label}: {_difference(comparison)}; {told}.")
    if len(compared) > 1:
        close = [other.label for other, comparison, _ in compared if not comparison.distinguishable]
        named = "; ".join(close[:MOST_NAMED]) + (f"; and {len(close) - MOST_NAMED} more" if len(close) > MOST_NAMED else "")
        answer.append(
            f"Behind it by an interval that excludes 0: {len(compared) - len(close)} of {len(compared)} others"
            + (f". Not told apart from the best: {named}." if close else ".")
        )
        beaten = [other for other, _, p in compared if p < 0.05]
        answer.append(
            f"With Holm's correction for {len(compared)} comparisons the sign-flip test finds {len(beaten)} behind (p < 0.05)"
            + (f"; with {n} seeds its p cannot be below {2 / 2**n:.3g}." if n > 1 and not beaten else ".")
        )
    text = (
        "The selection is by validation, also of the epoch; the test set was used once per run and is shown for the selected "
        "configuration only. The best of many looks a little better than it is."
    )
    command = "python train.py " + " ".join(shlex.quote(override) for override in winner.finished[0].overrides)
    return Section("winner", "The answer", answer=answer, command=command, text=text)


def _effects_section(found: Results, regularizers: Sequence[Effect]) -> Section:
    rows, answer = [], []
    sign = 1 if found.maximise else -1
    for effect in sorted(regularizers, key=lambda effect: (effect.context, -sign * effect.comparison.mean)):
        comparison = effect.comparison
        told = verdict(comparison, maximise=found.maximise)
        cells = [effect.context or NOTHING, effect.regularizer, effect.chosen.label, _difference(comparison)]
        cells += [str(comparison.n), f"{comparison.p:.3g}", f"{effect.p:.3g}", f"{comparison.probability_higher:.2f}"]
        rows.append([*(Cell(text) for text in cells), Cell(told, long=True)])
        if comparison.distinguishable:
            place = f" under {effect.context}" if effect.context else ""
            answer.append(f"{effect.regularizer}{place} is {told.partition(':')[0]} than none: {_difference(comparison)}.")
    head = (
        "with",
        "regularizer",
        "best setting",
        f"{found.objective} against none",
        "n",
        "p",
        "p (Holm)",
        "P(higher)",
        "verdict",
    )
    text = (
        "Each regularizer at its best setting against none at its best, paired by seed. Where several settings were tried, the "
        "best of them is favoured by chance: repeat it with new seeds before you rely on it."
    )
    answer = answer or ["No regularizer can be told from none at this number of seeds."]
    return Section("regularizers", "Which regularizer helps?", answer=answer, text=text, table=Table(head, rows))


def _table_section(found: Results, output: Path, *, show_test: bool) -> Section:
    scores = [name for name in ("train/acc", "val/acc", "val/loss") if name != found.objective]
    scores += ["test/acc", "test/loss"] if show_test else []
    head = (
        *found.swept, found.objective, "95% interval", "bootstrap", "n", "states", *scores,
        "zeros", "train s", "folder",
    )  # fmt: skip
    rows = []
    for configuration in found.configurations:
        cells = [Cell(configuration.values[key] or NOTHING) for key in found.swept]
        numbers = ["objective", *scores]
        shown = {name: f"{configuration.mean(name):.4f}" if configuration.n else NOTHING for name in numbers}
        states = ", ".join(f"{count} {state}" for state, count in sorted(configuration.states.items()))
        zeros = f"{configuration.mean('zero_fraction'):.3f}" if configuration.n else NOTHING
        seconds = f"{configuration.cost('train_seconds'):.2f}" if configuration.n else NOTHING
        cells += [
            Cell(shown["objective"]), Cell(_interval(configuration, "objective")), Cell(_bootstrap(configuration)),
            Cell(str(configuration.n)), Cell(states), *(Cell(shown[name]) for name in numbers[1:]), Cell(zeros), Cell(seconds),
        ]  # fmt: skip
        path = configuration.runs[0].path
        rows.append([*cells, Cell(_short(path), _link(path, output))])
    text = (
        "A row a configuration, the best on validation first; those of which a run failed or was pruned come after the "
        "complete ones. Means over seeds and folds; Student's t interval, and the percentile bootstrap beside it. Click a head "
        "to sort."
    )
    return Section("configurations", "Configurations", text=text, table=Table(head, rows))


def _bootstrap(configuration: Configuration) -> str:
    low, high = bootstrap_interval(configuration.of("objective"))
    return f"{low:.4f} to {high:.4f}" if math.isfinite(low) else NOTHING


def _short(path: Path) -> str:
    return "/".join(path.parts[-2:])


def _link(path: Path, output: Path) -> str:
    return os.path.relpath(path, output)


def _counts(runs: Runs, found: Results) -> str:
    states = Counter(run.state for run in runs.runs)
    if runs.waiting:
        states["waiting"] = runs.waiting
    if runs.problems:
        states["unreadable"] = len(runs.problems)
    told = f"{len(runs.runs)} runs: " + ", ".join(f"{count} {state}" for state, count in states.items()) + "."
    if found.repeated:
        told += f" {found.repeated} repeat another one's configuration, seed and fold, and do not count again."
    if found.of_other_objectives:
        told += f" {found.of_other_objectives} are judged by another objective than {found.objective}, and left out."
    if "data" in found.swept:
        told += " They are on several data sets, whose scores cannot be compared: report on one at a time."
    return told


# -- files ---------------------------------------------------------------------------------------------------------------


def _html(title: str, counts: str, sections: Sequence[Section], drawn: Sequence[Figure]) -> str:
    from jinja2 import Environment
    from markupsafe import Markup

    library = ""
    if drawn:
        import vl_convert

        library = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub asks for what it does not need
    # Inside a script element only its end tag could be misread.
    specifications = json.dumps({figure.name: figure.specification for figure in drawn}).replace("</", "<\\/")
    template = Environment(autoescape=True).from_string(files("ockham.report").joinpath("page.html").read_text())
    return template.render(
        title=title,
        counts=counts,
        sections=sections,
        figures=drawn,
        figures_json=Markup(specifications),
        library=Markup(library.replace("</script", "<\\/script")),
        footer="Made by scripts/report.py; what the figures mean is in docs/results.md.",
    )


def _markdown(title: str, counts: str, sections: Sequence[Section]) -> str:
    lines = [f"# {title}", "", counts, ""]
    for section in sections:
        lines += [f"## {section.title}", "", *(f"{line}\n" for line in section.answer)]
        if section.command:
            lines += ["```", section.command, "```", ""]
        if section.text:
            lines += [section.text, ""]
        if section.figure is not None:
            lines += [f"![{section.title}](report/{section.figure.name}.png)", ""]
        if section.table is not None:
            lines += [_row(section.table.head), "|" + "---|" * len(section.table.head)]
            lines += [_row([cell.text for cell in row]) for row in section.table.rows] + [""]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _png(figure: Figure) -> bytes:
    import vl_convert

    return vl_convert.vegalite_to_png(figure.specification, scale=PNG_SCALE)

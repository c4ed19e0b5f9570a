"""The report: one page that opens offline, the same as Markdown; where it is asked for, its figures as files."""

import json
import math
import os
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from ockham.core.cache import cached
from ockham.core.files import write_atomic
from ockham.core.measures import MEASURES, measured_finally
from ockham.core.selection import maximised
from ockham.core.statistics import LEVEL, Comparison, bootstrap_interval, smallest_sign_flip_p
from ockham.errors import UserError
from ockham.record.screen import repeating_command
from ockham.report.analysis import Configuration, Effect, Results, analyse, behind_best, best_by_regularizer, effects, verdict
from ockham.report.arms import arms_of
from ockham.report.arms_sections import arm_sections
from ockham.report.drawing import Figure
from ockham.report.figures import draw_figures, search_history
from ockham.report.reading import RecordedRun, RecordedRuns, evidence, searched
from ockham.report.sections import (
    NOTHING,
    Cell,
    Picture,
    Section,
    Table,
    shown_difference,
    shown_interval,
    shown_number,
    shown_p_values,
)
from ockham.report.target_sections import target_sections

PNG_SCALE = 2.0
#: The formats of figures, and those that report.md shows, the first choice first.
PICTURES = ("png", "svg", "pdf")
IN_MARKDOWN = ("png", "svg")
#: In a sweep folder the pictures of some of its runs, a folder each by the number of the run.
PICTURE_FOLDER = "pictures"
#: So many configurations are named where a sentence lists them.
MOST_NAMED = 5
#: Where the policy of the page goes, before all that comes from folders: what the page carries may run, and nothing is fetched.
POLICY = "content-security-policy"
STYLES_AND_PICTURES = "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def write_report(
    recorded: RecordedRuns,
    name: str,
    output: Path,
    *,
    show_test: bool = False,
    pictures: Sequence[str] = (),
    refresh: int | None = None,
) -> list[Path]:
    """Write report.html and report.md into `output`; returns the files. The title has the `name`.

    The page draws its figures in the browser; they lie in `report/` too in the formats that `pictures` names, of PICTURES, and
    report.md shows those that Markdown can. With `refresh` the page loads itself again after so many seconds.
    Test results are shown for the selected configuration only, unless asked: a table of test results invites choosing by it.
    Raises UserError where there is nothing to report on, FileNotFoundError where there is no folder `output`:
    a sweep that was removed by now is no new folder with a page.
    """
    if not recorded.runs and not recorded.problems:
        raise UserError(f"{name}: no run has begun there")
    results = analyse(evidence(recorded))
    sections = _sections(recorded, results, output, show_test=show_test)
    figures = [section.figure for section in sections if section.figure is not None]
    title, counts = f"Report on {name}", _counts(recorded, results)
    written = {output / "report.html": _html(title, counts, sections, figures, refresh=refresh).encode()}
    in_markdown = [section for section in sections if not section.pictures]
    written[output / "report.md"] = _markdown(title, counts, in_markdown, pictures=pictures).encode()
    for kind in pictures:
        written |= {output / "report" / f"{figure.name}.{kind}": _picture(figure, kind) for figure in figures}
    if pictures:
        (output / "report").mkdir(exist_ok=True)
    for path, content in written.items():
        write_atomic(path, content)
    return list(written)


def comparison_lines(results: Results, first: Configuration, second: Configuration) -> list[str]:
    """The comparison of two configurations in words, by itself. Raises UserError where they share no seed."""
    comparison = results.compare(first, second)
    if comparison is None:
        raise UserError(f"{first.label} and {second.label} share no seed: nothing can be paired")
    return [
        f"{results.objective}: {first.label} {first.mean('objective'):.4f}, {second.label} {second.mean('objective'):.4f}",
        f"difference {shown_difference(comparison)} over {comparison.n} shared seeds (mean and 95% interval, paired)",
        f"{shown_p_values(comparison)}; P(first higher) {shown_number(comparison.probability_higher, '.2f')}",
        verdict(comparison, maximise=results.maximise),
    ]


# -- sections ------------------------------------------------------------------------------------------------------------


def _sections(recorded: RecordedRuns, results: Results, output: Path, *, show_test: bool) -> list[Section]:
    sections = []
    arms = arms_of(recorded)
    if arms is not None:
        sections += arm_sections(arms)
    elif results.winner is not None:
        sections.append(_winner(results, results.winner))
    regularizers = effects(results) if arms is None else []
    if regularizers:
        sections.append(_effects_section(results, regularizers))
    sections += target_sections(results)
    for figure in draw_figures(results):
        sections.append(_figure_section(figure))
    pictures = _pictures(results)
    if pictures:
        text = (
            "The first layer, and the validation images that are most confidently wrong, of the best configuration of each "
            "regularizer under its first seed."
        )
        sections.append(Section("pictures", "Weights and hardest images", text=text, pictures=pictures))
    if len(recorded.searches) == 1:  # of several the trials are no common order
        tried = analyse(searched(recorded)) if recorded.comparisons else results
        sections += [_figure_section(figure) for figure in search_history(tried, recorded.searches[0])]
    sections += [_table_section(results, output, show_test=show_test)] if results.configurations else []
    if recorded.comparisons:
        sections.append(_search_section(analyse(searched(recorded)), output))
    if results.finished:
        sections.append(_settings_section([run for configuration in results.finished for run in configuration.finished]))
    unfinished = [run for run in recorded.runs if run.state in ("failed", "diverged", "pruned")]
    if unfinished:
        sections.append(_unfinished_section(unfinished, output))
    if recorded.problems:
        rows = [[Cell(_short(path)), Cell(message, long=True)] for path, message in recorded.problems]
        text = "These folders could not be read and are in no table or figure above."
        sections.append(Section("problems", "Left out", text=text, table=Table(("folder", "what is wrong"), rows)))
    return sections


def _figure_section(figure: Figure) -> Section:
    section = Section(figure.name, figure.title, text=figure.text, figure=figure)
    if figure.table:
        head, *rows = figure.table
        section.table = Table(tuple(head), [[Cell(text) for text in row] for row in rows])
    return section


def _winner(results: Results, winner: Configuration) -> Section:
    name, n = results.objective, winner.n
    interval = shown_interval(winner, "objective")
    answer = [
        f"Best on validation: {winner.label}. {name} {winner.mean('objective'):.4f}"
        + (f" (95% interval {interval}, n = {n})" if n > 1 else " (a single run: no interval)")
        + f"; test accuracy {winner.mean('test/acc'):.4f}, test loss {winner.mean('test/loss'):.4f}."
    ]
    compared = behind_best(results, results.finished)
    if compared:
        second, comparison = compared[0]
        judgement = verdict(comparison, maximise=results.maximise)
        answer.append(f"Against the second, {second.label}: {shown_difference(comparison)}; {judgement}.")
    if len(compared) > 1:
        answer.append(_how_many_behind(compared, maximise=results.maximise))
    text = (
        "The selection is by validation, also of the epoch; the test set was used once per run and is shown for the selected "
        "configuration only. The best of many looks a little better than it is. "
        + ("Intervals are those of each difference by itself; what counts is p, corrected for all of them." if compared else "")
    )
    command = repeating_command(winner.finished[0].overrides)
    return Section("winner", "The answer", answer=answer, command=command, text=text.strip())


def _how_many_behind(compared: Sequence[tuple[Configuration, Comparison]], *, maximise: bool) -> str:
    """How many of the others are behind the best one beyond chance, and which are not."""
    if not any(comparison.spread_is_known for _, comparison in compared):
        return "Whether the others are behind it beyond chance cannot be said: it takes more seeds."
    close = [
        other.label for other, comparison in compared if not comparison.distinguishable or (comparison.mean > 0) != maximise
    ]
    named = "; ".join(close[:MOST_NAMED]) + (f"; and {len(close) - MOST_NAMED} more" if len(close) > MOST_NAMED else "")
    return (
        f"Behind it beyond chance: {len(compared) - len(close)} of {len(compared)} others (paired t test, p < {LEVEL:g} after "
        "Holm's correction for all of them)" + (f". Not told apart from the best: {named}." if close else ".")
    )


def _effects_section(results: Results, regularizers: Sequence[Effect]) -> Section:
    difference = f"{results.objective} against none"
    head = ("with", "regularizer", "best setting", difference, "n", "p (t, Holm)", "p (sign-flip)", "P(higher)", "verdict")
    rows, answer = [], []
    sign = 1 if results.maximise else -1
    for effect in sorted(regularizers, key=lambda effect: (effect.context, -sign * effect.comparison.mean)):
        comparison = effect.comparison
        judgement = verdict(comparison, maximise=results.maximise)
        cells = [
            effect.context or NOTHING,
            effect.regularizer,
            effect.chosen.label,
            shown_difference(comparison),
            str(comparison.n),
        ]
        p_values = (comparison.p, comparison.sign_flip_p)
        cells += [*(shown_number(p, ".3g") for p in p_values), shown_number(comparison.probability_higher, ".2f")]
        cells.append(judgement)
        rows.append([Cell(text, long=name in ("best setting", "verdict")) for name, text in zip(head, cells, strict=True)])
        if comparison.distinguishable:
            place = f" under {effect.context}" if effect.context else ""
            answer.append(
                f"{effect.regularizer}{place} is {judgement.partition(':')[0]} than none: {shown_difference(comparison)}."
            )
    text = (
        "Each regularizer at its best setting against none at its best, paired by seed. The verdict is by the paired t test, "
        "corrected for all rows (Holm); intervals and the sign-flip test beside it, which assumes no distribution, are of each "
        "row by itself. Where several settings were tried, the best of them is favoured by chance: repeat it with new seeds "
        "before you rely on it."
    )
    fewest = min(effect.comparison.n for effect in regularizers)
    if smallest_sign_flip_p(fewest) >= LEVEL:
        text += f" With {fewest} pairs the p of the sign-flip test is never below {smallest_sign_flip_p(fewest):.2g}."
    answer = answer or ["No regularizer can be told from none at this number of seeds."]
    return Section("regularizers", "Which regularizer helps?", answer=answer, text=text, table=Table(head, rows))


def _pictures(results: Results) -> list[Picture]:
    """Those that the sweep has drawn of the best configuration of each regularizer, the same ones of all beside each other."""
    found = []
    for name, title in (("first_layer", "first layer"), ("confidently_wrong", "hardest images")):
        for reg, configuration in best_by_regularizer(results).items():
            run = configuration.finished[0].path
            file = run.parent / PICTURE_FOLDER / run.name / f"{name}.png"
            if file.exists():
                found.append(Picture(f"{reg}, {title} ({configuration.label})", b64encode(file.read_bytes()).decode()))
    return found


def _unfinished_section(runs: Sequence[RecordedRun], output: Path) -> Section:
    """What the runs had reached that did not come to their end, and why they did not."""
    rows = []
    for run in runs:
        scores = [epoch[run.objective] for epoch in run.epochs if math.isfinite(epoch.get(run.objective, math.nan))]
        best = (max if maximised(run.objective) else min)(scores, default=math.nan)
        reason = "others of the sweep were ahead" if run.state == "pruned" else ""
        rows.append(
            [
                _folders([run.path], output),
                Cell(run.state),
                Cell(f"{shown_number(best, '.4f')} {run.objective}" if scores else NOTHING),
                Cell(str(len(run.epochs))),
                Cell(run.reason or reason, long=True),
                Cell(" ".join(run.overrides), long=True),
            ]
        )
    head = ("run", "state", "best so far", "epochs", "reason", "overrides")
    return Section("unfinished", "Failed, diverged and pruned", table=Table(head, rows))


def _search_section(results: Results, output: Path) -> Section:
    """The configurations of the searches of a comparison, which chose, and are evidence of nothing."""
    section = _table_section(results, output, show_test=False)
    text = (
        "What the searches tried, the best on validation first: each arm's best was chosen from these. They are no evidence of "
        "which arm is better, since the best of many looks better than it is; nothing above counts them."
    )
    return replace(section, name="search", title="The search", text=text)


def _table_section(results: Results, output: Path, *, show_test: bool) -> Section:
    scores = [name for name in ("train/acc", "val/acc", "val/loss") if name != results.objective]
    scores += ["test/acc", "test/loss"] if show_test else []
    known = [name for name in measured_finally(MEASURES) if show_test or not name.startswith("test/")]
    measured = [name for name in known if any(name in run.metrics for c in results.configurations for run in c.finished)]
    head = (
        *results.swept, results.objective, "95% interval", "bootstrap", "n", "states", *scores,
        *measured, "zeros", "train s", "folders",
    )  # fmt: skip
    rows = []
    for configuration in results.configurations:
        cells = [Cell(configuration.values[key] or NOTHING) for key in results.swept]
        numbers = ["objective", *scores]
        shown = {name: shown_number(configuration.mean(name), ".4f") for name in numbers}
        states = ", ".join(f"{count} {state}" for state, count in sorted(configuration.states.items()))
        zeros = shown_number(configuration.mean("zero_fraction"), ".3f")
        seconds = shown_number(configuration.train_seconds, ".2f")
        further = [Cell(shown_number(configuration.mean(name), ".4g")) for name in measured]
        cells += [
            Cell(shown["objective"]), Cell(shown_interval(configuration, "objective")), Cell(_bootstrap(configuration)),
            Cell(str(configuration.n)), Cell(states), *(Cell(shown[name]) for name in numbers[1:]), *further,
            Cell(zeros), Cell(seconds),
        ]  # fmt: skip
        rows.append([*cells, _folders([run.path for run in configuration.runs], output)])
    text = (
        "A row a configuration, the best on validation first; those of which a run failed or was pruned come after the "
        "complete ones. Means over seeds and folds; Student's t interval, and the percentile bootstrap beside it. Train s is "
        "shown where every run had its process to itself: runs that trained together have shares of one clock. Click a head to "
        "sort."
    )
    return Section("configurations", "Configurations", text=text, table=_with_content(Table(head, rows)))


def _with_content(table: Table) -> Table:
    """The table without columns that say nothing about any row; the last, which links to folders, stays."""
    empty = {NOTHING, "0.000"}
    kept = [i for i in range(len(table.head)) if not table.rows or {row[i].text for row in table.rows} - empty]
    return Table(tuple(table.head[i] for i in kept), [[row[i] for i in kept] for row in table.rows])


def _settings_section(runs: Sequence[RecordedRun]) -> Section:
    """What the runs have in common: options by group, overrides, and settings that have a value; and their seeds."""
    described = [{**run.settings, **run.values} for run in runs]
    first, *others = described
    common = {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}
    rows = [
        [Cell(key), Cell(str(value).lower() if isinstance(value, bool) else str(value), long=True)]
        for key, value in sorted(common.items(), key=lambda item: ("." in item[0], item[0]))
        if value is not None and key not in ("seed", "fold") and not key.endswith("._target_")
    ]
    seeds = sorted({str(run.replicate[0]) for run in runs}, key=lambda seed: (len(seed), seed))
    rows.append([Cell("seeds"), Cell(", ".join(seeds), long=True)])
    text = (
        "What all runs that are compared have in common, but for settings that are null; what differs is in the tables above."
    )
    return Section("settings", "Settings in common", text=text, table=Table(("setting", "value"), rows))


def _bootstrap(configuration: Configuration) -> str:
    low, high = bootstrap_interval(configuration.metric_values("objective"))
    return f"{low:.4f} to {high:.4f}" if math.isfinite(low) else NOTHING


def _folders(paths: Sequence[Path], output: Path) -> Cell:
    """A link to each run; those in one folder by their numbers, after the first."""
    in_one = len({path.parent for path in paths}) == 1
    names = [path.name if in_one and place else _short(path) for place, path in enumerate(paths)]
    links = tuple((name, _link(path, output)) for name, path in zip(names, paths, strict=True))
    return Cell(" ".join(names), links, long=len(paths) > 1)


def _short(path: Path) -> str:
    return "/".join(path.parts[-2:])


def _link(path: Path, output: Path) -> str:
    """An address, relative to the page; quoted, so that no name of a folder is taken for a scheme or a query."""
    return quote(Path(os.path.relpath(path, output)).as_posix())


def _counts(recorded: RecordedRuns, results: Results) -> str:
    states = Counter(run.state for run in recorded.runs)
    if recorded.waiting:
        states["waiting"] = recorded.waiting
    if recorded.problems:
        states["unreadable"] = len(recorded.problems)
    counts = f"{len(recorded.runs)} runs: " + ", ".join(f"{count} {state}" for state, count in states.items()) + "."
    if results.repeated:
        counts += f" {results.repeated} repeat another one's configuration, seed and fold, and do not count again."
    if results.of_other_objectives:
        counts += f" {results.of_other_objectives} are judged by another objective than {results.objective}, and left out."
    notes = dict.fromkeys(run.note for run in recorded.runs if run.note)
    if notes:
        counts += f" Noted: {'; '.join([*notes][:MOST_NAMED])}" + ("; and more." if len(notes) > MOST_NAMED else ".")
    if "data" in results.swept:
        counts += " They are on several data sets, whose scores cannot be compared: report on one at a time."
    return counts


# -- files ---------------------------------------------------------------------------------------------------------------


def _html(title: str, counts: str, sections: Sequence[Section], figures: Sequence[Figure], *, refresh: int | None) -> str:
    from jinja2 import Environment
    from markupsafe import Markup

    # Inside a script element a "<" may begin its end tag, or a comment that hides the end tag.
    specifications = json.dumps({figure.name: figure.specification for figure in figures}).replace("<", "\\u003c")
    template = Environment(autoescape=True).from_string(files("ockham.report").joinpath("page.html").read_text())
    page = template.render(
        policy=POLICY,
        title=title,
        counts=counts,
        refresh=refresh,
        sections=sections,
        figures=figures,
        figures_json=Markup(specifications),
        library=Markup((library() if figures else "").replace("</script", "<\\/script")),
        footer="Made by Ockham; what the figures mean is in its docs/results.md.",
    )
    scripts = re.findall("<script>(.*?)</script>", page, flags=re.DOTALL)
    hashes = [f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts]
    return page.replace(POLICY, f"default-src 'none'; script-src {' '.join(hashes)}; {STYLES_AND_PICTURES}", 1)


def library() -> str:
    """The JavaScript that draws the figures: Vega, Vega-Lite and vega-embed as one text, by vl-convert.

    It depends on the version of that alone, and takes more than a second to make: so it is kept in the cache of the user.
    """
    import vl_convert

    def make() -> bytes:
        bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub asks for what it does not need
        return bundle.encode()

    return cached(f"vega-of-vl-convert-{version('vl-convert-python')}.js", make).decode()


def _markdown(title: str, counts: str, sections: Sequence[Section], *, pictures: Sequence[str]) -> str:
    """The page as Markdown; whatever comes from folders is escaped, since Markdown lets HTML through."""
    shown = next((kind for kind in IN_MARKDOWN if kind in pictures), None)
    sections = [section for section in sections if shown or section.figure is None or section.table is not None]
    lines = [f"# {_text(title)}", "", _text(counts), ""]
    for section in sections:
        lines += [f"## {_text(section.title)}", "", *(f"{_text(line)}\n" for line in section.answer)]
        if section.command:
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", section.command)), default=0))
            lines += [fence, " ".join(section.command.splitlines()), fence, ""]
        if section.text:
            lines += [_text(section.text), ""]
        if section.figure is not None and shown is not None:
            lines += [f"![{_text(section.title)}](report/{section.figure.name}.{shown})", ""]
        if section.table is not None:
            lines += [_row(section.table.head), "|" + "---|" * len(section.table.head)]
            lines += [_row([cell.text for cell in row]) for row in section.table.rows] + [""]
    return "\n".join(lines)


def _text(text: str) -> str:
    """On one line, without HTML."""
    return " ".join(escape(text, quote=False).splitlines())


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_text(cell).replace("|", "\\|") for cell in cells) + " |"


def _picture(figure: Figure, kind: str) -> bytes:
    import vl_convert

    if kind == "png":
        return vl_convert.vegalite_to_png(figure.specification, scale=PNG_SCALE)
    if kind == "pdf":
        return vl_convert.vegalite_to_pdf(figure.specification)
    return vl_convert.vegalite_to_svg(figure.specification).encode()

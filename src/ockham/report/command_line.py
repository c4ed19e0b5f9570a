"""The command `ockham report`: what there is to say about runs and sweeps. Works while they run, too."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ockham.errors import UserError
from ockham.record.folder import check_no_links
from ockham.record.screen import error_screen
from ockham.report.analysis import analyse
from ockham.report.export import export_epochs
from ockham.report.page import PICTURES, comparison_lines, write_report
from ockham.report.reading import RecordedRuns, evidence, read
from ockham.report.tables import latex, markdown, results_as_json, score_table
from ockham.report.watch import watch

#: Tables of two settings, by how they are written.
TABLES = {"latex": latex, "markdown": markdown}

DESCRIPTION = """\
Report on runs and sweeps: one page with tables and figures. Works while they run, too.

  $PROGRAM outputs/sweeps/<name>                      report.html and report.md in it
  $PROGRAM outputs --output report                    over many sweeps and runs
  $PROGRAM <folder> --compare reg=l2 reg=dropout      two configurations, paired over their seeds
  $PROGRAM <folder> --export epochs.csv               a row for every epoch of every run
  $PROGRAM <folder> --pictures pdf svg                with the figures in report/; PNG where no format is named
  $PROGRAM <folder> --watch                           the page again and again while a sweep runs; it reloads itself
  $PROGRAM <folder> --latex rows=optimizer columns=reg   a table for a paper; --markdown for a README
  $PROGRAM <folder> --json                            everything that the tables say, for programs
  $PROGRAM <folder> --test                            with test results of all, not of the selected alone

Each side of --compare names a configuration by its options and overrides, joined by commas (optimizer=adam,reg=l2); where
several have them, the best on validation is taken: of as many on both sides, since more are favoured (--unequal).
"""


def main(words: Sequence[str], *, program: str) -> None:
    """Do what the words after `program` ask for. A mistake ends the process with exit code 2, Ctrl-C with 130."""
    arguments = _parser(program).parse_args(words)
    try:
        _report(arguments)
    except (UserError, OSError) as error:
        print(error_screen(str(error)), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _parser(program: str) -> argparse.ArgumentParser:
    description = DESCRIPTION.replace("$PROGRAM", program)
    parser = argparse.ArgumentParser(program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="sweeps, runs, or folders of them")
    parser.add_argument("--output", type=Path, help="where the report goes; the first of the folders by default")
    parser.add_argument("--compare", nargs=2, metavar="CONFIGURATION", help="print a paired comparison, and write nothing")
    parser.add_argument("--unequal", action="store_true", help="--compare the best of many settings with the best of few, too")
    parser.add_argument("--export", type=Path, metavar="FILE", help="write all epochs of all runs as csv, and no report")
    parser.add_argument(
        "--test", action="store_true", help="show test results of all configurations, not only of the selected one"
    )
    parser.add_argument(
        "--pictures",
        nargs="*",
        choices=PICTURES,
        help="write the figures as files too (PNG where no format is named), and show PNG or SVG in report.md",
    )
    parser.add_argument("--watch", action="store_true", help="write the page anew while runs are to come; it reloads itself")
    for name in TABLES:
        help_text = f"print a {name} table of two settings, as in rows=optimizer columns=reg, and write nothing"
        parser.add_argument(f"--{name}", nargs="+", metavar="rows=SETTING", help=help_text)
    parser.add_argument("--json", action="store_true", help="print all results as JSON, and write nothing")
    return parser


def _report(arguments: argparse.Namespace) -> None:
    _check_purpose(arguments)
    tables = [name for name in TABLES if getattr(arguments, name)]
    if arguments.compare:
        _compare(arguments.folders, *arguments.compare, unequal=arguments.unequal)
    elif arguments.unequal:
        raise UserError("--unequal changes nothing without --compare: leave it out")
    elif tables:
        results = analyse(evidence(read(arguments.folders)))
        metric = results.objective.replace("val/", "test/") if arguments.test else results.objective
        print(TABLES[tables[0]](score_table(results, getattr(arguments, tables[0]), metric=metric)))
    elif arguments.json:
        print(results_as_json(read(arguments.folders), show_test=arguments.test))
    elif arguments.export:
        count = export_epochs(read(arguments.folders), arguments.export)
        print(f"{count} epochs: {arguments.export}")
    else:
        _write_page(arguments)


def _check_purpose(arguments: argparse.Namespace) -> None:
    """Raises UserError where several things are asked for of which one is done."""
    named = [name for name in ("compare", *TABLES, "json", "export", "watch") if getattr(arguments, name)]
    named += ["pictures"] if arguments.pictures is not None and named not in ([], ["watch"]) else []
    if len(named) > 1:
        raise UserError(f"--{named[0]} and --{named[1]} ask for two things: leave one of them out")


def _write_page(arguments: argparse.Namespace) -> None:
    name = ", ".join(folder.resolve().name for folder in arguments.folders)
    output = arguments.output or arguments.folders[0]
    check_no_links(output.glob("*"))
    pictures = [] if arguments.pictures is None else arguments.pictures or ["png"]

    def write(recorded: RecordedRuns, refresh: int | None) -> list[Path]:
        if arguments.output and (recorded.runs or recorded.problems):
            output.mkdir(parents=True, exist_ok=True)
        return write_report(recorded, name, output, show_test=arguments.test, pictures=pictures, refresh=refresh)

    if arguments.watch:
        print(f"writing {output / 'report.html'} while runs are to come; Ctrl-C ends it", file=sys.stderr)
        files = watch(lambda: read(arguments.folders), write)
    else:
        files = write(read(arguments.folders), None)
    print("\n".join(str(file) for file in files))


def _compare(folders: list[Path], first: str, second: str, *, unequal: bool) -> None:
    results = analyse(evidence(read(folders)))
    sides, sizes = [], []
    for text in (first, second):
        pairs = [part.partition("=") for part in text.split(",")]
        if not all(equals for _, equals, _ in pairs):
            raise UserError(f"--compare {text}: name options as setting=value, joined by commas")
        matching = results.matching({key: value for key, _, value in pairs})
        sides.append(results.best(matching))
        sizes.append(len(matching))
    if len(set(sizes)) > 1 and not unequal:
        raise UserError(
            f"{first} is the best of {sizes[0]} configurations, {second} of {sizes[1]}: the best of more is favoured. "
            f"Name one of each, compare=... searches with equal budgets, and --unequal compares them so"
        )
    print("\n".join(f"  {line}" for line in comparison_lines(results, *sides)))

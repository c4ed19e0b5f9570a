"""Report on runs and sweeps: one page with tables and figures. Works while they run, too.

    python scripts/report.py outputs/sweeps/<name>                          report.html and report.md in it
    python scripts/report.py outputs --output report                        over many sweeps and runs
    python scripts/report.py <folder> --compare reg=l2 reg=dropout          two configurations, paired over their seeds
    python scripts/report.py <folder> --export epochs.csv                   a row for every epoch of every run
    python scripts/report.py <folder> --pictures                            with the figures as PNG, in report/
    python scripts/report.py <folder> --test                                with test results of all, not of the selected alone

Each side of --compare names a configuration by its options and overrides, joined by commas (optimizer=adam,reg=l2); where
several have them, the best on validation is taken.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from ockham.errors import UserError
from ockham.record.screen import error_screen
from ockham.report.analysis import analyse
from ockham.report.export import export_epochs
from ockham.report.page import comparison_lines, write_report
from ockham.report.reading import read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="sweeps, runs, or folders of them")
    parser.add_argument("--output", type=Path, help="where the report goes; the first of the folders by default")
    parser.add_argument("--compare", nargs=2, metavar="CONFIGURATION", help="print a paired comparison, and write nothing")
    parser.add_argument("--export", type=Path, metavar="FILE", help="write all epochs of all runs as csv, and no report")
    parser.add_argument(
        "--test", action="store_true", help="show test results of all configurations, not only of the selected one"
    )
    parser.add_argument("--pictures", action="store_true", help="write the figures as PNG too, and show them in report.md")
    arguments = parser.parse_args()
    try:
        if arguments.compare:
            compare(arguments.folders, *arguments.compare)
        elif arguments.export:
            count = export_epochs(read(arguments.folders), arguments.export)
            print(f"{count} epochs: {arguments.export}")
        else:
            name = ", ".join(folder.resolve().name for folder in arguments.folders)
            output = arguments.output or arguments.folders[0]
            recorded = read(arguments.folders)
            files = write_report(recorded, name, output, show_test=arguments.test, pictures=arguments.pictures)
            print("\n".join(str(file) for file in files))
    except (UserError, OSError) as error:
        print(error_screen(str(error)), file=sys.stderr)
        sys.exit(2)


def compare(folders: list[Path], first: str, second: str) -> None:
    results = analyse(read(folders).runs)
    sides = []
    for text in (first, second):
        pairs = [part.partition("=") for part in text.split(",")]
        if not all(equals for _, equals, _ in pairs):
            raise UserError(f"--compare {text}: name options as setting=value, joined by commas")
        sides.append(results.best(results.matching({key: value for key, _, value in pairs})))
    print("\n".join(f"  {line}" for line in comparison_lines(results, *sides)))


if __name__ == "__main__":
    main()

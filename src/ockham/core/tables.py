"""Tables as csv that a spreadsheet shows and does not run."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

#: A spreadsheet takes a text that begins with one of these for a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def csv_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """A line of names, and one a row. Texts that would be formulas get a leading quote, as spreadsheets themselves write it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([plain_cell(name) for name in head])
    writer.writerows([plain_cell(value) for value in row] for row in rows)
    return text.getvalue().encode()


def plain_cell(value: Any) -> Any:
    """The value of a cell; a text that a spreadsheet would calculate, quoted. Numbers stay, negative ones too."""
    if not isinstance(value, str) or not value.startswith(FORMULA_STARTS):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value

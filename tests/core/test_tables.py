"""Tables as csv, read back by Python's own reader."""

import csv
import io

import pytest

from ockham.core.tables import csv_table, plain_cell


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-x", "@SUM(A1)", "\t=1", "\r=1", "=-0.5", "--1"])
def test_a_formula_becomes_a_text(text: str) -> None:
    assert plain_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["-0.5", "+3", "-1e-3", "-inf", "adam", "", "[-1,2]", " =1", "1-2", -0.5, None, True])
def test_numbers_and_other_texts_stay(value: object) -> None:
    assert plain_cell(value) is value


def test_a_table_is_read_back_as_it_was() -> None:
    rows = [["a,b", 'say "x"', -1.5, "two\nlines"], ["=x", "", 0, None]]
    written = csv_table(["name", "@head", "number", "text"], rows).decode()
    assert list(csv.reader(io.StringIO(written))) == [
        ["name", "'@head", "number", "text"],
        ["a,b", 'say "x"', "-1.5", "two\nlines"],
        ["'=x", "", "0", ""],
    ]

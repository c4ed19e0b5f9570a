"""Parts of a report, whatever it is written as: text, a table, a figure; and how numbers are shown in them."""

import math
from dataclasses import dataclass, field

from ockham.core.statistics import LEVEL, Comparison, bounded, smallest_sign_flip_p
from ockham.report.analysis import Configuration
from ockham.report.drawing import Figure

NOTHING = "\u2013"


@dataclass(frozen=True)
class Cell:
    """`links` are parts of the text, in their order, each with its address."""

    text: str
    links: tuple[tuple[str, str], ...] = ()
    long: bool = False


@dataclass(frozen=True)
class Table:
    head: tuple[str, ...]
    rows: list[list[Cell]]


@dataclass(frozen=True)
class Picture:
    """A PNG inside the page."""

    title: str
    base64: str


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
    pictures: list[Picture] = field(default_factory=list)


def shown_p_values(comparison: Comparison) -> str:
    """The p that decides, and beside it that of the test without assumptions, with its bound where that decides nothing."""
    smallest = smallest_sign_flip_p(comparison.n)
    bound = f" (with {comparison.n} pairs never below {smallest:.2g})" if smallest >= LEVEL else ""
    return f"paired t p {shown_number(comparison.p, '.3g')}, sign-flip p {shown_number(comparison.sign_flip_p, '.3g')}{bound}"


def shown_number(value: float, form: str) -> str:
    return f"{value:{form}}" if math.isfinite(value) else NOTHING


def shown_difference(comparison: Comparison) -> str:
    interval = f" [{comparison.low:+.4f}, {comparison.high:+.4f}]" if math.isfinite(comparison.low) else ""
    return f"{shown_number(comparison.mean, '+.4f')}{interval}"


def shown_interval(configuration: Configuration, name: str) -> str:
    interval = configuration.interval(name)
    low, high = bounded(interval) if name.endswith("/acc") else interval
    return f"{low:.4f} to {high:.4f}" if math.isfinite(low) else NOTHING

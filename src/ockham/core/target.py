"""A target: what a score has to come to, and when a run first got there. Plain Python, so that the command line can ask."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ockham.core.selection import maximised

#: What a target may name: what is measured at every evaluation. The test set is not.
QUANTITIES = ("val/acc", "val/loss", "train/acc", "train/loss")

MEANING = "a score with what it has to come to, as in 'val/acc>=0.95', or for a loss 'val/loss<=0.2'"


@dataclass(frozen=True)
class Target:
    """`quantity` at `threshold` or better."""

    quantity: str
    threshold: float

    def is_met(self, scalars: Mapping[str, float]) -> bool:
        """Whether an evaluation meets it; one that is not a number never does."""
        value = scalars[self.quantity]
        return value >= self.threshold if maximised(self.quantity) else value <= self.threshold

    def first(self, evaluations: Iterable[Mapping[str, float]]) -> int | None:
        """The position of the first evaluation that meets it; None where none does."""
        return next((position for position, scalars in enumerate(evaluations) if self.is_met(scalars)), None)

    def __str__(self) -> str:
        return f"{self.quantity}{'>=' if maximised(self.quantity) else '<='}{self.threshold:g}"


def parse_target(text: str) -> Target:
    """The target that `val/acc>=0.95` or `val/loss<=0.2` names.

    Raises ValueError for anything else, for a bound on the side that every run is on from the beginning, and for one that none
    can come to.
    """
    match = re.fullmatch(r"\s*([a-z]+/[a-z]+)\s*(>=|<=)\s*(\S+)\s*", text)
    if match is None or match[1] not in QUANTITIES:
        raise ValueError(f"{MEANING}; the scores are {', '.join(QUANTITIES)}")
    quantity, sign, threshold = match[1], match[2], _number(match[3])
    if (sign == ">=") != maximised(quantity):
        raise ValueError(f"{MEANING}: {'an accuracy rises to it' if maximised(quantity) else 'a loss falls to it'}")
    if not (0 < threshold < math.inf) or (maximised(quantity) and threshold > 1):
        raise ValueError(f"{MEANING}: {'above 0, and at most 1' if maximised(quantity) else 'a number above 0'}")
    return Target(quantity, threshold)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan

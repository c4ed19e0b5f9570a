"""Which weights a run is judged by, from its history on the validation split. Plain Python, no tensors."""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Criterion(NamedTuple):
    """What an evaluation is selected by: the objective on the validation split, and the loss that breaks ties."""

    objective: float
    val_loss: float


def maximised(objective: str) -> bool:
    """Whether more of this quantity is better: accuracies are maximised, losses minimised."""
    return objective.endswith("/acc")


def cost(criterion: Criterion, *, maximise: bool) -> tuple[float, float]:
    """The criterion as a pair to be minimised; what is not a number is worst."""
    signed = -criterion.objective if maximise else criterion.objective
    values = (signed, criterion.val_loss)
    return tuple(math.inf if math.isnan(value) else value for value in values)  # type: ignore[return-value]


def best_position(history: Sequence[Criterion], *, maximise: bool) -> int:
    """Index of the best evaluation: the best objective, then the lower validation loss, then the earlier one."""
    return min(range(len(history)), key=lambda position: cost(history[position], maximise=maximise))


def improvements(values: Sequence[float], *, min_delta: float) -> list[bool]:
    """For each value of a sequence to be minimised: is it below the best so far by more than `min_delta`?"""
    best, improved = math.inf, []
    for value in values:
        improved.append(value < best - min_delta)
        if improved[-1]:
            best = value
    return improved

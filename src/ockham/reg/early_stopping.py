"""Ending a run by its validation history."""

from collections.abc import Sequence

from ockham.core.selection import improvements
from ockham.reg.base import Regularizer


class EarlyStopping(Regularizer):
    """Stop after `patience` epochs in a row that do not improve the objective by more than `min_delta`.

    yaml: `reg=early_stopping`. The weights that a run is judged by are those of its best epoch anyway
    (Prechelt 1998, Early Stopping - But When?).
    """

    def __init__(self, patience: int, *, min_delta: float = 0.0) -> None:
        self.patience = patience
        self.min_delta = min_delta

    def stop(self, history: Sequence[float]) -> bool:
        recent = improvements(history, min_delta=self.min_delta)[-self.patience :]
        return len(recent) == self.patience and not any(recent)

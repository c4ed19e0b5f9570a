"""Where a group of runs stands while it trains: a small file beside its checkpoint, for the process that sweeps.

That process would otherwise read the epochs of all members again and again.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ockham.core.selection import cost
from ockham.record.folder import write_json

if TYPE_CHECKING:
    from ockham.record.ledger import Ledger  # which imports torch: whoever reads the file does without it

FILE = "progress.json"


@dataclass(frozen=True)
class GroupProgress:
    """The epoch, from 1, of the last evaluation, of how many; members that still train; the best objective so far, and the
    folder of its run.
    """

    epoch: int
    num_epochs: int
    training: int
    best: float | None
    best_run: str | None

    @classmethod
    def of(cls, ledgers: Sequence["Ledger"], epoch: int) -> "GroupProgress":
        """Of the members with these records, after an epoch. A run that diverged has no objective."""
        run = ledgers[0].run
        objectives = {
            ledger.folder.path.name: ledger.history[ledger.best_row - 1]
            for ledger in ledgers
            if ledger.best_row and ledger.verdict != "diverged"
        }
        best = min(objectives, key=lambda name: cost(objectives[name], maximise=run.maximise), default=None)
        return cls(
            epoch=epoch,
            num_epochs=run.num_epochs,
            training=sum(not ledger.has_ended for ledger in ledgers),
            best=None if best is None else objectives[best].objective,
            best_run=best,
        )

    def write(self, folder: Path) -> None:
        write_json(folder / FILE, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "GroupProgress | None":
        """None where a group has not ended an epoch, and where its file does not hold what `write` writes."""
        try:
            progress = cls(**json.loads((folder / FILE).read_text()))
        except (OSError, ValueError, TypeError):
            return None
        counts = (progress.epoch, progress.num_epochs, progress.training)
        is_whole = all(type(count) is int for count in counts)
        return progress if is_whole and isinstance(progress.best, float | int | None) else None

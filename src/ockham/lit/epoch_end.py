"""What happens after an epoch that Lightning has trained."""

import time

import pytorch_lightning as pl

from ockham.lit.module import Classifier
from ockham.record.cost import synchronize
from ockham.record.ledger import EpochResult, Ledger, Verdict, close_epoch


class EpochEnd(pl.Callback):
    """Measures the epoch and closes it in the ledger of rank 0, whose verdict counts on all devices."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def on_train_epoch_start(self, trainer: pl.Trainer, module: Classifier) -> None:  # type: ignore[override]
        self.started = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Classifier) -> None:  # type: ignore[override]
        trainer.strategy.barrier()
        synchronize(module.device)
        seconds = time.monotonic() - self.started
        scalars = module.finish_epoch()
        verdict: Verdict = "continue"
        if trainer.is_global_zero:
            result = EpochResult(module.finished_steps, module.worked_samples, scalars, seconds)
            (verdict,) = close_epoch([self.ledger], [result], [module])
        # Rank 0 judges alone: what the peers of a sweep have written changes from moment to moment.
        verdict = trainer.strategy.broadcast(verdict)
        trainer.should_stop = verdict != "continue"
        if trainer.is_global_zero and verdict == "continue":
            self.ledger.save_when_due(module)

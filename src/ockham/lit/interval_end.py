"""What happens after an interval, which Lightning takes for an epoch."""

import time

import pytorch_lightning as pl

from ockham.lit.module import Classifier
from ockham.record.cost import synchronize
from ockham.record.ledger import IntervalResult, Ledger, Verdict, close_interval


class IntervalEnd(pl.Callback):
    """Measures the interval and closes it in the ledger of rank 0, whose verdict counts on all devices."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def on_train_epoch_start(self, trainer: pl.Trainer, module: Classifier) -> None:  # type: ignore[override]
        self.started = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Classifier) -> None:  # type: ignore[override]
        trainer.strategy.barrier()
        synchronize(module.device)
        seconds = time.monotonic() - self.started
        scalars = module.finish_interval()
        verdict: Verdict = "continue"
        if trainer.is_global_zero:
            result = IntervalResult(module.finished_steps, module.worked_samples, scalars, seconds)
            (verdict,) = close_interval([self.ledger], [result], [module])
        # Rank 0 judges alone: what the peers of a sweep have written changes from moment to moment.
        verdict = trainer.strategy.broadcast(verdict)
        trainer.should_stop = verdict != "continue"
        if trainer.is_global_zero and verdict == "continue":
            self.ledger.save_when_due(module)

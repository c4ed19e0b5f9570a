"""The record of a run, written as it goes."""

import time
from collections.abc import Callable, Sequence

import pytorch_lightning as pl

from ockham.lit.module import Classifier
from ockham.record.checkpoint import Checkpoint
from ockham.record.cost import peak_memory_bytes
from ockham.record.events import EventWriter
from ockham.record.folder import RunFolder, divergence

#: Runs continue bit for bit from any checkpoint, so that short epochs need not write one each.
SECONDS_BETWEEN_CHECKPOINTS = 1.0


class Recorder(pl.Callback):
    """Writes metrics.csv, TensorBoard scalars, cost.json and the checkpoints after epochs; ends a run that diverged."""

    def __init__(self, folder: RunFolder, events: EventWriter | None, prune: Callable[[Sequence[float]], bool] | None) -> None:
        self.folder = folder
        self.events = events
        self.prune = prune
        self.best: Checkpoint | None = None
        self.past_cost = folder.cost()
        self.train_seconds = 0.0
        self.first_samples = 0

    def on_train_start(self, trainer: pl.Trainer, module: Classifier) -> None:  # type: ignore[override]
        self.started = self.last_written = time.monotonic()
        self.first_samples = module.worked_samples

    def on_train_epoch_start(self, trainer: pl.Trainer, module: Classifier) -> None:  # type: ignore[override]
        self.epoch_started = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Classifier) -> None:  # type: ignore[override]
        trainer.strategy.barrier()
        seconds = time.monotonic() - self.epoch_started
        self.train_seconds += seconds
        scalars = module.finish_epoch()
        run, history = module.run, module.history
        diverged = divergence(scalars)
        done = module.finished_epochs == run.num_epochs or run.stops(history)
        # Rank 0 judges alone: what the peers of a sweep have written changes from moment to moment.
        pruned = trainer.strategy.broadcast(
            diverged is None and not done and self.prune is not None and self.prune(run.costs(history))
        )
        trainer.should_stop = diverged is not None or done or pruned
        if not trainer.is_global_zero:
            return
        self.folder.append_epoch(module.finished_epochs, module.finished_steps, scalars)
        if self.events is not None:
            throughput = {"samples_per_second": module.epoch_samples / seconds}
            self.events.epoch(module.finished_epochs, module.finished_steps, scalars | throughput)
        if diverged is not None:
            self._write_cost(module)
            self.folder.end("diverged", error=f"{diverged} after epoch {module.finished_epochs}")
            return
        if run.is_best(history):
            self.best = module.state(optimizer=False)
        if trainer.should_stop or time.monotonic() - self.last_written > SECONDS_BETWEEN_CHECKPOINTS:
            self._write(module)
        if pruned:
            self.folder.end("pruned")

    def _write(self, module: Classifier) -> None:
        """Checkpoints last: whatever they continue from is on disk before them."""
        if self.events is not None:
            self.events.flush()
        self._write_cost(module)
        if self.best is not None:
            self.best.save(self.folder.best_checkpoint)
            self.best = None
        module.state(optimizer=True).save(self.folder.last_checkpoint)
        self.last_written = time.monotonic()

    def _write_cost(self, module: Classifier) -> None:
        train_seconds = self.train_seconds + self.past_cost.get("train_seconds", 0.0)
        wall_seconds = time.monotonic() - self.started + self.past_cost.get("wall_seconds", 0.0)
        self.folder.write_cost(
            {
                "samples_per_second": (module.worked_samples - self.first_samples) / max(self.train_seconds, 1e-9),
                "train_seconds": train_seconds,
                "wall_seconds": wall_seconds,
                "peak_memory_bytes": max(peak_memory_bytes(module.device), self.past_cost.get("peak_memory_bytes", 0)),
            }
        )

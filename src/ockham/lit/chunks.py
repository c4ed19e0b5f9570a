"""The batches of an interval, from one evaluation to the next, handed to Lightning in chunks.

Lightning's work per batch costs more than a small model's optimizer step, so that what Lightning takes for a batch is a
chunk: the sample indices of many optimizer steps, which the module walks.
"""

from collections.abc import Iterator

import pytorch_lightning as pl
from torch import Tensor

from ockham.run import Run

STEPS_PER_CHUNK = 32


class Chunks:
    """An iterable over the chunks of the interval that comes next: tensors (samples of up to 32 steps,), each of one epoch."""

    def __init__(self, run: Run, *, finished_steps: int) -> None:
        self.run = run
        self.finished_steps = finished_steps

    def _chunks(self) -> list[Tensor]:
        run = self.run
        stretches = run.stretches(self.finished_steps, run.next_evaluation(self.finished_steps))
        return [chunk for stretch in stretches for chunk in stretch.split(STEPS_PER_CHUNK * run.step_size)]

    def __len__(self) -> int:
        return len(self._chunks())

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._chunks())


class ChunkModule(pl.LightningDataModule):
    """Hands the chunks to the Trainer; Lightning asks for them anew before every interval, its epoch."""

    def __init__(self, run: Run, *, finished_intervals: int) -> None:
        super().__init__()
        self.run = run
        self.finished_intervals = finished_intervals

    def train_dataloader(self) -> Chunks:
        assert self.trainer is not None
        intervals = self.finished_intervals + self.trainer.current_epoch
        return Chunks(self.run, finished_steps=intervals * self.run.interval)

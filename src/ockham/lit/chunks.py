"""The batches of an epoch, handed to Lightning in chunks.

Lightning's work per batch costs more than a small model's optimizer step, so that what Lightning takes for a batch is a
chunk: the sample indices of many optimizer steps, which the module walks.
"""

from collections.abc import Iterator

import pytorch_lightning as pl
from torch import Tensor

from ockham.run import Run

STEPS_PER_CHUNK = 32


class Chunks:
    """An iterable over the chunks of the epoch that comes next; each is a tensor (samples of up to 32 steps,)."""

    def __init__(self, run: Run, *, finished_epochs: int) -> None:
        self.run = run
        self.epoch = finished_epochs

    def _chunks(self) -> tuple[Tensor, ...]:
        return self.run.epoch_order(self.epoch).split(STEPS_PER_CHUNK * self.run.step_size)

    def __len__(self) -> int:
        return len(self._chunks())

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._chunks())


class ChunkModule(pl.LightningDataModule):
    """Hands the chunks to the Trainer; Lightning asks for them anew before every epoch."""

    def __init__(self, run: Run, *, finished_epochs: int) -> None:
        super().__init__()
        self.run = run
        self.finished_epochs = finished_epochs

    def train_dataloader(self) -> Chunks:
        assert self.trainer is not None
        return Chunks(self.run, finished_epochs=self.finished_epochs + self.trainer.current_epoch)

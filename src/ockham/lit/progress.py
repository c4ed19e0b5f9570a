"""How a run shows itself while it trains."""

import logging
import sys
import time
from typing import Any

import pytorch_lightning as pl
from tqdm import tqdm

from ockham.lit.module import Classifier

log = logging.getLogger("ockham")

SECONDS_BETWEEN_LINES = 2.0
SECONDS_BETWEEN_LOSSES = 0.5


class Progress(pl.Callback):
    """A bar with loss, accuracy and time left on a terminal; otherwise a line for an evaluation, at most one in two seconds."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.last_line = self.last_loss = 0.0
        self.postfix: dict[str, str] = {}

    def on_train_start(self, trainer: pl.Trainer, module: Classifier) -> None:  # type: ignore[override]
        if trainer.is_global_zero and sys.stderr.isatty():
            total = module.run.total_steps
            self.bar = tqdm(total=total, initial=module.finished_steps, unit=" steps", dynamic_ncols=True, leave=False)
            self.num_epochs = module.run.num_epochs

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: pl.Trainer, module: Classifier, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.bar is None:
            return
        epoch = module.run.epoch_of(module.finished_steps)
        self.bar.set_description(f"epoch {epoch}/{self.num_epochs}", refresh=False)
        if time.monotonic() - self.last_loss > SECONDS_BETWEEN_LOSSES:  # reading it makes a GPU wait
            self.last_loss = time.monotonic()
            self.postfix["loss"] = f"{float(module.objective_sum) / module.interval_samples:.4f}"
            self.bar.set_postfix(self.postfix, refresh=False)
        self.bar.update(module.finished_steps - self.bar.n)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Classifier) -> None:  # type: ignore[override]
        if not trainer.is_global_zero:
            return
        scalars = module.scalars
        self.postfix |= {"val loss": f"{scalars['val/loss']:.4f}", "val acc": f"{scalars['val/acc']:.4f}"}
        run, step = module.run, module.finished_steps
        last = step == run.total_steps
        epoch = f"epoch {run.epoch_of(step)}/{run.num_epochs}"
        if self.bar is not None:
            self.bar.set_postfix(self.postfix)
        elif last or time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            log.info(
                "%s  objective %.4f  train loss %.4f acc %.4f  val loss %.4f acc %.4f  lr %.3g",
                epoch if run.settings.evaluate_every is None else f"{epoch} step {step}/{run.total_steps}",
                scalars["train/objective"],
                scalars["train/loss"],
                scalars["train/acc"],
                scalars["val/loss"],
                scalars["val/acc"],
                scalars["lr"],
            )

    def teardown(self, trainer: pl.Trainer, module: Classifier, stage: str) -> None:  # type: ignore[override]
        if self.bar is not None:
            self.bar.close()

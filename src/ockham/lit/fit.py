"""Training a run with Lightning's Trainer."""

import logging
import os
import warnings
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.plugins.environments import LightningEnvironment

from ockham.lit.chunks import ChunkModule
from ockham.lit.interval_end import IntervalEnd
from ockham.lit.module import Classifier
from ockham.lit.progress import Progress
from ockham.record.checkpoint import Checkpoint
from ockham.record.ledger import Ledger
from ockham.run import Run


def fit(run: Run, ledger: Ledger, checkpoint: Checkpoint | None, *, callbacks: Sequence[pl.Callback] = ()) -> None:
    """Train from the checkpoint on until the ledger ends the run.

    With several devices this is called in one process per device, each told its place by the variables of torchrun.
    """
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning sets it for the sake of forked processes, of which there are none here. With it every step of Adam looks
    # for a GPU through the driver's library, which takes a fifth of a millisecond where there is none.
    os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
    module = Classifier(run, checkpoint)
    trainer = _trainer(run, module, [IntervalEnd(ledger), Progress(), *callbacks])
    chunks = ChunkModule(run, finished_intervals=len(module.history))
    with warnings.catch_warnings():
        # Lightning 2.6 walks our chunks with a part of torch that torch 2.14 calls old.
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        try:
            trainer.fit(module, datamodule=chunks)
        except SystemExit as stop:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from stop


def _trainer(run: Run, module: Classifier, callbacks: list[pl.Callback]) -> pl.Trainer:
    settings = run.settings
    cuda = settings.accelerator == "cuda"
    distributed: dict[str, Any] = {"strategy": "ddp", "sync_batchnorm": cuda} if settings.devices > 1 else {}
    if not distributed:
        # A single process, also inside a Slurm job whose variables would make Lightning look for others.
        distributed = {"plugins": [LightningEnvironment()]}
    return pl.Trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        precision=settings.precision,  # type: ignore[arg-type]
        max_epochs=run.num_evaluations - len(module.history),  # of Lightning, which are our intervals
        callbacks=callbacks,
        # Exact repetition is promised; on CPU all operations in use are deterministic as they are.
        deterministic=cuda,
        benchmark=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        log_every_n_steps=1,
        **distributed,
    )

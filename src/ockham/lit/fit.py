"""Executing an run with Lightning's Trainer."""

import logging
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.plugins.environments import LightningEnvironment

from ockham.lit.chunks import ChunkModule
from ockham.lit.module import Classifier
from ockham.lit.progress import Progress
from ockham.lit.recorder import Recorder
from ockham.record.checkpoint import Checkpoint
from ockham.record.events import EventWriter
from ockham.record.folder import RunFolder
from ockham.run import Run


def fit(
    run: Run,
    folder: RunFolder,
    checkpoint: Checkpoint | None,
    *,
    events: EventWriter | None,
    prune: Callable[[Sequence[float]], bool] | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> None:
    """Train to the end, or until a regularizer stops the run or a number is no longer finite; the record is in `folder`.

    `events` takes the scalars of every epoch; None leaves TensorBoard out. `prune` is asked after each epoch with the
    objectives so far, to be minimised, whether the run is to end as pruned.
    With several devices this is called in one process per device, each told its place by the variables of torchrun.
    """
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning sets it for the sake of forked processes, of which there are none here. With it every step of Adam looks
    # for a GPU through the driver's library, which takes a fifth of a millisecond where there is none.
    os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
    module = Classifier(run, checkpoint)
    if module.finished_epochs >= run.num_epochs or run.stops(module.history):
        return
    trainer = _trainer(run, module, [Recorder(folder, events, prune), Progress(), *callbacks])
    chunks = ChunkModule(run, finished_epochs=module.finished_epochs)
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
        max_epochs=run.num_epochs - module.finished_epochs,
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

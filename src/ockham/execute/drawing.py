"""The pictures of a run that is finished."""

from pathlib import Path

import torch
from omegaconf import DictConfig

from ockham import build
from ockham.core.metrics import logits_of
from ockham.data import Normalize
from ockham.record.checkpoint import Checkpoint
from ockham.record.events import write_pictures
from ockham.record.final import final_pictures
from ockham.record.folder import RunFolder
from ockham.run import memory_format_of


def draw(config: DictConfig, folder: RunFolder, events: Path) -> None:
    """The final pictures of a finished run into the folder `events`: runs of a sweep are not drawn, but its best one is."""
    best = Checkpoint.load(folder.best_checkpoint)
    input_spec, test = best.input, build.splits_of(config).test
    model = build.trained_model(config, input_spec, best.model)
    normalize = Normalize(input_spec.mean, input_spec.std, input_spec.shape)
    normalize.for_model(next(model.parameters()).dtype, memory_format_of(model), torch.device("cpu"))
    logits = logits_of(model, test, normalize)
    write_pictures(events, final_pictures(model, input_spec, test, logits), int(folder.metrics()["steps"]))

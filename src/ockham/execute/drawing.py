"""The pictures of a run that is finished."""

from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from ockham import build
from ockham.core.metrics import logits_of
from ockham.data import InputSpec, Normalize, Split
from ockham.record.checkpoint import best_checkpoint
from ockham.record.events import write_pictures
from ockham.record.final import final_pictures
from ockham.record.folder import RunFolder
from ockham.run import memory_format_of

#: Of the pictures that stand side by side in a page.
DOTS_PER_INCH = 60


def draw(config: DictConfig, folder: RunFolder, events: Path) -> None:
    """The final pictures of a finished run into the folder `events`: runs of a sweep are not drawn, but its best one is."""
    model, input_spec, test, logits = _judged(config, folder, "test")
    write_pictures(events, final_pictures(model, input_spec, test, logits), int(folder.metrics()["steps"]))


def save_pictures(config: DictConfig, folder: RunFolder, target: Path) -> None:
    """What the selected weights of a finished run look like, and which images they miss most, as PNG into the folder `target`.

    The images are those of validation: where several configurations are looked at side by side, nobody should choose by test.
    """
    from ockham.record import pictures  # late: Matplotlib is no part of training

    model, input_spec, val, logits = _judged(config, folder, "val")
    target.mkdir(parents=True, exist_ok=True)
    filters = pictures.first_filters(model, input_spec.shape)
    if filters is not None:
        filters.savefig(target / "first_layer.png", dpi=DOTS_PER_INCH)
    wrong = pictures.confidently_wrong(logits, val, input_spec.classes, number=16, name="validation")
    wrong.savefig(target / "confidently_wrong.png", dpi=DOTS_PER_INCH)


def _judged(config: DictConfig, folder: RunFolder, name: str) -> tuple[nn.Module, InputSpec, Split, Tensor]:
    """The model of a finished run with its selected weights, what its input is, a split and its logits (N, C) of that."""
    best = best_checkpoint(folder, config)
    split = build.splits_of(config).named()[name]
    model = build.trained_model(config, best.input, best.model)
    normalize = Normalize(best.input.mean, best.input.std, best.input.shape)
    normalize.for_model(next(model.parameters()).dtype, memory_format_of(model), torch.device("cpu"))
    return model, best.input, split, logits_of(model, split, normalize)

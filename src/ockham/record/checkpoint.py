"""Checkpoints: tensors and plain containers only, so that reading one runs no code.

last.ckpt holds everything that training continues from, at the end of an epoch; nothing random is in it (see rng.py).
best.ckpt holds the weights that the run is judged by, and what is needed to use them without the data set.
"""

import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ockham.core.files import write_atomic
from ockham.core.selection import Outcome
from ockham.errors import UserError

FORMAT = 1


@dataclass(frozen=True)
class InputSpec:
    """What a model takes and says: the shape of an input, mean and std per channel, the names of the classes."""

    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after `epoch` epochs and `step` optimizer steps, which worked on `samples` samples.

    `history` holds the outcome of every epoch on validation; `optimizer` is None in best.ckpt.
    """

    epoch: int
    step: int
    samples: int
    history: list[Outcome]
    model: dict[str, Tensor]
    optimizer: dict[str, Any] | None
    input: InputSpec

    def save(self, path: Path) -> None:
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        content["history"] = [list(outcome) for outcome in self.history]
        content["input"] = {key: list(value) for key, value in asdict(self.input).items()}
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, **content}, buffer)
        write_atomic(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path, *, device: torch.device | str = "cpu") -> "Checkpoint":
        """Raises UserError where the file is absent, damaged, of another format, or holds more than data."""
        if not path.exists():
            raise UserError(f"{path} does not exist: the run has not reached the end of an epoch")
        try:
            content = torch.load(path, map_location=device, weights_only=True)
            if content["format"] != FORMAT:
                raise UserError(f"format {content['format']}, expected {FORMAT}")
            return cls(
                epoch=content["epoch"],
                step=content["step"],
                samples=content["samples"],
                history=[Outcome(*pair) for pair in content["history"]],
                model=content["model"],
                optimizer=content["optimizer"],
                input=InputSpec(**{key: tuple(value) for key, value in content["input"].items()}),
            )
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{path} is not a checkpoint of Ockham: {reason}") from error

"""A run in TensorBoard: scalars against optimizer steps, their layout, hyperparameters, pictures."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

#: Train and val in one chart each, in the tab "Custom Scalars".
LAYOUT = {
    "train and val": {
        "loss": ["Multiline", ["train/loss", "val/loss"]],
        "accuracy": ["Multiline", ["train/acc", "val/acc"]],
        "gap": ["Multiline", ["gap/loss", "gap/acc"]],
    },
    "weights": {
        "penalty": ["Multiline", ["penalty"]],
        "norm": ["Multiline", ["weight_norm"]],
        "zero fraction": ["Multiline", ["zero_fraction"]],
    },
}

#: Shown beside the settings in the tab "HParams". Tags that no curve uses: a curve would show its last value there.
HPARAM_METRICS = ("objective", "test/acc", "test/loss")


class EventWriter:
    """Appends to the event files of a run folder."""

    def __init__(self, path: Path, *, purge_step: int | None = None) -> None:
        """`purge_step`: events of earlier attempts from this step on are void."""
        self._writer = SummaryWriter(str(path), purge_step=purge_step)

    def scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        for tag, value in scalars.items():
            self._writer.add_scalar(tag, value, step)

    def announce(self, settings: Mapping[str, str | float | bool]) -> None:
        """Lay out the charts, and tell the HParams tab of the run before it is finished: it may be killed."""
        self._writer.add_custom_scalars(LAYOUT)
        experiment, start, _ = hparams(dict(settings), dict.fromkeys(HPARAM_METRICS, 0.0))
        self._writer.file_writer.add_summary(experiment)
        self._writer.file_writer.add_summary(start)

    def finish(self, settings: Mapping[str, str | float | bool]) -> None:
        *_, end = hparams(dict(settings), dict.fromkeys(HPARAM_METRICS, 0.0))
        self._writer.file_writer.add_summary(end)

    def picture(self, tag: str, figure: Figure, step: int) -> None:
        self._writer.add_figure(tag, figure, step, close=False)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

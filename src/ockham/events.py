"""A run in TensorBoard: scalars against optimizer steps, their layout, hyperparameters, pictures."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch.utils.tensorboard import SummaryWriter

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
    """Writes what TensorBoard shows of one attempt at a run, in one event file that is opened with its first scalar.

    One file, since TensorBoard reads files in the order of their names, which within a second is not that of writing.
    """

    def __init__(self, folder: Path, hparams: Mapping[str, str | float | bool], *, past_step: int) -> None:
        """`hparams` as the HParams tab shows them; what earlier attempts wrote after `past_step` is void."""
        self._folder = folder
        self._hparams = dict(hparams)
        self._past_step = past_step
        self._writer: SummaryWriter | None = None

    def _opened(self) -> "SummaryWriter":
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # late: it takes its time, the first step comes first

            earlier = [int(file.name.split(".")[3]) for file in self._folder.glob("events.out.tfevents.*")]
            while earlier and int(time.time()) <= max(earlier):
                time.sleep(0.05)  # so that the name sorts behind those of earlier attempts
            self._writer = SummaryWriter(str(self._folder), purge_step=self._past_step + 1 if earlier else None)
            if not self._past_step:
                self._announce(self._writer)
        return self._writer

    def _announce(self, writer: "SummaryWriter") -> None:
        """Lay out the charts, and tell the HParams tab of the run before it is finished: it may be killed."""
        writer.add_custom_scalars(LAYOUT)
        experiment, start, _ = self._hparam_summaries()
        writer.file_writer.add_summary(experiment)
        writer.file_writer.add_summary(start)

    def _hparam_summaries(self) -> Any:
        from torch.utils.tensorboard.summary import hparams

        return hparams(self._hparams, dict.fromkeys(HPARAM_METRICS, 0.0))

    def scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        writer = self._opened()
        for tag, value in scalars.items():
            writer.add_scalar(tag, value, step)

    def picture(self, tag: str, figure: "Figure", step: int) -> None:
        self._opened().add_figure(tag, figure, step, close=False)

    def finish(self) -> None:
        """Tell the HParams tab that the run has finished."""
        *_, end = self._hparam_summaries()
        self._opened().file_writer.add_summary(end)

    def flush(self) -> None:
        self._opened().flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

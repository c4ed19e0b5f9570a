"""A run in TensorBoard: scalars against optimizer steps, their layout, hyperparameters, pictures."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ockham.identity import computed
from ockham.schema import Content

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

#: Shown beside the settings in the tab "HParams": key of metrics.json -> tag. No curve has these tags: of a curve the tab would
#: show the last value, not that of the selected weights.
HPARAM_METRICS = {
    "objective": "objective",
    "val/acc": "selected/val/acc",
    "val/loss": "selected/val/loss",
}

#: The same of a run that stands alone. Among the runs of a sweep nobody should choose by the test set.
TEST_METRICS = {"test/acc": "test/acc", "test/loss": "test/loss"}

#: Groups of conf/ whose option is shown beside the settings; of `reg` all that are merged.
GROUPS = ("data", "augment", "model", "optimizer", "schedule")

#: Curves have no more points than this: a sweep of many long runs stays small.
MOST_POINTS = 500

Hparams = Mapping[str, str | float | bool]


def hparam_settings(content: Content, choices: Mapping[str, str]) -> dict[str, str | float | bool]:
    """The settings as the HParams tab takes them: numbers and flags as they are, lists as text, absent ones not at all.

    The option of each group (of `choices`) stands for its class, and all regularizers together are one setting, `none` where
    there is none: so that every run has them. A setting has one type in all runs, so that the tab can sort and filter by it.
    """
    names = {group: option for group, option in choices.items() if group in GROUPS}
    names["reg"] = "+".join(sorted(content.get("reg") or {})) or "none"
    hparams: dict[str, str | float | bool] = dict(names)
    for path, value in computed(content).items():
        if value is not None and not path.endswith("._target_"):
            keeps_its_type = isinstance(value, (int, float)) and path != "data.batch_size"  # which may be `full`
            hparams[path] = value if keeps_its_type else str(value)
    return hparams


class EventWriter:
    """Writes what TensorBoard shows of one attempt at a run, in one event file that is opened with its first scalar.

    One file, since TensorBoard reads files in the order of their names, which within a second is not that of writing.
    """

    def __init__(self, folder: Path, hparams: Hparams, *, past_step: int, num_rows: int = 1) -> None:
        """`hparams` as the HParams tab shows them; what earlier attempts wrote after `past_step` is void.

        Of `num_rows` evaluations only so many are written that a curve has no more than MOST_POINTS, the last among them.
        """
        self._every = -(-num_rows // MOST_POINTS)
        self._num_rows = num_rows
        self._folder = folder
        self._hparams = dict(hparams)
        self._past_step = past_step
        self._writer: SummaryWriter | None = None

    def _opened(self) -> "SummaryWriter":
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # late: it takes its time, the first step comes first

            self._folder.stat()  # raises where it was removed: the writer would make it anew
            continued = _set_back(self._folder)
            self._writer = SummaryWriter(str(self._folder), purge_step=self._past_step + 1 if continued else None)
            if not self._past_step:
                self._announce(self._writer)
        return self._writer

    def _announce(self, writer: "SummaryWriter") -> None:
        """Lay out the charts, and tell the HParams tab of the run before it is finished: it may be killed."""
        writer.add_custom_scalars(LAYOUT)
        start, _ = _session_summaries(self._hparams)
        writer.file_writer.add_summary(start)

    def row(self, number: int, step: int, scalars: Mapping[str, float]) -> None:
        """The scalars of an evaluation, from 1."""
        if number % self._every == 0 or number == self._num_rows:
            self.scalars(step, scalars)

    def scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """All in one record, and so in one write: on a file system of a network each takes its time."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._opened().file_writer.add_summary(Summary(value=values), step)

    def picture(self, tag: str, figure: "Figure", step: int) -> None:
        self._opened().add_figure(tag, figure, step, close=False)

    def finish(self) -> None:
        """Tell the HParams tab that the run has finished."""
        _, end = _session_summaries(self._hparams)
        self._opened().file_writer.add_summary(end)

    def flush(self) -> None:
        self._opened().flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _set_back(folder: Path) -> bool:
    """Give the event files of earlier attempts names of earlier seconds than this one, and say whether there are some.

    TensorBoard reads them in the order of their names. An attempt may have begun within this second, or the clock have been
    set back since.
    """
    seconds = {}
    for file in folder.glob("events.out.tfevents.*"):
        text = file.name.split(".")[3]
        if text.isdecimal():
            seconds[file] = int(text)
    late = max(seconds.values(), default=0) + 1 - int(time.time())
    if late > 0:
        for file, second in sorted(seconds.items(), key=lambda item: item[1]):  # so that none takes the name of another
            parts = file.name.split(".")
            parts[3] = f"{max(second - late, 0):010d}"
            file.replace(file.with_name(".".join(parts)))
    return bool(seconds)


def _session_summaries(hparams: Hparams) -> tuple[Any, Any]:
    """(session start, session end)"""
    from torch.utils.tensorboard.summary import hparams as summaries

    _, start, end = summaries(dict(hparams), {})  # the first would be a record of the experiment: see write_experiment
    return start, end


def write_experiment(folder: Path, hparams_of_runs: Sequence[Hparams], *, swept: Sequence[str]) -> None:
    """Tell the HParams tab of the runs below a folder which settings they have, all together, and which results.

    TensorBoard takes the first such record that it finds, so that there is one, in the folder itself, and none in the runs.
    It shows first what `differs`, in the order of the alphabet: swept settings and the seed. One that some runs do not have is
    left to be ticked, since the parallel coordinates drop every run with a blank in what they show.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.plugins.hparams import api_pb2, metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    infos = []
    known = dict.fromkeys(key for hparams in hparams_of_runs for key in hparams)
    for key in known:
        values = {hparams.get(key) for hparams in hparams_of_runs}
        is_text = any(isinstance(value, str) for value in values)
        kind = api_pb2.DATA_TYPE_STRING if is_text else api_pb2.DATA_TYPE_FLOAT64
        infos.append(api_pb2.HParamInfo(name=key, type=kind, differs=key in swept and None not in values))
    metrics = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in HPARAM_METRICS.values()]
    experiment = api_pb2.Experiment(hparam_infos=infos, metric_infos=metrics)
    content = HParamsPluginData(experiment=experiment, version=metadata.PLUGIN_DATA_VERSION).SerializeToString()
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=content)
    value = Summary.Value(tag=metadata.EXPERIMENT_TAG, metadata=SummaryMetadata(plugin_data=plugin))
    _replace(folder, lambda writer: writer.file_writer.add_summary(Summary(value=[value])))


def write_mean(folder: Path, epochs: Sequence[Mapping[str, float]], hparams: Hparams, metrics: Mapping[str, float]) -> None:
    """An aggregated run: epochs with `step`, scalars, and `band/...` with the ends of their intervals; for the HParams tab its
    settings and final metrics.

    Mean and band are one chart in the tab "Custom Scalars", the first there.
    """
    bands = {name: ["Margin", [name, f"band/{name}/low", f"band/{name}/high"]] for name in ("val/acc", "val/loss")}

    def write(writer: "SummaryWriter") -> None:
        writer.add_custom_scalars({"mean and 95% interval over seeds": bands, **LAYOUT})
        start, end = _session_summaries(hparams)
        writer.file_writer.add_summary(start)
        for epoch in epochs:
            for tag, value in epoch.items():
                if tag != "step":
                    writer.add_scalar(tag, value, int(epoch["step"]))
        for name, tag in HPARAM_METRICS.items():
            writer.add_scalar(tag, metrics[name], int(epochs[-1]["step"]))
        writer.file_writer.add_summary(end)

    _replace(folder, write)


def write_pictures(folder: Path, pictures: Mapping[str, "Figure"], step: int) -> None:
    """A run of pictures by tag, in place of those that are there."""

    def write(writer: "SummaryWriter") -> None:
        for tag, figure in pictures.items():
            writer.add_figure(tag, figure, step, close=False)

    _replace(folder, write)


def _replace(folder: Path, write: Callable[["SummaryWriter"], object]) -> None:
    """One event file in the folder, in place of those that are there."""
    from torch.utils.tensorboard import SummaryWriter

    for file in folder.glob("events.out.tfevents.*"):
        file.unlink(missing_ok=True)  # another process that works on the sweep may have been faster
    with SummaryWriter(str(folder)) as writer:
        write(writer)

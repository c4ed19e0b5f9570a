"""The end of a run: its selected weights on all three splits, the test set for the first and only time."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from ockham.core.metrics import Scores, logits_of, scores
from ockham.data import Split
from ockham.record.checkpoint import Checkpoint, InputSpec
from ockham.record.cost import flops_per_sample
from ockham.record.events import HPARAM_METRICS, TEST_METRICS, EventWriter
from ockham.record.folder import FINAL_METRICS, RunFolder, gaps
from ockham.record.measure import weight_scalars
from ockham.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def finish(
    run: Run,
    folder: RunFolder,
    events: EventWriter | None,
    *,
    pictures: bool,
    evaluated: Mapping[str, Scores] | None = None,
) -> None:
    """Write metrics.json and, into `events`, the final figures and pictures; mark the run as finished.

    `evaluated` are the scores of the selected weights on train, val and test, where they are known already.
    """
    last, best = Checkpoint.load(folder.last_checkpoint), Checkpoint.load(folder.best_checkpoint)
    device = torch.device(run.settings.accelerator)
    dtype = next(weight.dtype for weight in best.model.values() if weight.is_floating_point())
    model = run.model.to(device=device, dtype=dtype)
    model.load_state_dict(best.model)
    normalize = run.normalize
    normalize.for_model(dtype, run.memory_format, device)
    splits = run.splits.to(device)
    logits = None
    if evaluated is None:
        logits = {name: logits_of(model, split.images, normalize) for name, split in splits.named().items()}
        evaluated = {name: scores(logits[name], split.labels) for name, split in splits.named().items()}
    measured: dict[str, float] = {}
    for name, (loss, acc) in evaluated.items():
        measured |= {f"{name}/loss": loss, f"{name}/acc": acc}
    measured |= gaps(measured)
    measured |= {
        "objective": measured[run.settings.objective],
        "best_epoch": best.epoch,
        "last_epoch": last.epoch,
        **weight_scalars(run.regularizers, model, splits.train.images, normalize),
        "parameters": run.num_parameters,
        "steps": last.step,
        "samples": last.samples,
        "flops": flops_per_sample(model, normalize.shape) * last.samples,
    }
    metrics = {key: measured[key] for key in FINAL_METRICS}
    if events is not None:
        shown = HPARAM_METRICS | (TEST_METRICS if pictures else {})  # in a sweep, test results invite choosing by them
        events.scalars(last.step, {tag: metrics[key] for key, tag in shown.items()})
        if pictures and logits is not None:
            for tag, figure in final_pictures(model, run.input, run.splits.test, logits["test"].cpu()).items():
                events.picture(tag, figure, last.step)
        events.finish()
    folder.write_metrics(metrics)
    folder.end("finished")


def final_pictures(model: torch.nn.Module, spec: InputSpec, test: Split, logits: torch.Tensor) -> dict[str, "Figure"]:
    """The final pictures by their tags in TensorBoard; `logits` (N, C) are those of the test images."""
    from ockham.record import pictures  # late: Matplotlib is no part of training

    drawn = {
        "test/confusion": pictures.confusion(logits.argmax(dim=1), test.labels, spec.classes),
        "test/confidently_wrong": pictures.confidently_wrong(logits, test, spec.classes),
    }
    filters = pictures.first_filters(model, spec.shape)
    return drawn if filters is None else {**drawn, "model/first_layer": filters}

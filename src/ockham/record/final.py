"""The figures of a run that has come to its end: its selected weights on its splits, the test set for the only time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ockham.core.measures import measured_finally
from ockham.core.metrics import calibration, logits_of, scores
from ockham.data import InputSpec, Split
from ockham.record.checkpoint import Row
from ockham.record.folder import FINAL_METRICS, TARGET_METRICS, gaps
from ockham.record.measure import weight_scalars
from ockham.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class FinalEvaluation:
    """A model with its selected weights, and its logits (N, C) of each split."""

    run: Run
    model: nn.Module
    logits_by_split: Mapping[str, Tensor]

    def metrics(self, selected: Row, last: Row, *, flops_per_sample: int, at_target: Row | None = None) -> dict[str, float]:
        """What metrics.json holds of a run with these rows; `at_target` is the one that first met its target, where one did."""
        run = self.run
        values: dict[str, float] = dict(selected.scalars)
        labels = {name: split.labels for name, split in run.splits.to(run.device).named().items()}
        for name, logits in self.logits_by_split.items():
            values[f"{name}/loss"], values[f"{name}/acc"] = scores(logits, labels[name], loss=run.settings.loss)
        if "calibration" in run.settings.measure and run.settings.test:
            values["test/ece"], values["test/nll"] = calibration(self.logits_by_split["test"], labels["test"])
        values |= gaps(values)
        values |= {
            "objective": values[run.settings.objective],
            "best_epoch": run.epoch_of(selected.step),
            "best_step": selected.step,
            "last_epoch": run.epoch_of(last.step),
            **weight_scalars(run.regularizers, self.model, run.splits.to(run.device).train, run.normalize),
            "parameters": run.num_parameters,
            "steps": last.step,
            "samples": last.samples,
            "flops": flops_per_sample * last.samples,
        }
        if at_target is not None:
            until = (at_target.step, at_target.samples, flops_per_sample * at_target.samples)
            values |= dict(zip(TARGET_METRICS, until, strict=True))
        keys = (*FINAL_METRICS, *measured_finally(run.settings.measure), *TARGET_METRICS)
        return {key: values[key] for key in keys if key in values}

    def pictures(self) -> dict[str, "Figure"]:
        """What is drawn of the test images; nothing where there are no logits of them."""
        if "test" not in self.logits_by_split:
            return {}
        return final_pictures(self.model, self.run.input, self.run.splits.test, self.logits_by_split["test"].cpu())


def evaluate(run: Run, weights: Mapping[str, Tensor], logits_by_split: Mapping[str, Tensor] | None = None) -> FinalEvaluation:
    """Put the weights into the run's model and evaluate it on its splits, where `logits_by_split` does not say its logits."""
    dtype = next(weight.dtype for weight in weights.values() if weight.is_floating_point())
    model = run.model.to(device=run.device, dtype=dtype)
    model.load_state_dict(weights)
    run.normalize.for_model(dtype, run.memory_format, run.device)
    if logits_by_split is None:
        splits = run.judged(run.splits.to(run.device))
        logits_by_split = {name: logits_of(model, split, run.normalize) for name, split in splits.items()}
    return FinalEvaluation(run, model, logits_by_split)


def final_pictures(model: nn.Module, input_spec: InputSpec, test: Split, logits: torch.Tensor) -> dict[str, "Figure"]:
    """The final pictures by their tags in TensorBoard; `logits` (N, C) are those of the test images."""
    from ockham.record import pictures  # late: Matplotlib is no part of training

    figures = {
        "test/confusion": pictures.confusion(logits.argmax(dim=1), test.labels, input_spec.classes),
        "test/confidently_wrong": pictures.confidently_wrong(logits, test, input_spec.classes),
    }
    filters = pictures.first_filters(model, input_spec.shape)
    return figures if filters is None else {**figures, "model/first_layer": filters}

"""What is measured on the weights of a run, after an epoch and at the end."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vjp

from ockham.core.curvature import largest_eigenvalue
from ockham.core.measures import measured_columns
from ockham.core.metrics import Images, calibration, evaluation_batch, evaluation_mode
from ockham.core.objective import LOSSES
from ockham.core.parameters import named_parameters, weight_norm, zero_fraction
from ockham.reg import Regularizer, total_penalty
from ockham.reg.single import activations_of, batch_penalties, targets, weight_penalties
from ockham.rng import generator
from ockham.run import Run

Prepare = Callable[[Tensor], Tensor]
Parameters = Mapping[str, Tensor]


def weight_scalars(regularizers: Sequence[Regularizer], model: nn.Module, images: Images, prepare: Prepare) -> dict[str, float]:
    """penalty, weight_norm and zero_fraction; penalties on outputs are taken over the first of `images` (N, C, H, W)."""
    parameters = named_parameters(model)
    return {
        "penalty": total_penalty(regularizers, model, images, prepare),
        "weight_norm": weight_norm(parameters),
        "zero_fraction": zero_fraction(parameters),
    }


class Measurements:
    """The columns of metrics.csv that a run has for its `measure`. Made while its model has the initial weights."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.columns = measured_columns(run.settings.measure)
        self.initial = _copied(run.model) if "weight_distance" in self.columns else {}
        self.begin()

    def begin(self) -> None:
        """Take the weights of the model for those that were measured last: where training begins, or continues."""
        self.before = _copied(self.run.model) if "update_norm" in self.columns else {}

    def scalars(
        self, *, step: int, images: Images, labels: Tensor, prepare: Prepare, val_logits: Tensor, val_labels: Tensor
    ) -> dict[str, float]:
        """What is measured after `step` steps on the run's model.

        `images` (N, C, H, W) with `labels` (N,) are the sample of the training split; val_logits (M, classes), val_labels (M,).
        """
        model, values = self.run.model, {}
        if "sharpness" in self.columns:
            values["sharpness"] = SmoothObjective(self.run, images, labels, prepare).sharpness(step)
        if "gradient_norm" in self.columns:
            values["gradient_norm"] = float(SmoothObjective(self.run, images, labels, prepare).gradient().norm())
        if "update_norm" in self.columns:
            values["update_norm"] = _distance(model, self.before)
            self.begin()
        if "weight_distance" in self.columns:
            values["weight_distance"] = _distance(model, self.initial)
        if "val/ece" in self.columns:
            values["val/ece"], values["val/nll"] = calibration(val_logits, val_labels)
        return values


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in named_parameters(model)}


@torch.no_grad()
def _distance(model: nn.Module, other: Parameters) -> float:
    """The Euclidean distance of all trainable parameters, biases too, from others."""
    return math.sqrt(sum(float((p.double() - other[name]).square().sum()) for name, p in named_parameters(model)))


class SmoothObjective:
    """What a run minimises, as a smooth function of its parameters: the mean loss of a sample of the training split with the
    targets and penalties of its regularizers, in evaluation mode.

    So it has no noise, no augmentation, and no penalty that proximal steps minimise; statistics of batch norm stay as they
    are. Batches of penalties on activations are the parts in which the sample is worked on.
    """

    def __init__(self, run: Run, images: Images, labels: Tensor, prepare: Prepare) -> None:
        """`images` (N, C, H, W) through `prepare` are what the model takes; their classes are `labels` (N,)."""
        self.run, self.images, self.labels, self.prepare = run, images, labels, prepare
        self.parameters = {name: parameter.detach() for name, parameter in named_parameters(run.model)}
        self.sizes = [parameter.numel() for parameter in self.parameters.values()]
        self.samples_at_once = evaluation_batch(run.model, next(iter(images.split(1))))

    def sharpness(self, step: int) -> float:
        """The largest eigenvalue of the Hessian at the model's weights, from a start that follows from (seed, step)."""
        chance = generator(self.run.settings.seed, "sharpness", step)
        start = torch.randn(sum(self.sizes), generator=chance, dtype=torch.float64).to(self.labels.device)
        return largest_eigenvalue(self.hessian_product, start)

    def gradient(self) -> Tensor:
        """(parameters,) in float64."""
        return self._summed(lambda part: grad(part)(self.parameters))

    def hessian_product(self, vector: Tensor) -> Tensor:
        """The Hessian times a vector (parameters,), in float64."""
        like = next(iter(self.parameters.values()))
        pieces = vector.to(like.dtype).split(self.sizes)
        direction = {name: piece.view_as(self.parameters[name]) for name, piece in zip(self.parameters, pieces, strict=True)}
        return self._summed(lambda part: vjp(grad(part), self.parameters)[1](direction)[0])

    def _summed(self, of_part: Callable[[Callable[[Parameters], Tensor]], Parameters]) -> Tensor:
        """The sum of what `of_part` gives for each part of the objective, by parameter, as one vector (parameters,)."""
        total = torch.zeros((), dtype=torch.float64, device=self.labels.device)
        with evaluation_mode(self.run.model):
            for part in self._parts():
                values = of_part(part)
                total = total + torch.cat([values[name].flatten() for name in self.parameters]).double()
        return total

    def _parts(self) -> Iterator[Callable[[Parameters], Tensor]]:
        """The terms of the objective, one for each part of the samples, as functions of the parameters."""
        parts = zip(self.images.split(self.samples_at_once), self.labels.split(self.samples_at_once), strict=True)
        for position, (images, labels) in enumerate(parts):
            yield partial(self._term, x=self.prepare(images), y=labels, with_parameter_penalties=position == 0)

    def _term(self, parameters: Parameters, *, x: Tensor, y: Tensor, with_parameter_penalties: bool) -> Tensor:
        """What the samples x (n, ...) with classes y (n,) add to the mean over all samples, and the penalties on weights."""
        run, weight = self.run, 1 / len(self.labels)
        target = targets(run.regularizers, y, len(run.splits.classes), x.dtype)
        with activations_of(run.model, run.regularizers) as activations:
            logits = functional_call(run.model, dict(parameters), (x,))
        loss = LOSSES[run.settings.loss](logits, target, weight=weight)
        for penalty in batch_penalties(run.regularizers, logits, activations):
            loss = loss + penalty * (weight * len(y))
        for penalty in weight_penalties(run.regularizers, list(parameters.items())) if with_parameter_penalties else []:
            loss = loss + penalty
        return loss

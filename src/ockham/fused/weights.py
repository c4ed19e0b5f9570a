"""One update of stacked weights."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ockham.core.clipping import Clipping
from ockham.fused.regularizers import Inputs, Regularization, StackedRegularizer, batch_noise, column
from ockham.optim.rules import Hyper, Rule, State


def update(
    rules: Sequence[Rule],
    regularization: Regularization,
    clipping: Clipping | None,
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    states: Sequence[State],
    averages: Sequence[Tensor],
    hypers: Sequence[Hyper],
    inputs: Inputs,
) -> Tensor:
    """One step of members with the same rules, in place: penalties in the loss, other changes of the gradient, decay, rule,
    proximal steps, projections and averages.

    The order is that of a single run. Each parameter (members, ...) has its rule with hyperparameters (members,), and its
    average where a member keeps any. Returns the penalties in the loss, (members,).
    """
    penalty, gradients = _penalized(regularization, parameters, gradients, inputs, like=hypers[0]["lr"])
    gradients = _transformed(regularization, gradients, inputs)
    if clipping is not None:
        gradients = clipping.stacked(gradients)
    gradients = _disturbed(regularization, gradients, inputs)
    for position, (rule, p, g, state, hyper) in enumerate(zip(rules, parameters, gradients, states, hypers, strict=True)):
        acting = _acting(regularization, p)
        h = {name: column(values, p) for name, values in hyper.items()}
        w = p
        for index, regularizer in acting:
            if regularizer.has("decay"):
                w = regularization.changed(index, "decay", inputs, w, hyper["lr"])
        w, new = rule.update(w, g, state, h)
        is_asked = any(regularizer.example.proximal for _, regularizer in acting)
        response = rule.response(new, h) if is_asked and not isinstance(rule.response, str) else h["lr"]
        for index, regularizer in acting:
            if regularizer.example.proximal:
                w = regularization.changed(index, "prox", inputs, w, response)
            if regularizer.has("project"):
                w = regularization.changed(index, "project", inputs, w)
        for index, regularizer in enumerate(regularization.stacked):
            if regularizer.has("after_step"):
                w, average = regularization.averaged(index, inputs, w, averages[position])
                averages[position].copy_(average)
        p.copy_(w)
        for name, value in new.items():
            state[name].copy_(value)
    return penalty


def _penalized(
    regularization: Regularization,
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    inputs: Inputs,
    *,
    like: Tensor,
) -> tuple[Tensor, list[Tensor]]:
    """(the penalties in the loss, (members,); the gradients with theirs)."""
    penalty, penalized = torch.zeros_like(like), []
    for p, g in zip(parameters, gradients, strict=True):
        for index, regularizer in _acting(regularization, p):
            if regularizer.in_loss:
                values, gradient = regularization.penalty_and_gradient(index, inputs, p)
                penalty, g = penalty + values, g + gradient
        penalized.append(g)
    return penalty, penalized


def _transformed(regularization: Regularization, gradients: Sequence[Tensor], inputs: Inputs) -> list[Tensor]:
    """The gradients that are clipped."""
    transformed = []
    for g in gradients:
        for index, regularizer in _acting(regularization, g):
            if regularizer.has("transform_gradient"):
                g = regularization.changed(index, "transform_gradient", inputs, g)
        transformed.append(g)
    return transformed


def _disturbed(regularization: Regularization, gradients: Sequence[Tensor], inputs: Inputs) -> list[Tensor]:
    """The gradients that the rules take."""
    disturbed = []
    for position, g in enumerate(gradients):
        for index, regularizer in _acting(regularization, g):
            if regularizer.has("disturb_gradient"):
                noise = batch_noise(inputs, "disturb_gradient", index, str(position))
                g = regularization.changed(index, "disturb_gradient", inputs, g, noise, inputs["coefficients"][str(index)])
        disturbed.append(g)
    return disturbed


def _acting(regularization: Regularization, parameter: Tensor) -> list[tuple[int, StackedRegularizer]]:
    """The regularizers that act on a parameter (members, ...) and its gradient, with their places."""
    return [
        (index, regularizer)
        for index, regularizer in enumerate(regularization.stacked)
        if parameter.ndim > 2 or regularizer.example.include_bias
    ]

"""One update of stacked weights."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ockham.fused.regularizers import Inputs, Regularization, column
from ockham.optim.rules import Hyper, Rule, State


def update(
    rules: Sequence[Rule],
    regularization: Regularization,
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    states: Sequence[State],
    hypers: Sequence[Hyper],
    inputs: Inputs,
) -> Tensor:
    """One step of members with the same rules, in place: penalties in the loss, decay, rule, proximal steps and projections.

    The order is that of a single run. Each parameter (members, ...) has its rule with hyperparameters (members,). Returns the
    penalties in the loss, (members,).
    """
    penalty = torch.zeros_like(hypers[0]["lr"])
    for rule, p, g, state, hyper in zip(rules, parameters, gradients, states, hypers, strict=True):
        acting = [
            (index, regularizer)
            for index, regularizer in enumerate(regularization.stacked)
            if p.ndim > 2 or regularizer.example.include_bias
        ]
        h = {name: column(values, p) for name, values in hyper.items()}
        w = p
        for index, regularizer in acting:
            if regularizer.in_loss:
                values, gradient = regularization.penalty_and_gradient(index, inputs, p)
                penalty, g = penalty + values, g + gradient
        for index, regularizer in acting:
            if regularizer.has("decay"):
                w = regularization.changed(index, "decay", inputs, w, hyper["lr"])
        w, new = rule.update(w, g, state, h)
        is_asked = any(regularizer.example.proximal for _, regularizer in acting)
        response = rule.response(new, h) if rule.response is not None and is_asked else h["lr"]
        for index, regularizer in acting:
            if regularizer.example.proximal:
                w = regularization.changed(index, "prox", inputs, w, response)
            if regularizer.has("project"):
                w = regularization.changed(index, "project", inputs, w)
        p.copy_(w)
        for name, value in new.items():
            state[name].copy_(value)
    return penalty

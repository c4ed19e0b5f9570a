"""Gradient descent, with momentum and with averaged weights."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Union

from ockham.optim.rules.rule import Hyper, Numbers, Rule, State, decayed, learning_rate, nothing, zeros

if TYPE_CHECKING:
    from torch import Tensor


def sgd(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    return p - h["lr"] * decayed(p, g, h), state


def momentum(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    """Heavy ball; the buffer starts as the first gradient, which a buffer of zeros gives as long as dampening is 0."""
    buffer = h["momentum"] * state["momentum_buffer"] + decayed(p, g, h)
    return p - h["lr"] * buffer, {"momentum_buffer": buffer}


def nesterov(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    g = decayed(p, g, h)
    buffer = h["momentum"] * state["momentum_buffer"] + g
    return p - h["lr"] * (g + h["momentum"] * buffer), {"momentum_buffer": buffer}


def momentum_response(state: Mapping[str, Any], h: Hyper) -> Union[float, "Tensor"]:
    """The buffer is a geometric series: at rest g / (1 - momentum), and g + momentum g / (1 - momentum) is the same."""
    return h["lr"] / (1 - h["momentum"])


def asgd_state(p: "Tensor") -> State:
    """The average, like the parameter (members, ...), and learning rate eta and weight mu of the coming step, (members,)."""
    import torch

    return {"ax": torch.zeros_like(p), "eta": p.new_zeros(len(p)), "mu": p.new_ones(len(p))}


def asgd_corrections(h: Numbers, counters: Numbers) -> dict[str, Any]:
    step = counters["step"]
    averaged = step - h["t0"]
    is_later = averaged > 1
    return {
        "first_eta": h["lr"] * (step == 1),
        "next_eta": h["lr"] / (1 + h["lambd"] * h["lr"] * step) ** h["alpha"],
        "next_mu": 1 / (averaged * is_later + (1 - is_later)),
    }


def asgd(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    """Polyak & Juditsky 1992, Acceleration of stochastic approximation by averaging; Bottou 2010 for the learning rate.

    As torch has it, a step takes the learning rate that the one before it has left.
    """
    column = (-1, *[1] * (p.ndim - 1))
    eta = state["eta"].view(column) + h["first_eta"]
    p = p * (1 - h["lambd"] * eta) - eta * decayed(p, g, h)
    average = state["ax"] + state["mu"].view(column) * (p - state["ax"])
    return p, {"ax": average, "eta": h["next_eta"].flatten(), "mu": h["next_mu"].flatten()}


def asgd_average(p: "Tensor", state: Mapping[str, Any], h: Hyper) -> "Tensor":
    return state["ax"]


_MOMENTUM_SETTINGS = {"lr": 1e-3, "momentum": 0.0, "weight_decay": 0.0}

SGD = Rule(sgd, learning_rate, zeros(), {"lr": 1e-3, "weight_decay": 0.0}, counters={}, count=nothing)
MOMENTUM = Rule(momentum, momentum_response, zeros("momentum_buffer"), _MOMENTUM_SETTINGS, counters={}, count=nothing)
NESTEROV = Rule(nesterov, momentum_response, zeros("momentum_buffer"), _MOMENTUM_SETTINGS, counters={}, count=nothing)
ASGD = Rule(
    asgd,
    "end in an average, in which no weight is exactly 0",
    asgd_state,
    {"lr": 1e-2, "lambd": 1e-4, "alpha": 0.75, "t0": 1e6, "weight_decay": 0.0},
    asgd_corrections,
    average=asgd_average,
)

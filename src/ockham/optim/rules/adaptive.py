"""Steps divided by a size of the gradients so far, without moments of first order."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ockham.optim.rules.rule import Hyper, Rule, State, decayed, zeros

if TYPE_CHECKING:
    from torch import Tensor


def adagrad(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    g = decayed(p, g, h)
    total = state["sum"] + g * g
    return p - h["lr"] * g / (total.sqrt() + h["eps"]), {"sum": total}


def adagrad_response(state: Mapping[str, Any], h: Hyper) -> "Tensor":
    return h["lr"] / (state["sum"].sqrt() + h["eps"])


def adadelta(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    g = decayed(p, g, h)
    square = h["rho"] * state["square_avg"] + (1 - h["rho"]) * g * g
    delta = (state["acc_delta"] + h["eps"]).sqrt() / (square + h["eps"]).sqrt() * g
    delta_avg = h["rho"] * state["acc_delta"] + (1 - h["rho"]) * delta * delta
    return p - h["lr"] * delta, {"square_avg": square, "acc_delta": delta_avg}


def adadelta_response(state: Mapping[str, Any], h: Hyper) -> "Tensor":
    return h["lr"] * (state["acc_delta"] + h["eps"]).sqrt() / (state["square_avg"] + h["eps"]).sqrt()


def rmsprop(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    g = decayed(p, g, h)
    square = h["alpha"] * state["square_avg"] + (1 - h["alpha"]) * g * g
    return p - h["lr"] * g / (square.sqrt() + h["eps"]), {"square_avg": square}


def rmsprop_response(state: Mapping[str, Any], h: Hyper) -> "Tensor":
    return h["lr"] / (state["square_avg"].sqrt() + h["eps"])


ADAGRAD = Rule(adagrad, adagrad_response, zeros("sum"), {"lr": 1e-2, "weight_decay": 0.0, "eps": 1e-10})
ADADELTA = Rule(
    adadelta,
    adadelta_response,
    zeros("square_avg", "acc_delta"),
    {"lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 0.0},
)
RMSPROP = Rule(rmsprop, rmsprop_response, zeros("square_avg"), {"lr": 1e-2, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0})

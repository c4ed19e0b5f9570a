"""Steps by the sign of a gradient, whose size counts for nothing."""

from typing import TYPE_CHECKING, Any

from ockham.optim.rules.rule import Hyper, Numbers, Rule, State, nothing, zeros

if TYPE_CHECKING:
    from torch import Tensor


def signsgd(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    """Bernstein et al. 2018, signSGD: Compressed Optimisation for Non-Convex Problems; with momentum it is their Signum."""
    buffer = h["momentum"] * state["momentum_buffer"] + (1 - h["momentum"]) * g
    return p * (1 - h["lr"] * h["weight_decay"]) - h["lr"] * buffer.sign(), {"momentum_buffer": buffer}


def lion(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    """Chen et al. 2023, Symbolic Discovery of Optimization Algorithms."""
    direction = (h["beta1"] * state["exp_avg"] + (1 - h["beta1"]) * g).sign()
    moment = h["beta2"] * state["exp_avg"] + (1 - h["beta2"]) * g
    return p * (1 - h["lr"] * h["weight_decay"]) - h["lr"] * direction, {"exp_avg": moment}


def rprop_corrections(h: Numbers, counters: Numbers) -> dict[str, Any]:
    return {"first_size": h["lr"] * (counters["step"] == 1)}


def rprop(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    """Riedmiller & Braun 1993; where the sign turns, the weight rests for a step (Igel & Hüsken 2003, iRprop-)."""
    agreement = g * state["prev"]
    turned = (agreement < 0).to(p.dtype)
    agreed = (agreement > 0).to(p.dtype)
    factor = 1 + agreed * (h["eta_plus"] - 1) + turned * (h["eta_minus"] - 1)
    size = (factor * state["step_size"] + h["first_size"]).clamp(h["step_size_min"], h["step_size_max"])
    g = (1 - turned) * g
    return p - size * g.sign(), {"prev": g, "step_size": size}


_REASON = "have a length of their own, whatever the size of the gradient"

SIGNSGD = Rule(
    signsgd,
    _REASON,
    zeros("momentum_buffer"),
    {"lr": 1e-3, "momentum": 0.0, "weight_decay": 0.0},
    counters={},
    count=nothing,
)
LION = Rule(
    lion, _REASON, zeros("exp_avg"), {"lr": 1e-4, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.0}, counters={}, count=nothing
)
RPROP = Rule(
    rprop,
    _REASON,
    zeros("prev", "step_size"),
    {"lr": 1e-2, "eta_minus": 0.5, "eta_plus": 1.2, "step_size_min": 1e-6, "step_size_max": 50.0},
    rprop_corrections,
)

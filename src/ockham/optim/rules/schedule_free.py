"""Defazio et al. 2024, The Road Less Scheduled: an average of weights in place of a schedule.

The parameter y = (1 - beta) z + beta x is where gradients are taken, z what they move, and x the average that a run is judged
by. Steps weigh in x by the square of their learning rate, so that those of a warm-up count less. Weights decay at y.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ockham.optim.rules.adam import root_of
from ockham.optim.rules.rule import Hyper, Numbers, Rule, State, decayed, zeros

if TYPE_CHECKING:
    from torch import Tensor


def _count(h: Numbers, counters: Numbers) -> dict[str, Any]:
    return {"step": counters["step"] + 1, "weight_sum": counters["weight_sum"] + h["lr"] ** 2}


def _share(h: Numbers, counters: Numbers) -> dict[str, Any]:
    """Of the coming z in the average x; and of y in z, which starts there."""
    return {"share": h["lr"] ** 2 / counters["weight_sum"], "is_first": 1.0 * (counters["step"] == 1)}


def _moved(y: "Tensor", z: "Tensor", direction: "Tensor", beta: Any, h: Hyper) -> tuple["Tensor", "Tensor"]:
    """(y, z) after a step of z against the direction; x moves from its place towards the new z by `share`."""
    share, z = h["share"], z + h["is_first"] * y
    return y + share * (z - y) + h["lr"] * (beta * (1 - share) - 1) * direction, z - h["lr"] * direction


def _average(y: "Tensor", z: "Tensor", beta: Any) -> "Tensor":
    return y + (1 - 1 / beta) * (z - y)


def sgd(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    y, z = _moved(p, state["z"], decayed(p, g, h), h["momentum"], h)
    return y, {"z": z}


def sgd_average(p: "Tensor", state: Mapping[str, Any], h: Hyper) -> "Tensor":
    return _average(p, state["z"], h["momentum"])


def adamw_corrections(h: Numbers, counters: Numbers) -> dict[str, Any]:
    return {**_share(h, counters), "root": (1 - h["beta2"] ** counters["step"]) ** 0.5}


def adamw(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    square = h["beta2"] * state["exp_avg_sq"] + (1 - h["beta2"]) * g * g
    direction = decayed(p, g / root_of({"exp_avg_sq": square}, h), h)
    y, z = _moved(p, state["z"], direction, h["beta1"], h)
    return y, {"z": z, "exp_avg_sq": square}


def adamw_average(p: "Tensor", state: Mapping[str, Any], h: Hyper) -> "Tensor":
    return _average(p, state["z"], h["beta1"])


_REASON = "move other weights than those that are judged"
_COUNTERS = {"step": 0.0, "weight_sum": 0.0}

SCHEDULE_FREE_SGD = Rule(
    sgd,
    _REASON,
    zeros("z"),
    {"lr": 1.0, "momentum": 0.9, "weight_decay": 0.0},
    _share,
    counters=_COUNTERS,
    count=_count,
    average=sgd_average,
)
SCHEDULE_FREE_ADAMW = Rule(
    adamw,
    _REASON,
    zeros("z", "exp_avg_sq"),
    {"lr": 2.5e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0},
    adamw_corrections,
    counters=_COUNTERS,
    count=_count,
    average=adamw_average,
)

"""Adam and its kin: moments of first and second order, without the bias of their start at zero."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ockham.optim.rules.rule import Hyper, Numbers, Rule, State, decayed, zeros

if TYPE_CHECKING:
    from torch import Tensor


def moments(g: "Tensor", state: State, h: Hyper) -> State:
    return {
        "exp_avg": state["exp_avg"] + (1 - h["beta1"]) * (g - state["exp_avg"]),
        "exp_avg_sq": h["beta2"] * state["exp_avg_sq"] + (1 - h["beta2"]) * g * g,
    }


def root_of(state: Mapping[str, Any], h: Hyper) -> "Tensor":
    """What Adam divides by: the root of the second moment without its bias."""
    return state["exp_avg_sq"].sqrt() / h["root"] + h["eps"]


def adam_corrections(h: Numbers, counters: Numbers) -> dict[str, Any]:
    step = counters["step"]
    return {"size": h["lr"] / (1 - h["beta1"] ** step), "root": (1 - h["beta2"] ** step) ** 0.5}


def adam(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    new = moments(decayed(p, g, h), state, h)
    return p - h["size"] * new["exp_avg"] / root_of(new, h), new


def adamw(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    new = moments(g, state, h)
    p = p * (1 - h["lr"] * h["weight_decay"])
    return p - h["size"] * new["exp_avg"] / root_of(new, h), new


def adam_response(state: Mapping[str, Any], h: Hyper) -> "Tensor":
    """The first moment of a gradient that stays the same is, without its bias, the gradient."""
    return h["lr"] / root_of(state, h)


def _mu(h: Numbers, step: Any) -> Any:
    """The momentum of NAdam at a step."""
    return h["beta1"] * (1 - 0.5 * 0.96 ** (step * h["momentum_decay"]))


def nadam_count(h: Numbers, counters: Numbers) -> dict[str, Any]:
    step = counters["step"] + 1
    return {"step": step, "mu_product": counters["mu_product"] * _mu(h, step)}


def nadam_corrections(h: Numbers, counters: Numbers) -> dict[str, Any]:
    step, product = counters["step"], counters["mu_product"]
    mu, mu_next = _mu(h, step), _mu(h, step + 1)
    return {
        "gradient_size": h["lr"] * (1 - mu) / (1 - product),
        "moment_size": h["lr"] * mu_next / (1 - product * mu_next),
        "root": (1 - h["beta2"] ** step) ** 0.5,
    }


def nadam(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    """Dozat 2016, Incorporating Nesterov Momentum into Adam."""
    g = decayed(p, g, h)
    new = moments(g, state, h)
    root = root_of(new, h)
    return p - h["gradient_size"] * g / root - h["moment_size"] * new["exp_avg"] / root, new


def nadam_response(state: Mapping[str, Any], h: Hyper) -> "Tensor":
    """At rest the first moment is the gradient, so that what either is multiplied with adds up."""
    return (h["gradient_size"] + h["moment_size"]) / root_of(state, h)


def radam_corrections(h: Numbers, counters: Numbers) -> dict[str, Any]:
    """Of `size`, the part that is not divided by the root, and the part that is: one of both is 0."""
    step = counters["step"]
    root = (1 - h["beta2"] ** step) ** 0.5
    longest = 2 / (1 - h["beta2"]) - 1
    length = longest - 2 * step * h["beta2"] ** step / root**2
    is_rectified = length > 5
    # What is compared with nothing where it is not rectified is kept away from 0.
    rectified = (length - 4) * (length - 2) * longest
    by = (longest - 4) * (longest - 2) * length * is_rectified + (1 - is_rectified)
    size = h["lr"] / (1 - h["beta1"] ** step)
    return {
        "size": size,
        "plain": 1.0 * (1 - is_rectified),
        "adaptive": is_rectified * abs(rectified / by) ** 0.5 * root,
    }


def _radam_factor(state: Mapping[str, Any], h: Hyper) -> "Tensor":
    return h["plain"] + h["adaptive"] / (state["exp_avg_sq"].sqrt() + h["eps"])


def radam(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    """Liu et al. 2020, On the Variance of the Adaptive Learning Rate and Beyond."""
    new = moments(decayed(p, g, h), state, h)
    return p - h["size"] * new["exp_avg"] * _radam_factor(new, h), new


def radam_response(state: Mapping[str, Any], h: Hyper) -> "Tensor":
    return h["lr"] * _radam_factor(state, h)


def adamax_corrections(h: Numbers, counters: Numbers) -> dict[str, Any]:
    return {"size": h["lr"] / (1 - h["beta1"] ** counters["step"])}


def adamax(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    """Kingma & Ba 2015, section 7.1: divided by the largest gradient, where those that are past fade."""
    g = decayed(p, g, h)
    mean = state["exp_avg"] + (1 - h["beta1"]) * (g - state["exp_avg"])
    largest = (h["beta2"] * state["exp_inf"]).maximum(g.abs() + h["eps"])
    return p - h["size"] * mean / largest, {"exp_avg": mean, "exp_inf": largest}


def adamax_response(state: Mapping[str, Any], h: Hyper) -> "Tensor":
    return h["lr"] / state["exp_inf"]


def adan_corrections(h: Numbers, counters: Numbers) -> dict[str, Any]:
    step = counters["step"]
    return {
        "size": h["lr"] / (1 - h["beta1"] ** step),
        "difference_size": h["lr"] * h["beta2"] / (1 - h["beta2"] ** step),
        "root": (1 - h["beta3"] ** step) ** 0.5,
        "has_previous": 1.0 * (step > 1),
    }


def adan(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    """Xie et al. 2024, Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models.

    Betas are the fractions that stay, as the authors' code has them, 1 minus those of the paper.
    """
    difference = h["has_previous"] * (g - state["prev"])
    ahead = g + h["beta2"] * difference
    new = {
        "exp_avg": state["exp_avg"] + (1 - h["beta1"]) * (g - state["exp_avg"]),
        "exp_avg_diff": state["exp_avg_diff"] + (1 - h["beta2"]) * (difference - state["exp_avg_diff"]),
        "exp_avg_sq": h["beta3"] * state["exp_avg_sq"] + (1 - h["beta3"]) * ahead * ahead,
        "prev": g,
    }
    moved = p - (h["size"] * new["exp_avg"] + h["difference_size"] * new["exp_avg_diff"]) / root_of(new, h)
    return moved / (1 + h["lr"] * h["weight_decay"]), new


def ademamix_count(h: Numbers, counters: Numbers) -> dict[str, Any]:
    step = counters["step"] + 1
    return {"step": step, "slow_product": counters["slow_product"] * _slow_beta(h, step)}


def _slow_beta(h: Numbers, step: Any) -> Any:
    """The beta3 of AdEMAMix at a step: over the warm-up its half-life grows from that of beta1 in equal steps."""
    import numpy as np

    done = np.minimum(step / np.maximum(h["beta3_warmup"], 1), 1)
    fast, slow = (1 / np.log(np.maximum(h[name], 1e-8)) for name in ("beta1", "beta3"))  # half-lives, times log 0.5
    return np.exp(1 / ((1 - done) * fast + done * slow))


def ademamix_corrections(h: Numbers, counters: Numbers) -> dict[str, Any]:
    import numpy as np

    step = counters["step"]
    return {
        **adam_corrections(h, counters),
        "slow_beta": _slow_beta(h, step),
        "slow_size": h["lr"] * h["alpha"] * np.minimum(step / np.maximum(h["alpha_warmup"], 1), 1),
        "slow_rest": 1 - counters["slow_product"],
    }


def ademamix(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    """Pagliardini et al. 2025, The AdEMAMix Optimizer: Better, Faster, Older."""
    new = moments(g, state, h)
    new["exp_avg_slow"] = state["exp_avg_slow"] + (1 - h["slow_beta"]) * (g - state["exp_avg_slow"])
    p = p * (1 - h["lr"] * h["weight_decay"])
    return p - (h["size"] * new["exp_avg"] + h["slow_size"] * new["exp_avg_slow"]) / root_of(new, h), new


def ademamix_response(state: Mapping[str, Any], h: Hyper) -> "Tensor":
    """The slow moment keeps its bias: of a gradient that has always been the same it has come so far."""
    return (h["lr"] + h["slow_size"] * h["slow_rest"]) / root_of(state, h)


_BETAS = {"beta1": 0.9, "beta2": 0.999}
_MOMENTS = zeros("exp_avg", "exp_avg_sq")

ADAM = Rule(adam, adam_response, _MOMENTS, {"lr": 1e-3, **_BETAS, "eps": 1e-8, "weight_decay": 0.0}, adam_corrections)
ADAMW = Rule(adamw, adam_response, _MOMENTS, {"lr": 1e-3, **_BETAS, "eps": 1e-8, "weight_decay": 1e-2}, adam_corrections)
NADAM = Rule(
    nadam,
    nadam_response,
    _MOMENTS,
    {"lr": 2e-3, **_BETAS, "eps": 1e-8, "weight_decay": 0.0, "momentum_decay": 4e-3},
    nadam_corrections,
    counters={"step": 0.0, "mu_product": 1.0},
    count=nadam_count,
)
RADAM = Rule(radam, radam_response, _MOMENTS, {"lr": 1e-3, **_BETAS, "eps": 1e-8, "weight_decay": 0.0}, radam_corrections)
ADAMAX = Rule(
    adamax,
    adamax_response,
    zeros("exp_avg", "exp_inf"),
    {"lr": 2e-3, **_BETAS, "eps": 1e-8, "weight_decay": 0.0},
    adamax_corrections,
)
ADAN = Rule(
    adan,
    adam_response,
    zeros("exp_avg", "exp_avg_diff", "exp_avg_sq", "prev"),
    {"lr": 1e-3, "beta1": 0.98, "beta2": 0.92, "beta3": 0.99, "eps": 1e-8, "weight_decay": 0.0},
    adan_corrections,
)
ADEMAMIX = Rule(
    ademamix,
    ademamix_response,
    zeros("exp_avg", "exp_avg_slow", "exp_avg_sq"),
    {
        "lr": 1e-3, **_BETAS, "beta3": 0.9999, "alpha": 5.0, "alpha_warmup": 0.0, "beta3_warmup": 0.0,
        "eps": 1e-8, "weight_decay": 0.0,
    },
    ademamix_corrections,
    counters={"step": 0.0, "slow_product": 1.0},
    count=ademamix_count,
)  # fmt: skip

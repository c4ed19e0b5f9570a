"""The update rules of torch.optim as pure functions, elementwise and in tensors throughout.

They serve fused groups: a parameter (members, ...) is updated with hyperparameters (members, 1, ...), so that members may
differ in all of them. A rule maps (parameter, gradient, state, hyperparameters) to the new parameter and state. What follows
from the number of the step is computed beforehand, in float64. State names are those of torch, and so is the arithmetic, up
to rounding.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

State = dict[str, Tensor]
Hyper = Mapping[str, Tensor]
Update = Callable[[Tensor, Tensor, State, Hyper], tuple[Tensor, State]]
Members = Mapping[str, np.ndarray]
"""Hyperparameters, or what follows from them, for each member: arrays (members,) in float64."""


@dataclass(frozen=True)
class Rule:
    """A rule, the names of its state tensors, and the settings that it knows, with their defaults in torch.

    torch keeps the number of steps beside them where `counts_steps`, and for NAdam the product of its momenta.
    """

    update: Update
    state: tuple[str, ...]
    defaults: Mapping[str, float]
    corrections: Callable[[Members, int], Members] | None = None
    """(hyperparameters, number of the step from 1) -> further hyperparameters of that step."""
    counts_steps: bool = True


def _decayed(p: Tensor, g: Tensor, h: Hyper) -> Tensor:
    return g + h["weight_decay"] * p


def sgd(p: Tensor, g: Tensor, state: State, h: Hyper) -> tuple[Tensor, State]:
    return p - h["lr"] * _decayed(p, g, h), state


def momentum(p: Tensor, g: Tensor, state: State, h: Hyper) -> tuple[Tensor, State]:
    """Heavy ball; the buffer starts as the first gradient, which a buffer of zeros gives as long as dampening is 0."""
    buffer = h["momentum"] * state["momentum_buffer"] + _decayed(p, g, h)
    return p - h["lr"] * buffer, {"momentum_buffer": buffer}


def nesterov(p: Tensor, g: Tensor, state: State, h: Hyper) -> tuple[Tensor, State]:
    g = _decayed(p, g, h)
    buffer = h["momentum"] * state["momentum_buffer"] + g
    return p - h["lr"] * (g + h["momentum"] * buffer), {"momentum_buffer": buffer}


def adagrad(p: Tensor, g: Tensor, state: State, h: Hyper) -> tuple[Tensor, State]:
    g = _decayed(p, g, h)
    total = state["sum"] + g * g
    return p - h["lr"] * g / (total.sqrt() + h["eps"]), {"sum": total}


def adadelta(p: Tensor, g: Tensor, state: State, h: Hyper) -> tuple[Tensor, State]:
    g = _decayed(p, g, h)
    square = h["rho"] * state["square_avg"] + (1 - h["rho"]) * g * g
    delta = (state["acc_delta"] + h["eps"]).sqrt() / (square + h["eps"]).sqrt() * g
    moved = h["rho"] * state["acc_delta"] + (1 - h["rho"]) * delta * delta
    return p - h["lr"] * delta, {"square_avg": square, "acc_delta": moved}


def rmsprop(p: Tensor, g: Tensor, state: State, h: Hyper) -> tuple[Tensor, State]:
    g = _decayed(p, g, h)
    square = h["alpha"] * state["square_avg"] + (1 - h["alpha"]) * g * g
    return p - h["lr"] * g / (square.sqrt() + h["eps"]), {"square_avg": square}


def _moments(g: Tensor, state: State, h: Hyper) -> State:
    return {
        "exp_avg": state["exp_avg"] + (1 - h["beta1"]) * (g - state["exp_avg"]),
        "exp_avg_sq": h["beta2"] * state["exp_avg_sq"] + (1 - h["beta2"]) * g * g,
    }


def adam_corrections(h: Members, step: int) -> Members:
    return {"size": h["lr"] / (1 - h["beta1"] ** step), "root": np.sqrt(1 - h["beta2"] ** step)}


def adam(p: Tensor, g: Tensor, state: State, h: Hyper) -> tuple[Tensor, State]:
    new = _moments(_decayed(p, g, h), state, h)
    return p - h["size"] * new["exp_avg"] / (new["exp_avg_sq"].sqrt() / h["root"] + h["eps"]), new


def adamw(p: Tensor, g: Tensor, state: State, h: Hyper) -> tuple[Tensor, State]:
    new = _moments(g, state, h)
    p = p * (1 - h["lr"] * h["weight_decay"])
    return p - h["size"] * new["exp_avg"] / (new["exp_avg_sq"].sqrt() / h["root"] + h["eps"]), new


def mu_product(h: Members, step: int) -> np.ndarray:
    """The product of NAdam's momenta mu_1 ... mu_step, (members,)."""
    steps = np.arange(1, step + 1)[:, None]
    return np.prod(h["beta1"] * (1 - 0.5 * 0.96 ** (steps * h["momentum_decay"])), axis=0)


def nadam_corrections(h: Members, step: int) -> Members:
    mu, mu_next = (h["beta1"] * (1 - 0.5 * 0.96 ** (t * h["momentum_decay"])) for t in (step, step + 1))
    product = mu_product(h, step)
    return {
        "gradient_size": h["lr"] * (1 - mu) / (1 - product),
        "moment_size": h["lr"] * mu_next / (1 - product * mu_next),
        "root": np.sqrt(1 - h["beta2"] ** step),
    }


def nadam(p: Tensor, g: Tensor, state: State, h: Hyper) -> tuple[Tensor, State]:
    """Dozat 2016, Incorporating Nesterov Momentum into Adam."""
    g = _decayed(p, g, h)
    new = _moments(g, state, h)
    root = new["exp_avg_sq"].sqrt() / h["root"] + h["eps"]
    return p - h["gradient_size"] * g / root - h["moment_size"] * new["exp_avg"] / root, new


_BETAS = {"beta1": 0.9, "beta2": 0.999}
_MOMENTS = ("exp_avg", "exp_avg_sq")

#: By class of torch.optim. SGD stands for three rules: see `rule_of`.
RULES: dict[str, Rule] = {
    "SGD": Rule(sgd, (), {"lr": 1e-3, "weight_decay": 0.0}, counts_steps=False),
    "Adagrad": Rule(adagrad, ("sum",), {"lr": 1e-2, "weight_decay": 0.0, "eps": 1e-10}),
    "Adadelta": Rule(adadelta, ("square_avg", "acc_delta"), {"lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 0.0}),
    "RMSprop": Rule(rmsprop, ("square_avg",), {"lr": 1e-2, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0}),
    "Adam": Rule(adam, _MOMENTS, {"lr": 1e-3, **_BETAS, "eps": 1e-8, "weight_decay": 0.0}, adam_corrections),
    "AdamW": Rule(adamw, _MOMENTS, {"lr": 1e-3, **_BETAS, "eps": 1e-8, "weight_decay": 1e-2}, adam_corrections),
    "NAdam": Rule(
        nadam,
        _MOMENTS,
        {"lr": 2e-3, **_BETAS, "eps": 1e-8, "weight_decay": 0.0, "momentum_decay": 4e-3},
        nadam_corrections,
    ),
}
_MOMENTUM = Rule(momentum, ("momentum_buffer",), {"lr": 1e-3, "momentum": 0.0, "weight_decay": 0.0}, counts_steps=False)
_NESTEROV = Rule(nesterov, ("momentum_buffer",), {"lr": 1e-3, "momentum": 0.0, "weight_decay": 0.0}, counts_steps=False)


def rule_of(name: str, settings: Mapping[str, Any]) -> tuple[Rule, dict[str, float]]:
    """The rule of an optimizer class with the settings of its parameter group, and the hyperparameters.

    Settings that are off are passed over. Raises ValueError where no rule covers the class or one of the settings.
    """
    if name not in RULES:
        raise ValueError(f"{name} has no rule over members")
    own = {key: value for key, value in settings.items() if key not in ("params", "fused", "decoupled_weight_decay")}
    if "betas" in own:
        own["beta1"], own["beta2"] = own.pop("betas")
    rule = RULES[name]
    if name == "SGD":
        is_nesterov = own.pop("nesterov", False)
        if own.get("momentum", 0.0):
            rule = _NESTEROV if is_nesterov else _MOMENTUM
        else:
            own.pop("momentum", None)
    unknown = sorted(key for key in set(own) - set(rule.defaults) if own[key])
    if unknown:
        raise ValueError(f"{name} has no rule over members with {unknown[0]}={own[unknown[0]]}")
    return rule, {key: own.get(key, default) for key, default in rule.defaults.items()}

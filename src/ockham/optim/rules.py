"""The update rules of torch.optim as pure functions, elementwise, and how each answers a gradient that stays the same.

They serve fused groups: a parameter (members, ...) is updated with hyperparameters (members, 1, ...), so that members may
differ in all of them. A rule maps (parameter, gradient, state, hyperparameters) to the new parameter and state. What follows
from the number of the step is computed beforehand, in float64. State names are those of torch, and so is the arithmetic, up
to rounding. Single runs read the responses, from the state of the torch optimizer and hyperparameters that are floats.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Union

if TYPE_CHECKING:
    from torch import Tensor

State = dict[str, "Tensor"]
Hyper = Mapping[str, Any]
"""Hyperparameters of a step: floats of one run, or tensors (members, 1, ...)."""
Update = Callable[["Tensor", "Tensor", State, Hyper], tuple["Tensor", State]]
Response = Callable[[Mapping[str, Any], Hyper], Union[float, "Tensor"]]
Numbers = Mapping[str, Any]
"""Hyperparameters, or what follows from them: floats of one run, or float64 arrays (members,)."""


def _count_steps(h: Numbers, counters: Numbers) -> dict[str, Any]:
    return {"step": counters["step"] + 1}


def _no_corrections(h: Numbers, counters: Numbers) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Rule:
    """A rule, the names of its state tensors, and the settings that it knows, with their defaults in torch."""

    update: Update
    #: (state after a step, hyperparameters of the step) -> how far the rule, once it is at rest, moves a parameter for each
    #: unit of a gradient that stays the same: by -response * gradient. One number, or one for each element. Proximal steps
    #: are scaled with it, so that a penalty weighs as much against the loss under every rule.
    #: None where steps are not proportional to the gradient.
    response: Response | None
    state: tuple[str, ...]
    defaults: Mapping[str, float]
    #: (hyperparameters, counters after a step) -> further hyperparameters of that step.
    corrections: Callable[[Numbers, Numbers], dict[str, Any]] = _no_corrections
    #: What torch keeps of the steps so far beside the state tensors, as it is before the first, and how a step changes it.
    counters: Mapping[str, float] = field(default_factory=lambda: {"step": 0.0})
    count: Callable[[Numbers, Numbers], dict[str, Any]] = _count_steps
    #: Settings of the optimizer that are for parameters which another rule updates.
    others: tuple[str, ...] = ()


def _decayed(p: "Tensor", g: "Tensor", h: Hyper) -> "Tensor":
    return g + h["weight_decay"] * p


def sgd(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    return p - h["lr"] * _decayed(p, g, h), state


def learning_rate(state: Mapping[str, Any], h: Hyper) -> Union[float, "Tensor"]:
    """The response of gradient descent."""
    return h["lr"]


def momentum(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    """Heavy ball; the buffer starts as the first gradient, which a buffer of zeros gives as long as dampening is 0."""
    buffer = h["momentum"] * state["momentum_buffer"] + _decayed(p, g, h)
    return p - h["lr"] * buffer, {"momentum_buffer": buffer}


def nesterov(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    g = _decayed(p, g, h)
    buffer = h["momentum"] * state["momentum_buffer"] + g
    return p - h["lr"] * (g + h["momentum"] * buffer), {"momentum_buffer": buffer}


def momentum_response(state: Mapping[str, Any], h: Hyper) -> Union[float, "Tensor"]:
    """The buffer is a geometric series: at rest g / (1 - momentum), and g + momentum g / (1 - momentum) is the same."""
    return h["lr"] / (1 - h["momentum"])


def adagrad(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    g = _decayed(p, g, h)
    total = state["sum"] + g * g
    return p - h["lr"] * g / (total.sqrt() + h["eps"]), {"sum": total}


def adagrad_response(state: Mapping[str, Any], h: Hyper) -> "Tensor":
    return h["lr"] / (state["sum"].sqrt() + h["eps"])


def adadelta(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    g = _decayed(p, g, h)
    square = h["rho"] * state["square_avg"] + (1 - h["rho"]) * g * g
    delta = (state["acc_delta"] + h["eps"]).sqrt() / (square + h["eps"]).sqrt() * g
    delta_avg = h["rho"] * state["acc_delta"] + (1 - h["rho"]) * delta * delta
    return p - h["lr"] * delta, {"square_avg": square, "acc_delta": delta_avg}


def adadelta_response(state: Mapping[str, Any], h: Hyper) -> "Tensor":
    return h["lr"] * (state["acc_delta"] + h["eps"]).sqrt() / (state["square_avg"] + h["eps"]).sqrt()


def rmsprop(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    g = _decayed(p, g, h)
    square = h["alpha"] * state["square_avg"] + (1 - h["alpha"]) * g * g
    return p - h["lr"] * g / (square.sqrt() + h["eps"]), {"square_avg": square}


def rmsprop_response(state: Mapping[str, Any], h: Hyper) -> "Tensor":
    return h["lr"] / (state["square_avg"].sqrt() + h["eps"])


def _moments(g: "Tensor", state: State, h: Hyper) -> State:
    return {
        "exp_avg": state["exp_avg"] + (1 - h["beta1"]) * (g - state["exp_avg"]),
        "exp_avg_sq": h["beta2"] * state["exp_avg_sq"] + (1 - h["beta2"]) * g * g,
    }


def _root(state: Mapping[str, Any], h: Hyper) -> "Tensor":
    """What Adam divides by: the root of the second moment without its bias."""
    return state["exp_avg_sq"].sqrt() / h["root"] + h["eps"]


def adam_corrections(h: Numbers, counters: Numbers) -> dict[str, Any]:
    step = counters["step"]
    return {"size": h["lr"] / (1 - h["beta1"] ** step), "root": (1 - h["beta2"] ** step) ** 0.5}


def adam(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    new = _moments(_decayed(p, g, h), state, h)
    return p - h["size"] * new["exp_avg"] / _root(new, h), new


def adamw(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    new = _moments(g, state, h)
    p = p * (1 - h["lr"] * h["weight_decay"])
    return p - h["size"] * new["exp_avg"] / _root(new, h), new


def adam_response(state: Mapping[str, Any], h: Hyper) -> "Tensor":
    """The first moment of a gradient that stays the same is, without its bias, the gradient."""
    return h["lr"] / _root(state, h)


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
    g = _decayed(p, g, h)
    new = _moments(g, state, h)
    root = _root(new, h)
    return p - h["gradient_size"] * g / root - h["moment_size"] * new["exp_avg"] / root, new


def nadam_response(state: Mapping[str, Any], h: Hyper) -> "Tensor":
    """At rest the first moment is the gradient, so that what either is multiplied with adds up."""
    return (h["gradient_size"] + h["moment_size"]) / _root(state, h)


def muon(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    """Jordan et al. 2024, for weights (members, out, ...), each taken as a matrix: Nesterov's momentum, orthogonalised."""
    from ockham.optim.newton_schulz import orthogonalized

    buffer = state["momentum_buffer"] + (1 - h["momentum"]) * (g - state["momentum_buffer"])
    nesterov = g + h["momentum"] * (buffer - g)
    matrices = nesterov.flatten(2)
    rows, columns = matrices.shape[1:]
    direction = orthogonalized(matrices).view(p.shape) * max(1, rows / columns) ** 0.5
    return p * (1 - h["lr"] * h["weight_decay"]) - h["lr"] * direction, {"momentum_buffer": buffer}


_BETAS = {"beta1": 0.9, "beta2": 0.999}
_MOMENTS = ("exp_avg", "exp_avg_sq")
_MOMENTUM_SETTINGS = {"lr": 1e-3, "momentum": 0.0, "weight_decay": 0.0}

_SGD = Rule(sgd, learning_rate, (), {"lr": 1e-3, "weight_decay": 0.0}, counters={}, count=_no_corrections)

#: By class, as a yaml names it. SGD stands for three rules: see `rule_of`. That of Muon is for hidden weights only.
RULES: dict[str, Rule] = {
    "torch.optim.SGD": _SGD,
    "ockham.optim.GradientDescent": _SGD,
    "torch.optim.Adagrad": Rule(adagrad, adagrad_response, ("sum",), {"lr": 1e-2, "weight_decay": 0.0, "eps": 1e-10}),
    "torch.optim.Adadelta": Rule(
        adadelta,
        adadelta_response,
        ("square_avg", "acc_delta"),
        {"lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 0.0},
    ),
    "torch.optim.RMSprop": Rule(
        rmsprop, rmsprop_response, ("square_avg",), {"lr": 1e-2, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0}
    ),
    "torch.optim.Adam": Rule(
        adam, adam_response, _MOMENTS, {"lr": 1e-3, **_BETAS, "eps": 1e-8, "weight_decay": 0.0}, adam_corrections
    ),
    "torch.optim.AdamW": Rule(
        adamw, adam_response, _MOMENTS, {"lr": 1e-3, **_BETAS, "eps": 1e-8, "weight_decay": 1e-2}, adam_corrections
    ),
    "torch.optim.NAdam": Rule(
        nadam,
        nadam_response,
        _MOMENTS,
        {"lr": 2e-3, **_BETAS, "eps": 1e-8, "weight_decay": 0.0, "momentum_decay": 4e-3},
        nadam_corrections,
        counters={"step": 0.0, "mu_product": 1.0},
        count=nadam_count,
    ),
    "ockham.optim.Muon": Rule(
        muon,
        None,
        ("momentum_buffer",),
        {"lr": 1e-3, "momentum": 0.95, "weight_decay": 0.0},
        counters={},
        count=_no_corrections,
        others=("adam_lr",),
    ),
}
_MOMENTUM = Rule(momentum, momentum_response, ("momentum_buffer",), _MOMENTUM_SETTINGS, counters={}, count=_no_corrections)
_NESTEROV = Rule(nesterov, momentum_response, ("momentum_buffer",), _MOMENTUM_SETTINGS, counters={}, count=_no_corrections)


def rule_of(target: str, settings: Mapping[str, Any]) -> tuple[Rule, dict[str, float]]:
    """The rule of an optimizer class with the settings of its parameter group, and the hyperparameters.

    Settings that are off are passed over. Raises ValueError where no rule covers the class or one of the settings.
    """
    name = target.rpartition(".")[2]
    if target not in RULES:
        raise ValueError(f"{name} has no rule")
    settings = {key: value for key, value in settings.items() if key not in ("params", "rule", "fused", *RULES[target].others)}
    if name == "AdamW":
        settings.pop("decoupled_weight_decay", None)  # it is what makes it AdamW
    if "betas" in settings:
        settings["beta1"], settings["beta2"] = settings.pop("betas")
    rule = RULES[target]
    if name == "SGD":
        is_nesterov = settings.pop("nesterov", False)
        if settings.get("momentum", 0.0):
            rule = _NESTEROV if is_nesterov else _MOMENTUM
        else:
            settings.pop("momentum", None)
    unknown = sorted(key for key in set(settings) - set(rule.defaults) if settings[key])
    if unknown:
        raise ValueError(f"{name} has no rule with {unknown[0]}={settings[unknown[0]]}")
    return rule, {key: settings.get(key, default) for key, default in rule.defaults.items()}

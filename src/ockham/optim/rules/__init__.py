"""The update rules of optimizers as pure functions, and how each answers a gradient that stays the same.

They serve fused groups: a parameter (members, ...) is updated with hyperparameters (members, 1, ...), so that members may
differ in all of them. A rule maps (parameter, gradient, state, hyperparameters) to the new parameter and state. What follows
from the number of the step is computed beforehand, in float64. Where torch has the optimizer, state names are its own, and so
is the arithmetic, up to rounding: a single run takes torch's class, and reads the responses from its state with
hyperparameters that are floats. Where torch has none, the class takes its steps by the rule (optim/ruled.py).

No module of this package needs torch to be imported: the plan of a sweep and the command line read the rules before it.
"""

from collections.abc import Mapping
from typing import Any

from ockham.optim.rules import adam, adaptive, descent, schedule_free, sign, tensorwise
from ockham.optim.rules.rule import Hyper, Numbers, Response, Rule, State, Update, zeros

__all__ = ["PARTS", "RULES", "Hyper", "Numbers", "Response", "Rule", "State", "Update", "rule_of", "zeros"]

#: By class, as a yaml names it. SGD stands for three rules: see `rule_of`. That of Muon is for hidden weights only.
RULES: dict[str, Rule] = {
    "torch.optim.SGD": descent.SGD,
    "ockham.optim.GradientDescent": descent.SGD,
    "torch.optim.ASGD": descent.ASGD,
    "torch.optim.Adagrad": adaptive.ADAGRAD,
    "torch.optim.Adadelta": adaptive.ADADELTA,
    "torch.optim.RMSprop": adaptive.RMSPROP,
    "torch.optim.Adam": adam.ADAM,
    "torch.optim.AdamW": adam.ADAMW,
    "torch.optim.NAdam": adam.NADAM,
    "torch.optim.RAdam": adam.RADAM,
    "torch.optim.Adamax": adam.ADAMAX,
    "ockham.optim.Adan": adam.ADAN,
    "ockham.optim.AdEMAMix": adam.ADEMAMIX,
    "ockham.optim.SignSGD": sign.SIGNSGD,
    "ockham.optim.Lion": sign.LION,
    "torch.optim.Rprop": sign.RPROP,
    "torch.optim.Adafactor": tensorwise.ADAFACTOR,
    "ockham.optim.Lamb": tensorwise.LAMB,
    "ockham.optim.Lars": tensorwise.LARS,
    "ockham.optim.Muon": tensorwise.MUON,
    "ockham.optim.ScheduleFreeSGD": schedule_free.SCHEDULE_FREE_SGD,
    "ockham.optim.ScheduleFreeAdamW": schedule_free.SCHEDULE_FREE_ADAMW,
}

#: Settings that hold several numbers, and the hyperparameters that these are. Most optimizers have a single eps.
PARTS = {
    "betas": ("beta1", "beta2", "beta3"),
    "etas": ("eta_minus", "eta_plus"),
    "step_sizes": ("step_size_min", "step_size_max"),
    "eps": ("eps1", "eps2"),
}


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
    for key, parts in PARTS.items():
        if isinstance(settings.get(key), (list, tuple)):
            settings |= dict(zip(parts, settings.pop(key), strict=False))
    rule = RULES[target]
    if name == "SGD":
        is_nesterov = settings.pop("nesterov", False)
        if settings.get("momentum", 0.0):
            rule = descent.NESTEROV if is_nesterov else descent.MOMENTUM
        else:
            settings.pop("momentum", None)
    unknown = sorted(key for key in set(settings) - set(rule.defaults) if settings[key])
    if unknown:
        raise ValueError(f"{name} has no rule with {unknown[0]}={settings[unknown[0]]}")
    hyper = {}
    for key, default in rule.defaults.items():
        value = settings.get(key, default)
        if value is None:
            raise ValueError(f"{name} has no rule without {key}")
        hyper[key] = value
    return rule, hyper

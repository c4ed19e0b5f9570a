"""The rules as formulas, against the optimizers of torch."""

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ockham import schema
from ockham.optim.rules import RULES, rule_of

pytestmark = pytest.mark.usefixtures("float64")

#: SGD stands for three rules; Muon iterates in another precision than torch's, and is tested in test_optim.py.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "torch.optim.SGD": [{}, {"momentum": 0.9}, {"momentum": 0.8, "nesterov": True}],
    **{target: [{}] for target in RULES if target not in ("torch.optim.SGD", "ockham.optim.Muon")},
}
MEMBERS, STEPS = 3, 25


def class_of(target: str) -> type[torch.optim.Optimizer]:
    """torch's class: gd is its SGD by another name."""
    name = target.rpartition(".")[2]
    return torch.optim.SGD if name == "GradientDescent" else getattr(torch.optim, name)


def settings_of(target: str, further: dict[str, Any], member: int) -> dict[str, Any]:
    """What torch's class is constructed with: each number of the rule, different for every member."""
    _, hyper = rule_of(target, further)
    settings: dict[str, Any] = {name: value * (1 - 0.03 * member) for name, value in hyper.items()}
    settings["weight_decay"] = 0.1 * member
    if "beta1" in settings:
        settings["betas"] = (settings.pop("beta1"), settings.pop("beta2"))
    return settings | {name: value for name, value in further.items() if isinstance(value, bool)}


@pytest.mark.parametrize(
    ("target", "further"),
    [(target, further) for target, each in SETTINGS.items() for further in each],
    ids=lambda value: value.rpartition(".")[2] if isinstance(value, str) else "-".join(value),
)
def test_members_of_a_rule_are_optimizers_of_torch(target: str, further: dict[str, Any]) -> None:
    """Weights, state and counters after steps with gradients that change; what a step needs of those before is carried."""
    cls = class_of(target)
    settings = [settings_of(target, further, member) for member in range(MEMBERS)]
    rules = [rule_of(target, chosen) for chosen in settings]
    rule = rules[0][0]
    hyper = {name: np.array([numbers[name] for _, numbers in rules]) for name in rule.defaults}
    counters = {name: np.full(MEMBERS, start) for name, start in rule.counters.items()}

    parameters = torch.randn(MEMBERS, 4, 2)
    state = {name: torch.zeros_like(parameters) for name in rule.state}
    singles = [nn.Parameter(parameter.clone()) for parameter in parameters]
    optimizers = [cls([parameter], **chosen) for parameter, chosen in zip(singles, settings, strict=True)]
    for _ in range(STEPS):
        gradients = torch.randn(MEMBERS, 4, 2)
        for parameter, gradient, optimizer in zip(singles, gradients, optimizers, strict=True):
            parameter.grad = gradient
            optimizer.step()
        counters = rule.count(hyper, counters)
        numbers = hyper | rule.corrections(hyper, counters)
        columns = {name: torch.from_numpy(values).view(-1, 1, 1) for name, values in numbers.items()}
        parameters, state = rule.update(parameters, gradients, state, columns)

    for member, (parameter, optimizer) in enumerate(zip(singles, optimizers, strict=True)):
        torch.testing.assert_close(parameters[member], parameter.detach())
        kept = optimizer.state[parameter]
        for name in rule.state:
            torch.testing.assert_close(state[name][member], kept[name])
        for name, values in counters.items():
            assert float(kept[name]) == pytest.approx(values[member], rel=1e-12)


@pytest.mark.parametrize("target", [target for target in RULES if target.startswith("torch.")])
def test_defaults_are_those_of_torch(target: str) -> None:
    signature = inspect.signature(class_of(target)).parameters
    defaults = {name: parameter.default for name, parameter in signature.items()}
    if "betas" in defaults:
        defaults["beta1"], defaults["beta2"] = defaults["betas"]
    for name, value in RULES[target].defaults.items():
        assert defaults[name] == value, name


def test_settings_of_the_rules_are_checked_by_the_schema() -> None:
    for target in RULES:
        for name in rule_of(target, {})[0].defaults:
            setting = "betas" if name.startswith("beta") else name
            assert schema.field_of(f"optimizer.{setting}") in schema.FIELDS

"""The rules, against the optimizers of torch, and against the formulas of papers where torch has none."""

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import formulas
import ockham.optim
from ockham import schema
from ockham.optim.rules import PARTS, RULES, rule_of

pytestmark = pytest.mark.usefixtures("float64")

#: SGD stands for three rules; Muon iterates in another precision than torch's, and is tested in test_optim.py.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "torch.optim.SGD": [{}, {"momentum": 0.9}, {"momentum": 0.8, "nesterov": True}],
    **{target: [{}] for target in RULES if target not in ("torch.optim.SGD", "ockham.optim.Muon")},
    "torch.optim.ASGD": [{}, {"t0": 5.0, "lambd": 0.1}],
    "ockham.optim.AdEMAMix": [{}, {"alpha_warmup": 10, "beta3_warmup": 15}],
    "ockham.optim.SignSGD": [{}, {"momentum": 0.9}],
    "torch.optim.Adafactor": [{"eps": (1e-3, 1e-3), "d": 1.1}, {"eps": (1e-15, 1e-3), "d": 2.0, "lr": 0.9}],
}
MEMBERS, STEPS = 3, 25


def class_of(target: str) -> type[torch.optim.Optimizer]:
    """torch's class: gd is its SGD by another name. Where it has none the formula of the paper."""
    name = target.rpartition(".")[2]
    if name == "GradientDescent":
        return torch.optim.SGD
    return getattr(torch.optim if target.startswith("torch.") else formulas, name)


def in_parts(settings: dict[str, Any]) -> dict[str, Any]:
    """Numbers that an optimizer takes together, as it takes them."""
    for setting, names in PARTS.items():
        values = tuple(settings.pop(name) for name in names if name in settings)
        settings |= {setting: values} if values else {}
    return settings


def settings_of(target: str, further: dict[str, Any], member: int) -> dict[str, Any]:
    """What torch's class is constructed with: each number of the rule, different for every member."""
    _, hyper = rule_of(target, further)
    settings: dict[str, Any] = {name: value * (1 - 0.03 * member) for name, value in hyper.items()}
    if "weight_decay" in settings:
        settings["weight_decay"] = 0.1 * member
    settings = in_parts(settings)
    return settings | {name: value for name, value in further.items() if isinstance(value, bool)}


@pytest.mark.parametrize(
    ("target", "further"),
    [(target, further) for target, each in SETTINGS.items() for further in each],
    ids=lambda value: value.rpartition(".")[2] if isinstance(value, str) else "-".join(value),
)
def test_members_of_a_rule_are_the_optimizers(target: str, further: dict[str, Any]) -> None:
    """Weights, state and counters after steps with gradients that change; what a step needs of those before is carried."""
    cls = class_of(target)
    settings = [settings_of(target, further, member) for member in range(MEMBERS)]
    rules = [rule_of(target, chosen) for chosen in settings]
    rule = rules[0][0]
    hyper = {name: np.array([numbers[name] for _, numbers in rules]) for name in rule.defaults}
    counters = {name: np.full(MEMBERS, start) for name, start in rule.counters.items()}

    parameters = torch.randn(MEMBERS, 4, 2)
    state = rule.state(parameters)
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
        if isinstance(optimizer, formulas.ScheduleFree):
            assert rule.average is not None
            torch.testing.assert_close(rule.average(parameters, state, columns)[member], kept["x"])
        if isinstance(optimizer, formulas.Formula):
            continue
        for name in state:
            torch.testing.assert_close(state[name][member], kept[name])
        for name, values in counters.items():
            assert float(kept[name]) == pytest.approx(values[member], rel=1e-12)


@pytest.mark.parametrize("target", [target for target in RULES if "GradientDescent" not in target and "Muon" not in target])
def test_defaults_are_those_of_the_class(target: str) -> None:
    name = target.rpartition(".")[2]
    signature = inspect.signature(getattr(torch.optim if target.startswith("torch.") else ockham.optim, name)).parameters
    for setting, value in in_parts(dict(RULES[target].defaults)).items():
        assert signature[setting].default == value, setting


def test_settings_of_the_rules_are_checked_by_the_schema() -> None:
    for target in RULES:
        for setting in in_parts(dict(RULES[target].defaults)):
            assert schema.field_of(f"optimizer.{setting}") in schema.FIELDS

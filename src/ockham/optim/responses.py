"""What the rules of an optimizer tell of it: how far it moves a parameter for a unit of gradient, and its averages."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from ockham.core.parameters import NamedParameters
from ockham.optim.rules import Rule, rule_of


def rule_of_group(optimizer: Optimizer, group: Mapping[str, Any]) -> tuple[Rule, dict[str, float]]:
    """What the optimizer does to the parameters of one of its groups. Raises ValueError where no rule describes it."""
    cls = type(optimizer)
    module = cls.__module__  # torch.optim.adam.Adam is torch.optim.Adam
    package = module if module == "torch.optim" else module.rpartition(".")[0]
    return rule_of(group.get("rule", f"{package}.{cls.__name__}"), group)


def rules_of(optimizer: Optimizer, parameters: NamedParameters) -> list[tuple[Rule, dict[str, float]]]:
    """The rule and hyperparameters of each parameter. Raises ValueError where no rule describes what is done to one."""
    of = {id(p): rule_of_group(optimizer, group) for group in optimizer.param_groups for p in group["params"]}
    return [of[id(parameter)] for _, parameter in parameters]


class Responses(Mapping[str, float | Tensor]):
    """The response of the optimizer after its last step, by parameter name: a number, or one for each element.

    See `Rule.response`. It is the learning rate where no rule describes the optimizer, or its steps are not proportional to
    the gradient. Computed when it is asked for, since most runs never ask.
    """

    def __init__(self, optimizer: Optimizer, parameters: NamedParameters) -> None:
        self.optimizer = optimizer
        self.parameters = dict(parameters)
        # Positions, since an optimizer that loads a state gets other groups.
        place_of = {id(p): place for place, group in enumerate(optimizer.param_groups) for p in group["params"]}
        self.place_of = {name: place_of[id(parameter)] for name, parameter in parameters}

    def __getitem__(self, name: str) -> float | Tensor:
        group = self.optimizer.param_groups[self.place_of[name]]
        state = self.optimizer.state.get(self.parameters[name], {})
        try:
            rule, hyper = rule_of_group(self.optimizer, group)
        except ValueError:
            return float(group["lr"])
        if isinstance(rule.response, str) or (rule.counters and not state):  # or a parameter without a gradient so far
            return float(group["lr"])
        counters = {key: float(state[key]) for key in rule.counters}
        return rule.response(state, {**hyper, **rule.corrections(hyper, counters)})

    def __iter__(self) -> Iterator[str]:
        return iter(self.parameters)

    def __len__(self) -> int:
        return len(self.parameters)


def judges_average(optimizer: Optimizer) -> bool:
    """Whether a run is judged by averages of the optimizer's."""
    for group in optimizer.param_groups:
        with suppress(ValueError):
            if rule_of_group(optimizer, group)[0].average is not None:
                return True
    return False


def averaged_weights(optimizer: Optimizer, parameters: NamedParameters) -> dict[str, Tensor]:
    """The averages that a run is judged by in place of the parameters of these names; empty where what is trained is judged."""
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    averages = {}
    for name, parameter in parameters:
        try:
            rule, hyper = rule_of_group(optimizer, group_of[id(parameter)])
        except ValueError:
            continue
        state = optimizer.state.get(parameter)
        if rule.average is not None and state:
            averages[name] = rule.average(parameter.detach(), state, hyper)
    return averages

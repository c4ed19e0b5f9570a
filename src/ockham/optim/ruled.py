"""Optimizers that torch does not have: their steps are rules, applied to one run."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ockham.optim.responses import rule_of_group
from ockham.optim.rules import Rule


class RuleOptimizer(Optimizer):
    """Each step is the rule that `optim.rules.RULES` has for the class, or for the `rule` that a parameter group names.

    A parameter's state is what the rule keeps: its tensors without the axis of members, its counters as scalars.
    """

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        super().__init__(params, defaults)
        for group in self.param_groups:
            rule_of_group(self, group)  # which says what no rule covers

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            rule, hyper = rule_of_group(self, group)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    _update(rule, hyper, parameter, self.state[parameter])
        return loss


def _update(rule: Rule, hyper: Mapping[str, float], parameter: nn.Parameter, state: dict[str, Tensor]) -> None:
    """One step of a parameter that has a gradient, in place, with its state, which is empty before the first."""
    assert parameter.grad is not None
    # A rule has an axis of members: this is a group of one.
    stacked = parameter.unsqueeze(0)
    if not state:
        state |= {name: torch.tensor(start) for name, start in rule.counters.items()}
        state |= {name: tensor[0].clone() for name, tensor in rule.state(stacked).items()}
    counters = rule.count(hyper, {name: float(state[name]) for name in rule.counters})
    corrections = {name: float(number) for name, number in rule.corrections(hyper, counters).items()}
    tensors = {name: tensor.unsqueeze(0) for name, tensor in state.items() if name not in counters}
    updated, new = rule.update(stacked, parameter.grad.unsqueeze(0), tensors, {**hyper, **corrections})
    parameter.copy_(updated[0])
    for name, value in counters.items():
        state[name].fill_(value)
    for name, tensor in new.items():
        state[name].copy_(tensor[0])


class Lion(RuleOptimizer):
    """The sign of a moment that is a step ahead (Chen et al. 2023). yaml: `optimizer=lion`."""

    def __init__(self, params: Any, lr: float = 1e-4, betas: Sequence[float] = (0.9, 0.99), weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})


class SignSGD(RuleOptimizer):
    """The sign of the gradient; with momentum Signum (Bernstein et al. 2018). yaml: `optimizer=signsgd`."""

    def __init__(self, params: Any, lr: float = 1e-3, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})


class Adan(RuleOptimizer):
    """Adam with a moment of the gradient's differences (Xie et al. 2024). yaml: `optimizer=adan`."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: Sequence[float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})


class AdEMAMix(RuleOptimizer):
    """AdamW with a second, slower first moment (Pagliardini et al. 2025). yaml: `optimizer=ademamix`.

    `alpha` is the weight of the slow moment; it and the third of the betas grow to their values over so many steps of warm-up.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: Sequence[float] = (0.9, 0.999, 0.9999),
        alpha: float = 5.0,
        alpha_warmup: int = 0,
        beta3_warmup: int = 0,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        settings = {"lr": lr, "betas": betas, "alpha": alpha, "alpha_warmup": alpha_warmup, "beta3_warmup": beta3_warmup}
        super().__init__(params, {**settings, "eps": eps, "weight_decay": weight_decay})


class Lamb(RuleOptimizer):
    """Adam's direction, in steps as long as the weights (You et al. 2020). yaml: `optimizer=lamb`."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})


class Lars(RuleOptimizer):
    """SGD with momentum, in steps as long as the weights (You et al. 2017). yaml: `optimizer=lars`."""

    def __init__(
        self, params: Any, lr: float = 1.0, momentum: float = 0.9, trust_coefficient: float = 1e-3, weight_decay: float = 0.0
    ) -> None:
        settings = {"lr": lr, "momentum": momentum, "trust_coefficient": trust_coefficient, "weight_decay": weight_decay}
        super().__init__(params, settings)


class ScheduleFreeSGD(RuleOptimizer):
    """SGD that is judged by an average of its weights (Defazio et al. 2024). yaml: `optimizer=schedule_free_sgd`.

    Raises ValueError where `momentum` is 0: the average is then not known from what is trained.
    """

    def __init__(self, params: Any, lr: float = 1.0, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        if momentum == 0:
            raise ValueError("momentum must be above 0: it is the part of the average in the weights that are trained")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})


class ScheduleFreeAdamW(RuleOptimizer):
    """AdamW that is judged by an average of its weights (Defazio et al. 2024). yaml: `optimizer=schedule_free_adamw`.

    Raises ValueError where the first of the betas is 0: the average is then not known from what is trained.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 2.5e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if betas[0] == 0:
            raise ValueError(
                "the first of betas must be above 0: it is the part of the average in the weights that are trained"
            )
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

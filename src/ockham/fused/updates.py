"""The optimizer step of all members, in one of two forms that take the same state.

`Native` steps each member's own torch optimizer on its part of the stacked parameters; `Compiled` is one program for all
members that a rule updates, which reads every number once, and pays where the group is long enough to repay compiling it.
"""

import logging
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ockham.core.parameters import named_parameters
from ockham.experiment import Experiment
from ockham.fused.effects import OnWeights, update
from ockham.fused.stack import Stack
from ockham.optim.rules import Rule, State, mu_product, rule_of
from ockham.reg import Outputs

log = logging.getLogger("ockham")

#: A compiled update saves about so many seconds for each parameter and step, and takes so many to compile for each rule
#: (scripts/bench_sweep.py --case sizes: the difference of its columns).
SECONDS_SAVED, SECONDS_TO_COMPILE = 3e-9, 8.0


class Updates(Protocol):
    """Steps of the members' optimizers."""

    def step(self, gradients: Sequence[Tensor], lrs: np.ndarray, step: int) -> Tensor:
        """Step number `step` (from 1) with gradients (members, ...) of the data and lrs (members,); in place.

        Returns the penalties on weights that are in the loss, (members,).
        """

    def state(self, position: int) -> dict[str, Any]:
        """The state_dict of the member's torch optimizer; its tensors may be views."""

    def load(self, position: int, state: Mapping[str, Any]) -> None: ...


def pays_to_compile(experiments: Sequence[Experiment]) -> bool:
    """Whether the compiled form is faster for a whole run of these members, where a compiler is there."""
    families = len({id(rule_and_hyper(experiment)[0]) for experiment in experiments})
    steps = experiments[0].total_steps
    saved = steps * len(experiments) * experiments[0].num_parameters * SECONDS_SAVED
    if saved < families * SECONDS_TO_COMPILE or not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        return False
    log.info("compiling %d updates, which saves about %.0f s over %d steps", families, saved, steps)
    return True


def rule_and_hyper(experiment: Experiment) -> tuple[Rule, dict[str, float]]:
    """What the member's optimizer does, read from the optimizer itself."""
    optimizer = experiment.make_optimizer(experiment.model)
    (group,) = optimizer.param_groups
    return rule_of(type(optimizer).__name__, group)


class Native:
    """Each member's own optimizer and regularizers, as in a single run."""

    def __init__(self, stack: Stack, experiments: Sequence[Experiment]) -> None:
        self.regularizers = [experiment.regularizers for experiment in experiments]
        self.parameters = [named_parameters(experiment.model) for experiment in experiments]
        self.optimizers = [experiment.make_optimizer(experiment.model) for experiment in experiments]

    def step(self, gradients: Sequence[Tensor], lrs: np.ndarray, step: int) -> Tensor:
        penalties = [self._step(position, gradients, float(lr)) for position, lr in enumerate(lrs)]
        return torch.stack(penalties)

    def _step(self, position: int, gradients: Sequence[Tensor], lr: float) -> Tensor:
        parameters, optimizer = self.parameters[position], self.optimizers[position]
        for (_, parameter), gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient[position]
        penalty = self._penalty(position, like=gradients[0])
        optimizer.param_groups[0]["lr"] = lr
        by_name = dict.fromkeys([name for name, _ in parameters], lr)
        for reg in self.regularizers[position]:
            reg.before_step(parameters, by_name)
        optimizer.step()
        for reg in self.regularizers[position]:
            reg.project(parameters, by_name)
        return penalty

    def _penalty(self, position: int, *, like: Tensor) -> Tensor:
        """The penalties on weights in the loss; their gradient is added to that of the data."""
        in_loss = [r for r in self.regularizers[position] if r.has_penalty and not r.proximal and not r.uses_outputs]
        if not in_loss:
            return torch.zeros((), dtype=like.dtype, device=like.device)
        with torch.enable_grad():
            total = torch.stack([reg.penalty(self.parameters[position], Outputs(like)) for reg in in_loss]).sum()
            total.backward()
        return total.detach()

    def state(self, position: int) -> dict[str, Any]:
        return self.optimizers[position].state_dict()

    def load(self, position: int, state: Mapping[str, Any]) -> None:
        self.optimizers[position].load_state_dict(dict(state))


@dataclass(frozen=True)
class Family:
    """The members, next to each other, that one rule updates: hyperparameters (members,), a state for each parameter."""

    rule: Rule
    rows: slice
    hyper: dict[str, np.ndarray]
    used: frozenset[str]
    states: list[State]


class Compiled:
    """One program for each rule. Members stand in the order of their rules: see `order`."""

    def __init__(self, stack: Stack, experiments: Sequence[Experiment]) -> None:
        self.experiments = experiments
        self.parameters = list(stack.parameters.values())
        self.like = self.parameters[0]
        on_weights = OnWeights.of(experiments)
        self.on_matrices, self.on_others = (self._tensors(side) for side in (on_weights.matrices, on_weights.others))
        self.families = []
        rules = [rule_and_hyper(experiment) for experiment in experiments]
        start = 0
        for stop in range(1, len(rules) + 1):
            if stop == len(rules) or rules[stop][0] is not rules[start][0]:
                rule, rows = rules[start][0], slice(start, stop)
                hyper = {name: np.array([own[name] for _, own in rules[rows]], dtype=np.float64) for name in rule.defaults}
                states = [{name: torch.zeros_like(p[rows]) for name in rule.state} for p in self.parameters]
                self.families.append(Family(rule, rows, hyper, on_weights.used(rows), states))
                start = stop
        self.steps = 0
        self.lrs = np.zeros(len(experiments))
        self.program = compiled(update)

    def _tensors(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        like = self.like
        return {name: torch.tensor(values, dtype=like.dtype, device=like.device) for name, values in arrays.items()}

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], lrs: np.ndarray, step: int) -> Tensor:
        self.steps, self.lrs = step, lrs
        penalties = []
        for family in self.families:
            rows = family.rows
            hyper = {**family.hyper, "lr": lrs[rows]}
            if family.rule.corrections is not None:
                hyper |= family.rule.corrections(hyper, step)
            numbers = torch.from_numpy(np.stack(list(hyper.values()))).to(dtype=self.like.dtype, device=self.like.device)
            penalties.append(
                self.program(
                    family.rule,
                    family.used,
                    [p[rows] for p in self.parameters],
                    [g[rows] for g in gradients],
                    family.states,
                    dict(zip(hyper, numbers, strict=True)),
                    {name: values[rows] for name, values in self.on_matrices.items() if name in family.used},
                    {name: values[rows] for name, values in self.on_others.items() if name in family.used},
                )
            )
        return torch.cat(penalties)

    def _place(self, position: int) -> tuple[Family, int]:
        family = next(own for own in self.families if own.rows.start <= position < own.rows.stop)
        return family, position - family.rows.start

    def state(self, position: int) -> dict[str, Any]:
        experiment = self.experiments[position]
        optimizer = experiment.make_optimizer(experiment.model)
        family, row = self._place(position)
        for parameter, state in zip(experiment.model.parameters(), family.states, strict=True):
            own: dict[str, Any] = {}
            if family.rule.counts_steps:
                own["step"] = torch.tensor(float(self.steps), dtype=self.like.dtype)
            if type(optimizer).__name__ == "NAdam":
                product = mu_product({name: values[row : row + 1] for name, values in family.hyper.items()}, self.steps)
                own["mu_product"] = torch.tensor(float(product[0]), dtype=self.like.dtype)
            own |= {name: state[name][row] for name in family.rule.state}
            if own:
                optimizer.state[parameter] = own
        optimizer.param_groups[0]["lr"] = float(self.lrs[position])
        return optimizer.state_dict()

    def load(self, position: int, state: Mapping[str, Any]) -> None:
        family, row = self._place(position)
        self.lrs[position] = state["param_groups"][0]["lr"]
        for index, own in state["state"].items():
            self.steps = int(own.get("step", 0))
            for name in family.rule.state:
                family.states[index][name][row].copy_(own[name])


def order(experiments: Sequence[Experiment]) -> list[int]:
    """Positions such that members of one rule stand together, otherwise as they were."""
    rules = [rule_and_hyper(experiment)[0] for experiment in experiments]
    first = {id(rule): position for position, rule in reversed(list(enumerate(rules)))}
    return sorted(range(len(rules)), key=lambda position: (first[id(rules[position])], position))


_programs: dict[Callable[..., Any], Callable[..., Any]] = {}


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled, kept for later groups of the same shapes; where it fails to compile, itself, with a warning."""
    if function not in _programs:
        # Each set of shapes and rules is one more program; beyond the limit torch would silently run the slow form.
        torch._dynamo.config.recompile_limit = 256
        torch._dynamo.config.accumulated_recompile_limit = 4096
        torch._dynamo.config.fail_on_recompile_limit_hit = True
        _programs[function] = _or_eager(function, torch.compile(function, dynamic=False, fullgraph=True))
    return _programs[function]


def _or_eager(function: Callable[..., Any], fast: Callable[..., Any]) -> Callable[..., Any]:
    failed = False

    def call(*arguments: Any) -> Any:
        nonlocal failed
        if not failed:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # what the compiler thinks of torch is not the user's concern
                    return fast(*arguments)
            except torch._dynamo.exc.TorchDynamoException as error:  # raised before anything was updated
                log.warning("warning: the update could not be compiled and runs slower: %s", str(error).splitlines()[0])
                failed = True
        return function(*arguments)

    return call

"""The steps of all members, in one of two forms that keep the same state.

`Native` runs forward and backward pass for all members at once, then each member's own torch optimizer. `Compiled` is one
program of everything a step does for the members that a rule updates; it pays where the group is long enough to repay
compiling it.
"""

import copy
import logging
import shutil
import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.optim import Optimizer
from torch.utils import _pytree as pytree

from ockham.core.parameters import named_parameters
from ockham.fused.objective import Batch, Objective
from ockham.fused.stack import Stack, Tensors, stacked_parameters
from ockham.fused.weights import update
from ockham.optim.responses import Responses, averaged_weights, rules_of
from ockham.optim.rules import Rule, State, Update
from ockham.reg.single import decay, prox_and_project, weight_penalties
from ockham.run import Run

log = logging.getLogger("ockham")

#: A compiled step takes about so many seconds for each parameter of each member and saves so many; for each rule it takes so
#: many to compile (scripts/bench_sweep.py --case sizes: its columns, and their difference).
SECONDS_A_STEP, SECONDS_SAVED, SECONDS_TO_COMPILE = 8e-9, 3e-9, 6.0


class Updates(Protocol):
    """Steps of the members."""

    def prepare(self, microbatches: Sequence[Batch]) -> None:
        """What has to be done once before steps on micro-batches of these shapes."""

    def step(self, microbatches: Sequence[Batch], factors: np.ndarray) -> Tensor:
        """A step in place with `factors` (members,) times each learning rate; returns the members' objectives, (members,).

        The micro-batches are worked on one after the other, and make one batch together.
        """

    def state(self, position: int) -> dict[str, Any]:
        """The state_dict of the member's torch optimizer; its tensors may be views."""

    def averaged_weights(self, position: int) -> dict[str, Tensor]:
        """The averages that the member is judged by, by parameter name; empty where its trained weights are."""

    def load(self, position: int, state: Mapping[str, Any]) -> None: ...


def pays_to_compile(runs: Sequence[Run]) -> bool:
    """Whether the compiled form is faster for a whole run of these members, where a compiler is there."""
    steps = runs[0].total_steps
    saved = steps * len(runs) * runs[0].num_parameters * SECONDS_SAVED
    if saved < _seconds_to_compile(runs) or not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        return False
    log.info("compiling, which saves about %.0f s over %d steps of %d runs", saved, steps, len(runs))
    return True


def pays_to_shrink(runs: Sequence[Run], kept: Sequence[Run], steps: int, *, compile_again: bool) -> bool:
    """Whether to leave ended members behind, for `steps` further steps: once they are half, and repay a new compilation."""
    if 2 * len(kept) > len(runs):
        return False
    leaving = len(runs) - len(kept)
    saved = steps * leaving * runs[0].num_parameters * SECONDS_A_STEP
    return not compile_again or saved > _seconds_to_compile(kept)


def _seconds_to_compile(runs: Sequence[Run]) -> float:
    return len({updates_of(run) for run in runs}) * SECONDS_TO_COMPILE


def updates_of(run: Run) -> tuple[Update, ...]:
    """What the member's optimizer does to each parameter, read from the optimizer itself."""
    rules = rules_of(run.make_optimizer(run.model), stacked_parameters(run.model))
    return tuple(rule.update for rule, _ in rules)


class Native:
    """Each member's own optimizer and regularizers, as in a single run."""

    def __init__(self, stack: Stack, runs: Sequence[Run]) -> None:
        self.stack = stack
        self.objective = Objective(stack, slice(len(runs)), runs)
        self.clipping = runs[0].settings.clipping
        self.regularizers = [run.regularizers for run in runs]
        self.parameters = [stacked_parameters(run.model) for run in runs]
        self.optimizers = [run.make_optimizer(run.model) for run in runs]
        self.base_lrs = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self.responses = [
            Responses(optimizer, named) for optimizer, named in zip(self.optimizers, self.parameters, strict=True)
        ]

    def prepare(self, microbatches: Sequence[Batch]) -> None:
        pass

    def step(self, microbatches: Sequence[Batch], factors: np.ndarray) -> Tensor:
        inputs = [self.objective.inputs(batch) for batch in microbatches]
        losses, gradients = self.objective.gradients(self.stack.parameters, self.stack.buffers, inputs)
        with torch.no_grad():
            penalties = [self._step(position, gradients, float(factor)) for position, factor in enumerate(factors)]
        return losses + torch.stack(penalties)

    def _step(self, position: int, gradients: Sequence[Tensor], factor: float) -> Tensor:
        parameters, optimizer = self.parameters[position], self.optimizers[position]
        for (_, parameter), gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient[position]
        penalty = self._penalty(position, like=gradients[0])
        if self.clipping is not None:
            self.clipping.apply(parameter for _, parameter in parameters)
        lrs: dict[int, float] = {}
        for group, base in zip(optimizer.param_groups, self.base_lrs[position], strict=True):
            group["lr"] = base * factor
            lrs |= dict.fromkeys([id(parameter) for parameter in group["params"]], group["lr"])
        by_name = {name: lrs[id(parameter)] for name, parameter in parameters}
        decay(self.regularizers[position], parameters, by_name)
        optimizer.step()
        prox_and_project(self.regularizers[position], parameters, self.responses[position])
        return penalty

    def _penalty(self, position: int, *, like: Tensor) -> Tensor:
        """The penalties on weights in the loss; their gradient is added to that of the data."""
        with torch.enable_grad():
            penalties = weight_penalties(self.regularizers[position], self.parameters[position])
            if not penalties:
                return torch.zeros((), dtype=like.dtype, device=like.device)
            total = torch.stack(penalties).sum()
            total.backward()
        return total.detach()

    def state(self, position: int) -> dict[str, Any]:
        return self.optimizers[position].state_dict()

    def averaged_weights(self, position: int) -> dict[str, Tensor]:
        return averaged_weights(self.optimizers[position], named_parameters(self.stack.models[position]))

    def load(self, position: int, state: Mapping[str, Any]) -> None:
        self.optimizers[position].load_state_dict(dict(state))


class RuleNumbers:
    """Hyperparameters and counters, (members,), of the parameters that one rule updates in all members of a family."""

    def __init__(self, rule: Rule, hypers: Sequence[Mapping[str, float]], dtype: torch.dtype) -> None:
        self.rule = rule
        self.hyper = {name: np.array([hyper[name] for hyper in hypers], dtype=np.float64) for name in rule.defaults}
        self.base_lrs = self.hyper["lr"].copy()
        # Counters have the precision in which torch keeps and stores them, so that a group that continues has the same.
        self.count_dtype = torch.empty(0, dtype=dtype).numpy().dtype
        self.counters = {name: np.full(len(hypers), start, self.count_dtype) for name, start in rule.counters.items()}

    def advance(self, factors: np.ndarray) -> None:
        """Set the learning rates (members,) of the next step and count it."""
        self.hyper = {**self.hyper, "lr": self.base_lrs * factors}
        counted = self.rule.count(self.hyper, self.counters)
        self.counters = {name: values.astype(self.count_dtype) for name, values in counted.items()}

    def tensors(self, like: Tensor) -> dict[str, Tensor]:
        """The hyperparameters of the step and what follows from its number, (members,) each."""
        numbers = self.hyper | self.rule.corrections(self.hyper, self.counters)
        table = torch.from_numpy(np.stack(list(numbers.values()))).to(dtype=like.dtype, device=like.device)
        return dict(zip(numbers, table, strict=True))


class Family:
    """The members, next to each other, with the same rules for the same parameters."""

    def __init__(self, stack: Stack, runs: Sequence[Run], rows: slice) -> None:
        runs = runs[rows]
        self.rows = rows
        by_member = [rules_of(run.make_optimizer(run.model), stacked_parameters(run.model)) for run in runs]
        self.rules = [rule for rule, _ in by_member[0]]
        by_update = {rule.update: position for position, rule in reversed(list(enumerate(self.rules)))}
        self.rule_numbers = {
            str(position): RuleNumbers(self.rules[position], [rules[position][1] for rules in by_member], stack.like.dtype)
            for position in by_update.values()
        }
        #: For each parameter, the key of its rule in `rule_numbers`.
        self.rule_keys = [str(by_update[rule.update]) for rule in self.rules]
        self.objective = Objective(stack, rows, runs)
        self.parameters = {name: p[rows] for name, p in stack.parameters.items()}
        self.buffers = {name: b[rows] for name, b in stack.buffers.items()}
        self.states = [rule.state(p) for rule, p in zip(self.rules, self.parameters.values(), strict=True)]
        self.like = stack.like
        self.step_size = runs[0].step_size
        self.clipping = runs[0].settings.clipping
        self.compiled_step: Callable[..., Tensor] | None = None

    def prepare(self, microbatches: Sequence[Batch]) -> None:
        """Compile the step of such batches."""
        if self.compiled_step is None:
            coming = {name: copy.copy(numbers) for name, numbers in self.rule_numbers.items()}
            for numbers in coming.values():
                numbers.advance(np.ones(len(numbers.base_lrs)))
            self.compiled_step = compiled(self.whole_step, self.identity, *self._arguments(microbatches, coming))

    def step(self, microbatches: Sequence[Batch], factors: np.ndarray) -> Tensor:
        """A step with the factors (members of the group,); returns the members' objectives, (members,)."""
        for numbers in self.rule_numbers.values():
            numbers.advance(factors[self.rows])
        # The rest of an epoch is a smaller batch, once an epoch: not worth a program of its own.
        arguments = self._arguments(microbatches, self.rule_numbers)
        if sum(batch.x.shape[1] for batch in microbatches) < self.step_size or self.compiled_step is None:
            return self.whole_step(*arguments)
        return self.compiled_step(*arguments)

    def _arguments(
        self, microbatches: Sequence[Batch], rule_numbers: Mapping[str, RuleNumbers]
    ) -> tuple[Tensors, Tensors, Sequence[State], dict[str, Any]]:
        """What `whole_step` is called with."""
        inputs = {
            "microbatches": [self.objective.inputs(Batch(b.x, b.y, b.cohorts[self.rows])) for b in microbatches],
            "hyper": {name: numbers.tensors(self.like) for name, numbers in rule_numbers.items()},
        }
        return self.parameters, self.buffers, self.states, inputs

    @property
    def identity(self) -> Hashable:
        """What fixes `whole_step`, beside the names and shapes of its arguments."""
        rules = tuple(rule.update for rule in self.rules)
        identity = self.objective.regularization.identity
        return rules, identity, self.clipping, repr(self.objective.layers), self.objective.num_classes

    def whole_step(self, parameters: Tensors, buffers: Tensors, states: Sequence[State], inputs: Mapping[str, Any]) -> Tensor:
        """Forward and backward pass and update, in place; returns the members' objectives, (members,)."""
        losses, gradients = self.objective.gradients(parameters, buffers, inputs["microbatches"])
        with torch.no_grad():
            return losses + update(
                self.rules, self.objective.regularization, self.clipping, list(parameters.values()), gradients, states,
                [inputs["hyper"][key] for key in self.rule_keys], inputs["microbatches"][0],
            )  # fmt: skip


class Compiled:
    """One program for each choice of rules. Members stand in the order of their rules: see `order`."""

    def __init__(self, stack: Stack, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.like = stack.like
        rules = [updates_of(run) for run in runs]
        starts = [row for row, rule in enumerate(rules) if row == 0 or rule != rules[row - 1]]
        self.families = [Family(stack, runs, slice(*rows)) for rows in pairwise([*starts, len(rules)])]

    def prepare(self, microbatches: Sequence[Batch]) -> None:
        for family in self.families:
            family.prepare(microbatches)

    def step(self, microbatches: Sequence[Batch], factors: np.ndarray) -> Tensor:
        return torch.cat([family.step(microbatches, factors) for family in self.families])

    def _family(self, position: int) -> Family:
        return next(family for family in self.families if family.rows.start <= position < family.rows.stop)

    def _parameters(
        self, position: int, optimizer: Optimizer
    ) -> Iterator[tuple[Tensor, dict[str, Any], RuleNumbers, State, int]]:
        """For each parameter of the member: itself, its group in `optimizer`, and where its numbers and state are."""
        family = self._family(position)
        groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        named = stacked_parameters(self.runs[position].model)
        for (_, parameter), key, state in zip(named, family.rule_keys, family.states, strict=True):
            yield parameter, groups[id(parameter)], family.rule_numbers[key], state, position - family.rows.start

    def state(self, position: int) -> dict[str, Any]:
        optimizer = self.runs[position].make_optimizer(self.runs[position].model)
        for parameter, group, numbers, state, row in self._parameters(position, optimizer):
            group["lr"] = float(numbers.hyper["lr"][row])
            counters = {name: torch.tensor(values[row], dtype=self.like.dtype) for name, values in numbers.counters.items()}
            # Copies: a view would be saved with the numbers of all members.
            tensors = {name: value[row].clone() for name, value in state.items()}
            if counters or tensors:
                optimizer.state[parameter] = counters | tensors
        return optimizer.state_dict()

    def averaged_weights(self, position: int) -> dict[str, Tensor]:
        family = self._family(position)
        row = position - family.rows.start
        averages = {}
        own_names = {id(parameter): name for name, parameter in named_parameters(self.runs[position].model)}
        named = stacked_parameters(self.runs[position].model)
        for (_, parameter), rule, key, state in zip(named, family.rules, family.rule_keys, family.states, strict=True):
            if rule.average is not None:
                hyper = {name: float(values[row]) for name, values in family.rule_numbers[key].hyper.items()}
                tensors = {name: value[row] for name, value in state.items()}
                averages[own_names[id(parameter)]] = rule.average(parameter.detach(), tensors, hyper)
        return averages

    def load(self, position: int, state: Mapping[str, Any]) -> None:
        optimizer = self.runs[position].make_optimizer(self.runs[position].model)
        optimizer.load_state_dict(dict(state))
        for parameter, group, numbers, tensors, row in self._parameters(position, optimizer):
            numbers.hyper["lr"][row] = group["lr"]
            for name, values in numbers.counters.items():
                values[row] = float(optimizer.state[parameter][name])
            for name, value in tensors.items():
                value[row].copy_(optimizer.state[parameter][name])


def order(runs: Sequence[Run]) -> list[int]:
    """Positions such that members of the same rules stand together, otherwise as they were."""
    rules = [updates_of(run) for run in runs]
    return sorted(range(len(rules)), key=lambda position: (rules.index(rules[position]), position))


_programs: dict[Hashable, Callable[..., Tensor] | None] = {}


def compiled(function: Callable[..., Tensor], identity: Hashable, *arguments: Any) -> Callable[..., Tensor]:
    """`function` as one compiled program for arguments like these, which are tensors in dicts and lists.

    The program is kept for later groups: functions of one `identity` are the same for arguments of the same names and
    shapes. What cannot be compiled runs as it is, with a warning.
    """
    flat, structure = pytree.tree_flatten(arguments)
    key = (identity, structure, tuple((value.shape, value.dtype, value.device) for value in flat))
    if key not in _programs:
        _programs[key] = _program(lambda *values: function(*pytree.tree_unflatten(values, structure)), flat)
    program = _programs[key]
    return function if program is None else lambda *arguments: program(*pytree.tree_leaves(arguments))


def _program(function: Callable[..., Tensor], example: Sequence[Tensor]) -> Callable[..., Tensor] | None:
    """None, with a warning, where `function` cannot be compiled."""
    # Beyond its limit of recompilations torch would silently run the slow form; a program has no reason for a second.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    began = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the compiler thinks of torch is not the user's concern
            # Traced first: the compiler takes a gradient inside of what it compiles only as the operations that it is made of.
            traced = make_fx(function, tracing_mode="fake")(*example)
            # Its guards would check at every step what `compiled` knows from the key.
            options: dict[str, Any] = {"guard_filter_fn": lambda guards: [False] * len(guards)}
            program = torch.compile(traced, dynamic=False, fullgraph=True, options=options)
            # Compiled at the first call, with copies, since that changes what it is called with.
            program(*[value.clone() for value in example])
    except RuntimeError as error:  # what is wrong with the function itself comes again without the compiler
        log.warning("warning: a group could not be compiled and runs slower: %s", str(error).splitlines()[0])
        return None
    log.info("compiled in %.1f s", time.monotonic() - began)
    return program

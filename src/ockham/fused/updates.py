"""The steps of all members, in one of two forms that keep the same state.

`Native` runs forward and backward pass for all members at once, then each member's own torch optimizer. `Compiled` is one
program of everything a step does for the members that a rule updates; it pays where the group is long enough to repay
compiling it.
"""

import logging
import shutil
import time
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from ockham.core.parameters import named_parameters
from ockham.fused.effects import OnWeights, update
from ockham.fused.objective import Batch, Objective
from ockham.fused.stack import Stack, Tensors
from ockham.optim.responses import Responses, rule_of_group
from ockham.optim.rules import Rule, State
from ockham.reg import Outputs
from ockham.run import Run

log = logging.getLogger("ockham")

#: A compiled step takes about so many seconds for each parameter of each member and saves so many; for each rule it takes so
#: many to compile (scripts/bench_sweep.py --case sizes: its columns, and their difference).
SECONDS_A_STEP, SECONDS_SAVED, SECONDS_TO_COMPILE = 8e-9, 3e-9, 6.0


class Updates(Protocol):
    """Steps of the members."""

    def prepare(self, batch: Batch) -> None:
        """What has to be done once before steps on batches of that shape."""

    def step(self, batch: Batch, lrs: np.ndarray) -> Tensor:
        """A step with lrs (members,), in place; returns the members' objectives, (members,)."""

    def state(self, position: int) -> dict[str, Any]:
        """The state_dict of the member's torch optimizer; its tensors may be views."""

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
    return len({id(rule_and_hyper(run)[0]) for run in runs}) * SECONDS_TO_COMPILE


def rule_and_hyper(run: Run) -> tuple[Rule, dict[str, float]]:
    """What the member's optimizer does, read from the optimizer itself."""
    optimizer = run.make_optimizer(run.model)
    (group,) = optimizer.param_groups
    return rule_of_group(optimizer, group)


class Native:
    """Each member's own optimizer and regularizers, as in a single run."""

    def __init__(self, stack: Stack, runs: Sequence[Run]) -> None:
        self.stack = stack
        self.objective = Objective(stack.layers, stack.widths, runs, stack.like)
        self.regularizers = [run.regularizers for run in runs]
        self.parameters = [named_parameters(run.model) for run in runs]
        self.optimizers = [run.make_optimizer(run.model) for run in runs]
        self.responses = [Responses(own, named) for own, named in zip(self.optimizers, self.parameters, strict=True)]

    def prepare(self, batch: Batch) -> None:
        pass

    def step(self, batch: Batch, lrs: np.ndarray) -> Tensor:
        losses, gradients = self.objective.gradients(self.stack.parameters, self.stack.buffers, self.objective.inputs(batch))
        with torch.no_grad():
            penalties = [self._step(position, gradients, float(lr)) for position, lr in enumerate(lrs)]
        return losses + torch.stack(penalties)

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
            reg.project(parameters, self.responses[position])
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


class Family:
    """The members, next to each other, that one rule updates."""

    def __init__(self, stack: Stack, runs: Sequence[Run], rows: slice) -> None:
        own = runs[rows]
        rules = [rule_and_hyper(run) for run in own]
        self.rows = rows
        self.rule: Rule = rules[0][0]
        self.hyper = {name: np.array([hyper[name] for _, hyper in rules], dtype=np.float64) for name in self.rule.defaults}
        self.objective = Objective(stack.layers, stack.widths, own, stack.like)
        self.parameters = {name: p[rows] for name, p in stack.parameters.items()}
        self.buffers = {name: b[rows] for name, b in stack.buffers.items()}
        # In the precision in which torch keeps and stores them, so that a group that continues has the same.
        self.count_dtype = torch.empty(0, dtype=stack.like.dtype).numpy().dtype
        self.counters = {name: np.full(len(own), start, self.count_dtype) for name, start in self.rule.counters.items()}
        self.states = [{name: torch.zeros_like(p) for name in self.rule.state} for p in self.parameters.values()]
        on_weights = OnWeights.of(own)
        self.used = on_weights.used
        self.on_matrices, self.on_others = (
            {name: torch.tensor(side[name], dtype=stack.like.dtype, device=stack.like.device) for name in sorted(self.used)}
            for side in (on_weights.matrices, on_weights.others)
        )
        self.like = stack.like
        self.batch_size = own[0].settings.batch_size
        self.compiled_step: Callable[..., Tensor] | None = None

    def prepare(self, batch: Batch, lrs: np.ndarray) -> None:
        """Compile the step of such batches."""
        self._program(batch, lrs, self._counted())

    def step(self, batch: Batch, lrs: np.ndarray) -> Tensor:
        """A step with lrs (members of the group,); returns the members' objectives, (members,)."""
        self.counters = self._counted()
        return self._program(batch, lrs, self.counters)()

    def _counted(self) -> dict[str, np.ndarray]:
        """The counters a step later, (members,)."""
        counters = self.rule.count(self.hyper, self.counters)
        return {name: values.astype(self.count_dtype) for name, values in counters.items()}

    def _program(self, batch: Batch, lrs: np.ndarray, counters: Mapping[str, np.ndarray]) -> Callable[[], Tensor]:
        """The step that ends with these counters, ready to be done."""
        hyper = {**self.hyper, "lr": lrs[self.rows]}
        hyper |= self.rule.corrections(hyper, counters)
        table = torch.from_numpy(np.stack(list(hyper.values()))).to(dtype=self.like.dtype, device=self.like.device)
        batch = Batch(batch.x, batch.y, batch.cohorts[self.rows])
        inputs = {
            **self.objective.inputs(batch),
            "hyper": dict(zip(hyper, table, strict=True)),
            "on_matrices": self.on_matrices,
            "on_others": self.on_others,
        }
        # The rest of an epoch is a smaller batch, once an epoch: not worth a program of its own.
        arguments = (self.parameters, self.buffers, self.states, inputs)
        if batch.x.shape[1] < self.batch_size:
            return partial(self.whole_step, *arguments)
        if self.compiled_step is None:
            self.compiled_step = compiled(self.whole_step, self.identity, *arguments)
        return partial(self.compiled_step, *arguments)

    @property
    def identity(self) -> Hashable:
        """What fixes `whole_step`, beside the names and shapes of its arguments."""
        return self.rule.update, self.used, repr(self.objective.layers), self.objective.num_classes

    def whole_step(
        self, parameters: Tensors, buffers: Tensors, states: Sequence[State], inputs: Mapping[str, Tensors]
    ) -> Tensor:
        """Forward and backward pass and update, in place; returns the members' objectives, (members,)."""
        losses, gradients = self.objective.gradients(parameters, buffers, inputs)
        with torch.no_grad():
            return losses + update(
                self.rule, self.used, list(parameters.values()), gradients, states,
                inputs["hyper"], inputs["on_matrices"], inputs["on_others"],
            )  # fmt: skip


class Compiled:
    """One program for each rule. Members stand in the order of their rules: see `order`."""

    def __init__(self, stack: Stack, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.like = stack.like
        rules = [rule_and_hyper(run)[0] for run in runs]
        starts = [row for row, rule in enumerate(rules) if row == 0 or rule is not rules[row - 1]]
        self.families = [Family(stack, runs, slice(*rows)) for rows in pairwise([*starts, len(rules)])]
        self.lrs = np.zeros(len(runs))

    def prepare(self, batch: Batch) -> None:
        for family in self.families:
            family.prepare(batch, self.lrs)

    def step(self, batch: Batch, lrs: np.ndarray) -> Tensor:
        self.lrs = lrs
        return torch.cat([family.step(batch, lrs) for family in self.families])

    def _place(self, position: int) -> tuple[Family, int]:
        family = next(own for own in self.families if own.rows.start <= position < own.rows.stop)
        return family, position - family.rows.start

    def state(self, position: int) -> dict[str, Any]:
        run = self.runs[position]
        optimizer = run.make_optimizer(run.model)
        family, row = self._place(position)
        for parameter, state in zip(run.model.parameters(), family.states, strict=True):
            # Copies: a view would be saved with the numbers of all members.
            own = {name: torch.tensor(values[row], dtype=self.like.dtype) for name, values in family.counters.items()}
            own |= {name: state[name][row].clone() for name in family.rule.state}
            if own:
                optimizer.state[parameter] = own
        optimizer.param_groups[0]["lr"] = float(self.lrs[position])
        return optimizer.state_dict()

    def load(self, position: int, state: Mapping[str, Any]) -> None:
        family, row = self._place(position)
        self.lrs[position] = state["param_groups"][0]["lr"]
        for index, own in state["state"].items():
            for name, values in family.counters.items():
                values[row] = float(own[name])
            for name in family.rule.state:
                family.states[index][name][row].copy_(own[name])


def order(runs: Sequence[Run]) -> list[int]:
    """Positions such that members of one rule stand together, otherwise as they were."""
    rules = [rule_and_hyper(run)[0] for run in runs]
    first = {id(rule): position for position, rule in reversed(list(enumerate(rules)))}
    return sorted(range(len(rules)), key=lambda position: (first[id(rules[position])], position))


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
    return function if program is None else lambda *own: program(*pytree.tree_leaves(own))


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

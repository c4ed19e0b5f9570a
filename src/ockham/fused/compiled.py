"""Steps of members as compiled programs: one of the gradients for all, and for each rule a small one of the update."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from ockham.core.parameters import named_parameters
from ockham.fused.noise import Draw, MemberNoise
from ockham.fused.objective import Batch, Objective
from ockham.fused.programs import Program, Source, compiled
from ockham.fused.regularizers import Regularization, noise_key
from ockham.fused.stack import Stack, stacked_parameters
from ockham.fused.updates import pays_to_compile_gradients, updates_of
from ockham.fused.weights import update
from ockham.optim.responses import rules_of
from ockham.optim.rules import Rule, State
from ockham.reg.base import has_hook
from ockham.run import Run

Arguments = tuple[Sequence[Tensor], Sequence[Tensor], Sequence[State], Sequence[Tensor], Mapping[str, Any], Mapping[str, Any]]
"""Of `Family.update`."""


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
    """The members, next to each other, with the same rules for the same parameters, and the program that updates them."""

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
        self.regularization = Regularization(
            stack.regularizers[rows], stack.models[rows], [layer.name for layer in stack.layers], stack.like
        )
        self.noise = gradient_noise(self.regularization, stack, runs)
        self.parameters = [parameter[rows] for parameter in stack.parameters.values()]
        #: Of all members, where one of them keeps any.
        self.averages = [
            parameter.clone()
            for parameter in self.parameters
            if any(regularizer.has("after_step") for regularizer in self.regularization.stacked)
        ]
        self.states = [rule.state(parameter) for rule, parameter in zip(self.rules, self.parameters, strict=True)]
        self.like = stack.like
        self.clipping = runs[0].settings.clipping
        self.program: Program = self.update

    @property
    def source(self) -> Source:
        coming = {name: copy.copy(numbers) for name, numbers in self.rule_numbers.items()}
        for numbers in coming.values():
            numbers.advance(np.ones(len(numbers.base_lrs)))
        gradients = [torch.zeros_like(parameter) for parameter in self.parameters]
        identity = tuple(rule.update for rule in self.rules), self.regularization.identity, self.clipping
        return Source(self.update, identity, self._arguments(gradients, coming, number=1))

    def step(self, gradients: Sequence[Tensor], factors: np.ndarray, number: int) -> Tensor:
        """Update with the gradients and the factors of all members; returns the penalties in the loss, (members,)."""
        for numbers in self.rule_numbers.values():
            numbers.advance(factors[self.rows])
        of_family = [gradient[self.rows].contiguous() for gradient in gradients]
        return self.program(*self._arguments(of_family, self.rule_numbers, number=number))

    def _arguments(self, gradients: Sequence[Tensor], rule_numbers: Mapping[str, RuleNumbers], *, number: int) -> Arguments:
        """What `update` is called with in the step of that number."""
        hyper = {name: numbers.tensors(self.like) for name, numbers in rule_numbers.items()}
        regularizers = {
            "numbers": self.regularization.numbers,
            "masks": self.regularization.masks,
            "coefficients": self.regularization.coefficients(number, self.like),
            "noise": self.noise.draw(),
            "places": self.noise.places,
        }
        return self.parameters, gradients, self.states, self.averages, hyper, regularizers

    def update(
        self,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        states: Sequence[State],
        averages: Sequence[Tensor],
        hyper: Mapping[str, Any],
        regularizers: Mapping[str, Any],
    ) -> Tensor:
        """Update parameters, states and averages in place; returns the penalties in the loss, (members,).

        Reads no tensor but its arguments, so that it can be traced.
        """
        hypers = [hyper[key] for key in self.rule_keys]
        with torch.no_grad():
            return update(
                self.rules, self.regularization, self.clipping, parameters, gradients, states, averages, hypers, regularizers
            )  # fmt: skip


def gradient_noise(regularization: Regularization, stack: Stack, runs: Sequence[Run]) -> MemberNoise:
    """What these members draw for each step, by the places of the parameters."""
    noise = MemberNoise(runs, stack.like)
    for index, regularizer in enumerate(regularization.stacked):
        if regularizer.has("disturb_gradient"):
            for position, (name, parameter) in enumerate(stack.parameters.items()):
                stream, shape = f"{regularizer.name}/{name}", tuple(parameter.shape[1:])
                draw = Draw(stream, regularizer.example.distribution, shape, by_sample=False)
                noise.add(noise_key("disturb_gradient", index, str(position)), list(regularizer.members), draw)
    return noise


class Compiled:
    """A program for each choice of rules, and one for the gradients of all members where that pays.

    Members stand in the order of their rules: see `updates.order`.
    """

    def __init__(self, stack: Stack, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.stack = stack
        self.objective = Objective(stack, slice(len(runs)), runs)
        self.step_size = runs[0].step_size * runs[0].repeats
        self.is_prepared = False
        self.gradients: Program = self.objective.gradients
        rules = [updates_of(run) for run in runs]
        starts = [row for row, rule in enumerate(rules) if row == 0 or rule != rules[row - 1]]
        self.families = [Family(stack, runs, slice(*rows)) for rows in pairwise([*starts, len(rules)])]

    def prepare(self, microbatches: Sequence[Batch]) -> None:
        if self.is_prepared:
            return
        sources = [family.source for family in self.families]
        if pays_to_compile_gradients(self.runs):
            inputs = [self.objective.inputs(batch) for batch in microbatches]
            arguments = (self.stack.parameters, self.stack.buffers, inputs)
            sources.append(Source(self.objective.gradients, self.objective.identity, arguments))
        programs = compiled(sources)
        for family, program in zip(self.families, programs, strict=False):
            family.program = program
        self.gradients = programs[-1] if len(programs) > len(self.families) else self.objective.gradients
        self.is_prepared = True

    def step(self, microbatches: Sequence[Batch], factors: np.ndarray, number: int) -> Tensor:
        inputs = [self.objective.inputs(batch) for batch in microbatches]
        # The rest of an epoch is a smaller batch, once an epoch: not worth a program of its own.
        is_whole = sum(batch.x.shape[1] for batch in microbatches) == self.step_size
        losses, gradients = self.objective.gradients_of_step(
            self.gradients if is_whole else self.objective.gradients, self.stack.parameters, self.stack.buffers, inputs
        )
        return losses + torch.cat([family.step(gradients, factors, number) for family in self.families])

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
            dtype = self.stack.like.dtype
            counters = {name: torch.tensor(values[row], dtype=dtype) for name, values in numbers.counters.items()}
            # Copies: a view would be saved with the numbers of all members.
            tensors = {name: value[row].clone() for name, value in state.items()}
            if counters or tensors:
                optimizer.state[parameter] = counters | tensors
        return optimizer.state_dict()

    def averaged_weights(self, position: int) -> dict[str, Tensor]:
        family, model = self._family(position), self.runs[position].model
        if all(rule.average is None for rule in family.rules):
            return self.averages(position)
        row = position - family.rows.start
        averages = {}
        names = {id(parameter): name for name, parameter in named_parameters(model)}
        named = stacked_parameters(model)
        for (_, parameter), rule, key, state in zip(named, family.rules, family.rule_keys, family.states, strict=True):
            if rule.average is not None:
                hyper = {name: float(values[row]) for name, values in family.rule_numbers[key].hyper.items()}
                tensors = {name: value[row] for name, value in state.items()}
                averages[names[id(parameter)]] = rule.average(parameter.detach(), tensors, hyper)
        return averages

    def averages(self, position: int) -> dict[str, Tensor]:
        return {name: average.clone() for name, average in self._views_of_averages(position).items()}

    def _views_of_averages(self, position: int) -> dict[str, Tensor]:
        run, family = self.runs[position], self._family(position)
        if not any(has_hook(regularizer, "after_step") for regularizer in run.regularizers):
            return {}
        names = {id(parameter): name for name, parameter in named_parameters(run.model)}
        row = position - family.rows.start
        parameters = stacked_parameters(run.model)
        return {names[id(p)]: average[row] for (_, p), average in zip(parameters, family.averages, strict=True)}

    @torch.no_grad()
    def load(self, position: int, state: Mapping[str, Any], averages: Mapping[str, Tensor]) -> None:
        optimizer = self.runs[position].make_optimizer(self.runs[position].model)
        optimizer.load_state_dict(dict(state))
        for parameter, group, numbers, tensors, row in self._parameters(position, optimizer):
            numbers.hyper["lr"][row] = group["lr"]
            rule, kept = numbers.rule, optimizer.state.get(parameter)
            if not kept:  # before the first step
                kept = {**rule.counters, **{name: value[0] for name, value in rule.state(parameter.unsqueeze(0)).items()}}
            for name, values in numbers.counters.items():
                values[row] = float(kept[name])
            for name, value in tensors.items():
                value[row].copy_(kept[name])
        for name, average in self._views_of_averages(position).items():
            average.copy_(averages[name])

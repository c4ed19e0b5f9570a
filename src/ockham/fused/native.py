"""Steps of members without a compiler: each member's own torch optimizer and regularizers, as in a single run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ockham.core.parameters import named_parameters
from ockham.fused.objective import Batch, Objective
from ockham.fused.stack import Stack, stacked_parameters
from ockham.optim.responses import Responses, averaged_weights
from ockham.reg.single import (
    add_penalty_gradients,
    average,
    decay,
    disturb_gradients,
    initial_averages,
    prox_and_project,
    transform_gradients,
)
from ockham.run import Run


class Native:
    """Each member's own optimizer and regularizers, as in a single run."""

    def __init__(self, stack: Stack, runs: Sequence[Run]) -> None:
        self.stack = stack
        self.objective = Objective(stack, slice(len(runs)), runs)
        self.clipping = runs[0].settings.clipping
        self.runs = runs
        self.parameters = [stacked_parameters(run.model) for run in runs]
        self.optimizers = [run.make_optimizer(run.model) for run in runs]
        #: With the names of the models, by which averages go.
        self.named_parameters = [named_parameters(run.model) for run in runs]
        self.kept_averages = [
            initial_averages(run.regularizers, named) for run, named in zip(runs, self.named_parameters, strict=True)
        ]
        self.base_lrs = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self.responses = [
            Responses(optimizer, named) for optimizer, named in zip(self.optimizers, self.parameters, strict=True)
        ]

    def prepare(self, microbatches: Sequence[Batch]) -> None:
        pass

    def step(self, microbatches: Sequence[Batch], factors: np.ndarray, number: int) -> Tensor:
        inputs = [self.objective.inputs(batch) for batch in microbatches]
        losses, gradients = self.objective.gradients_of_step(
            self.objective.gradients, self.stack.parameters, self.stack.buffers, inputs
        )
        with torch.no_grad():
            penalties = [self._step(position, gradients, float(factor), number) for position, factor in enumerate(factors)]
        return losses + torch.stack(penalties)

    def _step(self, position: int, gradients: Sequence[Tensor], factor: float, number: int) -> Tensor:
        parameters, optimizer, run = self.parameters[position], self.optimizers[position], self.runs[position]
        for (_, parameter), gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient[position]
        penalty = add_penalty_gradients(run.regularizers, parameters)
        transform_gradients(run.regularizers, parameters)
        if self.clipping is not None:
            self.clipping.apply(parameter for _, parameter in parameters)
        disturb_gradients(run.regularizers, parameters, run.streams, step=number)
        lrs: dict[int, float] = {}
        for group, base in zip(optimizer.param_groups, self.base_lrs[position], strict=True):
            group["lr"] = base * factor
            lrs |= dict.fromkeys([id(parameter) for parameter in group["params"]], group["lr"])
        by_name = {name: lrs[id(parameter)] for name, parameter in parameters}
        decay(run.regularizers, parameters, by_name)
        optimizer.step()
        prox_and_project(run.regularizers, parameters, self.responses[position])
        average(run.regularizers, self.named_parameters[position], self.kept_averages[position], step=number)
        return penalty

    def state(self, position: int) -> dict[str, Any]:
        return self.optimizers[position].state_dict()

    def averaged_weights(self, position: int) -> dict[str, Tensor]:
        return averaged_weights(self.optimizers[position], self.named_parameters[position]) | self.averages(position)

    def averages(self, position: int) -> dict[str, Tensor]:
        return self.kept_averages[position]

    def load(self, position: int, state: Mapping[str, Any], averages: Mapping[str, Tensor]) -> None:
        self.optimizers[position].load_state_dict(dict(state))
        for name, value in self.kept_averages[position].items():
            value.copy_(averages[name])

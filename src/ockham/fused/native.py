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
from ockham.reg.single import decay, prox_and_project, weight_penalties
from ockham.run import Run


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

"""What a user might bring: classes that no file of Ockham names."""

import torch
from torch import Tensor, nn

from ockham.reg import Context, Regularizer


class LogPenalty(Regularizer):
    """strength * sum log(1 + w^2)."""

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def penalty(self, weight: Tensor) -> Tensor:
        return self.strength * (1 + weight.square()).log().sum()


class Multiplied(Regularizer):
    """Inputs of all layers times exp(spread * n), and weights pulled apart by a sine after each step."""

    distribution = "normal"

    def __init__(self, spread: float, *, steps: int = 64) -> None:
        self.spread = spread
        self.steps = steps

    def disturb_layer_input(self, x: Tensor, noise: Tensor, *, is_first: bool) -> Tensor:
        return x * (self.spread * noise).exp() if is_first else x

    def project(self, weight: Tensor) -> Tensor:
        return weight + self.spread * (weight * self.steps).sin() / (10 * self.steps)


class Thrice(Regularizer):
    """The spread of what three copies of a sample give under their noise."""

    repeats = 3

    def output_penalty(self, logits: Tensor) -> Tensor:
        return torch.stack(logits.chunk(3)).var(dim=0).mean()


class Surgery(Regularizer):
    """Doubles the outputs of the last layer, which no pure hook can."""

    def configure_model(self, model: nn.Module, context: Context) -> None:
        *_, last = (module for module in model.modules() if isinstance(module, nn.Linear))
        last.register_forward_hook(lambda layer, inputs, output: torch.add(output, output))

"""Noise on activations, weights and inputs while training; none of it when evaluating.

Where noise multiplies, it is scaled by 1 / (1 - rate) in training ("inverted"), so that its expectation is 1 and nothing
needs to be rescaled at evaluation.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ockham.reg.base import Context, Regularizer
from ockham.rng import Noise

LAYERS = (nn.Linear, nn.Conv2d)


def dropout(x: Tensor, uniform: Tensor, rate: float | Tensor) -> Tensor:
    """x / (1 - rate) where uniform >= rate, otherwise 0; uniform has the shape of x and lies in [0, 1)."""
    return x * (uniform >= rate) / (1 - rate)


def gaussian_dropout(x: Tensor, normal: Tensor, rate: float | Tensor) -> Tensor:
    """x * (1 + sqrt(rate / (1 - rate)) * normal): the mean and variance of dropout."""
    return x * (1 + (rate / (1 - rate)) ** 0.5 * normal)


class _ActivationNoise(Regularizer):
    """Noise on the inputs of the dense layers, and with another rate on the input of the first layer."""

    def __init__(self, rate: float, *, input_rate: float = 0.0) -> None:
        self.rate = rate
        self.input_rate = input_rate

    def configure_model(self, model: nn.Module, context: Context) -> None:
        layers = [(name, module) for name, module in model.named_modules() if isinstance(module, LAYERS)]
        for position, (name, layer) in enumerate(layers):
            rate = self.rate if position else self.input_rate
            if rate and (isinstance(layer, nn.Linear) or not position):
                noise = context.streams.stream(f"{type(self).__name__}/{name}")
                layer.register_forward_pre_hook(_Disturb(self, noise, rate))

    def disturb(self, x: Tensor, noise: Noise, rate: float) -> Tensor:
        raise NotImplementedError


class _Disturb:
    """A forward pre-hook that disturbs the input of a layer in training mode."""

    def __init__(self, regularizer: _ActivationNoise, noise: Noise, rate: float) -> None:
        self.regularizer, self.noise, self.rate = regularizer, noise, rate

    def __call__(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor] | None:
        if not layer.training:
            return None
        return (self.regularizer.disturb(inputs[0], self.noise, self.rate),)


class Dropout(_ActivationNoise):
    """Each input of a dense layer is zero with probability `rate`, otherwise scaled by 1 / (1 - rate). yaml: `reg=dropout`.

    The input of the first layer has its own `input_rate`; convolutions after the first are left alone. Srivastava et al.
    2014, Dropout: A Simple Way to Prevent Neural Networks from Overfitting.
    """

    def disturb(self, x: Tensor, noise: Noise, rate: float) -> Tensor:
        return dropout(x, noise.uniform_like(x), rate)


class GaussianDropout(_ActivationNoise):
    """Each input of a dense layer times a normal variable of mean 1 and variance rate / (1 - rate).

    yaml: `reg=gaussian_dropout`. Srivastava et al. 2014, section 10.
    """

    def disturb(self, x: Tensor, noise: Noise, rate: float) -> Tensor:
        return gaussian_dropout(x, noise.normal_like(x), rate)


class DropConnect(Regularizer):
    """Each weight of a dense layer is zero with probability `rate`, otherwise scaled by 1 / (1 - rate).

    yaml: `reg=dropconnect`. One mask for a batch, and the mean weights at evaluation, where the paper draws a mask per
    sample and samples its Gaussian approximation (Wan et al. 2013, Regularization of Neural Networks using DropConnect).
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def configure_model(self, model: nn.Module, context: Context) -> None:
        for name, layer in list(model.named_modules()):
            if isinstance(layer, nn.Linear):
                noise = context.streams.stream(f"DropConnect/{name}")
                parametrize.register_parametrization(layer, "weight", _DropWeights(noise, self.rate))


class _DropWeights(nn.Module):
    """The parametrization of DropConnect."""

    def __init__(self, noise: Noise, rate: float) -> None:
        super().__init__()
        self.noise, self.rate = noise, rate

    def forward(self, weight: Tensor) -> Tensor:
        return dropout(weight, self.noise.uniform_like(weight), self.rate) if self.training else weight


class InputNoise(Regularizer):
    """x + std * normal on the normalised input (Bishop 1995, Training with Noise is Equivalent to Tikhonov Regularization).

    yaml: `reg=input_noise`. `std` is in units of the standard deviation of the training pixels.
    """

    def __init__(self, std: float) -> None:
        self.std = std
        self.noise: Noise | None = None

    def configure_model(self, model: nn.Module, context: Context) -> None:
        self.noise = context.streams.stream("InputNoise")

    def transform_batch(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        assert self.noise is not None, "configure_model comes first"
        return torch.add(x, self.noise.normal_like(x), alpha=self.std), y

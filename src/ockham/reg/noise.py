"""Noise on activations, weights and inputs while training; none of it when evaluating.

Where noise multiplies, it is scaled by 1 / (1 - rate) in training ("inverted"), so that its expectation is 1 and nothing
needs to be rescaled at evaluation.
"""

from torch import Tensor, nn

from ockham.core.residual import ResidualBranch
from ockham.errors import UserError
from ockham.reg.base import Context, Regularizer


def dropout(x: Tensor, uniform: Tensor, rate: float | Tensor) -> Tensor:
    """x / (1 - rate) where uniform >= rate, otherwise 0; uniform has the shape of x and lies in [0, 1)."""
    return x * (uniform >= rate) / (1 - rate)


def gaussian_dropout(x: Tensor, normal: Tensor, rate: float | Tensor) -> Tensor:
    """x * (1 + sqrt(rate / (1 - rate)) * normal): the mean and variance of dropout."""
    return x * (1 + (rate / (1 - rate)) ** 0.5 * normal)


class _LayerInputNoise(Regularizer):
    """Noise on the inputs of the dense layers, and with another rate on the input of the first layer."""

    def __init__(self, rate: float, *, input_rate: float = 0.0) -> None:
        self.rate = rate
        self.input_rate = input_rate

    def acts_on(self, layer: nn.Module, *, is_first: bool) -> bool:
        return self.input_rate > 0 if is_first else self.rate > 0 and isinstance(layer, nn.Linear)

    def rate_of(self, *, is_first: bool) -> float | Tensor:
        return self.input_rate if is_first else self.rate


class Dropout(_LayerInputNoise):
    """Each input of a dense layer is zero with probability `rate`, otherwise scaled by 1 / (1 - rate). yaml: `reg=dropout`.

    The input of the first layer has its own `input_rate`; convolutions after the first are left alone. Srivastava et al.
    2014, Dropout: A Simple Way to Prevent Neural Networks from Overfitting.
    """

    def disturb_layer_input(self, x: Tensor, noise: Tensor, *, is_first: bool) -> Tensor:
        return dropout(x, noise, self.rate_of(is_first=is_first))


class GaussianDropout(_LayerInputNoise):
    """Each input of a dense layer times a normal variable of mean 1 and variance rate / (1 - rate).

    yaml: `reg=gaussian_dropout`. Srivastava et al. 2014, section 10.
    """

    distribution = "normal"

    def disturb_layer_input(self, x: Tensor, noise: Tensor, *, is_first: bool) -> Tensor:
        return gaussian_dropout(x, noise, self.rate_of(is_first=is_first))


class DropConnect(Regularizer):
    """Each weight of a dense layer is zero with probability `rate`, otherwise scaled by 1 / (1 - rate).

    yaml: `reg=dropconnect`. One mask for a batch, and the mean weights at evaluation, where the paper draws a mask per
    sample and samples its Gaussian approximation (Wan et al. 2013, Regularization of Neural Networks using DropConnect).
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def disturb_weight(self, weight: Tensor, noise: Tensor) -> Tensor:
        return dropout(weight, noise, self.rate)


class StochasticDepth(Regularizer):
    """What the l-th of L residual blocks adds to its input is left out with probability rate * l / L, for a whole batch.

    yaml: `reg=stochastic_depth`. Otherwise it is scaled by 1 / (1 - rate * l / L), where the paper scales at evaluation
    (Huang et al. 2016, Deep Networks with Stochastic Depth, with the linear decay of its section 3). Raises UserError for a
    model without residual blocks.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def prepare(self, model: nn.Module, context: Context) -> None:
        if not any(isinstance(module, ResidualBranch) for module in model.modules()):
            raise UserError("reg=stochastic_depth leaves out residual blocks, of which this model has none: set model=resnet")

    def disturb_branch(self, x: Tensor, noise: Tensor, *, depth: float) -> Tensor:
        return dropout(x, noise, self.rate * depth)


class InputNoise(Regularizer):
    """x + std * normal on the normalised input (Bishop 1995, Training with Noise is Equivalent to Tikhonov Regularization).

    yaml: `reg=input_noise`. `std` is in units of the standard deviation of the training pixels.
    """

    distribution = "normal"

    def __init__(self, std: float) -> None:
        self.std = std

    def disturb_input(self, x: Tensor, noise: Tensor) -> Tensor:
        return x + self.std * noise

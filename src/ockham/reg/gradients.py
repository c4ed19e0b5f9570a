"""Other gradients than that of the loss at the weights: taken in another place, centred, or with noise."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ockham.core.parameters import is_weight
from ockham.reg.base import Regularizer

#: Added to the length of a gradient before it is divided by, since it may be 0.
TINY = 1e-12


class SAM(Regularizer):
    """The gradient of the loss at w + rho g / ||g||, g the gradient at w as one vector. yaml: `reg=sam`.

    The step is taken from w; penalties on weights keep their gradient at w. Foret et al. 2021, Sharpness-Aware Minimization.
    """

    def __init__(self, rho: float) -> None:
        self.rho = rho

    def perturb(self, weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
        scale = self.rho / (_norm(gradients) + TINY)
        return [weight + scale * gradient for weight, gradient in zip(weights, gradients, strict=True)]


class ASAM(Regularizer):
    """SAM at w + rho T^2 g / ||T g||, T = |w| + eta for weights and 1 for biases and scales. yaml: `reg=asam`.

    So the distance does not change where a layer is scaled and the next one the other way. Kwon et al. 2021, ASAM.
    """

    def __init__(self, rho: float, *, eta: float = 0.01) -> None:
        self.rho = rho
        self.eta = eta

    def perturb(self, weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
        sizes = [weight.abs() + self.eta if is_weight(weight) else torch.ones_like(weight) for weight in weights]
        scaled = [size * gradient for size, gradient in zip(sizes, gradients, strict=True)]
        scale = self.rho / (_norm(scaled) + TINY)
        return [weight + scale * size * part for weight, size, part in zip(weights, sizes, scaled, strict=True)]


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """Of all of them as one vector, a scalar."""
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(tensor) for tensor in tensors]))


class GradientCentralization(Regularizer):
    """Of the gradient by each unit's or output channel's incoming weights its mean is taken away, before it is clipped.

    yaml: `reg=gradient_centralization`. Yong et al. 2020, Gradient Centralization.
    """

    def transform_gradient(self, gradient: Tensor) -> Tensor:
        return gradient - gradient.mean(dim=tuple(range(1, gradient.ndim)), keepdim=True)


class GradientNoise(Regularizer):
    """g + n, n normal of variance eta / (1 + t)^gamma for each element, t the steps so far; after clipping.

    yaml: `reg=gradient_noise`. Neelakantan et al. 2015, Adding Gradient Noise Improves Learning for Very Deep Networks.
    """

    include_bias = True
    distribution = "normal"

    def __init__(self, eta: float, *, gamma: float = 0.55) -> None:
        self.eta = eta
        self.gamma = gamma

    def coefficient(self, step: int) -> float:
        return (self.eta / step**self.gamma) ** 0.5

    def disturb_gradient(self, gradient: Tensor, noise: Tensor, coefficient: float | Tensor) -> Tensor:
        return gradient + coefficient * noise

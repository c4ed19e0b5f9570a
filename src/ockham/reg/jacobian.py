"""The Jacobian of the logits by the input, of which products with directions are enough."""

import torch
from torch import Tensor, nn

from ockham.errors import UserError
from ockham.reg.base import Context, Regularizer


def unit_vectors(normal: Tensor) -> Tensor:
    """Vectors (..., C) of standard normal numbers made one long: uniform on the sphere."""
    return normal / torch.linalg.vector_norm(normal, dim=-1, keepdim=True)


def standard_basis(logits: Tensor) -> Tensor:
    """The unit vectors of the classes, the same for all samples, (1, C, C), for logits (..., C)."""
    return torch.eye(logits.shape[-1], dtype=logits.dtype, device=logits.device).unsqueeze(0)


def products(logits: Tensor, x: Tensor, directions: Tensor) -> Tensor:
    """v' J for directions v (..., n or 1, projections, C), J the Jacobian of each sample: (..., n, projections, *shape).

    Logits (..., n, C) come from x (..., n, *shape), which needs a gradient. One backward pass for each direction, which can be
    differentiated again. Where samples depend on each other, as under batch norm, J is that of the sum of their logits.
    """
    gradients = [
        torch.autograd.grad(logits, x, direction.expand_as(logits), create_graph=True)[0]
        for direction in directions.unbind(dim=-2)
    ]
    return torch.stack(gradients, dim=logits.ndim - 1)


class Jacobian(Regularizer):
    """strength / 2 * ||J||_F^2, J the Jacobian of a sample's logits by the input, a mean over the batch. yaml: `reg=jacobian`.

    Its expectation is C ||v' J||^2 for v uniform on the unit sphere, of which each sample draws `projections`; with `all` v are
    the unit vectors of the classes, and the norm is exact. Hoffman et al. 2019, Robust Learning with Jacobian Regularization,
    algorithm 1. Raises UserError where as many random directions cost more than the exact norm.
    """

    def __init__(self, strength: float, *, projections: int | str = 1) -> None:
        self.strength = strength
        self.projections = projections
        self.num_classes = 0

    def prepare(self, model: nn.Module, context: Context) -> None:
        self.num_classes = context.num_classes
        if isinstance(self.projections, int) and self.projections >= self.num_classes:
            raise UserError(
                f"reg.jacobian.projections={self.projections} random directions cost as much as the exact norm, which takes "
                f"{self.num_classes}: set reg.jacobian.projections=all"
            )

    def jacobian_penalty(self, products: Tensor) -> Tensor:
        samples, projections = products.shape[:2]
        return self.strength / 2 * self.num_classes / (projections * samples) * products.square().sum()

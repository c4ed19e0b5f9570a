"""Bounding the gradient of a step."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_


@dataclass(frozen=True)
class Clipping:
    """By `norm`, the gradient of all parameters as one vector is no longer than `limit`; by `value`, no element is larger.

    As torch.nn.utils.clip_grad_norm_ and clip_grad_value_.
    """

    limit: float
    algorithm: Literal["norm", "value"]

    def apply(self, parameters: Iterable[Tensor]) -> None:
        """Clip the gradients of one model's parameters in place."""
        clip = clip_grad_norm_ if self.algorithm == "norm" else clip_grad_value_
        clip(parameters, self.limit)

    def stacked(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The gradients (members, ...) of the parameters of several models, those of each clipped by themselves."""
        if self.algorithm == "value":
            return [gradient.clamp(-self.limit, self.limit) for gradient in gradients]
        squares = torch.stack([gradient.flatten(1).square().sum(dim=1) for gradient in gradients]).sum(dim=0)
        factors = (self.limit / (squares.sqrt() + 1e-6)).clamp(max=1.0)  # torch's, with its small number
        return [gradient * factors.view(-1, *[1] * (gradient.ndim - 1)) for gradient in gradients]

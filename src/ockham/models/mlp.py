"""Models of dense layers."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from ockham.models.layers import activation_of


class Linear(nn.Module):
    """Softmax regression: one dense layer from the pixels to the logits. yaml: `model=linear`."""

    def __init__(self, shape: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.output = nn.Linear(math.prod(shape), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(x.flatten(1))
        return logits


class MLP(nn.Module):
    """Dense layers of the widths `hidden`, each followed by an optional batch norm and an activation. yaml: `model=mlp`."""

    def __init__(
        self,
        shape: Sequence[int],
        num_classes: int,
        *,
        hidden: Sequence[int],
        activation: str = "relu",
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        widths = [math.prod(shape), *hidden]
        self.hidden = nn.Sequential()
        for fan_in, fan_out in pairwise(widths):
            layer = nn.Sequential()
            # The shift of the normalization makes a bias before it redundant.
            layer.add_module("linear", nn.Linear(fan_in, fan_out, bias=not batch_norm))
            if batch_norm:
                layer.add_module("norm", nn.BatchNorm1d(fan_out))
            layer.add_module("activation", activation_of(activation))
            self.hidden.append(layer)
        self.output = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(self.hidden(x.flatten(1)))
        return logits

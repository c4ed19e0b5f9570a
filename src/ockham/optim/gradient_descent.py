"""Gradient descent on the whole training split."""

from typing import Any

from torch.optim import SGD


class GradientDescent(SGD):
    """SGD without momentum, under a name of its own: it takes data.batch_size=full alone. yaml: `optimizer=gd`."""

    def __init__(self, params: Any, lr: float, weight_decay: float = 0.0, *, fused: bool | None = None) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, fused=fused)

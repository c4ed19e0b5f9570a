"""Muon for the hidden matrices of a network, Adam for everything else."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from ockham.core.parameters import is_weight
from ockham.errors import UserError


class Muon(Optimizer):
    """torch.optim.Muon on the weights of hidden layers, torch.optim.Adam on the rest. yaml: `optimizer=muon`.

    Muon orthogonalises the momentum of a matrix with five Newton-Schulz iterations (Jordan et al. 2024, Muon: An
    optimizer for hidden layers in neural networks). Hidden are all weights but the output layer's; a convolution kernel is
    taken as the matrix (out, in * height * width). Biases, norms and the output layer go to Adam with `adam_lr`.
    """

    def __init__(
        self,
        hidden: list[nn.Parameter],
        rest: list[nn.Parameter],
        *,
        lr: float,
        momentum: float,
        adam_lr: float,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__([{"params": hidden, "lr": lr}, {"params": rest, "lr": adam_lr}], defaults={})
        # torch's Muon takes matrices only. These share the memory of the weights; their gradients are set in step().
        self._matrices = [nn.Parameter(_as_matrix(weight.detach())) for weight in hidden]
        self._muon = torch.optim.Muon(self._matrices, lr=lr, momentum=momentum, weight_decay=weight_decay)
        self._adam = Adam(rest, lr=adam_lr, weight_decay=weight_decay, fused=True)

    @classmethod
    def from_model(
        cls, model: nn.Module, *, lr: float, momentum: float = 0.95, adam_lr: float = 1e-3, weight_decay: float = 0.0
    ) -> "Muon":
        """Raises UserError for a model that has no hidden weights."""
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        matrices = [parameter for parameter in parameters if is_weight(parameter)]
        hidden = matrices[:-1]
        if not hidden:
            raise UserError("optimizer=muon works on hidden layers and this model has none: set optimizer=adam, or model=mlp")
        chosen = {id(weight) for weight in hidden}
        rest = [parameter for parameter in parameters if id(parameter) not in chosen]
        return cls(hidden, rest, lr=lr, momentum=momentum, adam_lr=adam_lr, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        hidden, rest = self.param_groups
        self._muon.param_groups[0]["lr"] = hidden["lr"]
        self._adam.param_groups[0]["lr"] = rest["lr"]
        for matrix, weight in zip(self._matrices, hidden["params"], strict=True):
            matrix.grad = None if weight.grad is None else _as_matrix(weight.grad)
        self._muon.step()
        self._adam.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self._muon.state_dict(), "adam": self._adam.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._muon.load_state_dict(state_dict["muon"])
        self._adam.load_state_dict(state_dict["adam"])
        for group, inner in zip(self.param_groups, (self._muon, self._adam), strict=True):
            group["lr"] = inner.param_groups[0]["lr"]


def _as_matrix(weight: Tensor) -> Tensor:
    """A weight (out, ...) as a matrix (out, everything else) that shares its memory.

    The columns of a kernel stored channels last come in another order, which orthogonalisation does not notice.
    """
    if weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last):
        weight = weight.permute(0, 2, 3, 1)
    return weight.flatten(1)

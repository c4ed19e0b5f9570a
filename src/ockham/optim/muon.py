"""Muon for the hidden matrices of a network, Adam for everything else."""

from torch import nn

from ockham.core.parameters import is_weight
from ockham.errors import UserError
from ockham.optim.ruled import RuleOptimizer


class Muon(RuleOptimizer):
    """torch.optim.Muon on the weights of hidden layers, torch.optim.Adam on the rest. yaml: `optimizer=muon`.

    Muon orthogonalises the momentum of a matrix with five Newton-Schulz iterations (Jordan et al. 2024, Muon: An
    optimizer for hidden layers in neural networks). Hidden are all weights but the output layer's; a convolution kernel is
    taken as the matrix (out, in * height * width). Biases, norms and the output layer go to Adam with `adam_lr`.

    Each parameter group names its rule of `optim.rules`, which is what a step does: torch's Muon always iterates in bfloat16,
    which most CPUs emulate.
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
        by_muon = {"params": hidden, "rule": "ockham.optim.Muon", "lr": lr, "momentum": momentum}
        by_adam = {"params": rest, "rule": "torch.optim.Adam", "lr": adam_lr}
        super().__init__([by_muon, by_adam], {"weight_decay": weight_decay})

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
        hidden_ids = {id(weight) for weight in hidden}
        rest = [parameter for parameter in parameters if id(parameter) not in hidden_ids]
        return cls(hidden, rest, lr=lr, momentum=momentum, adam_lr=adam_lr, weight_decay=weight_decay)

"""What several models are made of."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ockham.core.mup import Factors
from ockham.errors import UserError

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}

#: How the weights of dense and convolutional layers are drawn; biases are then 0. `default` leaves what the model drew.
INITS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "default": None,
    "he": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
    "glorot": nn.init.xavier_uniform_,
    "orthogonal": nn.init.orthogonal_,
}


def activation_of(name: str) -> nn.Module:
    """A new activation module. Raises UserError for a name that is not in ACTIVATIONS."""
    if name not in ACTIVATIONS:
        raise UserError(f"model.activation={name} is not known: choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def image_norm(channels: int, *, batch_norm: bool, layer_norm: bool) -> nn.Module:
    """What normalizes images (n, channels, H, W) after a convolution; nothing where neither is asked for.

    Layer norm is that of each sample over channels and pixels, with a scale and a shift for each channel (Wu & He 2018, Group
    Normalization, with one group). Raises UserError for both at once.
    """
    if batch_norm and layer_norm:
        raise UserError("model.batch_norm=true and model.layer_norm=true are two norms of one layer: set one of them to false")
    if batch_norm:
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(1, channels) if layer_norm else nn.Identity()


@torch.no_grad()
def initialize(model: nn.Module, init: str, scale: float) -> None:
    """Draw the weights of all dense and convolutional layers again, and multiply weights and biases by `scale`.

    yaml: `model.init`, `model.init_scale`. With fan_in and fan_out the inputs and outputs of a unit, weights are
    he: normal with variance 2 / fan_in (He et al. 2015, Delving Deep into Rectifiers);
    glorot: uniform with variance 2 / (fan_in + fan_out) (Glorot & Bengio 2010);
    orthogonal: a random matrix (out, in * height * width) with orthonormal rows or columns (Saxe et al. 2014).
    Normalization is left alone. Raises UserError for a name that is not in INITS.
    """
    if init not in INITS:
        raise UserError(f"model.init={init} is not known: choose one of {', '.join(INITS)}")
    draw = INITS[init]
    for module in model.modules():
        if not isinstance(module, (nn.Linear, nn.Conv2d)):
            continue
        if draw is not None:
            draw(module.weight)
            if module.bias is not None:
                module.bias.zero_()
        for parameter in module.parameters():
            parameter.mul_(scale)


class ScaledLinear(nn.Linear):
    """m W x + m_b b with fixed factors m and m_b, with which one learning rate acts as another one in each layer."""

    weight_scale: Tensor
    bias_scale: Tensor

    def __init__(self, fan_in: int, fan_out: int, factors: Factors) -> None:
        super().__init__(fan_in, fan_out)
        self.factors = factors
        self.register_buffer("weight_scale", torch.tensor(factors.weight))
        self.register_buffer("bias_scale", torch.tensor(factors.bias))

    @torch.no_grad()
    def begin_as_product(self) -> None:
        """Make the products with the factors what the parameters have been so far, the weight times `factors.std`."""
        self.weight.mul_(self.factors.std / self.factors.weight)
        self.bias.div_(self.factors.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight) * self.weight_scale + self.bias * self.bias_scale

"""What several models are made of."""

from torch import nn

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


def activation_of(name: str) -> nn.Module:
    """A new activation module. Raises UserError for a name that is not in ACTIVATIONS."""
    if name not in ACTIVATIONS:
        raise UserError(f"model.activation={name} is not known: choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()

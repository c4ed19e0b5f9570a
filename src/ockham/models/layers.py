"""What several models are made of."""

from collections.abc import Sequence

from torch import nn

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
    """A new activation module. Raises ValueError for a name that is not in ACTIVATIONS."""
    if name not in ACTIVATIONS:
        raise ValueError(f"model.activation={name} is not known: choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def image_shape(shape: Sequence[int], model: str) -> tuple[int, int, int]:
    """(channels, height, width). Raises ValueError where the input is flat: a convolution needs an image."""
    if len(shape) != 3:
        raise ValueError(
            f"model={model} takes images of shape (channels, height, width), but data.shape={list(shape)} is flat: "
            f"set model=mlp, or data.shape to three numbers"
        )
    channels, height, width = shape
    return channels, height, width

"""Which parameters are meant: weights, and not biases or normalization scales, unless asked."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

NamedParameters = list[tuple[str, Tensor]]


def named_parameters(model: nn.Module) -> NamedParameters:
    """The trainable parameters with their names, in the model's order."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def plain_name(name: str) -> str:
    """The name that a parameter of a layer has where nothing parametrizes it: torch renames those that are."""
    return re.sub(r"\.parametrizations\.(\w+)\.original$", r".\1", name)


def is_weight(parameter: Tensor) -> bool:
    """True for the matrices and kernels of linear and convolutional layers; biases and norm scales have one axis."""
    return parameter.ndim >= 2


def weights(parameters: NamedParameters, *, include_bias: bool = False) -> NamedParameters:
    """Those that a penalty acts on: the weights, and with `include_bias` all other parameters too."""
    return [(name, parameter) for name, parameter in parameters if include_bias or is_weight(parameter)]


@torch.no_grad()
def weight_norm(parameters: NamedParameters) -> float:
    """The Euclidean norm of all weights taken as one vector."""
    return math.sqrt(sum(float(w.double().square().sum()) for _, w in weights(parameters)))


@torch.no_grad()
def zero_fraction(parameters: NamedParameters) -> float:
    """The fraction of the weights that are exactly zero."""
    tensors = [w for _, w in weights(parameters)]
    return sum(int((w == 0).sum()) for w in tensors) / sum(w.numel() for w in tensors)


@contextmanager
def holding(parameters: NamedParameters, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside the block the parameters named in `values` hold these; after it what they held before, bit for bit."""
    held = [(parameter, parameter.detach().clone()) for name, parameter in parameters if name in values]
    _copy((parameter, values[name]) for name, parameter in parameters if name in values)
    try:
        yield
    finally:
        _copy(held)


@torch.no_grad()
def _copy(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    for parameter, value in pairs:
        parameter.copy_(value)

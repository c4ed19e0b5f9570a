"""What is measured on the weights of a run, after an epoch and at the end."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ockham.core.metrics import Images
from ockham.core.parameters import named_parameters, weight_norm, zero_fraction
from ockham.reg import Regularizer, total_penalty


def weight_scalars(
    regularizers: Sequence[Regularizer], model: nn.Module, images: Images, prepare: Callable[[Tensor], Tensor]
) -> dict[str, float]:
    """penalty, weight_norm and zero_fraction; penalties on outputs are taken over the first of `images` (N, C, H, W)."""
    parameters = named_parameters(model)
    return {
        "penalty": total_penalty(regularizers, model, images, prepare),
        "weight_norm": weight_norm(parameters),
        "zero_fraction": zero_fraction(parameters),
    }

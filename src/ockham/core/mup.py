"""The maximal update parametrization. Plain Python, so that the command line can ask before torch is imported."""

import math
from typing import NamedTuple

#: Optimizers whose steps grow with the gradient.
GRADIENT = frozenset({"torch.optim.SGD", "torch.optim.ASGD", "ockham.optim.GradientDescent", "ockham.optim.ScheduleFreeSGD"})
#: Optimizers whose steps have the same length if the loss is multiplied by a number.
ADAPTIVE = frozenset(
    [f"torch.optim.{name}" for name in ("Adagrad", "Adadelta", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop", "Rprop")]
    + [f"ockham.optim.{name}" for name in ("AdEMAMix", "Adan", "Lion", "ScheduleFreeAdamW", "SignSGD")]
)
#: Optimizers whose steps are as long as the weights, times a number: they move W = m w alike whatever m is.
RELATIVE = frozenset({"torch.optim.Adafactor", "ockham.optim.Lamb", "ockham.optim.Lars"})

BASE_WIDTH = 64


class Factors(NamedTuple):
    """What a layer multiplies its weights and biases by, and the standard deviation with which the products begin."""

    weight: float
    bias: float
    std: float


def factors(fan_in_ratio: float, fan_out_ratio: float, *, is_output: bool, adaptive: bool) -> Factors:
    """The factors of a dense layer (Yang et al. 2022, Tensor Programs V, table 3, relative to a base width).

    The ratios are those of its inputs and outputs to the base width, 1 where they do not grow with the width. With W = m w the
    gradient by w is m times that by W, so that a step of SGD on w moves W by m^2 lr times the gradient, one of Adam by m lr.
    The table asks for lr fan_out_ratio / fan_in_ratio under SGD, with fan_in_ratio 1 for biases, and for lr / fan_in_ratio
    under Adam, lr for biases. Initial weights are the standard ones, in the output layer over the square root of fan_in_ratio.
    """
    std = 1 / math.sqrt(fan_in_ratio) if is_output else 1.0
    if adaptive:
        return Factors(1 / fan_in_ratio, 1.0, std)
    return Factors(math.sqrt(fan_out_ratio / fan_in_ratio), math.sqrt(fan_out_ratio), std)

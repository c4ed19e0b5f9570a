"""Models of dense layers."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import Tensor, nn

from ockham.core import mup
from ockham.errors import UserError
from ockham.models.layers import ScaledLinear, activation_of, initialize

PARAMETRIZATIONS = ("standard", "mup")


class Linear(nn.Module):
    """Softmax regression: one dense layer from the pixels to the logits. yaml: `model=linear`."""

    def __init__(self, shape: Sequence[int], num_classes: int, *, init: str = "default", init_scale: float = 1.0) -> None:
        super().__init__()
        self.output = nn.Linear(math.prod(shape), num_classes)
        initialize(self, init, init_scale)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(x.flatten(1))
        return logits


class MLP(nn.Module):
    """Dense layers of the widths `hidden`, each followed by an optional norm and an activation. yaml: `model=mlp`.

    With `parametrization=mup` every layer multiplies its weights by a factor that depends on its width over `base_width`, so
    that one learning rate suits all widths (`core.mup`); at the base width it is the standard one. `adaptive` says whether the
    optimizer's steps do not grow with the gradient. Raises UserError for mup with a norm, whose scales have no such factor.
    """

    def __init__(
        self,
        shape: Sequence[int],
        num_classes: int,
        *,
        hidden: Sequence[int],
        activation: str = "relu",
        batch_norm: bool = False,
        layer_norm: bool = False,
        init: str = "default",
        init_scale: float = 1.0,
        parametrization: str = "standard",
        base_width: int | None = None,
        adaptive: bool = False,
    ) -> None:
        super().__init__()
        if parametrization not in PARAMETRIZATIONS:
            raise UserError(f"model.parametrization={parametrization} is not known: choose {' or '.join(PARAMETRIZATIONS)}")
        if batch_norm + layer_norm + (parametrization == "mup") > 1:
            raise UserError(
                "model.batch_norm, model.layer_norm and model.parametrization=mup exclude each other: set one of them"
            )
        widths = [math.prod(shape), *hidden, num_classes]
        factors: list[mup.Factors | None] = [None] * (len(hidden) + 1)
        if parametrization == "mup":
            factors = list(_factors(hidden, base_width or mup.BASE_WIDTH, adaptive=adaptive))
        self.hidden = nn.Sequential()
        for (fan_in, fan_out), factor in zip(pairwise(widths[:-1]), factors, strict=False):
            layer = nn.Sequential()
            # The shift of batch norm makes a bias before it redundant.
            layer.add_module("linear", _dense(fan_in, fan_out, factor, bias=not batch_norm))
            if batch_norm or layer_norm:
                layer.add_module("norm", nn.BatchNorm1d(fan_out) if batch_norm else nn.LayerNorm(fan_out))
            layer.add_module("activation", activation_of(activation))
            self.hidden.append(layer)
        self.output = _dense(widths[-2], num_classes, factors[-1])
        initialize(self, init, init_scale)
        for module in self.modules():
            if isinstance(module, ScaledLinear):
                module.begin_as_product()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(self.hidden(x.flatten(1)))
        return logits


def _factors(hidden: Sequence[int], base_width: int, *, adaptive: bool) -> Iterator[mup.Factors]:
    """Those of every layer under mup."""
    ratios = [1.0, *(width / base_width for width in hidden), 1.0]
    for position, (fan_in_ratio, fan_out_ratio) in enumerate(pairwise(ratios)):
        yield mup.factors(fan_in_ratio, fan_out_ratio, is_output=position == len(hidden), adaptive=adaptive)


def _dense(fan_in: int, fan_out: int, factors: mup.Factors | None, *, bias: bool = True) -> nn.Linear:
    return nn.Linear(fan_in, fan_out, bias=bias) if factors is None else ScaledLinear(fan_in, fan_out, factors)

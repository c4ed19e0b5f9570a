"""Removing weights for good: lottery tickets."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrize import ParametrizationList

from ockham.errors import UserError
from ockham.reg.base import Regularizer, has_hook
from ockham.reg.single import Parametrization


def without_smallest(weights: Sequence[Tensor], masks: Sequence[Tensor], sparsity: float) -> list[Tensor]:
    """Masks of the weights that stay where the fraction `sparsity` of all is removed, the smallest in magnitude first.

    What `masks` has removed stays so. Of equal ones those go first that come first.
    """
    magnitudes = torch.cat([torch.where(m, w.abs(), -1.0).flatten() for w, m in zip(weights, masks, strict=True)])
    stays = torch.ones_like(magnitudes, dtype=torch.bool)
    stays[magnitudes.argsort(stable=True)[: round(sparsity * len(magnitudes))]] = False
    parts = stays.split([w.numel() for w in weights])
    return [part.view_as(w) for part, w in zip(parts, weights, strict=True)]


class MagnitudePruning(Regularizer):
    """Iterative magnitude pruning: the smallest weights removed in rounds, the others rewound. yaml: `reg=magnitude_pruning`.

    A run is `rounds` + 1 trainings of equal length. After each but the last, weights of dense and convolutional layers become 0
    for good, the smallest in magnitude first, the same fraction of those that are left each time until `sparsity` of all are
    gone; all other parameters and statistics take the values that they had after `rewind_step` steps of the first training, and
    optimizer and schedule begin anew. `scope` is what magnitudes are compared over: all layers (`global`), or each by itself
    (`layer`). Frankle & Carbin 2019, The Lottery Ticket Hypothesis; Frankle et al. 2020, Linear Mode Connectivity and the
    Lottery Ticket Hypothesis (rewinding to an early step).
    """

    def __init__(self, sparsity: float, *, rounds: int = 1, rewind_step: int = 0, scope: str = "global") -> None:
        self.sparsity = sparsity
        self.rounds = rounds
        self.rewind_step = rewind_step
        self.scope = scope

    @property
    def trainings(self) -> int:  # type: ignore[override]
        return self.rounds + 1

    def sparsity_after(self, round_: int) -> float:
        """The fraction of weights that are removed after so many rounds."""
        return 1 - (1 - self.sparsity) ** (round_ / self.rounds)

    def acts_on(self, layer: nn.Module, *, is_first: bool) -> bool:
        return True

    def initial_state(self, weight: Tensor) -> dict[str, Tensor]:
        return {"mask": torch.ones_like(weight, dtype=torch.bool)}

    def reparametrize(self, weight: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        return weight * state["mask"]

    def initial_model_state(self, model: nn.Module) -> dict[str, Tensor]:
        """What is rewound to. Raises UserError where layers compute with something else than weights that are 0 or not."""
        for others in model.modules():
            if isinstance(others, ParametrizationList) and sum(_reparametrizes(one) for one in others) > 1:
                raise UserError(
                    "reg=magnitude_pruning compares the magnitudes of weights, and another regularizer makes other weights of "
                    "them: leave out one of the two"
                )
        return _rewound(model)

    def before_step(self, model: nn.Module, state: Mapping[str, Tensor], *, training: int, step: int) -> None:
        tensors = _rewound(model)
        if training == 0 and step == self.rewind_step:
            for name, value in state.items():
                value.copy_(tensors[name])
        if training > 0 and step == 0:
            layers = list(self._layers(model))
            for group in [layers] if self.scope == "global" else [[layer] for layer in layers]:
                weights, masks = zip(*group, strict=True)
                for mask, stays in zip(masks, without_smallest(weights, masks, self.sparsity_after(training)), strict=True):
                    mask.copy_(stays)
            for name, value in state.items():
                tensors[name].copy_(value)
            for weight, mask in layers:
                weight.mul_(mask)  # so that what is measured on the parameters sees zeros

    def _layers(self, model: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        """The weight of each layer, with its mask."""
        for module in model.modules():
            for parametrization in module if isinstance(module, ParametrizationList) else ():
                if isinstance(parametrization, Parametrization) and parametrization.regularizer is self:
                    yield module.get_parameter("original"), parametrization.get_buffer("mask")


def _reparametrizes(parametrization: nn.Module) -> bool:
    return not isinstance(parametrization, Parametrization) or has_hook(parametrization.regularizer, "reparametrize")


def _rewound(model: nn.Module) -> dict[str, Tensor]:
    """The parameters of a model and the statistics of its batch norms, by name."""
    norms = [(path, module) for path, module in model.named_modules() if isinstance(module, _BatchNorm)]
    statistics = {f"{path}.{name}": buffer for path, module in norms for name, buffer in module.named_buffers()}
    return {name: parameter.detach() for name, parameter in model.named_parameters()} | statistics

"""Averages of the weights along the way, by which a run is judged in place of the weights that are trained."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from ockham.core.parameters import holding
from ockham.core.steps import check_lookahead, check_swa
from ockham.reg.base import Context, Regularizer


class _Average(Regularizer):
    """Moves the average towards the weights after each step, by the fraction that is the coefficient of the step."""

    def after_step(self, weight: Tensor, average: Tensor, coefficient: float | Tensor) -> tuple[Tensor, Tensor]:
        return weight, torch.lerp(average, weight, coefficient)


class EMA(_Average):
    """a <- decay a + (1 - decay) w after each step, a = w after the first; judged by a. yaml: `reg=ema`.

    As torch.optim.swa_utils with get_ema_multi_avg_fn. Polyak & Juditsky 1992; Tarvainen & Valpola 2017, Mean Teachers.
    """

    def __init__(self, decay: float) -> None:
        self.kept_fraction = decay  # `decay` is a hook

    def coefficient(self, step: int) -> float:
        return 1.0 if step == 1 else 1 - self.kept_fraction


class SWA(_Average):
    """The mean of the weights at the end of each epoch from `start` on, a fraction of the epochs. yaml: `reg=swa`.

    Until then the run is judged by what is trained. Izmailov et al. 2018, Averaging Weights Leads to Wider Optima; as
    torch.optim.swa_utils.AveragedModel.
    """

    def __init__(self, start: float) -> None:
        self.start = start

    def prepare(self, model: nn.Module, context: Context) -> None:
        """Raises UserError where the run has a single epoch."""
        if context.total_steps is None or context.steps_per_epoch is None:
            return  # nothing is trained
        self.total_steps, self.steps_per_epoch = context.total_steps, context.steps_per_epoch
        num_epochs = -(-self.total_steps // self.steps_per_epoch)
        check_swa(num_epochs)
        self.first_epoch = max(int(self.start * num_epochs), 1)

    def coefficient(self, step: int) -> float:
        epoch = -(-step // self.steps_per_epoch)
        if epoch <= self.first_epoch:
            return 1.0
        is_end_of_epoch = step % self.steps_per_epoch == 0 or step == self.total_steps
        return 1 / (epoch - self.first_epoch + 1) if is_end_of_epoch else 0.0


class Lookahead(Regularizer):
    """Every `steps` steps a <- a + step_size (w - a) and w <- a; judged by the slow weights a. yaml: `reg=lookahead`.

    The optimizer keeps its state. Zhang et al. 2019, Lookahead Optimizer: k Steps Forward, 1 Step Back, algorithm 1.
    """

    def __init__(self, steps: int, *, step_size: float = 0.5) -> None:
        self.steps = steps
        self.step_size = step_size

    def prepare(self, model: nn.Module, context: Context) -> None:
        """Raises UserError where the run is shorter than `steps`."""
        if context.total_steps is not None:
            check_lookahead(self.steps, context.total_steps)

    def coefficient(self, step: int) -> float:
        return self.step_size if step % self.steps == 0 else 0.0

    def after_step(self, weight: Tensor, average: Tensor, coefficient: float | Tensor) -> tuple[Tensor, Tensor]:
        slow = torch.lerp(average, weight, coefficient)
        return torch.lerp(weight, slow, 1.0 * (coefficient > 0)), slow


def has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def recomputed_statistics(model: nn.Module, averages: Mapping[str, Tensor], batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """The buffers of batch norm, by name, for a model with these `averages` in place of its parameters; it stays as it is.

    Means over the batches in training mode, as torch.optim.swa_utils.update_bn takes them.
    """
    buffers = list(model.named_buffers())
    tensors = [*model.named_parameters(), *buffers]
    with holding(tensors, {**dict(buffers), **averages}):
        update_bn(batches, model)
        return {
            f"{path}.{name}": buffer.clone()
            for path, module in model.named_modules()
            if isinstance(module, _BatchNorm)
            for name, buffer in module.named_buffers()
        }

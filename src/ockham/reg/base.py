"""What a regularizer is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ockham.core.metrics import Images, evaluation_mode
from ockham.core.parameters import NamedParameters, named_parameters
from ockham.rng import Streams

OUTPUT_SAMPLES = 1024


@dataclass(frozen=True)
class Context:
    """What a run tells its regularizers once, before training."""

    streams: Streams
    num_samples: int
    num_classes: int


@dataclass(frozen=True)
class Outputs:
    """What the model gave for a batch: logits (N, C), before the softmax."""

    logits: Tensor


class Regularizer:
    """The hooks, each optional, in the order in which a training step calls them.

    Several regularizers are called in the alphabetical order of their yaml keys, whatever order they were given in.
    `parameters` are the (name, tensor) pairs of all trainable parameters, `lrs` maps their names to the learning rates of
    this step and `responses` how far the optimizer moves each for a unit of gradient (`optim.rules.Rule.response`): what
    minimises a penalty after the step takes that as the length of the step. Strengths are never baked into a compiled
    constant: they may be tensors over the members of a fused group.
    """

    #: The penalty is minimised by `project`, not by its gradient, and so stays out of the loss.
    proximal = False
    #: The penalty reads the outputs of a batch, not the parameters.
    uses_outputs = False

    def configure_model(self, model: nn.Module, context: Context) -> None:
        """Called once on the new model: add noise or constraints to it."""

    def transform_batch(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The batch to train on: x (N, *shape), y classes (N,) or class probabilities (N, C)."""
        return x, y

    def penalty(self, parameters: NamedParameters, outputs: Outputs) -> Tensor:
        """The penalty as a scalar tensor, defined where `has_penalty` is true."""
        raise NotImplementedError

    def before_step(self, parameters: NamedParameters, lrs: Mapping[str, float]) -> None:
        """Called without gradient recording after the backward pass, before the optimizer's step."""

    def project(self, parameters: NamedParameters, responses: Mapping[str, float | Tensor]) -> None:
        """Called without gradient recording after the optimizer's step."""

    def stop(self, history: Sequence[float]) -> bool:
        """Whether to end training, given one number per finished epoch, to be minimised."""
        return False

    @property
    def has_penalty(self) -> bool:
        return _overrides(self, "penalty")


def _overrides(regularizer: Regularizer, hook: str) -> bool:
    return getattr(type(regularizer), hook) is not getattr(Regularizer, hook)


@torch.no_grad()
def total_penalty(
    regularizers: Sequence[Regularizer], model: nn.Module, images: Images, prepare: Callable[[Tensor], Tensor]
) -> float:
    """The sum of all penalties at the model's weights, also of those that are minimised by projection.

    Penalties on outputs are taken over the first OUTPUT_SAMPLES of the images (N, C, H, W), in evaluation mode.
    """
    penalties = [reg for reg in regularizers if reg.has_penalty]
    parameters = named_parameters(model)
    outputs = Outputs(torch.empty(0))
    if any(reg.uses_outputs for reg in penalties):
        with evaluation_mode(model):
            outputs = Outputs(model(prepare(next(iter(images.split(OUTPUT_SAMPLES))))))
    return sum((float(reg.penalty(parameters, outputs)) for reg in penalties), 0.0)

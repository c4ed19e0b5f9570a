"""What a regularizer is: pure functions of tensors and of its own numbers."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

from torch import Tensor, nn

from ockham.rng import Noise, Streams

#: What follows a dense or convolutional layer in the models of Ockham.
ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid)


@dataclass(frozen=True)
class Context:
    """What a run tells its regularizers once, before training."""

    streams: Streams
    num_samples: int
    num_classes: int
    #: Of the optimizer, in an epoch and in the run; None where nothing is trained.
    steps_per_epoch: int | None = None
    total_steps: int | None = None


class Mixture(NamedTuple):
    """How the samples of a batch are mixed at one of a model's states: `share` of each, the rest of its `partner` (n,)."""

    state: int
    share: float
    partner: Tensor

    def mixed(self, x: Tensor) -> Tensor:
        """x (n, ...) so mixed."""
        return self.share * x + (1 - self.share) * x.index_select(0, self.partner)


class Regularizer:
    """The hooks, each optional. Several regularizers act in the alphabetical order of their yaml keys.

    All but `prepare`, `configure_model`, `acts_on`, `mixture`, `initial_model_state`, `before_step`, `coefficient` and `stop`
    are pure functions of tensors of one run and of the attributes of the regularizer. A single run calls them as they are. A
    fused group calls them once for all its members that have the regularizer, under torch.vmap, on a copy whose `numbers` are
    tensors without axes: so hooks calculate with numbers and do not branch on them. All other attributes are the same where
    hooks are called at once, and may decide anything.

    A class that changes the model in `configure_model` has no form over members, and its runs train alone.
    """

    #: Hooks on a parameter or its gradient act on the weights of linear and convolutional layers, with this on all others too,
    #: and `after_step` on all in any case.
    include_bias: bool = False
    #: Of the noise that the disturbing hooks take: uniform on [0, 1), or standard normal.
    distribution: Literal["uniform", "normal"] = "uniform"
    #: The modules whose outputs `activation_penalty` takes.
    activations: tuple[type[nn.Module], ...] = ACTIVATIONS
    #: How many copies of a batch go through the model side by side while training, each with noise of its own.
    repeats: int = 1
    #: How many directions, drawn for each sample, `jacobian_penalty` takes products for; with "all" those of the classes.
    projections: int | str = 1
    #: Trainings of equal length that a run consists of, one after the other. With each of them optimizer and schedule begin
    #: anew, and so does the selection of the best epoch, which is one of the last training.
    trainings: int = 1

    def prepare(self, model: nn.Module, context: Context) -> None:
        """Called once before training, to look at the model and the sizes of the data, not to change the model."""

    def configure_model(self, model: nn.Module, context: Context) -> None:
        """Called once on the new model, after `prepare`: change it in ways that no other hook has."""

    # -- on the way to the logits, while training ------------------------------------------------------------------------

    def disturb_input(self, x: Tensor, noise: Tensor) -> Tensor:
        """The normalised inputs (n, *shape) to train on; `noise` has their shape."""
        raise NotImplementedError

    def acts_on(self, layer: nn.Module, *, is_first: bool) -> bool:
        """Whether the hooks on layers that follow are called for this linear or convolutional one; here numbers are floats."""
        return isinstance(layer, nn.Linear)

    def disturb_layer_input(self, x: Tensor, noise: Tensor, *, is_first: bool) -> Tensor:
        """The input (n, ...) that a layer takes, `is_first` that of the model; `noise` has its shape."""
        raise NotImplementedError

    def disturb_branch(self, x: Tensor, noise: Tensor, *, depth: float) -> Tensor:
        """What a residual block adds to its input (n, ...), for the l-th of L at `depth` l / L; `noise` () is of the batch."""
        raise NotImplementedError

    def mixture(self, x: Tensor, num_states: int, noise: Noise) -> Mixture:
        """How the samples of a batch x (n, ...) and their targets are mixed, drawn from the stream.

        The states are the inputs of the layers in their order, of residual blocks as a whole; they are mixed after the noise.
        """
        raise NotImplementedError

    def disturb_weight(self, weight: Tensor, noise: Tensor) -> Tensor:
        """The weight (out, in, ...) that a layer computes with on a batch; `noise` has its shape."""
        raise NotImplementedError

    def reparametrize(self, weight: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """The weight that a layer computes with, while evaluating too."""
        raise NotImplementedError

    def initial_state(self, weight: Tensor) -> dict[str, Tensor]:
        """The state of `reparametrize` for a layer, which checkpoints keep; drawn from torch's global generator."""
        return {}

    def next_state(self, weight: Tensor, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state after one more batch, called before `reparametrize` while training, without gradient recording."""
        return dict(state)

    # -- what is minimised -----------------------------------------------------------------------------------------------

    def target(self, probabilities: Tensor) -> Tensor:
        """The probabilities of the classes (n, C) that the loss takes while training."""
        raise NotImplementedError

    def penalty(self, weight: Tensor) -> Tensor:
        """The penalty on one parameter, a scalar; that of a run is the sum over the parameters that it acts on."""
        raise NotImplementedError

    def output_penalty(self, logits: Tensor) -> Tensor:
        """The penalty on the logits (n, C) of a batch, a scalar that is a mean over its samples."""
        raise NotImplementedError

    def activation_penalty(self, activation: Tensor) -> Tensor:
        """The same on an output (n, units or channels, ...) of the modules in `activations`; summed over them."""
        raise NotImplementedError

    def jacobian_penalty(self, products: Tensor) -> Tensor:
        """The penalty on the Jacobians J of a batch, logits by input, a scalar that is a mean over the samples.

        It takes the products v' J (n, projections, *shape) with `projections` unit vectors v in the space of the logits.
        """
        raise NotImplementedError

    # -- the gradient ----------------------------------------------------------------------------------------------------

    def perturb(self, weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
        """Where the gradient of the step is taken, given all parameters of a run and the gradients of the loss there.

        The second pass is on the same batch with the same noise. Penalties on parameters keep their gradients.
        """
        raise NotImplementedError

    def transform_gradient(self, gradient: Tensor) -> Tensor:
        """The gradient by one parameter, with that of the penalties, before it is clipped."""
        raise NotImplementedError

    def disturb_gradient(self, gradient: Tensor, noise: Tensor, coefficient: float | Tensor) -> Tensor:
        """The gradient by one parameter after it was clipped; `noise` has its shape, `coefficient` is that of the step."""
        raise NotImplementedError

    # -- between steps ---------------------------------------------------------------------------------------------------

    def initial_model_state(self, model: nn.Module) -> dict[str, Tensor]:
        """The state of `before_step`, which checkpoints keep; asked once all regularizers are in the model."""
        return {}

    def before_step(self, model: nn.Module, state: Mapping[str, Tensor], *, training: int, step: int) -> None:
        """Change the model of a run, and the state, in place, without gradient recording.

        Called before each step, when so many of the `trainings` are finished, and so many steps of the present one.
        """
        raise NotImplementedError

    # -- the step --------------------------------------------------------------------------------------------------------

    def coefficient(self, step: int) -> float:
        """What hooks are told of a step by its number, which is 1 for the first; here numbers are floats."""
        raise NotImplementedError

    def decay(self, weight: Tensor, lr: float | Tensor) -> Tensor:
        """A parameter before the optimizer's step, `lr` the learning rate of it at this step."""
        raise NotImplementedError

    @property
    def proximal(self) -> bool:
        """Whether `prox` minimises the penalty, which then stays out of the loss."""
        return has_hook(self, "prox")

    def prox(self, weight: Tensor, response: float | Tensor) -> Tensor:
        """A parameter after the optimizer's step: argmin_z penalty(z) + sum (z - weight)^2 / (2 response).

        `response` is how far the optimizer moves it for a unit of gradient (`optim.rules.Rule.response`), a number or one for
        each element.
        """
        raise NotImplementedError

    def project(self, weight: Tensor) -> Tensor:
        """A parameter after the optimizer's step, moved onto a set."""
        raise NotImplementedError

    def after_step(self, weight: Tensor, average: Tensor, coefficient: float | Tensor) -> tuple[Tensor, Tensor]:
        """Any parameter at the end of a step, and its average, which began as the initial parameter.

        A run is judged by the average: measured, saved as best and tested. One regularizer of a run has this hook at most.
        """
        raise NotImplementedError

    def stop(self, history: Sequence[float]) -> bool:
        """Whether to end training, given one number per finished epoch, to be minimised."""
        return False

    # -- over members ----------------------------------------------------------------------------------------------------

    @property
    def numbers(self) -> dict[str, float]:
        """The attributes in which members of a group may differ while hooks are called once for all: its floats."""
        return {name: value for name, value in vars(self).items() if isinstance(value, float)}

    def with_numbers(self, numbers: Mapping[str, Tensor]) -> Self:
        """A copy with these numbers."""
        other = copy.copy(self)
        vars(other).update(numbers)
        return other


#: The hooks that have a form over members.
PURE_HOOKS = (
    "disturb_input",
    "disturb_layer_input",
    "mixture",
    "disturb_weight",
    "reparametrize",
    "target",
    "penalty",
    "output_penalty",
    "activation_penalty",
    "jacobian_penalty",
    "perturb",
    "transform_gradient",
    "disturb_gradient",
    "decay",
    "prox",
    "project",
    "after_step",
)


def has_hook(regularizer: Regularizer | type[Regularizer], hook: str) -> bool:
    """Whether a regularizer, or its class, defines the hook of that name."""
    cls = regularizer if isinstance(regularizer, type) else type(regularizer)
    return getattr(cls, hook) is not getattr(Regularizer, hook)


def named(regularizers: Sequence[Regularizer]) -> list[tuple[str, Regularizer]]:
    """Each regularizer with the name of its noise: its class, and a number from the second of one class on.

    So each draws from streams of its own, and members of a group that have the same regularizers draw the same noise.
    """
    count: dict[str, int] = {}
    pairs = []
    for regularizer in regularizers:
        cls = type(regularizer).__name__
        count[cls] = count.get(cls, 0) + 1
        pairs.append((cls if count[cls] == 1 else f"{cls} {count[cls]}", regularizer))
    return pairs

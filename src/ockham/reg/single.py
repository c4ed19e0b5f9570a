"""The regularizers of one run at work on its model, in the order that they stand in."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ockham.core.metrics import Images, evaluation_batch, evaluation_mode
from ockham.core.parameters import NamedParameters, named_parameters, plain_name, weights
from ockham.core.residual import ResidualBranch
from ockham.reg.base import Context, Mixture, Regularizer, has_hook, named
from ockham.reg.jacobian import products, standard_basis, unit_vectors
from ockham.rng import Noise, Streams

LAYERS = (nn.Linear, nn.Conv2d)
OUTPUT_SAMPLES = 1024

Activations = list[tuple[nn.Module, Tensor]]
"""Modules with what they gave for a batch."""


def draw_like(x: Tensor, noise: Noise, distribution: Literal["uniform", "normal"]) -> Tensor:
    """Noise of that distribution (`Regularizer.distribution`) with the shape of x."""
    return noise.uniform_like(x) if distribution == "uniform" else noise.normal_like(x)


def attach(regularizers: Sequence[Regularizer], model: nn.Module, context: Context) -> None:
    """Make the new model compute as its regularizers say: noise while training, and the weights of its layers."""
    for name, regularizer in named(regularizers):
        regularizer.prepare(model, context)
        regularizer.configure_model(model, context)
        layers = [(path, module) for path, module in model.named_modules() if isinstance(module, LAYERS)]
        branches = [(path, module) for path, module in model.named_modules() if isinstance(module, ResidualBranch)]
        for number, (path, branch) in enumerate(branches if has_hook(regularizer, "disturb_branch") else (), start=1):
            noise = context.streams.stream(f"{name}/{path}")
            branch.register_forward_hook(_DisturbedBranch(regularizer, noise, depth=number / len(branches)))
        with context.streams.global_seed(name):
            for position, (path, layer) in enumerate(layers):
                if regularizer.acts_on(layer, is_first=position == 0):
                    noise = context.streams.stream(f"{name}/{path}")
                    _attach_to_layer(regularizer, name, layer, noise, is_first=position == 0)
    for name, regularizer in named(regularizers):
        if has_hook(regularizer, "before_step"):
            model.add_module(name, _ModelState(regularizer.initial_model_state(model)))


def _attach_to_layer(regularizer: Regularizer, name: str, layer: nn.Module, noise: Noise, *, is_first: bool) -> None:
    if has_hook(regularizer, "disturb_layer_input"):
        layer.register_forward_pre_hook(_DisturbedInput(regularizer, noise, is_first=is_first))
    if has_hook(regularizer, "disturb_weight") or has_hook(regularizer, "reparametrize"):
        assert isinstance(layer.weight, Tensor)
        parametrization = Parametrization(regularizer, name, noise, layer.weight.detach())
        parametrize.register_parametrization(layer, "weight", parametrization)


class _DisturbedInput:
    """A forward pre-hook that disturbs the input of a layer in training mode."""

    def __init__(self, regularizer: Regularizer, noise: Noise, *, is_first: bool) -> None:
        self.regularizer, self.noise, self.is_first = regularizer, noise, is_first

    def __call__(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor] | None:
        if not layer.training:
            return None
        noise = draw_like(inputs[0], self.noise, self.regularizer.distribution)
        return (self.regularizer.disturb_layer_input(inputs[0], noise, is_first=self.is_first),)


class _DisturbedBranch:
    """A forward hook that disturbs what a residual block adds to its input, in training mode."""

    def __init__(self, regularizer: Regularizer, noise: Noise, *, depth: float) -> None:
        self.regularizer, self.noise, self.depth = regularizer, noise, depth

    def __call__(self, branch: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if not branch.training:
            return None
        noise = draw_like(output.new_empty(()), self.noise, self.regularizer.distribution)
        return self.regularizer.disturb_branch(output, noise, depth=self.depth)


class Parametrization(nn.Module):
    """What a regularizer makes of the weight of a layer; its state are the buffers. `name` tells regularizers apart."""

    def __init__(self, regularizer: Regularizer, name: str, noise: Noise, weight: Tensor) -> None:
        super().__init__()
        self.regularizer, self.name, self.noise = regularizer, name, noise
        for key, value in regularizer.initial_state(weight).items():
            self.register_buffer(key, value)

    def forward(self, weight: Tensor) -> Tensor:
        regularizer = self.regularizer
        if self.training and has_hook(regularizer, "disturb_weight"):
            weight = regularizer.disturb_weight(weight, draw_like(weight, self.noise, regularizer.distribution))
        if has_hook(regularizer, "reparametrize"):
            # Copies: a second pass moves the buffers before the first is differentiated.
            state = {key: value.clone() for key, value in self.named_buffers()}
            if self.training:
                with torch.no_grad():
                    state = regularizer.next_state(weight, state)
                    for key, value in state.items():
                        self.get_buffer(key).copy_(value)
            weight = regularizer.reparametrize(weight, state)
        return weight


class _ModelState(nn.Module):
    """What a regularizer keeps of a model, as buffers; their names hold no dots."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, value in tensors.items():
            self.register_buffer(name.replace(".", "/"), value.detach().clone())

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {name.replace("/", "."): buffer for name, buffer in self.named_buffers()}


@torch.no_grad()
def before_step(regularizers: Sequence[Regularizer], model: nn.Module, *, training: int, step: int) -> None:
    """What regularizers do to the model when so many trainings, and so many steps of the present one, are finished."""
    for name, regularizer in named(regularizers):
        if has_hook(regularizer, "before_step"):
            state = model.get_submodule(name)
            assert isinstance(state, _ModelState)
            regularizer.before_step(model, state.tensors, training=training, step=step)


def disturbed_input(regularizers: Sequence[Regularizer], x: Tensor, streams: Streams) -> Tensor:
    """The normalised inputs (n, *shape) to train on."""
    for name, regularizer in named(regularizers):
        if has_hook(regularizer, "disturb_input"):
            x = regularizer.disturb_input(x, draw_like(x, streams.stream(name), regularizer.distribution))
    return x


def targets(
    regularizers: Sequence[Regularizer], y: Tensor, num_classes: int, dtype: torch.dtype, mixtures: Sequence[Mixture] = ()
) -> Tensor:
    """What the loss takes for classes (n,) or probabilities (n, C) of samples that are mixed so."""
    changes = [regularizer.target for regularizer in regularizers if has_hook(regularizer, "target")]
    for change in (*changes, *(mixture.mixed for mixture in mixtures)):
        y = change(F.one_hot(y, num_classes).to(dtype) if y.ndim == 1 else y)
    return y


def states(model: nn.Module) -> list[nn.Module]:
    """The modules that take the states of a model, in their order: its layers, and residual blocks as a whole."""
    if isinstance(model, LAYERS) or any(isinstance(child, ResidualBranch) for child in model.children()):
        return [model]
    return [module for child in model.children() for module in states(child)]


def mixtures_of(regularizers: Sequence[Regularizer], model: nn.Module, x: Tensor, streams: Streams) -> list[Mixture]:
    """How the samples of the batch x (n, *shape) are mixed."""
    mixing = [(name, regularizer) for name, regularizer in named(regularizers) if has_hook(regularizer, "mixture")]
    return [regularizer.mixture(x, len(states(model)), streams.stream(name)) for name, regularizer in mixing]


@contextmanager
def mixed_states(model: nn.Module, mixtures: Sequence[Mixture]) -> Iterator[None]:
    """Mixes the samples so in forward passes inside the block."""
    handles = [
        states(model)[mixture.state].register_forward_pre_hook(
            lambda module, inputs, mixture=mixture: (mixture.mixed(inputs[0]), *inputs[1:])
        )
        for mixture in mixtures
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def activations_of(model: nn.Module, regularizers: Sequence[Regularizer]) -> Iterator[Activations]:
    """Collects, from forward passes inside the block, the outputs that the regularizers have penalties on."""
    activations: Activations = []
    kinds = tuple({cls for reg in regularizers if has_hook(reg, "activation_penalty") for cls in reg.activations})
    modules = [module for module in model.modules() if isinstance(module, kinds)] if kinds else []
    handles = [m.register_forward_hook(lambda module, inputs, output: activations.append((module, output))) for m in modules]
    try:
        yield activations
    finally:
        for handle in handles:
            handle.remove()


def batch_penalties(regularizers: Sequence[Regularizer], logits: Tensor, activations: Activations) -> list[Tensor]:
    """The penalties on what the model gave for a batch, scalars that are means over its samples."""
    penalties = [reg.output_penalty(logits) for reg in regularizers if has_hook(reg, "output_penalty")]
    for reg in regularizers:
        if has_hook(reg, "activation_penalty"):
            penalties += [
                reg.activation_penalty(output) for module, output in activations if isinstance(module, reg.activations)
            ]
    return penalties


def has_jacobian_penalty(regularizers: Sequence[Regularizer]) -> bool:
    return any(has_hook(regularizer, "jacobian_penalty") for regularizer in regularizers)


def jacobian_penalties(
    regularizers: Sequence[Regularizer], logits: Tensor, x: Tensor, streams: Streams | None = None
) -> list[Tensor]:
    """The penalties on the Jacobians of logits (n, C) by the model's input x (n, *shape), which needs a gradient for it.

    Without streams to draw from the directions are the same for every call.
    """
    penalties, streams = [], streams or Streams(0)
    for name, regularizer in named(regularizers):
        if has_hook(regularizer, "jacobian_penalty"):
            directions = standard_basis(logits)
            if isinstance(regularizer.projections, int):
                like = logits.new_empty(len(logits), regularizer.projections, logits.shape[1])
                directions = unit_vectors(streams.stream(name).normal_like(like))
            penalties.append(regularizer.jacobian_penalty(products(logits, x, directions)))
    return penalties


def weight_penalties(
    regularizers: Sequence[Regularizer], parameters: NamedParameters, *, with_proximal: bool = False
) -> list[Tensor]:
    """The penalties on parameters that are in the loss, or all of them."""
    return [
        regularizer.penalty(weight)
        for regularizer in regularizers
        if has_hook(regularizer, "penalty") and (with_proximal or not regularizer.proximal)
        for _, weight in weights(parameters, include_bias=regularizer.include_bias)
    ]


def add_penalty_gradients(regularizers: Sequence[Regularizer], parameters: NamedParameters) -> Tensor:
    """Add to the gradients those of the penalties on parameters that are in the loss; returns these penalties, a scalar."""
    with torch.enable_grad():
        penalties = weight_penalties(regularizers, parameters)
        if not penalties:
            return parameters[0][1].new_zeros(())
        total = torch.stack(penalties).sum()
        total.backward()
    return total.detach()


def perturbed(regularizers: Sequence[Regularizer], parameters: NamedParameters) -> dict[str, Tensor]:
    """Where the gradient of the step is taken, by name of the parameter; all parameters have their gradients."""
    values = [parameter.detach() for _, parameter in parameters]
    gradients = [parameter.grad.detach() for _, parameter in parameters if parameter.grad is not None]
    for regularizer in regularizers:
        if has_hook(regularizer, "perturb"):
            values = regularizer.perturb(values, gradients)
    return {name: value for (name, _), value in zip(parameters, values, strict=True)}


def transform_gradients(regularizers: Sequence[Regularizer], parameters: NamedParameters) -> None:
    """What regularizers do to the gradients before they are clipped, in place."""
    for regularizer in regularizers:
        if has_hook(regularizer, "transform_gradient"):
            for gradient in _gradients(regularizer, parameters).values():
                gradient.copy_(regularizer.transform_gradient(gradient))


def disturb_gradients(regularizers: Sequence[Regularizer], parameters: NamedParameters, streams: Streams, *, step: int) -> None:
    """The noise on the gradients after they were clipped, in place; devices, which share gradients, draw the same."""
    for stream_name, regularizer in named(regularizers):
        if has_hook(regularizer, "disturb_gradient"):
            coefficient = regularizer.coefficient(step)
            for name, gradient in _gradients(regularizer, parameters).items():
                stream = streams.stream(f"{stream_name}/{plain_name(name)}", shared=True)
                noise = draw_like(gradient, stream, regularizer.distribution)
                gradient.copy_(regularizer.disturb_gradient(gradient, noise, coefficient))


def _gradients(regularizer: Regularizer, parameters: NamedParameters) -> dict[str, Tensor]:
    acting = weights(parameters, include_bias=regularizer.include_bias)
    return {name: weight.grad for name, weight in acting if weight.grad is not None}


def decay(regularizers: Sequence[Regularizer], parameters: NamedParameters, lrs: Mapping[str, float]) -> None:
    """What regularizers do to the parameters between backward pass and step, in place; `lrs` are by name of the parameter."""
    for regularizer in regularizers:
        if has_hook(regularizer, "decay"):
            for name, weight in weights(parameters, include_bias=regularizer.include_bias):
                weight.copy_(regularizer.decay(weight, lrs[name]))


def prox_and_project(
    regularizers: Sequence[Regularizer], parameters: NamedParameters, responses: Mapping[str, float | Tensor]
) -> None:
    """What regularizers do to the parameters after the step, in place; `responses` are by name of the parameter."""
    for regularizer in regularizers:
        proximal, projects = regularizer.proximal, has_hook(regularizer, "project")
        if not proximal and not projects:
            continue
        for name, weight in weights(parameters, include_bias=regularizer.include_bias):
            if proximal:
                weight.copy_(regularizer.prox(weight, responses[name]))
            if projects:
                weight.copy_(regularizer.project(weight))


def initial_averages(regularizers: Sequence[Regularizer], parameters: NamedParameters) -> dict[str, Tensor]:
    """The averages before the first step, by name of the parameter; empty where no regularizer keeps any."""
    if not any(has_hook(regularizer, "after_step") for regularizer in regularizers):
        return {}
    return {name: weight.detach().clone() for name, weight in parameters}


def average(
    regularizers: Sequence[Regularizer], parameters: NamedParameters, averages: Mapping[str, Tensor], *, step: int
) -> None:
    """What regularizers do to parameters and averages at the end of a step, in place."""
    for regularizer in regularizers:
        if has_hook(regularizer, "after_step"):
            coefficient = regularizer.coefficient(step)
            for name, weight in parameters:
                moved = regularizer.after_step(weight, averages[name], coefficient)
                for tensor, value in zip((weight, averages[name]), moved, strict=True):
                    tensor.copy_(value)


@torch.no_grad()
def total_penalty(
    regularizers: Sequence[Regularizer], model: nn.Module, images: Images, prepare: Callable[[Tensor], Tensor]
) -> float:
    """The sum of all penalties at the model's weights, also of those that are minimised by proximal steps.

    Penalties on outputs, activations and Jacobians are taken over the first OUTPUT_SAMPLES of the images (N, C, H, W), in
    evaluation mode, where copies of a sample have equal outputs.
    """
    penalties = weight_penalties(regularizers, named_parameters(model), with_proximal=True)
    if any(has_hook(reg, hook) for reg in regularizers for hook in ("output_penalty", "activation_penalty")):
        with evaluation_mode(model), activations_of(model, regularizers) as activations:
            logits = model(prepare(next(iter(images.split(OUTPUT_SAMPLES)))))
        repeats = max(regularizer.repeats for regularizer in regularizers)
        penalties += batch_penalties(regularizers, logits.repeat(repeats, 1), activations)
    if has_jacobian_penalty(regularizers):
        penalties.append(_mean_jacobian_penalty(regularizers, model, prepare(next(iter(images.split(OUTPUT_SAMPLES))))))
    return sum((float(penalty) for penalty in penalties), 0.0)


def _mean_jacobian_penalty(regularizers: Sequence[Regularizer], model: nn.Module, x: Tensor) -> Tensor:
    """The penalties on Jacobians in evaluation mode, a mean over the inputs x (n, *shape), always with the same directions.

    In parts, since a backward pass needs all activations of a part.
    """
    total, streams = x.new_zeros(()), Streams(0)
    with evaluation_mode(model), torch.enable_grad():
        for part in x.split(evaluation_batch(model, x[:1])):
            leaf = part.detach().requires_grad_()
            penalties = jacobian_penalties(regularizers, model(leaf), leaf, streams)
            total += torch.stack(penalties).sum().detach() * (len(part) / len(x))
    return total

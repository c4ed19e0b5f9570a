"""Models of dense layers stacked over members: every parameter has a leading axis of members."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ockham.core.parameters import NamedParameters, named_parameters, plain_name
from ockham.fused.products import product
from ockham.fused.regularizers import Regularization, Tensors, column, state_prefix
from ockham.reg import Regularizer
from ockham.reg.single import Parametrization

Disturb = Callable[[str, Tensor], Tensor]
"""(name of a dense layer, its input (members or 1, n, in)) -> the input with noise, (members, n, in) where it has any."""


@dataclass(frozen=True)
class Layer:
    """A dense layer by its name in the model, and what follows it; `scaled` ones multiply their parameters by factors."""

    name: str
    norm: str | None = None
    norm_kind: Literal["batch", "layer"] = "batch"
    activation: nn.Module | None = None
    scaled: bool = False


class Dense(torch.autograd.Function):
    """x (members, n, in), weight (members, out, in), bias (members, out) or None -> (members, n, out).

    Its own backward, so that the gradient of the weights comes in their layout, which the update reads at twice the speed.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        out = torch.bmm(x, weight.transpose(1, 2))
        return out if bias is None else out.add_(bias.unsqueeze(1))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        on_x = torch.bmm(grad, weight) if ctx.needs_input_grad[0] else None
        on_bias = grad.sum(dim=1) if ctx.needs_input_grad[2] else None
        return on_x, torch.bmm(grad.transpose(1, 2), x), on_bias


class SharedDense(torch.autograd.Function):
    """The same for one input x (n, in) of all members, without a gradient: one product, of all weights side by side."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x)
        members, out, _ = weight.shape
        y = product(x, weight.flatten(0, 1)).view(len(x), members, out)
        return (y if bias is None else y.add_(bias)).transpose(0, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor | None]:
        (x,) = ctx.saved_tensors
        members, n, out = grad.shape
        side_by_side = grad.transpose(1, 2).reshape(members * out, n)
        on_weight = product(side_by_side.contiguous(), x.t().contiguous()).view(members, out, -1)
        return None, on_weight, grad.sum(dim=1) if ctx.needs_input_grad[2] else None


class Stack:
    """The parameters and buffers of equal models, stacked; the models' own tensors become views of the stacked ones.

    So whatever is known of a single model (its state, its norms, its penalties) is computed on the model itself. Regularizers
    may have given a model tensors of other names, and states that other members lack: see `stacked_names`.
    """

    def __init__(self, models: Sequence[nn.Module], regularizers: Sequence[Sequence[Regularizer]]) -> None:
        """`regularizers` are those of each model."""
        self.models = list(models)
        self.regularizers = list(regularizers)
        self.layers = _layers(self.models[0])
        states = [_by_stacked_name(model, model.state_dict()) for model in models]
        parameters = {name for name, _ in stacked_parameters(self.models[0])}
        stacked = _stacked(states)
        self.parameters = {name: value for name, value in stacked.items() if name in parameters}
        self.buffers = {name: value for name, value in stacked.items() if name not in parameters}
        self.like = next(iter(self.parameters.values()))
        self.widths = [self.parameters[f"{layer.name}.weight"].shape[-1] for layer in self.layers]
        for position, model in enumerate(self.models):
            for name, stacked_name in stacked_names(model).items():
                owner, _, last = name.rpartition(".")
                if stacked_name in parameters:
                    model.get_parameter(name).data = stacked[stacked_name][position]
                else:
                    setattr(model.get_submodule(owner), last, stacked[stacked_name][position])

    def __len__(self) -> int:
        return len(self.models)

    @property
    def state(self) -> dict[str, Tensor]:
        """Parameters and buffers by name, (members, ...)."""
        return self.parameters | self.buffers

    def evaluation(self, rows: Sequence[int], weights: Sequence[Tensors] | None = None) -> Callable[[Tensor], Tensor]:
        """Inputs (n, ...) -> logits (rows, n, classes) of the members in `rows`, in evaluation mode.

        With `weights`, a state_dict of each of those members, in place of their own.
        """
        models = [self.models[row] for row in rows]
        if weights is not None:
            states = [_by_stacked_name(model, tensors) for model, tensors in zip(models, weights, strict=True)]
            state = {name: value.to(self.like.device) for name, value in _stacked(states).items()}
        else:
            state = self.state if list(rows) == list(range(len(self))) else {n: v[list(rows)] for n, v in self.state.items()}
        names = [layer.name for layer in self.layers]
        regularization = Regularization([self.regularizers[row] for row in rows], models, names, self.like)
        inputs = {"numbers": regularization.numbers, "masks": regularization.masks}
        layer_weights = {
            name: regularization.weight(name, state[f"{name}.weight"], state, inputs, training=False) for name in names
        }  # fmt: skip

        @torch.no_grad()
        def logits(x: Tensor) -> Tensor:
            return forward(self.layers, state, state, x.flatten(1).unsqueeze(0), weights=layer_weights, training=False)

        return logits


def stacked_names(model: nn.Module) -> dict[str, str]:
    """The name in a stack for each name in the state_dict of a model.

    They differ where a regularizer parametrizes a weight: torch renames it and hangs the state into the layer.
    """
    names = {}
    for name in model.state_dict():
        parts = re.fullmatch(r"(.+)\.parametrizations\.(\w+)\.(\d+)\.(\w+)", name)
        if parts is None:
            names[name] = plain_name(name)
        else:
            layer, tensor, number, entry = parts.groups()
            parametrization = model.get_submodule(f"{layer}.parametrizations.{tensor}.{number}")
            assert isinstance(parametrization, Parametrization)
            names[name] = state_prefix(layer, tensor, parametrization.name) + entry
    return names


def stacked_parameters(model: nn.Module) -> NamedParameters:
    """The trainable parameters of a model with their names in a stack, in the order of the stack."""
    names = stacked_names(model)
    return sorted((names[name], parameter) for name, parameter in named_parameters(model))


def _by_stacked_name(model: nn.Module, state: Tensors) -> dict[str, Tensor]:
    return {stacked: state[name] for name, stacked in stacked_names(model).items()}


def _stacked(states: Sequence[Tensors]) -> dict[str, Tensor]:
    """The states of members by name, (members, ...). One that lacks a tensor has that of another, which nothing takes."""
    first_with = {name: state for state in reversed(states) for name in state}
    return {name: torch.stack([state.get(name, first_with[name][name]) for state in states]) for name in sorted(first_with)}


def forward(
    layers: Sequence[Layer],
    parameters: Tensors,
    buffers: Tensors,
    x: Tensor,
    *,
    weights: Tensors,
    training: bool,
    disturb: Disturb | None = None,
    activations: dict[str, Tensor] | None = None,
) -> Tensor:
    """Logits (members, n, classes) for inputs (members, n, pixels), or (1, n, pixels) where all members see the same.

    `weights` (members, out, in) are those that the layers compute with, by layer; all else is read from `parameters`. In
    training batch norm uses and updates statistics of the batch. `activations` collects what follows each activation function.
    """
    for layer in layers:
        if disturb is not None:
            x = disturb(layer.name, x)
        weight, bias = weights[layer.name], parameters.get(f"{layer.name}.bias")
        added = None if layer.scaled else bias
        x = Dense.apply(x, weight, added) if len(x) == len(weight) else SharedDense.apply(x[0], weight, added)
        if layer.scaled:
            weight_scale, bias_scale = (column(buffers[f"{layer.name}.{kind}_scale"], x) for kind in ("weight", "bias"))
            x = x * weight_scale + parameters[f"{layer.name}.bias"].unsqueeze(1) * bias_scale
        if layer.norm is not None and layer.norm_kind == "batch":
            x = _batch_normalized(parameters, buffers, layer.norm, x, training=training)
        elif layer.norm is not None:
            x = _layer_normalized(parameters, layer.norm, x)
        if layer.activation is not None:
            x = layer.activation(x)
            if activations is not None:
                activations[layer.name] = x
    return x


def _layer_normalized(parameters: Tensors, name: str, x: Tensor) -> Tensor:
    """Layer norm of every member: over its units, of each sample by itself."""
    scale, shift = (parameters[f"{name}.{part}"].unsqueeze(1) for part in ("weight", "bias"))
    return F.layer_norm(x, x.shape[2:]) * scale + shift


def _batch_normalized(parameters: Tensors, buffers: Tensors, name: str, x: Tensor, *, training: bool) -> Tensor:
    """Batch norm of every member by its own batch: members and units together are the channels."""
    members, n, units = x.shape
    if training:
        buffers[f"{name}.num_batches_tracked"].add_(1)
    flat = F.batch_norm(
        x.transpose(0, 1).reshape(n, members * units),
        buffers[f"{name}.running_mean"].view(-1),
        buffers[f"{name}.running_var"].view(-1),
        parameters[f"{name}.weight"].reshape(-1),
        parameters[f"{name}.bias"].reshape(-1),
        training=training,
    )
    return flat.view(n, members, units).transpose(0, 1)


def _layers(model: nn.Module) -> list[Layer]:
    """The dense layers of `model=linear` and `model=mlp` in their order."""
    hidden = model.get_submodule("hidden") if hasattr(model, "hidden") else nn.Sequential()
    layers = []
    for position, block in enumerate(hidden.children()):
        layers.append(
            Layer(
                f"hidden.{position}.linear",
                norm=f"hidden.{position}.norm" if hasattr(block, "norm") else None,
                norm_kind="layer" if isinstance(getattr(block, "norm", None), nn.LayerNorm) else "batch",
                activation=block.get_submodule("activation"),
                scaled=hasattr(block.get_submodule("linear"), "weight_scale"),
            )
        )
    return [*layers, Layer("output", scaled=hasattr(model.get_submodule("output"), "weight_scale"))]

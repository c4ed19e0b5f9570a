"""Models of dense layers stacked over members: every parameter has a leading axis of members."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ockham.fused.products import product

Disturb = Callable[[str, Tensor], Tensor]
"""(name of a dense layer, its input (members or 1, n, in)) -> the input with noise, (members, n, in) where it has any."""

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Layer:
    """A dense layer by its name in the model, and what follows it."""

    name: str
    norm: str | None
    activation: nn.Module | None


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

    So whatever is known of a single model (its state, its norms, its penalties) is computed on the model itself.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.models = list(models)
        first = self.models[0]
        self.layers = _layers(first)
        self.parameters = {
            name: torch.stack([model.get_parameter(name).detach() for model in models]) for name, _ in first.named_parameters()
        }
        self.like = next(iter(self.parameters.values()))
        self.widths = [self.parameters[f"{layer.name}.weight"].shape[-1] for layer in self.layers]
        self.buffers = {name: torch.stack([model.get_buffer(name) for model in models]) for name, _ in first.named_buffers()}
        for position, model in enumerate(self.models):
            for name, stacked in self.parameters.items():
                model.get_parameter(name).data = stacked[position]
            for name, stacked in self.buffers.items():
                owner, _, own = name.rpartition(".")
                setattr(model.get_submodule(owner), own, stacked[position])

    def __len__(self) -> int:
        return len(self.models)

    @property
    def state(self) -> dict[str, Tensor]:
        """Parameters and buffers by name, (members, ...)."""
        return self.parameters | self.buffers

    def evaluation(self, state: Tensors, rows: Sequence[int] | None = None) -> Callable[[Tensor], Tensor]:
        """Inputs (n, ...) -> logits (rows, n, classes) in evaluation mode with a stacked state, of `rows` of it or of all."""
        if rows is not None:
            state = {name: value[list(rows)] for name, value in state.items()}

        @torch.no_grad()
        def logits(x: Tensor) -> Tensor:
            return forward(self.layers, state, state, x.flatten(1).unsqueeze(0), training=False)

        return logits


def forward(
    layers: Sequence[Layer],
    parameters: Tensors,
    buffers: Tensors,
    x: Tensor,
    *,
    training: bool,
    disturb: Disturb | None = None,
    activations: dict[str, Tensor] | None = None,
) -> Tensor:
    """Logits (members, n, classes) for inputs (members, n, pixels), or (1, n, pixels) where all members see the same.

    In training batch norm uses and updates statistics of the batch. `activations` collects what follows each sigmoid.
    """
    for layer in layers:
        if disturb is not None:
            x = disturb(layer.name, x)
        weight, bias = parameters[f"{layer.name}.weight"], parameters.get(f"{layer.name}.bias")
        x = Dense.apply(x, weight, bias) if len(x) == len(weight) else SharedDense.apply(x[0], weight, bias)
        if layer.norm is not None:
            x = _normalized(parameters, buffers, layer.norm, x, training=training)
        if layer.activation is not None:
            x = layer.activation(x)
            if activations is not None and isinstance(layer.activation, nn.Sigmoid):
                activations[layer.name] = x
    return x


def _normalized(parameters: Tensors, buffers: Tensors, name: str, x: Tensor, *, training: bool) -> Tensor:
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
        norm = f"hidden.{position}.norm" if hasattr(block, "norm") else None
        layers.append(Layer(f"hidden.{position}.linear", norm, block.get_submodule("activation")))
    return [*layers, Layer("output", None, None)]

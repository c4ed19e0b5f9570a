"""Models of dense layers stacked over members: every parameter has a leading axis of members."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Disturb = Callable[[str, Tensor], Tensor]
"""(name of a dense layer, its input (members, n, in)) -> the input with noise."""


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
        self.buffers = {name: torch.stack([model.get_buffer(name) for model in models]) for name, _ in first.named_buffers()}
        for position, model in enumerate(self.models):
            for name, stacked in self.parameters.items():
                model.get_parameter(name).data = stacked[position]
            for name, stacked in self.buffers.items():
                owner, _, own = name.rpartition(".")
                setattr(model.get_submodule(owner), own, stacked[position])

    def __len__(self) -> int:
        return len(self.models)

    def forward(
        self,
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor],
        x: Tensor,
        *,
        training: bool,
        disturb: Disturb | None = None,
        activations: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Logits (members, n, classes) for inputs (members, n, pixels), with these stacked parameters.

        In training batch norm uses and updates statistics of the batch. `activations` collects what follows each sigmoid.
        """
        for layer in self.layers:
            if disturb is not None:
                x = disturb(layer.name, x)
            x = Dense.apply(x, parameters[f"{layer.name}.weight"], parameters.get(f"{layer.name}.bias"))
            if layer.norm is not None:
                x = _normalized(parameters, buffers, layer.norm, x, training=training)
            if layer.activation is not None:
                x = layer.activation(x)
                if activations is not None and isinstance(layer.activation, nn.Sigmoid):
                    activations[layer.name] = x
        return x

    def evaluation(self, rows: Sequence[int] | None = None) -> Callable[[Tensor], Tensor]:
        """Inputs (n, ...) -> logits (rows, n, classes) in evaluation mode, of the members in `rows`, or of all."""
        parameters, buffers = self.parameters, self.buffers
        if rows is not None:
            parameters, buffers = ({name: value[rows] for name, value in own.items()} for own in (parameters, buffers))
        count = len(self) if rows is None else len(rows)

        @torch.no_grad()
        def logits(x: Tensor) -> Tensor:
            x = x.flatten(1)
            return self.forward(parameters, buffers, x.expand(count, *x.shape), training=False)

        return logits


def _normalized(parameters: dict[str, Tensor], buffers: dict[str, Tensor], name: str, x: Tensor, *, training: bool) -> Tensor:
    """Batch norm of every member by its own batch: members and units together are the channels."""
    members, n, units = x.shape
    if training:
        buffers[f"{name}.num_batches_tracked"] += 1
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

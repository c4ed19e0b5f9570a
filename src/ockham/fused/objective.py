"""What members minimise on a batch: the loss of each, with all that its regularizers do to inputs, activations, weights,
targets and outputs.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ockham.fused.mixtures import MemberMixtures, mixed, target_shares
from ockham.fused.noise import Draw, MemberNoise
from ockham.fused.regularizers import Inputs, Regularization, StackedRegularizer, batch_noise, column, noise_key
from ockham.fused.stack import Stack, Tensors, forward
from ockham.reg.jacobian import products, standard_basis, unit_vectors
from ockham.run import Run


@dataclass(frozen=True)
class Batch:
    """The batches of the cohorts: members of one cohort share theirs.

    x (cohorts, n, pixels), y (cohorts, n) or probabilities (cohorts, n, classes), cohorts (members,).
    """

    x: Tensor
    y: Tensor
    cohorts: Sequence[int]


Gradients = Callable[[Tensors, Tensors, Sequence[Inputs]], tuple[Tensor, tuple[Tensor, ...]]]
"""`Objective.gradients`, or a program of it."""


class Objective:
    """The regularizers on batches of some members, and the noise that they draw."""

    def __init__(self, stack: Stack, rows: slice, runs: Sequence[Run]) -> None:
        """`runs` are those in the `rows` of the stack."""
        self.layers = tuple(stack.layers)
        self.num_classes = len(runs[0].splits.classes)
        self.loss = runs[0].settings.loss
        self.regularization = Regularization(
            stack.regularizers[rows], stack.models[rows], [layer.name for layer in self.layers], stack.like
        )
        self.noise = MemberNoise(runs, stack.like)
        self.mixtures = MemberMixtures(self.regularization.stacked, runs, len(self.layers), stack.like)
        for index, regularizer in enumerate(self.regularization.stacked):
            self._draw_for_inputs_and_outputs(index, regularizer, stack)
            self._draw_for_layers(index, regularizer, stack)

    def _draw_for_inputs_and_outputs(self, index: int, regularizer: StackedRegularizer, stack: Stack) -> None:
        rows, stream, example = list(regularizer.members), regularizer.name, regularizer.example
        if regularizer.has("disturb_input"):
            key = noise_key("disturb_input", index)
            self.noise.add(key, rows, Draw(stream, example.distribution, (stack.widths[0],), by_sample=True))
        if regularizer.has("jacobian_penalty") and isinstance(example.projections, int):
            shape = (example.projections, self.num_classes)
            self.noise.add(noise_key("jacobian_penalty", index), rows, Draw(stream, "normal", shape, by_sample=True))

    def _draw_for_layers(self, index: int, regularizer: StackedRegularizer, stack: Stack) -> None:
        distribution = regularizer.example.distribution
        for layer, width in zip(self.layers, stack.widths, strict=True):
            rows = self.regularization.rows.get((index, layer.name))
            stream = f"{regularizer.name}/{layer.name}"
            if rows and regularizer.has("disturb_layer_input"):
                key = noise_key("disturb_layer_input", index, layer.name)
                self.noise.add(key, rows, Draw(stream, distribution, (width,), by_sample=True))
            if rows and regularizer.has("disturb_weight"):
                shape = tuple(stack.parameters[f"{layer.name}.weight"].shape[1:])
                key = noise_key("disturb_weight", index, layer.name)
                self.noise.add(key, rows, Draw(stream, distribution, shape, by_sample=False))

    @property
    def identity(self) -> Hashable:
        """What fixes `gradients`, beside the names and shapes of its arguments."""
        return self.regularization.identity, repr(self.layers), self.num_classes, self.loss

    def inputs(self, batch: Batch) -> dict[str, Mapping[str, Any]]:
        """What `losses` reads beside parameters and buffers, all of it tensors."""
        cohorts = sorted(set(batch.cohorts))
        if len(cohorts) == 1:
            data = {"x": batch.x[cohorts[0]].unsqueeze(0), "y": batch.y[cohorts[0]].unsqueeze(0)}
        else:
            data = {"x": batch.x, "y": batch.y, "cohorts": torch.tensor(list(batch.cohorts), device=batch.x.device)}
        return {
            "data": data,
            "noise": self.noise.draw(batch.x.shape[1]),
            "mixtures": self.mixtures.draw(batch.x.shape[1]),
            "places": self.noise.places,
            "numbers": self.regularization.numbers,
            "masks": self.regularization.masks,
        }

    def losses(self, parameters: Tensors, buffers: Tensors, inputs: Inputs) -> Tensor:
        """The loss of each member with its penalties on outputs and activations, (members,); batch norm and the weights of
        layers move `buffers`.

        Reads no tensor but its arguments, so that it can be traced.
        """
        regularization = self.regularization
        x, y = inputs["data"]["x"], inputs["data"]["y"]
        if "cohorts" in inputs["data"]:
            x, y = x[inputs["data"]["cohorts"]], y[inputs["data"]["cohorts"]]
        weights = {
            layer.name: regularization.weight(
                layer.name, parameters[f"{layer.name}.weight"], buffers, inputs, training=True
            )
            for layer in self.layers
        }  # fmt: skip
        x = regularization.input(x, inputs)
        if any(regularizer.has("jacobian_penalty") for regularizer in regularization.stacked):
            x = x.detach().expand(regularization.count, *x.shape[1:]).requires_grad_()  # members have gradients of their own
        activations: dict[str, Tensor] = {}
        logits = forward(
            self.layers, parameters, buffers, x, weights=weights, training=True,
            disturb=lambda layer, x: self._state(layer, x, inputs), activations=activations,
        )  # fmt: skip
        losses = LOSSES_OF_MEMBERS[self.loss](logits, self._targets(y, logits, inputs))
        for index, regularizer in enumerate(regularization.stacked):
            if regularizer.has("output_penalty"):
                losses = losses + regularization.penalty(index, "output_penalty", inputs, logits)
            if regularizer.has("activation_penalty"):
                for layer in self.layers:
                    if isinstance(layer.activation, regularizer.example.activations):
                        activation = activations[layer.name]
                        losses = losses + regularization.penalty(index, "activation_penalty", inputs, activation)
            if regularizer.has("jacobian_penalty"):
                directions = self._directions(index, regularizer, logits, inputs)
                losses = losses + regularization.penalty(index, "jacobian_penalty", inputs, products(logits, x, directions))
        return losses

    def _state(self, layer: str, x: Tensor, inputs: Inputs) -> Tensor:
        """The input (members or 1, n, in) that a layer takes: with its noise, then mixed."""
        x = self.regularization.layer_input(layer, x, inputs)
        position = [each.name for each in self.layers].index(layer)
        for mixture in inputs["mixtures"].values():
            x = mixed(x, mixture["shares"][:, position], mixture["partners"])
        return x

    def _directions(self, index: int, regularizer: StackedRegularizer, logits: Tensor, inputs: Inputs) -> Tensor:
        """Unit vectors (members or 1, n, projections, classes); (1, classes, classes) where they are those of the classes."""
        if regularizer.example.projections == "all":
            return standard_basis(logits)
        return unit_vectors(batch_noise(inputs, "jacobian_penalty", index))

    def _targets(self, y: Tensor, logits: Tensor, inputs: Inputs) -> Tensor:
        """What the loss takes for classes (members or 1, n) or probabilities (members or 1, n, classes)."""
        for index, regularizer in enumerate(self.regularization.stacked):
            if regularizer.has("target"):
                probabilities = F.one_hot(y, self.num_classes).to(logits.dtype) if y.ndim == 2 else y
                y = self.regularization.changed(index, "target", inputs, probabilities)
        for mixture in inputs["mixtures"].values():
            probabilities = F.one_hot(y, self.num_classes).to(logits.dtype) if y.ndim == 2 else y
            y = mixed(probabilities, target_shares(mixture), mixture["partners"])
        return y

    def gradients(
        self, parameters: Tensors, buffers: Tensors, microbatches: Sequence[Inputs]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(`losses`, their gradients by each of the parameters), means over the samples of all micro-batches.

        They are worked on one after the other; `microbatches` holds what `losses` reads for each.
        """
        sizes = [inputs["data"]["x"].shape[1] for inputs in microbatches]
        losses: list[Tensor] = []
        gradients: list[Tensor] = []
        for inputs, size in zip(microbatches, sizes, strict=True):
            leaves = {name: parameter.detach().requires_grad_() for name, parameter in parameters.items()}
            loss = self.losses(leaves, buffers, inputs) * (size / sum(sizes))
            gradient = torch.autograd.grad(loss.sum(), list(leaves.values()))
            losses.append(loss.detach())
            gradients = [a + b for a, b in zip(gradients, gradient, strict=True)] if gradients else list(gradient)
        return torch.stack(losses).sum(dim=0), tuple(gradients)

    def gradients_of_step(
        self, gradients: Gradients, parameters: Tensors, buffers: Tensors, microbatches: Sequence[Inputs]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """`gradients`; for members that a regularizer perturbs, those where it moves their parameters, with the same noise.

        Losses and `buffers` are those of the first pass.
        """
        losses, first = gradients(parameters, buffers, microbatches)
        perturbed = self.regularization.perturbed(list(parameters.values()), first, microbatches[0])
        if perturbed is None:
            return losses, first
        values, members = perturbed
        before = {name: buffer.clone() for name, buffer in buffers.items()}
        _, second = gradients(dict(zip(parameters, values, strict=True)), buffers, microbatches)
        for name, buffer in buffers.items():
            buffer.copy_(before[name])
        return losses, tuple(torch.where(column(members, a), b, a) for a, b in zip(first, second, strict=True))


def cross_entropies(logits: Tensor, y: Tensor) -> Tensor:
    """The mean cross-entropy of each member, (members,).

    logits (members, n, classes) against classes (members or 1, n) or probabilities (members or 1, n, classes).
    """
    log_probabilities = F.log_softmax(logits, dim=2)
    if y.ndim == 3:
        return -(y * log_probabilities).sum(dim=2).mean(dim=1)
    classes = y.expand(logits.shape[:2]).unsqueeze(2)
    return -log_probabilities.gather(2, classes).squeeze(2).mean(dim=1)


def squared_errors(logits: Tensor, y: Tensor) -> Tensor:
    """The mean squared error of each member over samples and classes, (members,), of the same."""
    probabilities = F.one_hot(y, logits.shape[2]).to(logits.dtype) if y.ndim == 2 else y
    return (logits - probabilities).square().mean(dim=(1, 2))


#: `core.objective.LOSSES` with an axis of members in front.
LOSSES_OF_MEMBERS = {"cross_entropy": cross_entropies, "mse": squared_errors}

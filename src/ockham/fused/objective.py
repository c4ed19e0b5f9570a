"""What members minimise on a batch: the loss of each, with all that its regularizers do to inputs, activations, targets
and outputs, as numbers over members. A member without a regularizer has the number that changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ockham.fused.effects import column, numbers
from ockham.fused.stack import Layer, Tensors, forward
from ockham.reg import ConfidencePenalty, Dropout, GaussianDropout, InputNoise, KlSparsity, LabelSmoothing
from ockham.reg.noise import dropout, gaussian_dropout
from ockham.reg.targets import bernoulli_kl, entropy, smooth_labels
from ockham.run import Run

#: The noises on activations: their regularizer, and the numbers that it draws.
DISTURBANCES = {"Dropout": (Dropout, dropout, "uniform"), "GaussianDropout": (GaussianDropout, gaussian_dropout, "normal")}


@dataclass(frozen=True)
class Batch:
    """The batches of the cohorts: members of one cohort share theirs.

    x (cohorts, n, pixels), y (cohorts, n) or probabilities (cohorts, n, classes), cohorts (members,).
    """

    x: Tensor
    y: Tensor
    cohorts: Sequence[int]


class Draw(NamedTuple):
    """A noise that is drawn for every batch: from the streams of its `name` of the members in `rows`, one of each seed."""

    name: str
    distribution: str
    width: int
    rows: list[int]


class Objective:
    """The regularizers on batches of some members, and the noise that they draw."""

    def __init__(self, layers: Sequence[Layer], widths: Sequence[int], runs: Sequence[Run], like: Tensor) -> None:
        """`widths` are the inputs of the layers; numbers are made with the dtype and on the device of `like`."""
        self.layers = tuple(layers)
        self.runs = runs
        self.like = like
        self.seeds = [run.settings.seed for run in runs]
        self.num_classes = len(runs[0].splits.classes)
        self.draws: list[Draw] = []
        #: Of each regularizer that any member has, its number for every member, (members,).
        self.numbers: dict[str, Tensor] = {}
        #: Of each noise of several seeds, which of the draws each member takes, (members,).
        self.places: dict[str, Tensor] = {}
        self._number("LabelSmoothing", numbers(runs, LabelSmoothing, lambda reg: reg.smoothing))
        self._number("ConfidencePenalty", numbers(runs, ConfidencePenalty, lambda reg: reg.strength))
        if self._number("KlSparsity", numbers(runs, KlSparsity, lambda reg: reg.strength)):
            self._number("KlSparsity/target", numbers(runs, KlSparsity, lambda reg: reg.target, otherwise=0.5))
        self._noise("InputNoise", "normal", widths[0], numbers(runs, InputNoise, lambda reg: reg.std))
        for position, (layer, width) in enumerate(zip(layers, widths, strict=True)):
            for name, (kind, _, distribution) in DISTURBANCES.items():
                rates = numbers(runs, kind, lambda reg: reg.rate if position else reg.input_rate)  # noqa: B023 - called at once
                self._noise(f"{name}/{layer.name}", distribution, width, rates)

    def _number(self, name: str, values: np.ndarray) -> bool:
        if values.any():
            self.numbers[name] = torch.tensor(values, dtype=self.like.dtype, device=self.like.device)
        return name in self.numbers

    def _noise(self, name: str, distribution: str, width: int, strengths: np.ndarray) -> None:
        """Members of one seed share a draw; one without the noise draws nothing and gets the numbers of any other."""
        if not self._number(name, strengths):
            return
        first_of = {self.seeds[row]: row for row in reversed(np.flatnonzero(strengths).tolist())}
        self.draws.append(Draw(name, distribution, width, list(first_of.values())))
        if len(first_of) > 1:
            draw_of = {seed: index for index, seed in enumerate(first_of)}
            self.places[name] = torch.tensor([draw_of.get(seed, 0) for seed in self.seeds], device=self.like.device)

    def draw(self, n: int) -> dict[str, Tensor]:
        """The noise of a batch of n samples as each member draws it alone: by name, (draws, n, width)."""
        noise = {}
        for draw in self.draws:
            like = self.like.new_empty(n, draw.width)
            streams = [self.runs[row].streams.stream(draw.name) for row in draw.rows]
            drawn = [s.uniform_like(like) if draw.distribution == "uniform" else s.normal_like(like) for s in streams]
            noise[draw.name] = torch.stack(drawn)
        return noise

    def inputs(self, batch: Batch) -> dict[str, Mapping[str, Tensor]]:
        """What `losses` reads beside parameters and buffers, all of it tensors."""
        used = sorted(set(batch.cohorts))
        if len(used) == 1:
            data = {"x": batch.x[used[0]].unsqueeze(0), "y": batch.y[used[0]].unsqueeze(0)}
        else:
            data = {"x": batch.x, "y": batch.y, "cohorts": torch.tensor(list(batch.cohorts), device=batch.x.device)}
        return {"data": data, "noise": self.draw(batch.x.shape[1]), "numbers": self.numbers, "places": self.places}

    def losses(self, parameters: Tensors, buffers: Tensors, inputs: Mapping[str, Tensors]) -> Tensor:
        """The loss of each member with its penalties on outputs, (members,); batch norm moves `buffers`.

        Reads no tensor but its arguments, so that it can be traced.
        """
        given = inputs["numbers"]
        x, y = inputs["data"]["x"], inputs["data"]["y"]
        if "cohorts" in inputs["data"]:
            x, y = x[inputs["data"]["cohorts"]], y[inputs["data"]["cohorts"]]

        def noise(name: str) -> Tensor:
            drawn = inputs["noise"][name]
            return drawn[inputs["places"][name]] if name in inputs["places"] else drawn

        def disturb(layer: str, x: Tensor) -> Tensor:
            for kind, (_, apply, _) in DISTURBANCES.items():
                name = f"{kind}/{layer}"
                if name in given:
                    x = apply(x, noise(name), column(given[name], x))
            return x

        if "InputNoise" in given:
            x = x + column(given["InputNoise"], x) * noise("InputNoise")
        activations: dict[str, Tensor] | None = {} if "KlSparsity" in given else None
        logits = forward(self.layers, parameters, buffers, x, training=True, disturb=disturb, activations=activations)
        if "LabelSmoothing" in given:
            probabilities = F.one_hot(y, self.num_classes).to(logits.dtype) if y.ndim == 2 else y
            y = smooth_labels(probabilities, column(given["LabelSmoothing"], logits), self.num_classes, logits.dtype)
        losses = cross_entropies(logits, y)
        if "ConfidencePenalty" in given:
            losses = losses - given["ConfidencePenalty"] * torch.vmap(entropy)(logits)
        if activations is not None:
            targets = given["KlSparsity/target"][:, None]
            divergences = [bernoulli_kl(targets, own.mean(dim=1)).sum(dim=1) for own in activations.values()]
            losses = losses + given["KlSparsity"] * torch.stack(divergences).sum(dim=0)
        return losses

    def gradients(
        self, parameters: Tensors, buffers: Tensors, microbatches: Sequence[Mapping[str, Tensors]]
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


def cross_entropies(logits: Tensor, y: Tensor) -> Tensor:
    """The mean cross-entropy of each member, (members,).

    logits (members, n, classes) against classes (members or 1, n) or probabilities (members or 1, n, classes).
    """
    log_probabilities = F.log_softmax(logits, dim=2)
    if y.ndim == 3:
        return -(y * log_probabilities).sum(dim=2).mean(dim=1)
    chosen = y.expand(logits.shape[:2]).unsqueeze(2)
    return -log_probabilities.gather(2, chosen).squeeze(2).mean(dim=1)

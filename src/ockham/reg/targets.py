"""Regularizers of what the model says: targets, the distribution over classes, hidden activations."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ockham.core.parameters import NamedParameters
from ockham.errors import UserError
from ockham.reg.base import Context, Outputs, Regularizer


def smooth_labels(y: Tensor, smoothing: float | Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """(1 - smoothing) y + smoothing / C as class probabilities (N, C), for classes (N,) or probabilities (N, C)."""
    target = F.one_hot(y, num_classes).to(dtype) if y.ndim == 1 else y
    return (1 - smoothing) * target + smoothing / num_classes


def entropy(logits: Tensor) -> Tensor:
    """The entropy -sum_c p_c log p_c of softmax(logits), in nats, averaged over the samples of (N, C)."""
    log_probabilities = logits.log_softmax(dim=1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=1).mean()


def bernoulli_kl(target: float | Tensor, mean: Tensor) -> Tensor:
    """KL(target || mean) between Bernoulli variables: t log(t / m) + (1 - t) log((1 - t) / (1 - m)), elementwise."""
    tiny = torch.finfo(mean.dtype).eps
    mean = mean.clamp(tiny, 1 - tiny)
    return target * (target / mean).log() + (1 - target) * ((1 - target) / (1 - mean)).log()


class LabelSmoothing(Regularizer):
    """Targets (1 - smoothing) y + smoothing / C (Szegedy et al. 2016, Rethinking Inception, section 7).

    yaml: `reg=label_smoothing`. Acts on the loss that is minimised only; the reported losses are those of the true labels.
    """

    def __init__(self, smoothing: float) -> None:
        self.smoothing = smoothing
        self.num_classes: int | None = None

    def configure_model(self, model: nn.Module, context: Context) -> None:
        self.num_classes = context.num_classes

    def transform_batch(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        assert self.num_classes is not None, "configure_model comes first"
        return x, smooth_labels(y, self.smoothing, self.num_classes, x.dtype)


class ConfidencePenalty(Regularizer):
    """-strength * H(softmax(logits)), H the entropy, a mean over the batch.

    yaml: `reg=confidence_penalty`. Pereyra et al. 2017, Regularizing Neural Networks by Penalizing Confident Outputs.
    """

    uses_outputs = True

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def penalty(self, parameters: NamedParameters, outputs: Outputs) -> Tensor:
        return -self.strength * entropy(outputs.logits)


class KlSparsity(Regularizer):
    """strength * sum_j KL(target || mean activation of unit j over the batch). yaml: `reg=kl_sparsity`.

    The mean is taken over the samples, for channels over the image too, after every sigmoid of the model (Ng 2011, Sparse
    Autoencoder; Lee et al. 2008). Raises UserError for a model without sigmoids: the divergence is between probabilities.
    """

    uses_outputs = True

    def __init__(self, strength: float, *, target: float = 0.05) -> None:
        self.strength = strength
        self.target = target
        self._means: dict[str, Tensor] = {}

    def configure_model(self, model: nn.Module, context: Context) -> None:
        layers = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Sigmoid)]
        if not layers:
            raise UserError(
                "reg=kl_sparsity compares mean activations with a probability and needs activations between 0 and 1: set "
                "model.activation=sigmoid"
            )
        for name, layer in layers:
            layer.register_forward_hook(self._keep(name))

    def _keep(self, name: str):  # type: ignore[no-untyped-def]
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self._means[name] = output.mean(dim=[axis for axis in range(output.ndim) if axis != 1])

        return hook

    def penalty(self, parameters: NamedParameters, outputs: Outputs) -> Tensor:
        total = torch.stack([bernoulli_kl(self.target, mean).sum() for mean in self._means.values()]).sum()
        self._means.clear()  # they belong to the forward pass that made `outputs`, and hold its graph
        return self.strength * total

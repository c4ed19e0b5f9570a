"""Regularizers of what the model says: targets, the distribution over classes, hidden activations."""

import torch
from torch import Tensor, nn

from ockham.errors import UserError
from ockham.reg.base import Context, Mixture, Regularizer
from ockham.rng import Noise, beta


def entropy(logits: Tensor) -> Tensor:
    """The entropy -sum_c p_c log p_c of softmax(logits), in nats, averaged over the samples of (N, C)."""
    log_probabilities = logits.log_softmax(dim=1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=1).mean()


def bernoulli_kl(target: float | Tensor, mean: Tensor) -> Tensor:
    """KL(target || mean) between Bernoulli variables: t log(t / m) + (1 - t) log((1 - t) / (1 - m)), elementwise."""
    tiny = torch.finfo(mean.dtype).eps
    mean = mean.clamp(tiny, 1 - tiny)
    return target * (target / mean).log() + (1 - target) * ((1 - target) / (1 - mean)).log()


def symmetric_kl(one: Tensor, other: Tensor) -> Tensor:
    """(KL(p || q) + KL(q || p)) / 2 between p and q, the softmax of two logits (N, C), a mean over the samples."""
    log_p, log_q = one.log_softmax(dim=1), other.log_softmax(dim=1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(dim=1).mean() / 2


class LabelSmoothing(Regularizer):
    """Targets (1 - smoothing) y + smoothing / C (Szegedy et al. 2016, Rethinking Inception, section 7).

    yaml: `reg=label_smoothing`. Acts on the loss that is minimised only; the reported losses are those of the true labels.
    """

    def __init__(self, smoothing: float) -> None:
        self.smoothing = smoothing

    def target(self, probabilities: Tensor) -> Tensor:
        return (1 - self.smoothing) * probabilities + self.smoothing / probabilities.shape[1]


class ConfidencePenalty(Regularizer):
    """-strength * H(softmax(logits)), H the entropy, a mean over the batch.

    yaml: `reg=confidence_penalty`. Pereyra et al. 2017, Regularizing Neural Networks by Penalizing Confident Outputs.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def output_penalty(self, logits: Tensor) -> Tensor:
        return -self.strength * entropy(logits)


class SpectralDecoupling(Regularizer):
    """strength / 2 * ||z||^2 of the logits z, a mean over the batch. yaml: `reg=spectral_decoupling`.

    Pezeshki et al. 2021, Gradient Starvation: A Learning Proclivity in Neural Networks.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def output_penalty(self, logits: Tensor) -> Tensor:
        return self.strength / 2 * logits.square().sum(dim=1).mean()


class RDrop(Regularizer):
    """strength * (KL(p || q) + KL(q || p)) / 2 between what a sample gives under two draws of the noise, a mean over the batch.

    yaml: `reg=[dropout,r_drop]`. The loss is the mean over both passes, which go through the model side by side, as in the
    authors' code (Liang et al. 2021, R-Drop: Regularized Dropout for Neural Networks).
    """

    repeats = 2

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def output_penalty(self, logits: Tensor) -> Tensor:
        return self.strength * symmetric_kl(*logits.chunk(2))


class ManifoldMixup(Regularizer):
    """The samples of a batch mixed in pairs, l h_i + (1 - l) h_j, at a state h of the model, and their targets alike.

    yaml: `reg=manifold_mixup`. The state, l ~ Beta(alpha, alpha) and a random partner j for every sample are drawn for each
    batch; the states are the inputs of all layers, that of the model included (Verma et al. 2019, Manifold Mixup: Better
    Representations by Interpolating Hidden States).
    """

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def mixture(self, x: Tensor, num_states: int, noise: Noise) -> Mixture:
        generator = noise.on(torch.device("cpu"))  # what decides in Python is not waited for
        state = int(torch.randint(num_states, (), generator=generator))
        share = float(beta(self.alpha, generator=generator, dtype=torch.float64)[0])
        return Mixture(state, share, torch.randperm(len(x), generator=noise.on(x.device), device=x.device))


class KlSparsity(Regularizer):
    """strength * sum_j KL(target || mean activation of unit j over the batch). yaml: `reg=kl_sparsity`.

    The mean is taken over the samples, for channels over the image too, after every sigmoid of the model (Ng 2011, Sparse
    Autoencoder; Lee et al. 2008). Raises UserError for a model without sigmoids: the divergence is between probabilities.
    """

    activations = (nn.Sigmoid,)

    def __init__(self, strength: float, *, target: float = 0.05) -> None:
        self.strength = strength
        self.target_activation = target

    def prepare(self, model: nn.Module, context: Context) -> None:
        if not any(isinstance(module, self.activations) for module in model.modules()):
            raise UserError(
                "reg=kl_sparsity compares mean activations with a probability and needs activations between 0 and 1: set "
                "model.activation=sigmoid"
            )

    def activation_penalty(self, activation: Tensor) -> Tensor:
        means = activation.mean(dim=[axis for axis in range(activation.ndim) if axis != 1])
        return self.strength * bernoulli_kl(self.target_activation, means).sum()

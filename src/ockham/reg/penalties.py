"""Penalties on the weights: added to the loss, or minimised by a proximal step after the optimizer's.

Sums run over all weights of linear and convolutional layers, and not over biases and norm scales unless `include_bias`.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ockham.errors import UserError
from ockham.reg.base import Context, Regularizer


def soft_threshold(weight: Tensor, threshold: float | Tensor) -> Tensor:
    """sign(w) max(|w| - threshold, 0): the proximal map of threshold * |w|."""
    return weight.sign() * (weight.abs() - threshold).clamp(min=0)


def group_norms(weight: Tensor) -> Tensor:
    """The norm of all weights that leave each input unit or channel, shape (1, in, 1, ...), for a weight (out, in, ...)."""
    return torch.linalg.vector_norm(weight, dim=_other_axes(weight), keepdim=True)


def _other_axes(weight: Tensor) -> list[int]:
    return [axis for axis in range(weight.ndim) if axis != 1]


def group_shrink(weight: Tensor, response: float | Tensor, strength: float | Tensor) -> Tensor:
    """The proximal map of strength * sum_g sqrt(|g|) ||w_g|| after a step of that response, a number or one for each weight.

    It minimises strength * sum_g sqrt(|g|) ||w_g|| + sum_i (w_i - z_i)^2 / (2 response_i) from the weights z.
    """
    size = weight.numel() // weight.shape[1]
    if isinstance(response, Tensor) and response.numel() > 1:
        return _group_shrink_elementwise(weight, response, strength * size**0.5)
    norms = group_norms(weight)
    return weight * (1 - response * strength * size**0.5 / norms.clamp(min=torch.finfo(weight.dtype).tiny)).clamp(min=0)


#: Newton's steps to the norm of a group: six reach the last bit of float64 where responses in a group differ by 10^6.
NEWTON_STEPS = 8


def _group_shrink_elementwise(z: Tensor, response: Tensor, threshold: float | Tensor) -> Tensor:
    """The map has no closed form where the weights of a group differ in their response.

    With theta = ||w|| the minimum is w_i = z_i theta / (theta + threshold r_i), and 0 iff ||z / r|| <= threshold. So theta
    solves f(theta) = (sum_i z_i^2 / (theta + threshold r_i)^2)^(-1/2) = 1. As a power mean f is concave, and it rises: from
    the left of the solution Newton's steps approach it and never pass it. The first comes from infinity, where f is the
    arithmetic mean.
    """
    tiny = torch.finfo(z.dtype).tiny
    axes = _other_axes(z)

    def total(values: Tensor) -> Tensor:
        return values.sum(dim=axes, keepdim=True)

    norms = group_norms(z)
    stretch = threshold * response
    theta = (norms - total(z * z * stretch) / (norms * norms).clamp(min=tiny)).clamp(min=0)
    for _ in range(NEWTON_STEPS):
        length = (theta + stretch).clamp(min=tiny)
        squares = (z / length).square()
        level = total(squares)
        theta = theta + (level * level.sqrt() - level) / total(squares / length).clamp(min=tiny)
    shrunk = z * (theta / (theta + stretch).clamp(min=tiny))
    is_zero = group_norms(z / response.clamp(min=tiny)) <= threshold
    return torch.where(is_zero, 0.0, shrunk)


def elastic_net_shrink(weight: Tensor, l1: float | Tensor, l2: float | Tensor) -> Tensor:
    """soft(w, l1) / (1 + 2 l2): the proximal map of l1 |w| + l2 w^2."""
    return soft_threshold(weight, l1) / (1 + 2 * l2)


def clip_unit_norms(weight: Tensor, limit: float | Tensor) -> Tensor:
    """The incoming weights of every unit (out, in, ...) scaled down to a norm of at most `limit`."""
    norms = torch.linalg.vector_norm(weight.flatten(1), dim=1).view(-1, *[1] * (weight.ndim - 1))
    return weight * (limit / norms.clamp(min=torch.finfo(weight.dtype).tiny)).clamp(max=1)


class L2(Regularizer):
    """strength * sum w^2, or with `scale=half_mean` strength / (2 m) * sum w^2, m the training samples. yaml: `reg=l2`.

    Gradient 2 strength w: under plain SGD it equals torch's weight_decay = 2 strength; under Adam it does not. Hoerl &
    Kennard 1970, Ridge Regression; the second form is that of Goodfellow et al. 2016 and Ng's lectures.
    """

    def __init__(self, strength: float, *, scale: str = "sum", include_bias: bool = False) -> None:
        self.strength = strength
        self.scale = scale
        self.include_bias = include_bias
        self.num_samples: int | None = None

    def prepare(self, model: nn.Module, context: Context) -> None:
        self.num_samples = context.num_samples

    def penalty(self, weight: Tensor) -> Tensor:
        """Raises UserError for half_mean while the number of samples is unknown."""
        if self.scale == "sum":
            return self.strength * weight.square().sum()
        if self.num_samples is None:
            raise UserError(
                "reg.l2.scale=half_mean divides by the number of training samples, which is not known here: prepare the "
                "regularizer with the data first, or set reg.l2.scale=sum"
            )
        return self.strength / (2 * self.num_samples) * weight.square().sum()


class _Proximal(Regularizer):
    """A penalty that `method=proximal` minimises after each step, while `subgradient` adds it to the loss."""

    def __init__(self, strength: float, *, method: str = "proximal", include_bias: bool = False) -> None:
        self.strength = strength
        self.method = method
        self.include_bias = include_bias

    @property
    def proximal(self) -> bool:
        return self.method == "proximal"


class L1(_Proximal):
    """strength * sum |w|. yaml: `reg=l1`.

    `method=proximal` (the default) soft-thresholds by response * strength after every step, which makes weights exactly zero
    (ISTA: Daubechies et al. 2004; Tibshirani 1996, the Lasso); `subgradient` adds it to the loss, which does not. The response
    of plain SGD is lr; see `Regularizer.prox`.
    """

    def penalty(self, weight: Tensor) -> Tensor:
        return self.strength * weight.abs().sum()

    def prox(self, weight: Tensor, response: float | Tensor) -> Tensor:
        return soft_threshold(weight, response * self.strength)


class ElasticNet(_Proximal):
    """strength * (l1_ratio sum |w| + (1 - l1_ratio) sum w^2) (Zou & Hastie 2005). yaml: `reg=elastic_net`.

    `method=proximal` applies soft(w, r strength l1_ratio) / (1 + 2 r strength (1 - l1_ratio)) after every step, r the
    optimizer's response, `subgradient` adds the penalty to the loss.
    """

    def __init__(self, strength: float, *, l1_ratio: float = 0.5, method: str = "proximal", include_bias: bool = False) -> None:
        super().__init__(strength, method=method, include_bias=include_bias)
        self.l1_ratio = l1_ratio

    def penalty(self, weight: Tensor) -> Tensor:
        return self.strength * (self.l1_ratio * weight.abs().sum() + (1 - self.l1_ratio) * weight.square().sum())

    def prox(self, weight: Tensor, response: float | Tensor) -> Tensor:
        step = response * self.strength
        return elastic_net_shrink(weight, step * self.l1_ratio, step * (1 - self.l1_ratio))


class GroupLasso(Regularizer):
    """strength * sum_g sqrt(|g|) ||w_g||, minimised by its proximal step. yaml: `reg=group_lasso`.

    A group is all that leaves one input unit of a dense layer or one input channel of a convolution, so that whole units
    and channels become zero (Yuan & Lin 2006; for networks Scardapane et al. 2017, Group Sparse Regularization).
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def penalty(self, weight: Tensor) -> Tensor:
        return self.strength * (weight.numel() // weight.shape[1]) ** 0.5 * group_norms(weight).sum()

    def prox(self, weight: Tensor, response: float | Tensor) -> Tensor:
        return group_shrink(weight, response, self.strength)


class Orthogonal(Regularizer):
    """strength * ||W W' - I||_F^2, soft orthogonality. yaml: `reg=orthogonal`.

    W is a weight as the matrix (out, in * height * width), turned round where it has more rows than columns, which cannot all
    be orthonormal. Bansal et al. 2018, Can We Gain More from Orthogonality Regularizations in Training Deep CNNs?, section 3.1.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def penalty(self, weight: Tensor) -> Tensor:
        matrix = weight.flatten(1)
        if len(matrix) > matrix.shape[1]:
            matrix = matrix.T
        identity = torch.eye(len(matrix), dtype=weight.dtype, device=weight.device)
        return self.strength * (matrix @ matrix.T - identity).square().sum()


class WeightDecay(Regularizer):
    """w <- (1 - lr strength) w before the optimizer's step: decoupled decay, whatever the optimizer. yaml: `reg=weight_decay`.

    With Adam it is AdamW (Loshchilov & Hutter 2019, Decoupled Weight Decay Regularization).
    """

    def __init__(self, strength: float, *, include_bias: bool = False) -> None:
        self.strength = strength
        self.include_bias = include_bias

    def decay(self, weight: Tensor, lr: float | Tensor) -> Tensor:
        return weight * (1 - lr * self.strength)


class MaxNorm(Regularizer):
    """||w_u|| <= limit for the incoming weights of every unit or output channel, by projection. yaml: `reg=max_norm`.

    Srebro & Shraibman 2005; with dropout: Srivastava et al. 2014, section 5.1.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def project(self, weight: Tensor) -> Tensor:
        return clip_unit_norms(weight, self.limit)


class SpectralNorm(Regularizer):
    """Every weight divided by its largest singular value (Miyato et al. 2018). yaml: `reg=spectral_norm`.

    As torch's parametrization: a kernel is taken as the matrix (out, in * height * width), and the vectors `_u` and `_v` move
    by one power iteration a batch, after fifteen at the start.
    """

    eps = 1e-12

    def acts_on(self, layer: nn.Module, *, is_first: bool) -> bool:
        return True

    def initial_state(self, weight: Tensor) -> dict[str, Tensor]:
        matrix = weight.flatten(1)
        state = {name: matrix.new_empty(size).normal_() for name, size in zip(("_u", "_v"), matrix.shape, strict=True)}
        state = {name: F.normalize(vector, dim=0, eps=self.eps) for name, vector in state.items()}
        for _ in range(15):
            state = self.next_state(weight, state)
        return state

    def next_state(self, weight: Tensor, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        matrix = weight.flatten(1)
        u = F.normalize(matrix @ state["_v"], dim=0, eps=self.eps)
        return {"_u": u, "_v": F.normalize(matrix.T @ u, dim=0, eps=self.eps)}

    def reparametrize(self, weight: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        return weight / (state["_u"] @ (weight.flatten(1) @ state["_v"]))

"""Regularizers: pure functions of tensors and numbers, and a class for each that carries its strength and scope."""

from ockham.reg.averages import EMA, SWA, Lookahead
from ockham.reg.base import Context, Regularizer
from ockham.reg.early_stopping import EarlyStopping
from ockham.reg.gradients import ASAM, SAM, GradientCentralization, GradientNoise
from ockham.reg.noise import DropConnect, Dropout, GaussianDropout, InputNoise
from ockham.reg.penalties import L1, L2, ElasticNet, GroupLasso, MaxNorm, SpectralNorm, WeightDecay
from ockham.reg.single import total_penalty
from ockham.reg.targets import ConfidencePenalty, KlSparsity, LabelSmoothing

__all__ = [
    "ASAM",
    "EMA",
    "L1",
    "L2",
    "SAM",
    "SWA",
    "ConfidencePenalty",
    "Context",
    "DropConnect",
    "Dropout",
    "EarlyStopping",
    "ElasticNet",
    "GaussianDropout",
    "GradientCentralization",
    "GradientNoise",
    "GroupLasso",
    "InputNoise",
    "KlSparsity",
    "LabelSmoothing",
    "Lookahead",
    "MaxNorm",
    "Regularizer",
    "SpectralNorm",
    "WeightDecay",
    "total_penalty",
]

"""Regularizers: a pure function each, and a small class that carries strength and scope."""

from ockham.reg.base import Context, Outputs, Regularizer, total_penalty
from ockham.reg.early_stopping import EarlyStopping
from ockham.reg.noise import DropConnect, Dropout, GaussianDropout, InputNoise
from ockham.reg.penalties import L1, L2, ElasticNet, GroupLasso, MaxNorm, SpectralNorm, WeightDecay
from ockham.reg.targets import ConfidencePenalty, KlSparsity, LabelSmoothing

__all__ = [
    "L1",
    "L2",
    "ConfidencePenalty",
    "Context",
    "DropConnect",
    "Dropout",
    "EarlyStopping",
    "ElasticNet",
    "GaussianDropout",
    "GroupLasso",
    "InputNoise",
    "KlSparsity",
    "LabelSmoothing",
    "MaxNorm",
    "Outputs",
    "Regularizer",
    "SpectralNorm",
    "WeightDecay",
    "total_penalty",
]

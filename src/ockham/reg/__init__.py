"""Regularizers: pure functions of tensors and numbers, and a class for each that carries its strength and scope."""

from ockham.reg.averages import EMA, SWA, Lookahead
from ockham.reg.base import Context, Mixture, Regularizer
from ockham.reg.early_stopping import EarlyStopping
from ockham.reg.gradients import ASAM, SAM, GradientCentralization, GradientNoise
from ockham.reg.jacobian import Jacobian
from ockham.reg.noise import DropConnect, Dropout, GaussianDropout, InputNoise, StochasticDepth
from ockham.reg.penalties import L1, L2, ElasticNet, GroupLasso, MaxNorm, Orthogonal, SpectralNorm, WeightDecay
from ockham.reg.pruning import MagnitudePruning
from ockham.reg.single import total_penalty
from ockham.reg.targets import ConfidencePenalty, KlSparsity, LabelSmoothing, ManifoldMixup, RDrop, SpectralDecoupling

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
    "Jacobian",
    "KlSparsity",
    "LabelSmoothing",
    "Lookahead",
    "MagnitudePruning",
    "ManifoldMixup",
    "MaxNorm",
    "Mixture",
    "Orthogonal",
    "RDrop",
    "Regularizer",
    "SpectralDecoupling",
    "SpectralNorm",
    "StochasticDepth",
    "WeightDecay",
    "total_penalty",
]

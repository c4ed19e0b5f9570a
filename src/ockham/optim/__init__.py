"""Optimizers: torch.optim, the parameter groups, and Muon with Adam for what Muon does not take."""

from ockham.optim.groups import make_optimizer
from ockham.optim.muon import Muon

__all__ = ["Muon", "make_optimizer"]

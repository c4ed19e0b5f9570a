"""Optimizers: torch.optim, the parameter groups, and Muon with Adam for what Muon does not take."""

from ockham.optim.groups import make_optimizer
from ockham.optim.muon import Muon
from ockham.optim.responses import Responses

__all__ = ["Muon", "Responses", "make_optimizer"]

"""Optimizers: torch.optim, its update rules as formulas, and Muon with Adam for what Muon does not take.

The command line reads the rules before torch is imported, so that this file imports nothing until it is asked.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """The classes that conf/optimizer names."""
    if name == "GradientDescent":
        from ockham.optim.gradient_descent import GradientDescent

        return GradientDescent
    if name == "Muon":
        from ockham.optim.muon import Muon

        return Muon
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

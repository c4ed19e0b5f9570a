"""Optimizers: their update rules as formulas, and the classes that torch does not have.

The command line reads the rules before torch is imported, so that this file imports nothing until it is asked.
"""

from typing import Any

#: The classes of `ruled` that conf/optimizer names.
_RULED = ("AdEMAMix", "Adan", "Lamb", "Lars", "Lion", "ScheduleFreeAdamW", "ScheduleFreeSGD", "SignSGD")


def __getattr__(name: str) -> Any:
    """The classes that conf/optimizer names."""
    if name == "External":
        from ockham.optim.external import External

        return External
    if name == "GradientDescent":
        from ockham.optim.gradient_descent import GradientDescent

        return GradientDescent
    if name == "Muon":
        from ockham.optim.muon import Muon

        return Muon
    if name == "Prodigy":
        from ockham.optim.prodigy import Prodigy

        return Prodigy
    if name in _RULED:
        from ockham.optim import ruled

        return getattr(ruled, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Optimizers: their update rules as formulas, and the classes that torch does not have.

The command line reads the rules before torch is imported, so that this file imports nothing until it is asked.
"""

from typing import Any

#: The classes that conf/optimizer names, and the modules that hold them.
_MODULES = {
    "External": "external",
    "GradientDescent": "gradient_descent",
    "Muon": "muon",
    "Prodigy": "prodigy",
    **dict.fromkeys(["AdEMAMix", "Adan", "Lamb", "Lars", "Lion", "ScheduleFreeAdamW", "ScheduleFreeSGD", "SignSGD"], "ruled"),
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"ockham.optim.{_MODULES[name]}"), name)

"""One run, framed by Lightning."""

from ockham.lit.fit import fit

__all__ = ["fit"]

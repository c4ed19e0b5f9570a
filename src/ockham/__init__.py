"""Ockham: controlled experiments on optimizers and regularizers."""

__version__ = "0.1.0"

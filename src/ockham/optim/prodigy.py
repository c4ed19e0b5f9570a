"""Prodigy, from prodigyopt."""

from ockham.errors import UserError

try:
    import prodigyopt
except ImportError as absent:
    raise UserError("optimizer=prodigy needs the package prodigyopt: pip install 'ockham[optim]'") from absent


class Prodigy(prodigyopt.Prodigy):  # type: ignore[misc]
    """Adam whose learning rate is estimated, times lr (Mishchenko & Defazio 2024). yaml: `optimizer=prodigy`.

    The estimate is one for all parameters of a model, from products of their gradients with the way from the start.
    """

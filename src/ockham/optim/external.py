"""Optimizers of another package: one of pytorch-optimizer by its name."""

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from ockham.errors import UserError
from ockham.optim.catalogue import check_name, key_of


class External(Optimizer):
    """Makes an optimizer of pytorch-optimizer, which is none of this class. yaml: `optimizer=external optimizer.name=soap`."""

    @classmethod
    def from_model(cls, model: nn.Module, *, name: str | None = None, weight_decay: float = 0.0, **settings: Any) -> Optimizer:
        """The class of that name over all trainable parameters.

        Raises UserError where the package or the class is absent, the class cannot be trained with, or lacks a setting.
        """
        constructor = _class_of(name)
        accepted = _settings_of(constructor)
        if weight_decay or "weight_decay" in accepted:
            settings["weight_decay"] = weight_decay
        label = f"optimizer.name={constructor.__name__.lower()}"
        unknown = sorted(set(settings) - set(accepted))
        if unknown:
            raise UserError(f"optimizer.{unknown[0]} is no setting of {label}: it takes {', '.join(accepted)}")
        missing = [key for key, parameter in accepted.items() if parameter.default is parameter.empty and key not in settings]
        if missing:
            raise UserError(f"{label} needs optimizer.{missing[0]}: set +optimizer.{missing[0]}=...")
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        try:
            optimizer = constructor(parameters, **_as_tuples(settings))
        except ImportError as error:
            raise UserError(f"{label} needs a further package: {error}") from error
        return optimizer


def needs_graph(optimizer: Optimizer) -> bool:
    """Whether its step differentiates the gradients again, as those do that sample the Hessian's diagonal."""
    return type(optimizer).__module__.startswith("pytorch_optimizer.") and "hessian_distribution" in _settings_of(
        type(optimizer)
    )


def draws(optimizer: Optimizer) -> bool:
    """Whether its step may draw from the global generators: the optimizers of torch and of Ockham do not."""
    return type(optimizer).__module__.partition(".")[0] not in ("torch", "ockham")


def _class_of(name: str | None) -> type[Optimizer]:
    check_name(name)
    assert name is not None
    try:
        from pytorch_optimizer.optimizer import OPTIMIZERS
    except ImportError as error:
        raise UserError("optimizer=external needs the package pytorch-optimizer: pip install 'ockham[optim]'") from error
    key = key_of(name)
    if key not in OPTIMIZERS:
        near = difflib.get_close_matches(key, OPTIMIZERS, n=1)
        proposal = f"did you mean optimizer.name={near[0]}?" if near else f"it is one of: {', '.join(sorted(OPTIMIZERS))}"
        raise UserError(f"optimizer.name={name} is not known to pytorch-optimizer\n{proposal}")
    constructor: type[Optimizer] = OPTIMIZERS[key]
    return constructor


def _settings_of(constructor: type[Optimizer]) -> Mapping[str, inspect.Parameter]:
    """What it takes beside the parameters, by name. Further words, which these classes swallow, are none."""
    return {
        name: parameter
        for name, parameter in inspect.signature(constructor).parameters.items()
        if name != "params" and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }


def _as_tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}

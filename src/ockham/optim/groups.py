"""Construction of an optimizer over a model's parameters."""

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn
from torch.optim import Optimizer

from ockham.errors import UserError


def make_optimizer(cls: type[Optimizer], model: nn.Module, settings: Mapping[str, Any]) -> Optimizer:
    """`cls` over all trainable parameters of the model, each in exactly one group.

    A class that has a `from_model(model, **settings)` divides the parameters itself. torch's fused kernel is taken where
    there is one. Raises UserError for a setting that the class does not have, or a value that it refuses.
    """
    construct = getattr(cls, "from_model", None)
    accepted = inspect.signature(construct or cls).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    unknown = set(settings) - set(accepted)
    if unknown and not takes_all:
        raise UserError(
            f"optimizer.{sorted(unknown)[0]} is no setting of {cls.__name__}: it takes "
            f"{', '.join(name for name in accepted if name not in ('params', 'model'))}"
        )
    if construct is None:
        # One kernel for all parameters; on CPU it halves the cost of a step of Adam.
        fused: dict[str, Any] = {"fused": True} if "fused" in accepted and "fused" not in settings else {}
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        construct = partial(cls, parameters, **fused)
    else:
        construct = partial(construct, model)
    try:
        optimizer: Optimizer = construct(**settings)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{cls.__name__} refuses its settings: {error}\nset another value for one of optimizer.*") from error
    _check_every_parameter_is_claimed_once(optimizer, model)
    return optimizer


def _check_every_parameter_is_claimed_once(optimizer: Optimizer, model: nn.Module) -> None:
    claimed = [parameter.data_ptr() for group in optimizer.param_groups for parameter in group["params"]]
    trainable = [parameter.data_ptr() for parameter in model.parameters() if parameter.requires_grad]
    assert sorted(claimed) == sorted(trainable), "a trainable parameter is in no group of the optimizer, or in two"

"""What an update rule is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Union

if TYPE_CHECKING:
    from torch import Tensor

State = dict[str, "Tensor"]
Hyper = Mapping[str, Any]
"""Hyperparameters of a step: floats of one run, or tensors (members, 1, ...)."""
Update = Callable[["Tensor", "Tensor", State, Hyper], tuple["Tensor", State]]
Response = Callable[[Mapping[str, Any], Hyper], Union[float, "Tensor"]]
Average = Callable[["Tensor", Mapping[str, Any], Hyper], "Tensor"]
Numbers = Mapping[str, Any]
"""Hyperparameters, or what follows from them: floats of one run, or float64 arrays (members,)."""


def zeros(*names: str) -> Callable[["Tensor"], State]:
    """A state of tensors like the parameter (members, ...), all 0 before the first step."""

    def state(p: "Tensor") -> State:
        import torch

        return {name: torch.zeros_like(p) for name in names}

    return state


def count_steps(h: Numbers, counters: Numbers) -> dict[str, Any]:
    return {"step": counters["step"] + 1}


def nothing(h: Numbers, counters: Numbers) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Rule:
    """A rule, its state before the first step, and the settings that it knows, with the defaults of the class."""

    update: Update
    #: (state after a step, hyperparameters of the step) -> how far the rule, once it is at rest, moves a parameter for each
    #: unit of a gradient that stays the same: by -response * gradient. One number, or one for each element. Proximal steps
    #: are scaled with it, so that a penalty weighs as much against the loss under every rule.
    #: A text where steps are not proportional to the gradient: what they are.
    response: Response | str
    #: parameter (members, ...) -> tensors (members, ...) by name.
    state: Callable[["Tensor"], State]
    #: Without a number where the default of the class is none: the rule then needs one to be set.
    defaults: Mapping[str, float | None]
    #: (hyperparameters, counters after a step) -> further hyperparameters of that step.
    corrections: Callable[[Numbers, Numbers], dict[str, Any]] = nothing
    #: What the optimizer keeps of the steps so far beside the state tensors, as it is before the first, and how a step
    #: changes it.
    counters: Mapping[str, float] = field(default_factory=lambda: {"step": 0.0})
    count: Callable[[Numbers, Numbers], dict[str, Any]] = count_steps
    #: (parameter, state, hyperparameters) -> the averaged weights that a run is judged by, where they are not those that train.
    average: Average | None = None
    #: Settings of the optimizer that are for parameters which another rule updates.
    others: tuple[str, ...] = ()


def decayed(p: "Tensor", g: "Tensor", h: Hyper) -> "Tensor":
    """The gradient with that of weight_decay / 2 * sum of squares."""
    return g + h["weight_decay"] * p


def learning_rate(state: Mapping[str, Any], h: Hyper) -> Union[float, "Tensor"]:
    """The response of gradient descent."""
    return h["lr"]

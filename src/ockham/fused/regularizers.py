"""The regularizers of many members: each is called once for all that have it, under torch.vmap, with their numbers as tensors.

Nothing here knows a class of regularizers. A member without one takes part in its arithmetic and keeps what it had.
"""

import pickle
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ockham.reg import Regularizer
from ockham.reg.base import PURE_HOOKS, has_hook, named

Tensors = Mapping[str, Tensor]
Inputs = Mapping[str, Any]
"""Tensors by kind and name: "numbers" of regularizers, their "coefficients" of a step, "masks" of the members that have them,
"noise" and its "places", "mixtures" of samples.
"""


def column(values: Tensor, like: Tensor) -> Tensor:
    """Numbers (members,) shaped to be broadcast against a tensor (members, ...)."""
    return values.view(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True)
class StackedRegularizer:
    """The regularizers of some members, by row, that differ in their numbers only; `name` is that of their noise."""

    name: str
    members: Mapping[int, Regularizer]

    @property
    def example(self) -> Regularizer:
        return next(iter(self.members.values()))

    def has(self, hook: str) -> bool:
        return has_hook(self.example, hook)

    @property
    def in_loss(self) -> bool:
        return self.has("penalty") and not self.example.proximal

    @property
    def form(self) -> Hashable:
        return form(self.name, self.example)

    def numbers(self, count: int, like: Tensor) -> dict[str, Tensor]:
        """Each number of all members, (count,). A member without the regularizer has those of another."""
        rows = [self.members.get(row, self.example).numbers for row in range(count)]
        return {
            name: torch.tensor([numbers[name] for numbers in rows], dtype=like.dtype, device=like.device) for name in rows[0]
        }


def form(name: str, regularizer: Regularizer) -> Hashable:
    """What regularizers that are called at once have in common: all but the values of their numbers."""
    numbers = regularizer.numbers
    others = {key: value for key, value in vars(regularizer).items() if key not in numbers}
    return type(regularizer), name, tuple(numbers), pickle.dumps(others)


def stack_regularizers(members: Sequence[Sequence[Regularizer]]) -> list[StackedRegularizer]:
    """The regularizers of members, each in the order of its member; without those that only stop runs."""
    forms: list[Hashable] = []
    stacked: list[StackedRegularizer] = []
    for row, regularizers in enumerate(members):
        place = 0
        for name, regularizer in named(regularizers):
            if not any(has_hook(regularizer, hook) for hook in PURE_HOOKS):
                continue
            new_form = form(name, regularizer)
            if new_form in forms[place:]:
                place = forms.index(new_form, place)
                stacked[place] = StackedRegularizer(name, {**stacked[place].members, row: regularizer})
            else:
                forms.insert(place, new_form)
                stacked.insert(place, StackedRegularizer(name, {row: regularizer}))
            place += 1
    return stacked


def over_members(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function` of each member. Tensors in `arguments` have an axis of members in front, of length 1 where all share one."""
    count = max(len(leaf) for leaf in pytree.tree_leaves(arguments))
    axes = pytree.tree_map(lambda leaf: 0 if len(leaf) == count else None, arguments)
    return torch.vmap(function, in_dims=axes)(*pytree.tree_map(lambda leaf: leaf if len(leaf) == count else leaf[0], arguments))


class Fork(torch.autograd.Function):
    """x (members, ...) twice: for the hook of the members in a mask (members,), and for the others, who go around it.

    Each member gets the gradient of its own way. What the hook would have been to it may be no number: where all weights are 0,
    a norm to divide by.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(mask)
        return x.view_as(x), x.view_as(x)

    @staticmethod
    def backward(ctx: Any, through: Tensor, around: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return torch.where(column(mask, through), through, around), None


class Join(torch.autograd.Function):
    """What comes out of the hook for the members in a mask, and what went around it for the others.

    The gradient goes back both ways, for `Fork` to choose from.
    """

    @staticmethod
    def forward(ctx: Any, through: Tensor, around: Tensor, mask: Tensor) -> Tensor:
        return torch.where(column(mask, through), through, around)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        return grad, grad, None


class Regularization:
    """The regularizers of some members on the layers of their models.

    Its methods read no tensor but their arguments, so that they can be traced: `inputs` holds the `numbers` and `masks` of this
    object, and the noise of a batch.
    """

    def __init__(
        self, regularizers: Sequence[Sequence[Regularizer]], models: Sequence[nn.Module], layers: Sequence[str], like: Tensor
    ) -> None:
        """`layers` are the names of the layers in their order; numbers have the dtype of `like` and are on its device."""
        self.stacked = stack_regularizers(regularizers)
        self.layers = list(layers)
        self.count, self.device = len(models), like.device
        self.numbers = {str(index): regularizer.numbers(self.count, like) for index, regularizer in enumerate(self.stacked)}
        #: Which members have a regularizer, by its index; and which have it on a layer, by both. Absent where all do.
        self.masks: dict[str, Tensor] = {}
        #: The rows that a regularizer acts in on a layer, by index and layer; absent where there are none.
        self.rows: dict[tuple[int, str], list[int]] = {}
        for index, regularizer in enumerate(self.stacked):
            self._mask(str(index), list(regularizer.members))
            for position, layer in enumerate(self.layers):
                rows = [
                    row
                    for row, member in regularizer.members.items()
                    if member.acts_on(models[row].get_submodule(layer), is_first=position == 0)
                ]
                if rows:
                    self.rows[index, layer] = rows
                    self._mask(f"{index}/{layer}", rows)

    def _mask(self, key: str, rows: Sequence[int]) -> None:
        if len(rows) < self.count:
            self.masks[key] = torch.zeros(self.count, dtype=torch.bool, device=self.device)
            self.masks[key][rows] = True

    @property
    def identity(self) -> Hashable:
        """What fixes the methods, beside the names and shapes of their arguments."""
        return tuple(regularizer.form for regularizer in self.stacked), tuple(self.rows)

    def changed(
        self, index: int, hook: str, inputs: Inputs, x: Tensor, *further: Any, layer: str | None = None, **settings: bool
    ) -> Tensor:
        """What a hook makes of x (members or 1, ...) where members have the regularizer, on that layer; x where they do not.

        `further` are the hook's other tensors, alike, and `settings` what is no tensor.
        """
        mask = inputs["masks"].get(str(index) if layer is None else f"{index}/{layer}")
        function, numbers = self._hook(index, hook, settings), inputs["numbers"][str(index)]
        if mask is None:
            return over_members(function, numbers, x, *further)
        if not x.requires_grad:
            after = over_members(function, numbers, x, *further)
            return torch.where(column(mask, after), after, x)
        through, around = Fork.apply(x, mask)
        return Join.apply(over_members(function, numbers, through, *further), around, mask)

    def penalty(self, index: int, hook: str, inputs: Inputs, x: Tensor) -> Tensor:
        """What a hook takes from each member for x (members, ...): (members,), 0 for those without the regularizer."""
        mask = inputs["masks"].get(str(index))
        through = x if mask is None else Fork.apply(x, mask)[0]
        values: Tensor = over_members(self._hook(index, hook), inputs["numbers"][str(index)], through)
        return values if mask is None else torch.where(mask, values, 0.0)

    def penalty_and_gradient(self, index: int, inputs: Inputs, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The penalties of members on a parameter (members, ...), (members,), and their gradient, (members, ...)."""
        mask = inputs["masks"].get(str(index))
        differentiated = torch.func.grad_and_value(self._hook(index, "penalty"), argnums=1)
        gradient, values = over_members(differentiated, inputs["numbers"][str(index)], weight)
        if mask is None:
            return values, gradient
        return torch.where(mask, values, 0.0), torch.where(column(mask, gradient), gradient, 0.0)

    def coefficients(self, step: int, like: Tensor) -> dict[str, Tensor]:
        """What hooks are told of the step of that number, (members,), by index; a member without one has that of another."""
        return {
            str(index): torch.tensor(
                [regularizer.members.get(row, regularizer.example).coefficient(step) for row in range(self.count)],
                dtype=like.dtype,
                device=like.device,
            )
            for index, regularizer in enumerate(self.stacked)
            if regularizer.has("coefficient")
        }

    @torch.no_grad()
    def perturbed(
        self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], inputs: Inputs
    ) -> tuple[list[Tensor], Tensor] | None:
        """(where the gradients of the step are taken, the mask (members,) of those that a regularizer moves); None if none is.

        Parameters and gradients are (members, ...).
        """
        indices = [index for index, regularizer in enumerate(self.stacked) if regularizer.has("perturb")]
        if not indices:
            return None
        values = list(parameters)
        moved = torch.zeros(self.count, dtype=torch.bool, device=self.device)
        for index in indices:
            mask = inputs["masks"].get(str(index), torch.ones_like(moved))
            after = over_members(self._hook(index, "perturb"), inputs["numbers"][str(index)], values, list(gradients))
            values = [torch.where(column(mask, value), new, value) for value, new in zip(values, after, strict=True)]
            moved |= mask
        return values, moved

    def averaged(self, index: int, inputs: Inputs, weight: Tensor, average: Tensor) -> tuple[Tensor, Tensor]:
        """A parameter (members, ...) and its average after a step, of members without the regularizer as they were."""
        mask = inputs["masks"].get(str(index))
        numbers, coefficients = inputs["numbers"][str(index)], inputs["coefficients"][str(index)]
        moved: tuple[Tensor, Tensor] = over_members(self._hook(index, "after_step"), numbers, weight, average, coefficients)
        if mask is None:
            return moved
        after, new_average = (
            torch.where(column(mask, new), new, old) for new, old in zip(moved, (weight, average), strict=True)
        )
        return after, new_average

    def _hook(self, index: int, hook: str, settings: Mapping[str, bool] | None = None) -> Callable[..., Any]:
        """The hook as a function of the numbers and of what the hook takes."""
        regularizer = self.stacked[index].example
        return lambda numbers, *arguments: getattr(regularizer.with_numbers(numbers), hook)(*arguments, **(settings or {}))

    def input(self, x: Tensor, inputs: Inputs) -> Tensor:
        """The inputs (members or 1, n, pixels) to train on."""
        for index, regularizer in enumerate(self.stacked):
            if regularizer.has("disturb_input"):
                x = self.changed(index, "disturb_input", inputs, x, batch_noise(inputs, "disturb_input", index))
        return x

    def layer_input(self, layer: str, x: Tensor, inputs: Inputs) -> Tensor:
        """The input (members or 1, n, in) that a layer takes while training."""
        is_first = layer == self.layers[0]
        for index, regularizer in enumerate(self.stacked):
            if regularizer.has("disturb_layer_input") and (index, layer) in self.rows:
                noise = batch_noise(inputs, "disturb_layer_input", index, layer)
                x = self.changed(index, "disturb_layer_input", inputs, x, noise, layer=layer, is_first=is_first)
        return x

    def weight(self, layer: str, weight: Tensor, buffers: Tensors, inputs: Inputs, *, training: bool) -> Tensor:
        """The weight (members, out, in) that a layer computes with. Training moves the states in `buffers`."""
        for index, regularizer in enumerate(self.stacked):
            if (index, layer) not in self.rows:
                continue
            if training and regularizer.has("disturb_weight"):
                noise = batch_noise(inputs, "disturb_weight", index, layer)
                weight = self.changed(index, "disturb_weight", inputs, weight, noise, layer=layer)
            if regularizer.has("reparametrize"):
                state = self._state(index, layer, weight, buffers, inputs, training=training)
                weight = self.changed(index, "reparametrize", inputs, weight, state, layer=layer)
        return weight

    @torch.no_grad()
    def _state(
        self, index: int, layer: str, weight: Tensor, buffers: Tensors, inputs: Inputs, *, training: bool
    ) -> dict[str, Tensor]:
        prefix = state_prefix(layer, "weight", self.stacked[index].name)
        state = {name.removeprefix(prefix): buffer for name, buffer in buffers.items() if name.startswith(prefix)}
        if not training:
            return state
        mask = inputs["masks"].get(f"{index}/{layer}")
        new_state = over_members(self._hook(index, "next_state"), inputs["numbers"][str(index)], weight.detach(), state)
        if mask is not None:
            new_state = {name: torch.where(column(mask, value), value, state[name]) for name, value in new_state.items()}
        for name, value in new_state.items():
            state[name].copy_(value)
        return dict(new_state)


def state_prefix(layer: str, tensor: str, name: str) -> str:
    """What the names of a regularizer's state for a layer begin with in a stack."""
    return f"{layer}.{tensor}.{name}."


def noise_key(hook: str, index: int, place: str = "") -> str:
    """`place` is the layer or the parameter that it is for."""
    return f"{hook}/{index}/{place}"


def batch_noise(inputs: Inputs, hook: str, index: int, place: str = "") -> Tensor:
    """The noise that a hook of each member takes, (members, ...), or of all, (1, ...)."""
    key = noise_key(hook, index, place)
    noise: Tensor = inputs["noise"][key]
    return noise[inputs["places"][key]] if key in inputs["places"] else noise

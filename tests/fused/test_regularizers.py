"""Regularizers over members, against each member by itself."""

import pytest
import torch
from torch import Tensor, nn

from conftest import compose
from ockham import build
from ockham.fused.regularizers import Regularization, over_members, stack_regularizers
from ockham.reg import L1, L2, Dropout, EarlyStopping, MaxNorm, Regularizer
from outside import LogPenalty

pytestmark = pytest.mark.usefixtures("float64")


class Root(Regularizer):
    """A penalty whose gradient at 0 is no number, and weights that are none there."""

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def penalty(self, weight: Tensor) -> Tensor:
        return self.strength * weight.abs().sqrt().sum()

    def reparametrize(self, weight: Tensor, state: object) -> Tensor:
        return self.strength * weight / weight.norm()


def order_of(stacked: list, row: int) -> list[Regularizer]:
    return [regularizer.members[row] for regularizer in stacked if row in regularizer.members]


def test_every_member_keeps_the_order_of_its_regularizers() -> None:
    members = [
        (L1(0.1), Dropout(0.2)),
        (Dropout(0.3), L1(0.2), Dropout(0.4)),
        (),
        (MaxNorm(1.0), EarlyStopping(3), L1(0.3)),
        (L1(0.1, method="subgradient"), L2(0.1), L2(0.2, include_bias=True)),
    ]
    stacked = stack_regularizers(members)
    for row, regularizers in enumerate(members):
        assert order_of(stacked, row) == [reg for reg in regularizers if not isinstance(reg, EarlyStopping)]
    for regularizer in stacked:
        assert len({type(member) for member in regularizer.members.values()}) == 1
        assert len({getattr(member, "method", None) for member in regularizer.members.values()}) == 1


def test_members_that_differ_in_numbers_are_one_call() -> None:
    assert len(stack_regularizers([(LogPenalty(strength),) for strength in (0.1, 0.2, 0.3)])) == 1
    whole = [build.regularizers_of(compose("reg=max_norm", f"reg.max_norm.limit={limit}")) for limit in ("1", "2", "2.5")]
    assert len(stack_regularizers(whole)) == 1


@pytest.mark.parametrize("shared", [False, True])
def test_a_hook_over_members_is_the_hook_of_each(*, shared: bool) -> None:
    x, limits = torch.randn(1 if shared else 3, 5, 4), torch.tensor([0.1, 0.7, 5.0])
    projected = over_members(lambda limit, x: MaxNorm(limit).project(x), limits, x)
    expected = [MaxNorm(float(limit)).project(x[0 if shared else row]) for row, limit in enumerate(limits)]
    torch.testing.assert_close(projected, torch.stack(expected))


def test_members_without_a_regularizer_get_nothing_of_it_even_where_it_has_no_value() -> None:
    """The second member has weights of 0, at which the first one's regularizer is not defined."""
    models = [nn.ModuleDict({"layer": nn.Linear(4, 3)}) for _ in range(2)]
    regularization = Regularization([(Root(0.5),), ()], models, ["layer"], torch.empty(0))
    inputs = {"numbers": regularization.numbers, "masks": regularization.masks}
    weight = torch.stack([torch.randn(3, 4), torch.zeros(3, 4)]).requires_grad_()
    used = regularization.weight("layer", weight, {}, inputs, training=True)
    torch.testing.assert_close(used[0], 0.5 * weight[0] / weight[0].norm())
    assert torch.equal(used[1], weight[1])
    penalties = regularization.penalty(0, "penalty", inputs, weight)
    assert torch.equal(penalties[1], torch.zeros(()))
    (gradient,) = torch.autograd.grad((used * torch.arange(12).view(3, 4)).sum() + penalties.sum(), weight)
    assert torch.equal(gradient[1], torch.arange(12.0).view(3, 4))
    alone = weight[0].detach().requires_grad_()
    value = ((0.5 * alone / alone.norm()) * torch.arange(12).view(3, 4)).sum() + Root(0.5).penalty(alone)
    torch.testing.assert_close(gradient[0], torch.autograd.grad(value, alone)[0])
    values, slopes = regularization.penalty_and_gradient(0, inputs, weight.detach())
    torch.testing.assert_close(values, penalties.detach())
    assert torch.equal(slopes[1], torch.zeros(3, 4))

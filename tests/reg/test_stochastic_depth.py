"""Stochastic depth, against torchvision's function and its expectation."""

import pytest
import torch
from torchvision.ops import stochastic_depth

from ockham.models import MLP, ResNet
from ockham.reg import Context, StochasticDepth
from ockham.reg.single import attach
from ockham.rng import Streams, generator

pytestmark = pytest.mark.usefixtures("float64")


def resnet(*regularizers: StochasticDepth, seed: int = 0) -> ResNet:
    """Three residual blocks."""
    torch.manual_seed(0)
    model = ResNet((1, 8, 8), 3, depth=8, width=4)
    attach(regularizers, model, Context(Streams(seed), 50, 3))
    return model


def test_a_branch_is_left_out_or_scaled_as_by_torchvision() -> None:
    x = torch.randn(6, 4, 3, 3, generator=generator(0, "x"), requires_grad=True)
    outcomes = set()
    with torch.random.fork_rng():
        for seed in range(20):
            torch.manual_seed(seed)
            expected = stochastic_depth(x, p=0.4 * 2 / 3, mode="batch")
            kept = bool(expected.any())
            noise = torch.tensor(0.3 if kept else 0.2)  # above and below 0.4 * 2 / 3
            disturbed = StochasticDepth(0.4).disturb_branch(x, noise, depth=2 / 3)
            torch.testing.assert_close(disturbed, expected)
            torch.testing.assert_close(*(torch.autograd.grad(each.sum(), x)[0] for each in (disturbed, expected)))
            outcomes.add(kept)
    assert outcomes == {True, False}


def test_survival_decays_linearly_with_depth_and_the_mean_is_the_branch() -> None:
    model = resnet(StochasticDepth(0.6))
    seen: dict[int, list[torch.Tensor]] = {0: [], 1: [], 2: []}
    for number, block in enumerate(model.stages):
        block.norm2.register_forward_hook(lambda m, inputs, out, number=number: seen[number].append(out.detach()))
        block.branch.register_forward_hook(lambda m, inputs, out, number=number: seen[number].append(out.detach()))
    x = torch.randn(2, 1, 8, 8, generator=generator(0, "x"))
    for _ in range(3000):
        model(x)
    for number, rate in enumerate((0.2, 0.4, 0.6)):
        pairs = list(zip(seen[number][::2], seen[number][1::2], strict=True))
        left_out = [not after.any() for _, after in pairs]
        assert sum(left_out) / 3000 == pytest.approx(rate, abs=0.03)
        for (before, after), is_left_out in zip(pairs[:50], left_out, strict=False):
            torch.testing.assert_close(after, torch.zeros_like(after) if is_left_out else before / (1 - rate))


def test_blocks_are_drawn_for_themselves_and_follow_the_seed() -> None:
    x = torch.randn(4, 1, 8, 8, generator=generator(0, "x"))
    models = [resnet(StochasticDepth(0.9), seed=seed) for seed in (0, 0, 1)]
    one, same, other = ([model(x) for _ in range(10)] for model in models)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_evaluation_is_the_whole_network() -> None:
    x = torch.randn(4, 1, 8, 8, generator=generator(0, "x"))
    plain, regularized = resnet().eval(), resnet(StochasticDepth(0.9)).eval()
    assert list(plain.state_dict()) == list(regularized.state_dict())
    assert torch.equal(plain(x), regularized(x))


def test_a_model_without_residual_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="set model=resnet"):
        attach([StochasticDepth(0.5)], MLP((4,), 3, hidden=[5]), Context(Streams(0), 50, 3))

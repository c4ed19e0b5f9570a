"""Models: published parameter counts, shapes, initial weights."""

import pytest
import torch

from cases import CASES
from conftest import compose
from ockham import build
from ockham.models import CNN, MLP, LeNet, Linear, ResNet
from ockham.record.cost import flops_per_sample
from ockham.rng import Streams


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Linear((1, 28, 28), 10), 784 * 10 + 10),
        (MLP((1, 28, 28), 10, hidden=[300, 100]), 266_610),  # LeCun et al. 1998, LeNet-300-100
        (LeNet((1, 28, 28), 10), 61_706),  # LeNet-5 with full connections
        (ResNet((3, 32, 32), 10, depth=20), 269_722),  # He et al. 2016, table 6: 0.27 million
        (ResNet((3, 32, 32), 10, depth=56), 853_018),  # 0.85 million
        (MLP((4,), 3, hidden=[5], batch_norm=True), 4 * 5 + 10 + 5 * 3 + 3),
    ],
)
def test_parameter_counts_are_the_published_ones(model: torch.nn.Module, expected: int) -> None:
    assert count(model) == expected


@pytest.mark.parametrize("option", CASES["model"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 17, 20)])
def test_models_take_images_of_any_shape(option: str, shape: tuple[int, ...]) -> None:
    config = compose(f"model={option}", *CASES["model"][option])
    model = build.model_of(config, shape, 7, Streams(0))
    x = torch.randn(4, *shape)
    assert model(x).shape == (4, 7)
    model.to(memory_format=torch.channels_last)
    model.eval()
    torch.testing.assert_close(
        model(x.contiguous(memory_format=torch.channels_last)), model.to(memory_format=torch.contiguous_format)(x)
    )


def test_initial_weights_follow_the_seed_and_the_model_alone() -> None:
    def weights(*overrides: str) -> torch.Tensor:
        config = compose("model.hidden=[4]", *overrides)
        return build.model_of(config, (3,), 2, Streams(config.seed)).output.weight.detach().clone()

    first = weights("optimizer=adam")
    torch.rand(5)  # the global stream moves on
    assert torch.equal(first, weights("optimizer=sgd", "reg=dropout"))
    assert not torch.equal(first, weights("seed=1"))


def test_resnet_shortcut_has_no_weights_and_pads_channels() -> None:
    model = ResNet((3, 8, 8), 2, depth=8)
    block = model.stages[1]
    for layer in (block.conv1, block.conv2):
        torch.nn.init.zeros_(layer.weight)
    x = torch.rand(2, 16, 8, 8)
    block.eval()
    out = block(x)
    assert torch.equal(out[:, :16], x[:, :, ::2, ::2])
    assert torch.equal(out[:, 16:], torch.zeros(2, 16, 4, 4))


@pytest.mark.parametrize("model", [CNN, LeNet, ResNet])
def test_convolutions_refuse_flat_input(model: type) -> None:
    settings = {"channels": [4], "dense": 0} if model is CNN else {}
    with pytest.raises(ValueError, match="data.shape=\\[784\\] is flat: set model=mlp"):
        model((784,), 10, **settings)


def test_too_much_pooling_is_refused_with_the_largest_depth() -> None:
    with pytest.raises(ValueError, match="use at most 4 entries"):
        CNN((1, 28, 28), 10, channels=[2] * 5, dense=0)
    assert CNN((1, 28, 28), 10, channels=[2] * 4, dense=0)(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


def test_flops_are_those_of_the_matrix_products() -> None:
    model = MLP((784,), 10, hidden=[128])
    # Forward 2 (784 128 + 128 10); backward as much for the weights, and for the second layer's input.
    assert flops_per_sample(model, (784,)) == 2 * (2 * (784 * 128 + 128 * 10)) + 2 * 128 * 10

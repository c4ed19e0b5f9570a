"""Models: published parameter counts, shapes, initial weights."""

import pytest
import torch
from sklearn.datasets import load_digits

from cases import CASES
from conftest import compose
from ockham import build
from ockham.core import mup
from ockham.models import CNN, MLP, LeNet, Linear, ResNet
from ockham.record.cost import flops_per_sample
from ockham.reg import Context, Jacobian
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


def test_flops_count_the_passes_of_penalties_on_jacobians() -> None:
    model, reg = MLP((784,), 10, hidden=[128]), Jacobian(0.1)
    reg.prepare(model, Context(Streams(0), 1, 10))
    # Back to the pixels through both layers; differentiated, by both weights, and by what came back to the hidden layer.
    extra = flops_per_sample(model, (784,), [reg]) - flops_per_sample(model, (784,))
    assert extra == 2 * (3 * 784 * 128 + 2 * 128 * 10)


# -- initial weights and parametrization ---------------------------------------------------------------------------------


def drawn(init: str, scale: float = 1.0) -> MLP:
    torch.manual_seed(0)
    return MLP((300,), 10, hidden=[200], init=init, init_scale=scale)


@pytest.mark.parametrize(
    ("init", "std"), [("default", (1 / (3 * 300)) ** 0.5), ("he", (2 / 300) ** 0.5), ("glorot", (2 / 500) ** 0.5)]
)
def test_initial_weights_have_the_published_spread(init: str, std: float) -> None:
    linear = drawn(init).hidden[0].linear
    assert float(linear.weight.detach().std()) == pytest.approx(std, rel=0.02)
    assert float(linear.weight.detach().mean()) == pytest.approx(0, abs=0.02 * std)
    is_uniform = float(linear.weight.detach().abs().max()) < 1.74 * std
    assert is_uniform == (init != "he")
    assert bool(linear.bias.any()) == (init == "default")


def test_orthogonal_weights_have_orthonormal_rows() -> None:
    weight = drawn("orthogonal").hidden[0].linear.weight.detach()
    torch.testing.assert_close(weight @ weight.T, torch.eye(200), atol=1e-5, rtol=0)
    model = CNN((1, 8, 8), 3, channels=[4], dense=0, init="orthogonal")
    kernel = model.blocks[0].conv.weight.detach().flatten(1)
    torch.testing.assert_close(kernel @ kernel.T, torch.eye(4), atol=1e-5, rtol=0)


@pytest.mark.parametrize("init", ["default", "he"])
def test_the_scale_multiplies_all_initial_weights_and_biases(init: str) -> None:
    for one, other in zip(drawn(init).parameters(), drawn(init, 8.0).parameters(), strict=True):
        torch.testing.assert_close(other, 8 * one)


@pytest.mark.parametrize("option", CASES["model"])
def test_every_model_takes_an_initialization(option: str) -> None:
    overrides = [f"model={option}", *CASES["model"][option]]
    default, scaled, orthogonal = (
        dict(build.model_of(compose(*overrides, *more), (1, 16, 16), 3, Streams(0)).named_parameters())
        for more in ([], ["model.init_scale=2"], ["model.init=orthogonal"])
    )
    for name, parameter in default.items():
        torch.testing.assert_close(scaled[name], parameter if "norm" in name else 2 * parameter)
    last = orthogonal["output.weight"].detach()
    torch.testing.assert_close(last @ last.T, torch.eye(3), atol=1e-5, rtol=0)


def test_layer_norm_is_torchs() -> None:
    torch.manual_seed(0)
    model, x = MLP((7,), 3, hidden=[5, 4], layer_norm=True), torch.randn(6, 7)
    for layer in model.hidden:
        layer.norm.weight.data.uniform_(0.5, 2)
        layer.norm.bias.data.normal_()
    h = x
    for layer in model.hidden:
        h = layer.linear(h)
        centred = h - h.mean(dim=1, keepdim=True)
        h = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt() * layer.norm.weight + layer.norm.bias
        h = h.relu()
    torch.testing.assert_close(model(x), model.output(h))


@pytest.mark.parametrize("option", ["cnn", "resnet"])
def test_layer_norm_of_images_is_over_channels_and_pixels(option: str) -> None:
    words = [f"model={option}", *CASES["model"][option], "model.batch_norm=false"]
    model = build.model_of(compose(*words, "model.layer_norm=true"), (1, 8, 8), 3, Streams(0))
    norms = [module for module in model.modules() if isinstance(module, torch.nn.GroupNorm)]
    convolutions = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    assert len(norms) == len(convolutions)
    assert all(convolution.bias is not None for convolution in convolutions)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    for norm in norms:
        norm.weight.data.uniform_(0.5, 2)
        norm.bias.data.normal_()
        norm.register_forward_hook(lambda norm, inputs, output: seen.append((inputs[0], output)))
    model(torch.randn(6, 1, 8, 8))
    for norm, (h, normalized) in zip(norms, seen, strict=True):
        centred = h - h.mean(dim=(1, 2, 3), keepdim=True)
        expected = centred / (centred.square().mean(dim=(1, 2, 3), keepdim=True) + 1e-5).sqrt()
        expected = expected * norm.weight[:, None, None] + norm.bias[:, None, None]
        torch.testing.assert_close(normalized, expected)


@pytest.mark.parametrize("option", ["cnn", "resnet"])
def test_a_convolutional_net_without_a_norm_has_a_bias_everywhere(option: str) -> None:
    words = [f"model={option}", *CASES["model"][option], "model.batch_norm=false"]
    model = build.model_of(compose(*words), (1, 8, 8), 3, Streams(0))
    assert not [module for module in model.modules() if "Norm" in type(module).__name__]
    assert all(module.bias is not None for module in model.modules() if isinstance(module, torch.nn.Conv2d))


#: Settings under which five steps of them move the net visibly.
MUP_SETTINGS: dict[str, dict[str, float]] = {
    "torch.optim.SGD": {"lr": 0.05, "momentum": 0.9},
    "torch.optim.ASGD": {"lr": 0.1, "lambd": 0},
    "torch.optim.Adadelta": {"lr": 1.0},
    "torch.optim.AdamW": {"weight_decay": 0},
    "ockham.optim.GradientDescent": {"lr": 0.1},
    "ockham.optim.ScheduleFreeSGD": {"lr": 0.1},
}
#: Its first five steps are not divided by the size of the gradient.
MUP_IN_THE_END = {"torch.optim.RAdam"}


@pytest.mark.parametrize("target", sorted((mup.GRADIENT | mup.ADAPTIVE) - MUP_IN_THE_END))
def test_mup_is_a_standard_net_with_the_learning_rates_of_its_table(target: str, float64: None) -> None:
    """Tensor Programs V, table 3: widths 4 times and 2 times the base of 8; each layer with its own rate, written out."""
    optimizer = build.resolve(target, torch.optim.Optimizer, setting="")
    adaptive = target in mup.ADAPTIVE
    x, y = torch.randn(20, 6), torch.randint(3, (20,))
    torch.manual_seed(0)
    model = MLP((6,), 3, hidden=[32, 16], activation="tanh", parametrization="mup", base_width=8, adaptive=adaptive)
    torch.manual_seed(0)
    standard = MLP((6,), 3, hidden=[32, 16], activation="tanh")
    standard.output.weight.data /= 2**0.5
    pairs = [(standard.hidden[0].linear, 1, 4), (standard.hidden[1].linear, 4, 2), (standard.output, 2, 1)]
    settings = {"lr": 0.01, **MUP_SETTINGS.get(target, {})}
    lr = settings.pop("lr")
    groups = []
    for layer, fan_in, fan_out in pairs:
        groups.append({"params": [layer.weight], "lr": lr / fan_in if adaptive else lr * fan_out / fan_in})
        groups.append({"params": [layer.bias], "lr": lr if adaptive else lr * fan_out})
    steppers = [optimizer(model.parameters(), lr=lr, **settings), optimizer(groups, lr=lr, **settings)]
    size = 1e8 if adaptive else 1.0  # against which eps is nothing
    before = model(x).detach()
    for _ in range(5):
        outputs = [net(x) for net in (model, standard)]
        torch.testing.assert_close(*outputs, rtol=1e-6, atol=1e-6)
        for stepper, logits in zip(steppers, outputs, strict=True):
            stepper.zero_grad()
            (size * torch.nn.functional.cross_entropy(logits, y)).backward()
            stepper.step()
    assert not torch.allclose(outputs[0], before, atol=1e-2)


def loss_after_training(width: int, lr: float, *, parametrization: str, adaptive: bool) -> float:
    """Of a net of two hidden layers on the digits of scikit-learn, after 60 steps of 64 samples."""
    digits = load_digits()
    x, y = torch.tensor(digits.data / 6 - 0.8).float(), torch.tensor(digits.target)
    torch.manual_seed(0)
    model = MLP((64,), 10, hidden=[width, width], parametrization=parametrization, base_width=64, adaptive=adaptive)
    optimizer = (torch.optim.Adam if adaptive else torch.optim.SGD)(model.parameters(), lr=lr)
    for _ in range(60):
        batch = torch.randint(len(x), (64,))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    return torch.nn.functional.cross_entropy(model(x), y).item()


def test_the_best_learning_rate_of_adam_moves_with_the_width_and_under_mup_it_does_not() -> None:
    exponents = (-10, -8, -6, -4)

    def best(width: int, parametrization: str) -> int:
        return min(exponents, key=lambda k: loss_after_training(width, 2.0**k, parametrization=parametrization, adaptive=True))

    narrow = best(64, "standard")  # at the base width both are the same
    assert best(1024, "standard") < narrow
    assert best(1024, "mup") == narrow


def test_under_mup_sgd_learns_as_fast_at_every_width() -> None:
    narrow, standard, mup = (
        loss_after_training(width, 0.125, parametrization=parametrization, adaptive=False)
        for width, parametrization in ((64, "standard"), (1024, "standard"), (1024, "mup"))
    )
    assert mup == pytest.approx(narrow, rel=0.15)
    assert standard < 0.6 * narrow

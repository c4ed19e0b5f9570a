"""Every regularizer against a formula written by hand, its gradient included."""

import copy
import importlib
import itertools
import math
import pkgutil

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

import ockham.reg
from ockham.core.parameters import named_parameters
from ockham.models import CNN, MLP
from ockham.reg import (
    L1,
    L2,
    ConfidencePenalty,
    Context,
    DropConnect,
    Dropout,
    EarlyStopping,
    ElasticNet,
    GaussianDropout,
    GroupLasso,
    InputNoise,
    Jacobian,
    KlSparsity,
    LabelSmoothing,
    MaxNorm,
    Orthogonal,
    Regularizer,
    SpectralDecoupling,
    SpectralNorm,
    WeightDecay,
    total_penalty,
)
from ockham.reg.base import has_hook
from ockham.reg.noise import dropout
from ockham.reg.penalties import group_shrink, soft_threshold
from ockham.reg.single import (
    activations_of,
    attach,
    batch_penalties,
    decay,
    disturbed_input,
    jacobian_penalties,
    prox_and_project,
    targets,
    weight_penalties,
)
from ockham.rng import Streams, generator

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return CNN((1, 8, 8), 3, channels=[4], dense=6, batch_norm=True)


def context(seed: int = 0) -> Context:
    return Context(streams=Streams(seed), num_samples=50, num_classes=3)


def matrices(model: nn.Module) -> list[torch.Tensor]:
    return [parameter for name, parameter in model.named_parameters() if parameter.ndim > 1]


def lrs(model: nn.Module, lr: float = 0.1) -> dict[str, float]:
    return dict.fromkeys(dict(model.named_parameters()), lr)


def penalty_of(reg: Regularizer, model: nn.Module) -> torch.Tensor:
    """The penalty on all parameters that it acts on, as a scalar."""
    return torch.stack(weight_penalties([reg], named_parameters(model), with_proximal=True)).sum()


@pytest.mark.parametrize(
    ("reg", "formula"),
    [
        (L2(0.3), lambda w: 0.3 * (w**2).sum()),
        (L2(0.3, scale="half_mean"), lambda w: 0.3 / (2 * 50) * (w**2).sum()),
        (L1(0.3, method="subgradient"), lambda w: 0.3 * w.abs().sum()),
        (
            ElasticNet(0.3, l1_ratio=0.2, method="subgradient"),
            lambda w: 0.3 * (0.2 * w.abs().sum() + 0.8 * (w**2).sum()),
        ),
        (GroupLasso(0.3), lambda w: 0.3 * _group_sum(w)),
        (Orthogonal(0.3), lambda w: 0.3 * _distance_from_orthonormal(w)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Regularizer) else "",
)
def test_penalty_and_gradient_over_weights_and_not_biases(reg: Regularizer, formula: object, model: nn.Module) -> None:
    attach([reg], model, context())
    penalty = penalty_of(reg, model)
    expected = sum(formula(weight) for weight in matrices(model))
    torch.testing.assert_close(penalty, expected)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(penalty, parameters, allow_unused=True)
    expected_gradients = torch.autograd.grad(expected, parameters, allow_unused=True)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        assert (gradient is None) == (expected_gradient is None)
        if gradient is not None:
            torch.testing.assert_close(gradient, expected_gradient)


def _group_sum(weight: torch.Tensor) -> torch.Tensor:
    columns = weight.transpose(0, 1).flatten(1)  # a row for each input unit or channel
    return math.sqrt(columns.shape[1]) * columns.norm(dim=1).sum()


def _distance_from_orthonormal(weight: torch.Tensor) -> torch.Tensor:
    """Over pairs of rows, or of columns where there are fewer of them: their products, 1 with itself and 0 with others."""
    rows = list(weight.flatten(1))
    vectors = rows if len(rows) <= rows[0].numel() else list(torch.stack(rows).unbind(dim=1))
    pairs = itertools.product(enumerate(vectors), repeat=2)
    return torch.stack([(one.dot(other) - int(i == j)).square() for (i, one), (j, other) in pairs]).sum()


def test_the_penalty_of_orthogonal_weights_is_zero_whatever_their_shape() -> None:
    for shape in ((3, 7), (7, 3), (4, 2, 3, 3)):
        weight = nn.init.orthogonal_(torch.empty(shape))
        assert float(Orthogonal(1.0).penalty(weight)) == pytest.approx(0, abs=1e-20)
        # Twice as long: each of k vectors has a product of 4 with itself.
        assert float(Orthogonal(1.0).penalty(2 * weight)) == pytest.approx(9 * min(shape[0], weight[0].numel()))


def test_gradient_of_l2_is_twice_strength_times_weight(model: nn.Module) -> None:
    penalty_of(L2(0.3), model).backward()
    for weight in matrices(model):
        torch.testing.assert_close(weight.grad, 0.6 * weight.detach())


@pytest.mark.parametrize("make", [L2, L1, ElasticNet])
def test_include_bias_takes_every_parameter(make: type, model: nn.Module) -> None:
    chosen = penalty_of(make(0.3, include_bias=True), model)
    vector = torch.cat([parameter.flatten() for parameter in model.parameters()])
    expected = {L2: 0.3 * vector.square().sum(), L1: 0.3 * vector.abs().sum()}
    expected[ElasticNet] = (expected[L1] + expected[L2]) / 2
    torch.testing.assert_close(chosen, expected[make])


def test_half_mean_without_data_size_names_the_setting(model: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"reg\.l2\.scale=half_mean .* set reg\.l2\.scale=sum"):
        penalty_of(L2(0.3, scale="half_mean"), model)


def is_minimum(prox: torch.Tensor, start: torch.Tensor, penalty: object) -> bool:
    """Whether no nearby point has a lower 1/2 ||z - start||^2 + penalty(z)."""

    def value(z: torch.Tensor) -> torch.Tensor:
        return 0.5 * (z - start).square().sum() + penalty(z)

    random_generator = generator(0, "probe")
    nearby = (prox + 1e-4 * torch.randn(prox.shape, generator=random_generator) for _ in range(300))
    return all(value(z) >= value(prox) - 1e-12 for z in nearby)


def test_proximal_steps_minimise_what_they_should(model: nn.Module) -> None:
    start = torch.randn(5, 4, generator=generator(0, "start"))
    threshold = soft_threshold(start, 0.4)
    assert is_minimum(threshold, start, lambda z: 0.4 * z.abs().sum())
    assert (threshold == 0).any()
    torch.testing.assert_close(soft_threshold(torch.tensor([3.0, -1.0, 0.2]), 0.5), torch.tensor([2.5, -0.5, 0.0]))
    grouped = group_shrink(start, 1.0, 0.6)
    assert is_minimum(grouped, start, lambda z: 0.6 * _group_sum(z))
    layer = nn.Linear(4, 5)
    with torch.no_grad():
        layer.weight.copy_(start)
        prox_and_project([ElasticNet(2.0, l1_ratio=0.3)], named_parameters(layer), lrs(layer, 0.25))
    assert is_minimum(layer.weight.detach(), start, lambda z: 0.25 * 2 * (0.3 * z.abs().sum() + 0.7 * z.square().sum()))


def test_the_proximal_step_of_group_lasso_under_a_response_of_each_weight() -> None:
    """It minimises the penalty plus the distance that each weight's response measures; zero exactly where that is lower."""
    start = torch.randn(5, 6, generator=generator(0, "start"))
    response = 10 ** torch.empty(5, 6).uniform_(-3, 3, generator=generator(0, "response"))
    limits = (start / response).norm(dim=0)  # up to such a strength a group is not zero
    strength = float(limits.median()) / math.sqrt(5)
    shrunk = group_shrink(start, response, strength)
    assert torch.equal((shrunk == 0).all(dim=0), limits <= strength * math.sqrt(5))
    assert 0 < int((shrunk == 0).sum()) < 30

    def value(z: torch.Tensor) -> torch.Tensor:
        return strength * _group_sum(z) + ((z - start).square() / (2 * response)).sum()

    probe = generator(0, "probe")
    for size in (1e-2, 1e-4, 1e-6):
        for _ in range(200):
            assert value(shrunk + size * torch.randn(5, 6, generator=probe)) >= value(shrunk) - 1e-12
    same = group_shrink(start, torch.full_like(start, 0.3), 0.6)
    torch.testing.assert_close(same, group_shrink(start, 0.3, 0.6))
    assert torch.equal(group_shrink(start, response, 0.0), start)
    stacked = torch.vmap(group_shrink)(start.expand(2, 5, 6), response.expand(2, 5, 6), torch.tensor([strength, 0.0]))
    torch.testing.assert_close(stacked, torch.stack([shrunk, start]))


def test_l1_projects_by_lr_times_strength_and_leaves_biases(model: nn.Module) -> None:
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    reg = L1(2.0)
    assert reg.proximal
    with torch.no_grad():
        prox_and_project([reg], named_parameters(model), lrs(model, 0.01))
    for name, parameter in model.named_parameters():
        expected = soft_threshold(before[name], 0.02) if parameter.ndim > 1 else before[name]
        assert torch.equal(parameter, expected)
    with torch.no_grad():
        prox_and_project([L1(2.0, method="subgradient")], named_parameters(model), lrs(model))
    assert all(torch.equal(p, soft_threshold(before[n], 0.02)) for n, p in model.named_parameters() if p.ndim > 1)


def test_group_lasso_empties_whole_input_units() -> None:
    layer = nn.Linear(4, 5)
    with torch.no_grad():
        layer.weight[:, 1] *= 1e-3
        prox_and_project([GroupLasso(0.1)], named_parameters(layer), lrs(layer))
    assert torch.equal((layer.weight == 0).all(dim=0), torch.tensor([False, True, False, False]))
    assert not torch.isnan(group_shrink(torch.zeros(3, 2), 1.0, 0.1)).any()


def test_weight_decay_multiplies_before_the_step(model: nn.Module) -> None:
    before = [weight.detach().clone() for weight in matrices(model)]
    with torch.no_grad():
        decay([WeightDecay(0.5)], named_parameters(model), lrs(model, 0.1))
    for weight, old in zip(matrices(model), before, strict=True):
        torch.testing.assert_close(weight.detach(), old * 0.95)


def test_max_norm_is_the_projection_on_a_ball(model: nn.Module) -> None:
    before = [weight.detach().clone() for weight in matrices(model)]
    limit = 0.6
    with torch.no_grad():
        prox_and_project([MaxNorm(limit)], named_parameters(model), lrs(model))
    shrunk = 0
    for weight, old in zip(matrices(model), before, strict=True):
        for unit, past in zip(weight.detach(), old, strict=True):
            expected = past * min(1.0, limit / float(past.norm()))
            shrunk += int(past.norm() > limit)
            torch.testing.assert_close(unit, expected)
    assert 0 < shrunk < sum(len(old) for old in before)
    reference = F.normalize(before[-1], dim=1)
    with torch.no_grad():
        matrices(model)[-1].copy_(before[-1] * 100)
        prox_and_project([MaxNorm(1.0)], named_parameters(model), lrs(model))
    torch.testing.assert_close(matrices(model)[-1].detach(), reference)


def test_spectral_norm_makes_the_largest_singular_value_one(model: nn.Module) -> None:
    attach([SpectralNorm()], model, context())
    for _ in range(200):
        model(torch.randn(2, 1, 8, 8))
    model.eval()
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            singular = torch.linalg.svdvals(module.weight.flatten(1))
            assert float(singular[0].detach()) == pytest.approx(1.0, abs=1e-6)


def test_spectral_norm_is_the_parametrization_of_torch(model: nn.Module) -> None:
    """Weights, gradients and state, from the same random vectors, over batches in training and one in evaluation."""
    reference = copy.deepcopy(model)
    attach([SpectralNorm()], model, context())
    with Streams(0).global_seed("SpectralNorm"):
        for layer in [module for module in reference.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]:
            spectral_norm(layer)
    assert list(model.state_dict()) == list(reference.state_dict())
    for _ in range(3):
        x = torch.randn(4, 1, 8, 8)
        for each in (model, reference):
            each.zero_grad()
            each(x).square().sum().backward()
        for one, other in zip(model.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad)
        for one, other in zip(model.buffers(), reference.buffers(), strict=True):
            torch.testing.assert_close(one, other)
    torch.testing.assert_close(model.eval()(x), reference.eval()(x))


def test_two_of_one_class_draw_noise_of_their_own() -> None:
    layer, streams = nn.Linear(2000, 1), Streams(0)
    attach([Dropout(0.0, input_rate=0.5), Dropout(0.0, input_rate=0.5)], layer, Context(streams, 1, 1))
    seen: list[torch.Tensor] = []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    layer(torch.ones(1, 2000))
    first, second = (
        dropout(torch.ones(1, 2000), Streams(0).stream(f"{name}/").uniform_like(torch.ones(1, 2000)), 0.5)
        for name in ("Dropout", "Dropout 2")
    )
    assert torch.equal(seen[0], first * second)
    assert float((first != second).double().mean()) == pytest.approx(0.5, abs=0.05)


def test_what_comes_with_ockham_is_made_of_pure_hooks() -> None:
    """The plan of a sweep takes it for granted, to do without torch."""
    modules = [importlib.import_module(f"ockham.reg.{module.name}") for module in pkgutil.iter_modules(ockham.reg.__path__)]
    classes = {cls for module in modules for cls in vars(module).values() if isinstance(cls, type)}
    regularizers = [cls for cls in classes if issubclass(cls, Regularizer)]
    assert len(regularizers) > 15
    assert not [cls for cls in regularizers if has_hook(cls, "configure_model")]


def test_dropout_zeroes_and_rescales() -> None:
    uniform = torch.tensor([0.1, 0.3, 0.29, 0.9])
    torch.testing.assert_close(dropout(torch.full((4,), 7.0), uniform, 0.3), torch.tensor([0.0, 10.0, 0.0, 10.0]))
    model = MLP((4000,), 3, hidden=[2000])
    attach([Dropout(0.4, input_rate=0.2)], model, context())
    seen: dict[str, torch.Tensor] = {}
    model.hidden[0].linear.register_forward_hook(lambda m, inputs, out: seen.update(first=inputs[0]))
    model.output.register_forward_hook(lambda m, inputs, out: seen.update(last=inputs[0]))
    model.hidden[0].activation.register_forward_hook(lambda m, inputs, out: seen.update(active=out))
    x = torch.ones(10, 4000)
    model(x)
    for name, before, rate in (("first", x, 0.2), ("last", seen["active"], 0.4)):
        dropped = (seen[name] == 0) & (before > 0)
        assert float(dropped.sum() / (before > 0).sum()) == pytest.approx(rate, abs=0.02)
        torch.testing.assert_close(seen[name][~dropped], before[~dropped] / (1 - rate))
    torch.testing.assert_close(seen["first"].unique(), torch.tensor([0.0, 1.25]))
    model.eval()
    model(x)
    assert torch.equal(seen["first"], x)


def test_dropout_leaves_convolutions_alone_but_for_the_input(model: nn.Module) -> None:
    attach([Dropout(0.5, input_rate=0.1)], model, context())
    hooked = [name for name, module in model.named_modules() if module._forward_pre_hooks]
    assert hooked == ["blocks.0.conv", "head.linear", "output"]


def test_gaussian_dropout_has_mean_one_and_the_variance_of_dropout() -> None:
    layer = nn.Sequential(nn.Linear(3, 3), nn.Linear(20_000, 2))
    attach([GaussianDropout(0.3)], layer, context())
    seen = []
    layer[1].register_forward_hook(lambda m, inputs, out: seen.append(inputs[0]))
    layer[1](torch.ones(10, 20_000))
    assert seen[0].mean() == pytest.approx(1.0, abs=0.01)
    assert seen[0].var() == pytest.approx(0.3 / 0.7, rel=0.02)
    layer.eval()
    layer[1](torch.ones(10, 20_000))
    assert torch.equal(seen[1], torch.ones(10, 20_000))


def test_dropconnect_drops_weights_and_keeps_gradients_of_the_rest() -> None:
    model = MLP((50,), 3, hidden=[40])
    before = model.hidden[0].linear.weight.detach().clone()
    streams = Streams(0)
    attach([DropConnect(0.25)], model, Context(streams, 1, 3))
    layer = model.hidden[0].linear
    mask = dropout(torch.ones_like(before), Streams(0).stream("DropConnect/hidden.0.linear").uniform_like(before), 0.25)
    streams.begin(0)
    used = layer.weight
    torch.testing.assert_close(used, before * mask)
    used.sum().backward()
    torch.testing.assert_close(layer.parametrizations.weight.original.grad, mask)
    model.eval()
    assert torch.equal(layer.weight, before)


def test_input_noise_adds_its_standard_deviation() -> None:
    noisy = disturbed_input([InputNoise(0.3)], torch.zeros(1000, 30), Streams(0))
    assert noisy.std() == pytest.approx(0.3, rel=0.02)
    assert noisy.mean() == pytest.approx(0.0, abs=0.01)


def test_label_smoothing_is_torchs() -> None:
    reg = LabelSmoothing(0.2)
    logits, y = torch.randn(20, 3), torch.randint(3, (20,))
    target = targets([reg], y, 3, torch.float64)
    torch.testing.assert_close(F.cross_entropy(logits, target), F.cross_entropy(logits, y, label_smoothing=0.2))
    twice = targets([reg], F.one_hot(y, 3).double(), 3, torch.float64)  # after mixup
    torch.testing.assert_close(twice, target)


def test_confidence_penalty_is_minus_the_entropy() -> None:
    logits = torch.randn(20, 3, requires_grad=True)
    (penalty,) = batch_penalties([ConfidencePenalty(0.3)], logits, [])
    expected = -0.3 * torch.distributions.Categorical(logits=logits).entropy().mean()
    torch.testing.assert_close(penalty, expected)
    torch.testing.assert_close(*(torch.autograd.grad(p, logits)[0] for p in (penalty, expected)))


def test_spectral_decoupling_is_half_the_squared_norm_of_the_logits() -> None:
    logits = torch.randn(20, 3, requires_grad=True)
    (penalty,) = batch_penalties([SpectralDecoupling(0.3)], logits, [])
    torch.testing.assert_close(penalty, torch.stack([0.15 * z.dot(z) for z in logits]).sum() / 20)
    torch.testing.assert_close(torch.autograd.grad(penalty, logits)[0], 0.3 * logits / 20)


def smooth_model() -> tuple[nn.Module, torch.Tensor]:
    """A model that can be differentiated twice everywhere, without batch norm, and inputs."""
    torch.manual_seed(0)
    return CNN((1, 8, 8), 3, channels=[4], dense=6, batch_norm=False, activation="tanh"), torch.randn(5, 1, 8, 8)


def squared_jacobian_norms(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Of each sample, from its whole Jacobian (C, *shape)."""
    jacobians = torch.stack([torch.func.jacrev(lambda one: model(one.unsqueeze(0))[0])(sample) for sample in x])
    return jacobians.flatten(1).square().sum(dim=1)


def jacobian_penalty_of(reg: Jacobian, model: nn.Module, x: torch.Tensor, streams: Streams) -> torch.Tensor:
    attach([reg], model, Context(streams, len(x), 3))
    leaf = x.clone().requires_grad_()
    (penalty,) = jacobian_penalties([reg], model(leaf), leaf, streams)
    return penalty


def test_jacobian_with_all_projections_is_the_norm_of_the_whole_jacobian() -> None:
    model, x = smooth_model()
    penalty = jacobian_penalty_of(Jacobian(0.3, projections="all"), model, x, Streams(0))
    expected = 0.15 * squared_jacobian_norms(model, x).mean()
    torch.testing.assert_close(penalty, expected)
    matrices_of_model = matrices(model)
    for gradient, expected_gradient in zip(
        *(torch.autograd.grad(value, matrices_of_model) for value in (penalty, expected)), strict=True
    ):
        assert gradient.any()
        torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("projections", [1, 2])
def test_jacobian_of_random_projections_has_the_norm_as_its_mean(projections: int) -> None:
    model, x = smooth_model()
    reg, many = Jacobian(1.0, projections=projections), x.repeat(2000, 1, 1, 1)
    streams = Streams(0)
    estimates = torch.stack([jacobian_penalty_of(reg, model, many, streams).detach() for _ in range(3)])
    assert len(estimates.unique()) == 3, "each batch draws anew"
    exact = float(squared_jacobian_norms(model, x).mean().detach()) / 2
    assert float(estimates.mean()) == pytest.approx(exact, rel=0.01)
    assert float(estimates[0]) != pytest.approx(exact, rel=1e-6)


def test_jacobian_draws_its_projections_from_the_unit_sphere() -> None:
    """For logits of two of the inputs, the product with a direction is the direction."""
    reg, x = Jacobian(0.5, projections=2), torch.randn(4, 5).requires_grad_()
    reg.prepare(nn.Identity(), Context(Streams(0), 4, 3))
    normal = Streams(0).stream("Jacobian").normal_like(torch.empty(4, 2, 3))
    seen: list[torch.Tensor] = []
    reg.jacobian_penalty = lambda products: seen.append(products) or products.sum()  # type: ignore[method-assign]
    jacobian_penalties([reg], x[:, :3], x, Streams(0))
    torch.testing.assert_close(seen[0], F.pad(F.normalize(normal, dim=2), (0, 2)))


def test_as_many_random_projections_as_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"reg\.jacobian\.projections=3 .* set reg\.jacobian\.projections=all"):
        jacobian_penalty_of(Jacobian(0.1, projections=3), *smooth_model(), Streams(0))


@pytest.mark.parametrize("convolutional", [False, True])
def test_kl_sparsity_is_the_divergence_of_mean_activations(*, convolutional: bool) -> None:
    make = CNN((1, 8, 8), 3, channels=[4], dense=6, activation="sigmoid") if convolutional else None
    model = make or MLP((64,), 3, hidden=[5, 6], activation="sigmoid")
    reg = KlSparsity(0.3, target=0.1)
    attach([reg], model, context())
    kept: list[torch.Tensor] = []
    for module in model.modules():
        if isinstance(module, nn.Sigmoid):
            module.register_forward_hook(lambda m, inputs, out: kept.append(out))
    with activations_of(model, [reg]) as activations:
        logits = model(torch.randn(20, 1, 8, 8))
    penalty = torch.stack(batch_penalties([reg], logits, activations)).sum()
    expected = torch.zeros(())
    for activation in kept:
        for unit in range(activation.shape[1]):
            mean = torch.distributions.Bernoulli(activation[:, unit].mean())
            expected = expected + 0.3 * torch.distributions.kl_divergence(torch.distributions.Bernoulli(0.1), mean)
    torch.testing.assert_close(penalty, expected)
    (gradient,), (expected_gradient,) = (
        torch.autograd.grad(p, [next(model.parameters())], retain_graph=True) for p in (penalty, expected)
    )
    torch.testing.assert_close(gradient, expected_gradient)


def test_kl_sparsity_needs_sigmoids() -> None:
    with pytest.raises(ValueError, match="set model.activation=sigmoid"):
        attach([KlSparsity(0.1)], MLP((4,), 3, hidden=[5]), context())


def test_early_stopping_waits_for_patience_epochs() -> None:
    reg = EarlyStopping(2, min_delta=0.05)
    history = [1.0, 0.9, 0.88, 0.7, 0.69, 0.68]
    assert [reg.stop(history[:epochs]) for epochs in range(7)] == [False] * 6 + [True]
    assert reg.stop([0.5, math.inf, math.inf])


def test_total_penalty_sums_all_also_the_proximal_ones(model: nn.Module) -> None:
    images = torch.randint(0, 256, (30, 1, 8, 8), dtype=torch.uint8)
    regs = (L1(0.1), L2(0.2), ConfidencePenalty(0.3), Dropout(0.5))
    attach(regs, model, context())
    measured = total_penalty(regs, model, images, lambda x: x.double() / 255)
    model.eval()
    logits = model(images.double() / 255)
    expected = sum(0.1 * w.abs().sum() + 0.2 * w.square().sum() for w in matrices(model))
    expected -= 0.3 * torch.distributions.Categorical(logits=logits).entropy().mean()
    assert measured == pytest.approx(float(expected.detach()), rel=1e-12)


def test_total_penalty_takes_the_jacobian_of_the_first_images() -> None:
    model, _ = smooth_model()
    images = torch.randint(0, 256, (1100, 1, 8, 8), dtype=torch.uint8)
    reg = Jacobian(0.2, projections="all")
    attach([reg], model, context())
    measured = total_penalty([reg], model, images, lambda x: x.double() / 255)
    expected = 0.1 * squared_jacobian_norms(model, images[:1024].double() / 255).mean()
    assert measured == pytest.approx(float(expected.detach()), rel=1e-12)
    random = [total_penalty([Jacobian(0.2)], model, images, lambda x: x.double() / 255) for _ in range(2)]
    assert random[0] == random[1]


def test_noise_is_the_same_for_one_seed_whatever_else_is_regularized() -> None:
    def masks(*others: Regularizer) -> torch.Tensor:
        torch.manual_seed(0)
        model = MLP((30,), 3, hidden=[40])
        run_context = context()
        attach([*others, Dropout(0.5, input_rate=0.5)], model, run_context)
        run_context.streams.begin(2)
        seen = []
        model.hidden[0].linear.register_forward_hook(lambda m, inputs, out: seen.append(inputs[0]))
        model(torch.ones(10, 30))
        return seen[0]

    assert torch.equal(masks(), masks(DropConnect(0.5), L2(0.1)))

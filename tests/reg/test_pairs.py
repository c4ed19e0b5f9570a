"""Regularizers that compare two passes of a sample, or mix two samples: against their formulas, with gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conftest import compose
from ockham import build
from ockham.lit.module import Classifier
from ockham.models import CNN, MLP, ResNet
from ockham.reg import Context, Dropout, ManifoldMixup, RDrop, total_penalty
from ockham.reg.noise import dropout
from ockham.reg.single import attach, batch_penalties, mixed_states, mixtures_of, states
from ockham.rng import Streams

pytestmark = pytest.mark.usefixtures("float64")


def classifier(*overrides: str) -> Classifier:
    """A run before its first step, whose model and images are in double precision."""
    run = build.run(compose("model.hidden=[16,12]", "data.train_samples=200", *overrides))
    module = Classifier(run)
    run.model.double()
    run.normalize.for_model(torch.float64, torch.contiguous_format, torch.device("cpu"))
    module.take_inputs(run.splits)
    return module


def assert_same_gradients(model: nn.Module, one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other)
    parameters = list(model.parameters())
    for a, b in zip(torch.autograd.grad(one, parameters), torch.autograd.grad(other, parameters), strict=True):
        torch.testing.assert_close(a, b)


def test_r_drop_is_the_divergence_both_ways() -> None:
    logits = torch.randn(40, 3, requires_grad=True)
    (penalty,) = batch_penalties([RDrop(0.7)], logits, [])
    p, q = (each.log_softmax(dim=1) for each in logits.chunk(2))
    expected = 0.7 * sum(F.kl_div(*pair, reduction="batchmean", log_target=True) for pair in ((p, q), (q, p))) / 2
    torch.testing.assert_close(penalty, expected)
    torch.testing.assert_close(*(torch.autograd.grad(each, logits)[0] for each in (penalty, expected)))


def test_a_step_with_r_drop_is_two_passes_with_dropout() -> None:
    module = classifier("reg=[dropout,r_drop]", "reg.dropout.rate=0.4", "reg.r_drop.strength=0.7", "seed=3")
    model, part = module.model, torch.arange(0, 60, 2)
    objective = module.objective(part, 1 / len(part), with_parameter_penalties=True)
    x, y = module.train_inputs.batch(part)
    first, second = model.hidden
    masks = {
        name: Streams(3).stream(f"Dropout/{name}").uniform_like(torch.empty(60, width))
        for name, width in (("hidden.1.linear", 16), ("output", 12))
    }
    logits = []
    for copy in (slice(30), slice(30, 60)):
        state = first(x.flatten(1))
        state = F.relu(F.linear(dropout(state, masks["hidden.1.linear"][copy], 0.4), second.linear.weight, second.linear.bias))
        logits.append(F.linear(dropout(state, masks["output"][copy], 0.4), model.output.weight, model.output.bias))
    p, q = (each.log_softmax(dim=1) for each in logits)
    expected = (F.nll_loss(p, y) + F.nll_loss(q, y)) / 2
    expected = expected + 0.7 * (F.kl_div(p, q, reduction="batchmean", log_target=True)) / 2
    expected = expected + 0.7 * (F.kl_div(q, p, reduction="batchmean", log_target=True)) / 2
    assert not torch.equal(p, q)
    assert_same_gradients(model, objective, expected)


def test_what_is_reported_of_r_drop_is_without_noise() -> None:
    """Copies of a sample are equal, and other penalties are those of each sample once."""
    model = MLP((6,), 3, hidden=[5])
    regularizers = (Dropout(0.5), RDrop(0.7))
    attach(regularizers, model, Context(Streams(0), 20, 3))
    assert total_penalty(regularizers, model, torch.randn(20, 6), lambda x: x) == pytest.approx(0, abs=1e-15)


def test_both_passes_are_counted() -> None:
    module = classifier("reg=[dropout,r_drop]")
    module.configure_optimizers()
    module.optimizer = torch.optim.SGD(module.model.parameters(), lr=0.1)
    module.create_graph = False
    module.forward_backward(torch.arange(50))
    assert module.worked_samples == 100


@pytest.mark.parametrize("batch", range(6))
def test_a_step_with_manifold_mixup_mixes_one_state_and_the_losses(batch: int) -> None:
    """The formula of the paper, of batches that mix different states; the draws are those of the run's own stream."""
    module = classifier("reg=manifold_mixup", "reg.manifold_mixup.alpha=0.7", "seed=1")
    part, model = torch.arange(40), module.model
    stream = Streams(1).stream("ManifoldMixup")
    for _ in range(batch):
        module.objective(part, 1 / 40, with_parameter_penalties=True)
        ManifoldMixup(0.7).mixture(torch.empty(40), 3, stream)
    objective = module.objective(part, 1 / 40, with_parameter_penalties=True)
    drawn, share, partner = ManifoldMixup(0.7).mixture(torch.empty(40), 3, stream)
    x, y = module.train_inputs.batch(part)
    state = x.flatten(1)
    for position, layer in enumerate([*model.hidden, model.output]):
        state = layer(share * state + (1 - share) * state[partner] if position == drawn else state)
    expected = share * F.cross_entropy(state, y) + (1 - share) * F.cross_entropy(state, y[partner])
    assert_same_gradients(model, objective, expected)


def test_manifold_mixup_draws_states_shares_and_partners() -> None:
    stream = Streams(0).stream("ManifoldMixup")
    drawn = [ManifoldMixup(0.4).mixture(torch.empty(9), 4, stream) for _ in range(4000)]
    counts = torch.bincount(torch.tensor([each.state for each in drawn]), minlength=4)
    assert counts.tolist() == pytest.approx([1000] * 4, abs=100)
    shares = torch.tensor([each.share for each in drawn])
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    assert shares.var() == pytest.approx(1 / (4 * 1.8), abs=0.01)  # of Beta(a, a): 1 / (4 (2 a + 1))
    assert all(torch.equal(each.partner.sort().values, torch.arange(9)) for each in drawn)


def test_states_are_what_layers_and_whole_residual_blocks_take() -> None:
    resnet = ResNet((1, 8, 8), 3, depth=8, width=4)
    assert states(resnet) == [resnet.stem, *resnet.stages, resnet.output]
    cnn = CNN((1, 8, 8), 3, channels=[4, 6], dense=5)
    assert states(cnn) == [cnn.blocks[0].conv, cnn.blocks[1].conv, cnn.head.linear, cnn.output]
    mlp = MLP((6,), 3, hidden=[5, 4])
    assert states(mlp) == [mlp.hidden[0].linear, mlp.hidden[1].linear, mlp.output]


def test_a_residual_block_is_mixed_with_its_identity_path() -> None:
    """Both ways through the block start from the mixed state."""
    model = ResNet((1, 8, 8), 3, depth=8, width=4).eval()
    regularizer = ManifoldMixup(1.0)
    streams, x = Streams(0), torch.randn(10, 1, 8, 8)
    seen = set()
    for _ in range(20):
        (mixture,) = mixtures_of([regularizer], model, x, streams)
        seen.add(mixture.state)
        with mixed_states(model, [mixture]):
            logits = model(x)
        state = x
        for position, layer in enumerate([model.stem, *model.stages, model.output]):
            state = state.mean(dim=(2, 3)) if layer is model.output else state
            state = layer(mixture.mixed(state) if position == mixture.state else state)
            state = F.relu(model.norm(state)) if layer is model.stem else state
        torch.testing.assert_close(logits, state)
    assert seen == {0, 1, 2, 3, 4}
    assert not any(module._forward_pre_hooks for module in model.modules())

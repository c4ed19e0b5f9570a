"""One strength is one problem under every optimizer: proximal steps end where the penalised loss is lowest."""

import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from cases import REFERENCES
from conftest import compose, make_spec
from ockham import build, schema
from ockham.core.parameters import named_parameters, weight_norm, zero_fraction
from ockham.execute import execute
from ockham.models import Linear
from ockham.optim.responses import Responses, rule_of_group
from ockham.record.checkpoint import Checkpoint
from ockham.reg import L1, L2, ElasticNet, GroupLasso, Regularizer, WeightDecay
from ockham.reg.single import decay, prox_and_project, weight_penalties

pytestmark = pytest.mark.usefixtures("float64")

SAMPLES = 200

#: Those that minimise the penalised loss; gd is sgd on all samples, as here.
OPTIMIZERS = [option for option, reference in REFERENCES.items() if reference.convex_lr is not None and option != "gd"]
PENALTIES = {"l1": L1(0.02), "elastic_net": ElasticNet(0.03), "group_lasso": GroupLasso(0.01)}


def undecayed(optimizer: str) -> list[str]:
    """The settings under which nothing but the penalty shrinks weights."""
    return [f"optimizer.lr={REFERENCES[optimizer].convex_lr}", "optimizer.weight_decay=0"]


@pytest.fixture
def digits(float64: None) -> tuple[Tensor, Tensor]:
    """Real digits (n, 64), some pixels of which are 0 in all of them, and their classes (n,)."""
    images, classes = load_digits(return_X_y=True)
    x = torch.tensor(images[:SAMPLES])
    return (x - x.mean()) / x.std(), torch.tensor(classes[:SAMPLES])


def objective(model: nn.Module, reg: Regularizer, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float(F.cross_entropy(model(x), y) + sum(weight_penalties([reg], named_parameters(model), with_proximal=True)))


def fista(reg: Regularizer, x: Tensor, y: Tensor, steps: int = 1500) -> nn.Module:
    """Softmax regression with the penalty at its minimum (Beck & Teboulle 2009, with the restarts of O'Donoghue & Candes)."""
    model = Linear(x.shape[1:], int(y.max()) + 1)
    named = named_parameters(model)
    with_ones = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    lr = 2 * len(x) / float(torch.linalg.eigvalsh(with_ones.T @ with_ones)[-1])  # one over the curvature's bound
    ahead, t = [parameter.detach().clone() for _, parameter in named], 1.0
    for _ in range(steps):
        before = [parameter.detach().clone() for _, parameter in named]
        with torch.no_grad():
            for (_, parameter), start in zip(named, ahead, strict=True):
                parameter.copy_(start)
        gradients = torch.autograd.grad(F.cross_entropy(model(x), y), [parameter for _, parameter in named])
        with torch.no_grad():
            for (_, parameter), gradient in zip(named, gradients, strict=True):
                parameter.sub_(lr * gradient)
            prox_and_project([reg], named, dict.fromkeys([name for name, _ in named], lr))
            moves = [parameter - old for (_, parameter), old in zip(named, before, strict=True)]
            turned = sum(
                ((start - parameter) * move).sum()
                for start, (_, parameter), move in zip(ahead, named, moves, strict=True)
            )  # fmt: skip
            grown = 1.0 if turned > 0 else (1 + math.sqrt(1 + 4 * t * t)) / 2
            inertia = 0.0 if turned > 0 else (t - 1) / grown
            ahead = [parameter + inertia * move for (_, parameter), move in zip(named, moves, strict=True)]
            t = grown
    return model


def train(
    optimizer: str, reg: Regularizer, x: Tensor, y: Tensor, steps: int = 800, *, preconditioned: bool = True
) -> nn.Module:
    """As a run does it, full batch; the learning rate falls to zero over the second half of the steps.

    Proximal steps are as long as those of the optimizer for each weight; if not `preconditioned`, as long as the learning rate.
    """
    torch.manual_seed(0)
    model = Linear(x.shape[1:], int(y.max()) + 1)
    torch_optimizer = build.optimizer_of(compose(f"optimizer={optimizer}", *undecayed(optimizer)))(model)
    named = named_parameters(model)
    responses = Responses(torch_optimizer, named)
    (group,) = torch_optimizer.param_groups
    base = group["lr"]
    for step in range(steps):
        group["lr"] = base * min(1, 2 * (1 - step / steps))
        torch_optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y) + sum(weight_penalties([reg], named))
        loss.backward()
        with torch.no_grad():
            decay([reg], named, dict.fromkeys([name for name, _ in named], group["lr"]))
        torch_optimizer.step()
        with torch.no_grad():
            lengths = responses if preconditioned else dict.fromkeys([name for name, _ in named], group["lr"])
            prox_and_project([reg], named, lengths)
    return model


@pytest.mark.parametrize("penalty", PENALTIES)
def test_every_optimizer_reaches_the_minimum_of_the_penalised_loss(penalty: str, digits: tuple[Tensor, Tensor]) -> None:
    reg = PENALTIES[penalty]
    best = fista(reg, *digits)
    lowest, zeros = objective(best, reg, *digits), zero_fraction(named_parameters(best))
    assert 0.3 < zeros < 0.95
    for optimizer in OPTIMIZERS:
        model = train(optimizer, reg, *digits)
        assert lowest * (1 - 1e-6) <= objective(model, reg, *digits) <= lowest * (1 + 1e-3), optimizer
        assert zero_fraction(named_parameters(model)) == pytest.approx(zeros, abs=0.02), optimizer


def test_the_minimum_is_scikit_learns(digits: tuple[Tensor, Tensor]) -> None:
    x, y = digits
    reg = PENALTIES["l1"]
    reference = LogisticRegression(
        l1_ratio=1.0, C=1 / (reg.strength * SAMPLES), solver="saga", tol=1e-6, max_iter=5000, random_state=0
    ).fit(x.numpy(), y.numpy())
    model = Linear((64,), 10)
    with torch.no_grad():
        model.output.weight.copy_(torch.tensor(reference.coef_))
        model.output.bias.copy_(torch.tensor(reference.intercept_))
    lowest = objective(model, reg, x, y)
    assert objective(fista(reg, x, y), reg, x, y) == pytest.approx(lowest, rel=1e-4)
    assert objective(train("adam", reg, x, y), reg, x, y) == pytest.approx(lowest, rel=1e-3)
    plain = objective(train("adam", reg, x, y, preconditioned=False), reg, x, y)
    assert plain > 1.02 * lowest, "a threshold of lr * strength is another problem under Adam"


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov", "adam"])
def test_a_quadratic_penalty_is_the_same_in_the_loss_and_after_the_step(optimizer: str, digits: tuple[Tensor, Tensor]) -> None:
    norms = [
        weight_norm(named_parameters(train(optimizer, reg, *digits)))
        for reg in (L2(0.01), ElasticNet(0.01, l1_ratio=0.0))
    ]  # fmt: skip
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


def test_decoupled_decay_is_a_weaker_l2_under_momentum(digits: tuple[Tensor, Tensor]) -> None:
    """docs/maths.md: decay s has the minimum of l2 with s / 2 under sgd, and with s (1 - momentum) / 2 under momentum."""
    for optimizer, strength in (("sgd", 0.01), ("momentum", 0.001), ("nesterov", 0.001)):
        decayed, penalised = (train(optimizer, reg, *digits) for reg in (WeightDecay(0.02), L2(strength)))
        torch.testing.assert_close(decayed.output.weight, penalised.output.weight, rtol=0.05, atol=0.01)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_gradient_that_stays_the_same_moves_parameters_by_the_response(optimizer: str) -> None:
    """Step after step, under torch's own optimizer."""
    layer = nn.Linear(3, 2, bias=False)
    gradient = torch.tensor([[0.5, -2.0, 1e-3], [1.0, 0.1, 3.0]])
    config = compose(f"optimizer={optimizer}", *undecayed(optimizer), "optimizer.lr=1e-3")
    torch_optimizer = build.optimizer_of(config)(layer)
    responses = Responses(torch_optimizer, named_parameters(layer))
    for _ in range(2000):
        before = layer.weight.detach().clone()
        layer.weight.grad = gradient
        torch_optimizer.step()
    moved = before - layer.weight.detach()
    torch.testing.assert_close(moved, responses["weight"] * gradient, rtol=2e-3, atol=0.0)


def test_the_response_of_what_no_rule_describes_is_the_learning_rate() -> None:
    class Mine(torch.optim.SGD):
        pass

    layer = nn.Linear(3, 2)
    for optimizer in (
        Mine(layer.parameters(), lr=0.3, momentum=0.9),
        torch.optim.SGD(layer.parameters(), lr=0.3, momentum=0.9, dampening=0.5),
        torch.optim.LBFGS(layer.parameters(), lr=0.3),
    ):
        with pytest.raises(ValueError, match="has no rule"):
            rule_of_group(optimizer, optimizer.param_groups[0])
        assert dict(Responses(optimizer, named_parameters(layer))) == {"weight": 0.3, "bias": 0.3}


def test_a_run_reaches_the_minimum_too(tmp_path: Path) -> None:
    """The path of the command: model=linear on real images, full batch."""
    torch.set_default_dtype(torch.float32)
    samples = 100
    spec = make_spec(
        tmp_path,
        *("model=linear", "optimizer=nesterov", "optimizer.lr=0.05", "reg=l1", "reg.l1.strength=0.1", "schedule=constant"),
        *(f"data.train_samples={samples}", "data.batch_size=full", "trainer.max_epochs=400", "trainer.precision=64-true"),
        "logger=csv",
    )
    execute(spec)
    torch.set_default_dtype(torch.float64)
    run = build.run(spec.config)
    x = run.normalize(run.splits.train.images).flatten(1)
    y = run.splits.train.labels
    run.model.load_state_dict(Checkpoint.load(spec.folder.last_checkpoint).model)
    reg = L1(0.1)
    best = fista(reg, x, y)
    assert objective(run.model.double(), reg, x, y) == pytest.approx(objective(best, reg, x, y), rel=1e-3)
    assert zero_fraction(named_parameters(run.model)) == pytest.approx(zero_fraction(named_parameters(best)), abs=0.02)


@pytest.mark.parametrize(
    ("overrides", "warned"),
    [
        (["optimizer=lbfgs", "reg=l1"], "LBFGS has no rule: reg=l1 .* reg.l1.method=subgradient"),
        (["optimizer=muon", "reg=l1"], "steps of Muon have one length, whatever the size of the gradient: reg=l1"),
        (["optimizer=lion", "reg=l1"], "steps of Lion have a length of their own, .*: reg=l1"),
        (["+optimizer.amsgrad=true", "reg=group_lasso"], "Adam has no rule with amsgrad=True: reg=group_lasso"),
        (["optimizer=lbfgs", "reg=l1", "reg.l1.method=subgradient"], None),
        (["optimizer=nesterov", "reg=[l1,group_lasso]"], None),
        (["optimizer=adamw", "optimizer.weight_decay=0", "reg=elastic_net"], None),
    ],
)
def test_a_run_warns_where_the_penalised_loss_is_not_what_it_minimises(overrides: list[str], warned: str | None) -> None:
    warnings = schema.check(schema.container(compose(*overrides)))
    assert len(warnings) == (warned is not None)
    assert warned is None or re.search(warned, warnings[0])

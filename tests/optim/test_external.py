"""Optimizers of pytorch-optimizer: every one trains and continues as it would alone, or is refused by name."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conftest import SMALL, compose, make_spec
from ockham import build, schema
from ockham.errors import UserError
from ockham.execute import execute
from ockham.fused.partition import why_alone
from ockham.models import MLP
from ockham.optim.catalogue import NON_COMMERCIAL, REFUSED
from ockham.optim.external import External, needs_graph
from ockham.rng import global_seed

OPTIMIZERS = pytest.importorskip("pytorch_optimizer.optimizer").OPTIMIZERS
REFUSED_NAMES = {name for names in REFUSED.values() for name in names}


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return MLP((16,), 3, hidden=[24, 6])


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> torch.Tensor:
    """All parameters after these steps, each of which has its own data and random numbers."""
    for step in steps:
        noise = torch.Generator().manual_seed(step)
        x, y = torch.randn(40, 16, generator=noise), torch.randint(3, (40,), generator=noise)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        gradients = torch.autograd.grad(loss, list(model.parameters()), create_graph=needs_graph(optimizer))
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient
        with global_seed(step, "optimizer"):
            optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def made(name: str, model: nn.Module) -> torch.optim.Optimizer:
    settings: dict[str, Any] = {"num_iterations": 12} if name == "ranger21" else {}
    lr = 1.0 if name == "dadaptsgd" else 1e-3  # times 1e-6, in the beginning
    return External.from_model(model, name=name, lr=lr, **settings)


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - REFUSED_NAMES))
def test_every_optimizer_is_that_class_and_continues_from_its_state(name: str) -> None:
    model, first, second = make_model(), make_model(), make_model()
    optimizer = made(name, model)
    assert type(optimizer) is OPTIMIZERS[name]
    expected = train(model, optimizer, range(12))
    assert not torch.equal(expected, torch.cat([parameter.flatten() for parameter in make_model().parameters()]))
    broken = made(name, first)
    train(first, broken, range(5))
    second.load_state_dict(first.state_dict())
    continued = made(name, second)
    continued.load_state_dict(copy.deepcopy(broken.state_dict()))
    assert torch.equal(train(second, continued, range(5, 12)), expected)


def test_names_of_the_catalogue_are_those_of_the_package() -> None:
    assert set(OPTIMIZERS) >= REFUSED_NAMES | set(NON_COMMERCIAL)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "set optimizer.name=soap"),
        (["optimizer.name=soep"], "soep is not known to pytorch-optimizer\ndid you mean optimizer.name=soap"),
        (["optimizer.name=xxxxxxxx"], "it is one of: a2grad, "),
        (["optimizer.name=ScheduleFree_SGD"], "judges other weights than it trains: set optimizer=schedule_free_adamw"),
        (["optimizer.name=alig"], "asks for the loss again within a step"),
        (["optimizer.name=soap", "+optimizer.tau=1"], "optimizer.tau is no setting of optimizer.name=soap: it takes lr, betas"),
        (["optimizer.name=sm3", "optimizer.weight_decay=1"], "optimizer.weight_decay is no setting of optimizer.name=sm3"),
        (["optimizer.name=ranger21"], r"needs optimizer.num_iterations: set \+optimizer.num_iterations="),
        (["optimizer.name=soap", "+optimizer.betas=[0.9,1.5,0]"], "optimizer.betas=.* is not possible"),
        (["optimizer.name=sophiah", "+optimizer.p=-1.0"], "refuses its settings"),
    ],
)
def test_mistakes_name_the_setting(overrides: list[str], message: str) -> None:
    config = compose("optimizer=external", *overrides)

    def check_and_build() -> None:
        schema.check(schema.container(config))
        build.optimizer_of(config)(make_model())

    with pytest.raises(UserError) as caught:
        check_and_build()
    assert re.search(message, str(caught.value))


def test_a_licence_that_is_not_commercial_is_named() -> None:
    (warning,) = schema.check(schema.container(compose("optimizer=external", "optimizer.name=nero")))
    assert "CC BY-NC-SA 4.0" in warning


@pytest.mark.parametrize(
    "settings", [["optimizer.name=sophiah"], ["optimizer.name=kron", "+optimizer.max_size_triangular=100"]]
)
def test_a_run_takes_products_with_the_hessian_and_draws_from_its_seed(settings: list[str], tmp_path: Path) -> None:
    specs = [make_spec(tmp_path / str(run), *SMALL, "optimizer=external", *settings) for run in range(2)]
    for spec in specs:
        torch.manual_seed(id(spec) % 1000)
        execute(spec)
    assert specs[0].folder.epochs()[-1]["train/objective"] < specs[0].folder.epochs()[0]["train/objective"]
    assert (specs[0].folder.path / "metrics.csv").read_bytes() == (specs[1].folder.path / "metrics.csv").read_bytes()
    assert why_alone(schema.container(specs[0].config)) == "External has no rule"

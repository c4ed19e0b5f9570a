"""Optimizers: each yaml is the one of torch, parameters are claimed once, Muon is torch's Muon and Adam up to precision."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cases import CASES, REFERENCES
from conftest import SMALL, compose, make_spec
from ockham import build, schema
from ockham.errors import UserError
from ockham.execute import execute
from ockham.fused.partition import why_alone
from ockham.models import CNN, MLP, Linear
from ockham.optim.groups import make_optimizer
from ockham.optim.muon import Muon
from ockham.optim.newton_schulz import iteration_dtype, orthogonalized
from ockham.optim.rules import rule_of


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 10) -> torch.Tensor:
    """All parameters after some steps on fixed data, as one vector."""
    noise = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 1, 4, 4, generator=noise, dtype=torch.float64), torch.randint(3, (40,), generator=noise)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def make_model(*, convolutional: bool = False) -> nn.Module:
    torch.manual_seed(0)
    if convolutional:
        return CNN((1, 4, 4), 3, channels=[4, 6], dense=5).double()
    return MLP((16,), 3, hidden=[24, 6]).double()


@pytest.mark.usefixtures("float64")  # in which counters are kept too
@pytest.mark.parametrize("option", REFERENCES)
def test_each_yaml_is_the_optimizer_of_torch(option: str) -> None:
    config = compose(f"optimizer={option}")
    model, reference = make_model(), make_model()
    trained = train(model, build.optimizer_of(config)(model))
    torch.testing.assert_close(
        trained, train(reference, REFERENCES[option].torch(reference.parameters())), rtol=1e-9, atol=1e-12
    )


def test_all_yamls_are_compared() -> None:
    assert set(REFERENCES) | {"muon", "external"} == set(CASES["optimizer"])


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.9, 0.0), (0.5, 0.5)])
def test_muon_is_torchs_muon_on_hidden_weights_and_adam_elsewhere(momentum: float, weight_decay: float) -> None:
    """To the precision of bfloat16, in which torch always iterates."""
    model, reference = make_model(), make_model()
    start = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    moved = train(model, Muon.from_model(model, lr=0.02, momentum=momentum, adam_lr=1e-3, weight_decay=weight_decay)) - start
    hidden = [layer.linear.weight for layer in reference.hidden]
    rest = [p for p in reference.parameters() if not any(p is weight for weight in hidden)]

    class Both:
        def __init__(self) -> None:
            self.muon = torch.optim.Muon(hidden, lr=0.02, momentum=momentum, weight_decay=weight_decay)
            self.adam = torch.optim.Adam(rest, lr=1e-3, weight_decay=weight_decay)

        def zero_grad(self) -> None:
            self.muon.zero_grad()
            self.adam.zero_grad()

        def step(self, closure: object) -> None:
            closure()
            self.muon.step()
            self.adam.step()

    expected = train(reference, Both()) - start
    assert float((moved - expected).norm() / expected.norm()) < 0.1


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (7, 7), (3, 2, 5)])
def test_orthogonalization_is_its_polynomial_on_the_singular_values(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    values = values / values.square().sum(dim=-1, keepdim=True).sqrt()
    a, b, c = 3.4445, -4.7750, 2.0315
    for _ in range(5):
        values = a * values + b * values**3 + c * values**5
    torch.testing.assert_close(orthogonalized(matrices), left @ torch.diag_embed(values) @ right)
    assert ((values > 0.5) & (values < 1.3)).all()


def test_the_rule_of_muon_is_torchs_in_single_precision() -> None:
    """Gradients that have nothing in common, so that the momentum shows."""
    noise = torch.Generator().manual_seed(0)
    start = torch.randn(30, 12, generator=noise)
    weight = nn.Parameter(start.clone())
    reference = torch.optim.Muon([weight], lr=0.1, momentum=0.8, weight_decay=0.3)
    rule, _ = rule_of("ockham.optim.Muon", {})
    updated, state = start.unsqueeze(0), {"momentum_buffer": torch.zeros(1, 30, 12)}
    for _ in range(6):
        weight.grad = torch.randn(30, 12, generator=noise)
        reference.step()
        hyper = {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.3}
        updated, state = rule.update(updated, weight.grad.unsqueeze(0), state, hyper)
    moved = weight.detach() - start
    assert float((updated[0] - start - moved).norm() / moved.norm()) < 0.02
    torch.testing.assert_close(state["momentum_buffer"][0], reference.state[weight]["momentum_buffer"])


@pytest.mark.parametrize(
    ("dtype", "units", "expected"),
    [
        (torch.float32, False, torch.float32),  # a CPU that would emulate bfloat16
        (torch.float32, True, torch.bfloat16),
        (torch.float64, True, torch.float64),
        (torch.float64, False, torch.float64),
    ],
)
def test_muon_iterates_in_bfloat16_only_where_there_are_units(dtype: torch.dtype, units: bool, expected: torch.dtype) -> None:
    assert iteration_dtype(dtype, bfloat16_units=units) == expected


def test_muon_takes_kernels_as_matrices_in_any_layout() -> None:
    plain, last = make_model(convolutional=True), make_model(convolutional=True).to(memory_format=torch.channels_last)
    optimizers = [Muon.from_model(model, lr=0.02) for model in (plain, last)]
    kernels = [plain.blocks[0].conv.weight, plain.blocks[1].conv.weight, plain.head.linear.weight]
    assert [id(weight) for weight in optimizers[0].param_groups[0]["params"]] == [id(kernel) for kernel in kernels]
    before = plain.blocks[1].conv.weight.detach().clone()
    results = [train(model, optimizer, steps=1) for model, optimizer in zip((plain, last), optimizers, strict=True)]
    update = (plain.blocks[1].conv.weight.detach() - before).flatten(1)
    scale = 0.02 * max(1, update.shape[0] / update.shape[1]) ** 0.5
    singular = torch.linalg.svdvals(update / scale)
    assert ((singular > 0.5) & (singular < 1.3)).all()  # orthogonal, as far as five iterations go
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-12)


def test_muon_without_hidden_layers_is_refused() -> None:
    with pytest.raises(UserError, match="set optimizer=adam, or model=mlp"):
        Muon.from_model(Linear((16,), 3), lr=0.02)
    for model in (["model=linear"], ["model=mlp", "model.hidden=[]"]):
        with pytest.raises(UserError, match="set optimizer=adam, or model=mlp"):
            schema.check(schema.container(compose("optimizer=muon", *model)))


def test_muon_continues_from_its_state() -> None:
    whole, first = make_model(), make_model()
    expected = train(whole, Muon.from_model(whole, lr=0.02), steps=6)
    optimizer = Muon.from_model(first, lr=0.02)
    train(first, optimizer, steps=3)
    second = make_model()
    second.load_state_dict(first.state_dict())
    continued = Muon.from_model(second, lr=0.02)
    continued.load_state_dict(optimizer.state_dict())
    assert torch.equal(train(second, continued, steps=3), expected)


@pytest.mark.parametrize("option", CASES["optimizer"])
def test_every_parameter_is_in_exactly_one_group(option: str) -> None:
    model = make_model(convolutional=True).float()
    optimizer = build.optimizer_of(compose(f"optimizer={option}", *CASES["optimizer"][option]))(model)
    grouped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())


def test_a_forgotten_parameter_is_noticed() -> None:
    class Forgetful(torch.optim.SGD):
        @classmethod
        def from_model(cls, model: nn.Module, *, lr: float) -> "Forgetful":
            return cls(list(model.parameters())[1:], lr=lr)

    with pytest.raises(AssertionError, match="in no group"):
        make_optimizer(Forgetful, make_model(), {"lr": 0.1})


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(ValueError, match=r"optimizer\.betas is no setting of SGD: it takes lr, momentum"):
        make_optimizer(torch.optim.SGD, make_model(), {"lr": 0.1, "betas": (0.9, 0.99)})


def test_a_value_that_torch_refuses_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match="NAdam refuses its settings: Invalid momentum_decay value: -1"):
        make_optimizer(torch.optim.NAdam, make_model(), {"lr": 0.1, "momentum_decay": -1})


def test_an_optimizer_of_torch_needs_nothing_but_its_yaml(tmp_path: Path) -> None:
    """It runs, alone, with settings that no other optimizer has."""
    (tmp_path / "conf" / "optimizer").mkdir(parents=True)
    (tmp_path / "conf" / "optimizer" / "damped.yaml").write_text(
        "_target_: torch.optim.SGD\nlr: 0.1\nmomentum: 0.9\ndampening: 0.5\n"
    )
    spec = make_spec(tmp_path / "run", f"hydra.searchpath=[file://{tmp_path / 'conf'}]", "optimizer=damped", *SMALL)
    assert schema.check(schema.container(spec.config)) == []
    assert why_alone(schema.container(spec.config)) == "SGD has no rule with dampening=0.5"
    execute(spec)
    rows = spec.folder.epochs()
    assert rows[-1]["train/objective"] < rows[0]["train/objective"]
    spec.config.optimizer.nesterov = True
    with pytest.raises(UserError, match="SGD refuses its settings: Nesterov momentum requires .* zero dampening"):
        build.optimizer_of(spec.config)(make_model())

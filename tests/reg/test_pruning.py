"""Magnitude pruning against torch's own, and lottery tickets against the loop of their paper."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

from conftest import SMALL, compose, make_spec
from ockham import build
from ockham.data.batches import order
from ockham.execute import execute
from ockham.models import MLP
from ockham.record.checkpoint import Checkpoint
from ockham.record.folder import RunFolder
from ockham.reg import Context, MagnitudePruning, SpectralNorm
from ockham.reg.pruning import without_smallest
from ockham.reg.single import attach, before_step
from ockham.rng import Streams
from ockham.schedules import Cosine

SPARSITY, ROUNDS, REWIND_STEP = 0.9, 2, 3
PRUNED = [
    "reg=magnitude_pruning",
    f"reg.magnitude_pruning.sparsity={SPARSITY}",
    f"reg.magnitude_pruning.rounds={ROUNDS}",
    f"reg.magnitude_pruning.rewind_step={REWIND_STEP}",
    "trainer.max_epochs=6",
    "trainer.precision=64-true",
]


def layers(model: nn.Module) -> list[tuple[nn.Module, str]]:
    return [(module, "weight") for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]


def remove(model: nn.Module, sparsity: float, scope: str) -> None:
    """With torch, everywhere or in each layer, until a fraction of the weights is gone."""
    for module, _ in layers(model):
        for hook in module._forward_pre_hooks.values():
            hook(module, ())  # computes the masked weight, which is otherwise that of the last forward pass
    groups = [layers(model)] if scope == "global" else [[layer] for layer in layers(model)]
    for group in groups:
        total, gone = (sum(int(count(module.weight)) for module, _ in group) for count in (torch.numel, count_zeros))
        prune.global_unstructured(group, pruning_method=prune.L1Unstructured, amount=round(sparsity * total) - gone)


def count_zeros(weight: torch.Tensor) -> int:
    return int((weight == 0).sum())


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_smallest_weights_go_as_with_torch(scope: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Linear(7, 5))
    weights = [module.weight.detach().clone() for module in model]
    masks = [torch.ones_like(weight, dtype=torch.bool) for weight in weights]
    for sparsity in (0.4, 0.64):
        remove(model, sparsity, scope)
        for places in [slice(None)] if scope == "global" else [slice(0, 1), slice(1, 2)]:
            masks[places] = without_smallest(weights[places], masks[places], sparsity)
        for module, mask in zip(model, masks, strict=True):
            assert torch.equal(module.weight_mask.bool(), mask)
        weights = [weight.roll(1, 0) * mask for weight, mask in zip(weights, masks, strict=True)]  # trained further
        for module, weight in zip(model, weights, strict=True):
            module.weight_orig.data.copy_(weight)


def ticket_by_hand(scope: str, *, momentum: float) -> nn.Module:
    """Frankle & Carbin 2019, section 1, with torch: train, remove the smallest, rewind the rest, train again."""
    run = build.run(compose(*SMALL, *[word for word in PRUNED if "reg" not in word]))
    run.normalize.for_model(torch.float64, torch.contiguous_format, torch.device("cpu"))
    model, train, steps = run.model.double(), run.splits.train, run.total_steps // (ROUNDS + 1)
    early: dict[str, torch.Tensor] = {}
    for training in range(ROUNDS + 1):
        if training:
            remove(model, 1 - (1 - SPARSITY) ** (training / ROUNDS), scope)
            for name, parameter in model.named_parameters():
                parameter.data.copy_(early[name.removesuffix("_orig")])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=momentum)
        step = 0
        for epoch in range(2 * training, 2 * training + 2):
            for batch in order(len(train), seed=0, epoch=epoch, shuffle=True).split(32):
                if training == 0 and step == REWIND_STEP:
                    early = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
                optimizer.param_groups[0]["lr"] = 0.05 * Cosine()(step, steps)
                optimizer.zero_grad()
                F.cross_entropy(model(run.normalize(train.images[batch])), train.labels[batch]).backward()
                optimizer.step()
                step += 1
    return model


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_a_run_is_the_lottery_ticket_written_by_hand(scope: str, small_run: Callable[..., RunFolder]) -> None:
    words = [*PRUNED, f"reg.magnitude_pruning.scope={scope}", "schedule=cosine"]
    folder = small_run(*words, "optimizer=momentum", "optimizer.lr=0.05")
    last = Checkpoint.load(folder.last_checkpoint).model
    for name, module in ticket_by_hand(scope, momentum=0.9).named_modules():
        if isinstance(module, nn.Linear):
            weight, mask = (last[f"{name}.parametrizations.weight.{entry}"] for entry in ("original", "0.mask"))
            assert torch.equal(mask, module.weight_mask.bool())
            torch.testing.assert_close(weight, module.weight_orig.detach() * module.weight_mask, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(last[f"{name}.bias"], module.bias.detach(), rtol=1e-9, atol=1e-12)


def test_rounds_show_in_the_record_and_the_last_one_is_judged(tmp_path: Path) -> None:
    """The dense net of the first training is better than what is left, and not selected."""
    spec = make_spec(tmp_path / "run", *SMALL, *PRUNED, "reg.magnitude_pruning.sparsity=0.99", "schedule=cosine")
    execute(spec)
    rows, metrics = spec.folder.epochs(), spec.folder.metrics()
    assert [row["zero_fraction"] for row in rows] == pytest.approx([0, 0, 0.9, 0.9, 0.99, 0.99], abs=1e-4)
    assert [row["lr"] for row in rows[:2]] * 3 == [row["lr"] for row in rows]
    assert max(rows[0]["val/acc"], rows[1]["val/acc"]) > metrics["val/acc"]
    assert metrics["best_epoch"] in (5, 6)
    assert metrics["zero_fraction"] == pytest.approx(0.99, abs=1e-4)
    best = Checkpoint.load(spec.folder.best_checkpoint).model
    run = build.run(spec.config)
    model = build.trained_model(spec.config, run.input, best)
    for layer, _ in layers(model):
        assert torch.equal(layer.weight == 0, ~layer.parametrizations.weight[0].mask)


def test_with_a_plateau_each_training_sees_its_own_results() -> None:
    run = build.run(compose(*SMALL, *PRUNED, "schedule=plateau"))
    history = [run.criterion({"val/acc": acc, "val/loss": 1.0}) for acc in (0.5, 0.9, 0.3, 0.2, 0.1)]
    assert [run.seen_by_schedule(history[:epochs]) for epochs in range(6)] == [[], [-0.5], [], [-0.3], [], [-0.1]]
    assert [run.best_row(history[:epochs]) for epochs in range(6)] == [0, 1, 2, 3, 3, 5]
    assert [run.is_first_of_training(epoch) for epoch in range(1, 7)] == [True, False] * 3


def test_biases_and_statistics_of_batch_norm_are_rewound_and_not_removed() -> None:
    torch.manual_seed(0)
    model, reg = MLP((6,), 3, hidden=[5], batch_norm=True), MagnitudePruning(0.5)
    attach([reg], model, Context(Streams(0), 10, 3))
    first = {name: value.clone() for name, value in model.state_dict().items() if not name.endswith("mask")}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(3):
        model(torch.randn(10, 6)).square().mean().backward()
        optimizer.step()
    before_step([reg], model, training=1, step=0)
    masks = {name: value for name, value in model.state_dict().items() if name.endswith("mask")}
    assert sum(int((~mask).sum()) for mask in masks.values()) == round(0.5 * (6 * 5 + 5 * 3))
    for name, value in model.state_dict().items():
        if name.endswith("weight.original"):
            assert torch.equal(value, first[name] * masks[name.replace("original", "0.mask")])
        elif name in first:
            assert torch.equal(value, first[name]), name
    before_step([reg], model, training=1, step=1)
    assert all(torch.equal(model.state_dict()[name], mask) for name, mask in masks.items())


def test_what_makes_other_weights_of_those_that_are_compared_is_refused() -> None:
    with pytest.raises(ValueError, match=r"reg=magnitude_pruning .* leave out one of the two"):
        attach([MagnitudePruning(0.5), SpectralNorm()], MLP((4,), 3, hidden=[5]), Context(Streams(0), 10, 3))

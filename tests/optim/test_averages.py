"""What judges a run by an average: that is evaluated, selected, saved as best and tested, and not what trains."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cases import CASES
from conftest import SMALL, make_spec
from ockham import build
from ockham.core.metrics import evaluate
from ockham.core.parameters import holding, named_parameters
from ockham.execute import RunSpec, execute, execute_group
from ockham.optim.ruled import ScheduleFreeAdamW, ScheduleFreeSGD
from ockham.record.checkpoint import Checkpoint

AVERAGED = ("asgd", "schedule_free_sgd", "schedule_free_adamw")
#: With two steps after the last that moves the slow weights of lookahead.
AVERAGED_BY_REG = ("ema", "swa", "lookahead")
LENGTH = ["trainer.max_epochs=2", "objective=val/loss", "trainer.precision=64-true"]


def specs_of(option: str, folder: Path) -> list[RunSpec]:
    """Two runs that differ in their seeds."""
    group = "optimizer" if option in AVERAGED else "reg"
    words = [*SMALL, f"{group}={option}", *CASES[group][option], *LENGTH]
    return [make_spec(folder / str(seed), *words, f"seed={seed}") for seed in range(2)]


def averages_by_hand(option: str, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """From what is trained, y, and the optimizer's state: of schedule-free ones x of y = (1 - 0.9) z + 0.9 x.

    What regularizers keep is compared in tests/lit/test_around_the_step.py.
    """
    assert checkpoint.optimizer is not None
    if option in AVERAGED_BY_REG:
        return checkpoint.averages
    states = checkpoint.optimizer["state"].values()
    if option == "asgd":
        return {name: state["ax"] for name, state in zip(checkpoint.model, states, strict=True)}
    return {name: (y - 0.1 * state["z"]) / 0.9 for (name, y), state in zip(checkpoint.model.items(), states, strict=True)}


@pytest.mark.parametrize("form", ["alone", "group"])
@pytest.mark.parametrize("option", [*AVERAGED, *AVERAGED_BY_REG])
def test_the_average_is_judged_and_saved_and_the_weights_are_trained(option: str, form: str, tmp_path: Path) -> None:
    specs = specs_of(option, tmp_path)
    if form == "alone":
        execute(specs[0])
    else:
        execute_group(specs, tmp_path / "group")
    folder = specs[0].folder
    metrics, last, best = folder.metrics(), Checkpoint.load(folder.last_checkpoint), Checkpoint.load(folder.best_checkpoint)
    assert metrics["best_epoch"] == 2, "the last epoch is selected, so that last.ckpt tells of the same weights"
    averages = averages_by_hand(option, last)
    assert last.best is not None
    for name, average in averages.items():
        torch.testing.assert_close(best.model[name], average, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(last.best[name], best.model[name], rtol=0, atol=0)
        assert not torch.allclose(last.model[name], average, rtol=1e-4), "what is trained is something else"

    run = build.run(specs[0].config)
    run.model.double().load_state_dict(last.model)
    run.normalize.for_model(torch.float64, run.memory_format, run.device)
    with holding(named_parameters(run.model), averages):
        for split in ("val", "test"):
            loss, acc = evaluate(run.model, getattr(run.splits, split), getattr(run.splits, split).labels, run.normalize)
            assert (loss, acc) == pytest.approx((metrics[f"{split}/loss"], metrics[f"{split}/acc"]), rel=1e-9)
    assert folder.epochs()[-1]["val/loss"] == metrics["val/loss"]
    trained = evaluate(run.model, run.splits.val, run.splits.val.labels, run.normalize).loss
    assert abs(trained / metrics["val/loss"] - 1) > 1e-4, "evaluating the trained weights would be noticed"


@pytest.mark.parametrize("cls", [ScheduleFreeSGD, ScheduleFreeAdamW])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_schedule_free_optimizers_are_those_of_the_library(
    cls: type[torch.optim.Optimizer], weight_decay: float, float64: None
) -> None:
    """In training and in evaluation, with a warm-up, which theirs does itself."""
    theirs = getattr(pytest.importorskip("schedulefree"), f"{'AdamW' if cls is ScheduleFreeAdamW else 'SGD'}ScheduleFree")
    noise = torch.Generator().manual_seed(0)
    start = torch.randn(5, 4, generator=noise)
    one, other = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizer = cls([one], lr=0.1, weight_decay=weight_decay)
    reference = theirs([other], lr=0.1, weight_decay=weight_decay, warmup_steps=5)
    reference.train()
    for step in range(20):
        gradient = torch.randn(5, 4, generator=noise)
        one.grad, other.grad = gradient, gradient.clone()
        optimizer.param_groups[0]["lr"] = 0.1 * min(1, (step + 1) / 5)
        optimizer.step()
        reference.step()
        torch.testing.assert_close(one, other)
    reference.eval()
    torch.testing.assert_close((one - 0.1 * optimizer.state[one]["z"]) / 0.9, other)


def test_parameters_hold_other_values_for_a_while_even_through_an_error() -> None:
    layer = nn.Linear(3, 2)
    before = layer.weight.detach().clone()

    def differentiate_and_fail() -> None:
        with holding(named_parameters(layer), {"weight": torch.ones(2, 3)}):
            assert torch.equal(layer.weight, torch.ones(2, 3))
            (layer.weight * layer.bias.unsqueeze(1)).sum().backward()
            raise KeyError

    with pytest.raises(KeyError):
        differentiate_and_fail()
    assert torch.equal(layer.weight, before)
    assert torch.equal(layer.bias.grad, torch.full((2,), 3.0)), "gradients can be taken inside"

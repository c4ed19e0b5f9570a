"""Fused groups: every member is the run that it would have been alone."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from conftest import make_job
from ockham.checkpoint import Checkpoint
from ockham.record import RunFolder
from ockham.run import Job, execute, execute_group

BASE = ("data.train_samples=200", "data.batch_size=32", "model.hidden=[16]", "trainer.max_epochs=3", "logger=csv")

OPTIMIZERS = ["sgd", "momentum", "nesterov", "adagrad", "adadelta", "rmsprop", "adam", "nadam", "adamw"]
REGULARIZERS: dict[str, Sequence[str]] = {
    "none": [],
    "l1": ["reg.l1.strength=1e-2"],
    "l1 subgradient": ["reg=l1", "reg.l1.strength=1e-2", "reg.l1.method=subgradient", "reg.l1.include_bias=true"],
    "l2": ["reg.l2.strength=1e-2"],
    "l2 half_mean": ["reg=l2", "reg.l2.strength=0.3", "reg.l2.scale=half_mean", "reg.l2.include_bias=true"],
    "elastic_net": ["reg.elastic_net.strength=1e-2"],
    "elastic_net subgradient": ["reg=elastic_net", "reg.elastic_net.method=subgradient"],
    "weight_decay": ["reg.weight_decay.strength=0.1"],
    "group_lasso": ["reg.group_lasso.strength=1e-2"],
    "max_norm": ["reg.max_norm.limit=0.5"],
    "dropout": ["reg.dropout.input_rate=0.2"],
    "gaussian_dropout": ["reg.gaussian_dropout.input_rate=0.2"],
    "input_noise": [],
    "label_smoothing": [],
    "confidence_penalty": [],
    "early_stopping": ["reg.early_stopping.patience=1"],
    "[dropout,l2,label_smoothing]": [],
}


def reg(name: str) -> list[str]:
    return [*([] if " " in name else [f"reg={name}"]), *REGULARIZERS[name]]


def run_both(folder: Path, members: Sequence[Sequence[str]]) -> tuple[list[Job], list[Job]]:
    """The members alone and as one group; the jobs of both."""
    alone = [make_job(folder / "alone" / str(n), *BASE, *own) for n, own in enumerate(members)]
    fused = [make_job(folder / "fused" / str(n), *BASE, *own) for n, own in enumerate(members)]
    for job in alone:
        execute(job)
    execute_group(fused, folder / "group.ckpt")
    return alone, fused


def assert_close(alone: RunFolder, fused: RunFolder, *, rtol: float = 1e-9) -> None:
    """The same record and the same checkpoints up to rounding."""
    assert len(alone.epochs()) == len(fused.epochs())
    for one, other in zip(alone.epochs(), fused.epochs(), strict=True):
        assert one == pytest.approx(other, rel=rtol, abs=1e-12)
    assert alone.metrics() == pytest.approx(fused.metrics(), rel=rtol, abs=1e-12)
    for name in ("last_checkpoint", "best_checkpoint"):
        one, other = (Checkpoint.load(getattr(run, name)) for run in (alone, fused))
        assert (one.epoch, one.step, one.samples, one.input) == (other.epoch, other.step, other.samples, other.input)
        assert list(one.model) == list(other.model)
        for key in one.model:
            torch.testing.assert_close(one.model[key], other.model[key], rtol=rtol, atol=1e-12)
        if one.optimizer is None or other.optimizer is None:
            assert one.optimizer is other.optimizer is None
            continue
        (group,), (own,) = one.optimizer["param_groups"], other.optimizer["param_groups"]
        assert own == {**group, "lr": pytest.approx(group["lr"])}
        for index, state in one.optimizer["state"].items():
            for key, value in state.items():
                if value is not None:
                    torch.testing.assert_close(value, other.optimizer["state"][index][key], rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_members_equal_single_runs_for_every_regularizer(optimizer: str, tmp_path: Path) -> None:
    members = [[f"optimizer={optimizer}", *reg(name), "trainer.precision=64-true"] for name in REGULARIZERS]
    alone, fused = run_both(tmp_path, members)
    for one, other in zip(alone, fused, strict=True):
        assert_close(one.folder, other.folder)

"""What a group sets on a GPU, as far as it can be seen without one."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from conftest import SMALL, make_spec
from ockham import build
from ockham.fused import group
from ockham.fused.determinism import deterministic
from ockham.record.ledger import Ledger

VARIABLE = "CUBLAS_WORKSPACE_CONFIG"


@pytest.fixture(autouse=True)
def _settings_are_put_back(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, "")
    yield
    torch.use_deterministic_algorithms(False)


def settings() -> tuple[object, ...]:
    return torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark, os.environ.get(VARIABLE)


def test_it_is_what_lightning_sets_for_single_runs() -> None:
    pl.Trainer(deterministic=True, benchmark=False, accelerator="cpu", logger=False, enable_checkpointing=False)
    of_lightning = settings()
    torch.use_deterministic_algorithms(False)
    os.environ[VARIABLE] = ""
    with deterministic(torch.device("cuda")):
        assert settings() == of_lightning
    assert settings()[:2] == (False, False)


def test_a_cpu_is_left_alone() -> None:
    before = settings()
    with deterministic(torch.device("cpu")):
        assert settings() == before


@pytest.mark.parametrize(("accelerator", "expected"), [("cuda", True), ("cpu", False)])
def test_a_group_trains_in_it(accelerator: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while it moves its models, the first that a GPU is used for."""
    seen = []

    class Seen(BaseException):
        pass

    def start(self: group.Group, *arguments: object) -> None:
        seen.append(settings()[0])
        raise Seen

    monkeypatch.setattr(group.Group, "__init__", start)
    spec = make_spec(tmp_path / "run", *SMALL)
    run = build.run(spec.config)
    run = replace(run, settings=replace(run.settings, accelerator=accelerator))
    with pytest.raises(Seen):
        group.train_group([group.Member(run, Ledger(spec))], tmp_path / "group")
    assert seen == [expected]

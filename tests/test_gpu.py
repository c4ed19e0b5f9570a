"""What a CUDA GPU has to show. Skipped where torch sees none."""

from pathlib import Path

import pytest
import torch

from cases import CASES
from comparison import assert_same_run
from conftest import SMALL, make_spec
from ockham import build
from ockham.execute import RunSpec, execute, execute_group
from ockham.record.folder import RunFolder
from sweeps import sweep

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU here"),
]

DOUBLE = "trainer.precision=64-true"
#: Optimizers with and without a state, noise drawn on the device, a proximal step, schedules that do and do not see results.
MEMBERS = [
    ["optimizer=adam", "reg=dropout", "seed=0"],
    ["optimizer=momentum", "reg=l1", "seed=1", "schedule=plateau", "schedule.patience=0", "schedule.min_delta=10"],
    ["optimizer=sgd", "reg=label_smoothing", "seed=0", "schedule=one_cycle"],
]


def specs(folder: Path, *common: str) -> list[RunSpec]:
    return [make_spec(folder / str(n), *SMALL, "trainer=gpu", *overrides, *common) for n, overrides in enumerate(MEMBERS)]


def assert_close(first: RunSpec, second: RunSpec, *, rtol: float) -> None:
    assert len(first.folder.epochs()) == len(second.folder.epochs())
    for one, other in zip(first.folder.epochs(), second.folder.epochs(), strict=True):
        assert one == pytest.approx(other, rel=rtol, abs=rtol)
    assert first.folder.metrics() == pytest.approx(second.folder.metrics(), rel=rtol, abs=rtol)


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_a_run_on_a_gpu_is_the_run_on_a_cpu(model: str, tmp_path: Path) -> None:
    settings = [*(override for override in SMALL if "hidden" not in override), f"model={model}", *CASES["model"][model]]
    pair = [make_spec(tmp_path / where, *settings, f"trainer={where}", "optimizer=adam", DOUBLE) for where in ("cpu", "gpu")]
    for spec in pair:
        execute(spec)
    assert pair[1].folder.status()["device"] == torch.cuda.get_device_name(0)
    assert_close(*pair, rtol=1e-6)


def test_a_member_on_a_gpu_is_the_single_run(tmp_path: Path) -> None:
    alone, fused = specs(tmp_path / "alone", DOUBLE), specs(tmp_path / "fused", DOUBLE)
    for spec in alone:
        execute(spec)
    execute_group(fused, tmp_path / "group")
    for one, other in zip(alone, fused, strict=True):
        assert_close(one, other, rtol=1e-9)


def test_a_repetition_has_the_same_bits(tmp_path: Path) -> None:
    """Of single runs and of groups, in single precision."""
    first, second = ([*specs(tmp_path / name / "alone"), *specs(tmp_path / name / "fused")] for name in "ab")
    for repetition in (first, second):
        for spec in repetition[: len(MEMBERS)]:
            execute(spec)
        execute_group(repetition[len(MEMBERS) :], tmp_path / "group")
    for one, other in zip(first, second, strict=True):
        assert_same_run(one.folder, other.folder, events=False)


def test_the_images_are_on_a_gpu_once(tmp_path: Path) -> None:
    device = torch.device("cuda", 0)
    splits = [build.splits_of(spec.config).to(device) for spec in specs(tmp_path)]
    assert len({split.train.pool.images.data_ptr() for split in splits}) == 1
    assert splits[0].train.pool.images.device == device


def test_slots_share_a_gpu(tmp_path: Path) -> None:
    code, _, errors = sweep(tmp_path / "sweep", "seeds=2", "trainer=gpu", "executor.jobs_per_gpu=2", "fuse=off")
    assert (code, errors) == (0, "")
    for number in range(2):
        assert RunFolder(tmp_path / "sweep" / str(number)).status()["device"] == torch.cuda.get_device_name(0)

"""Devices and threads of slots."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from conftest import compose
from ockham.errors import UserError
from ockham.sweep import slots
from ockham.sweep.slots import check_devices, slot_environments
from sweeps import command_line


def visible(**changes: Any) -> list[str]:
    """The GPUs that each slot sees."""
    settings = compose("executor=processes").executor
    return [place["CUDA_VISIBLE_DEVICES"] for place in slot_environments(OmegaConf.merge(settings, changes))]


@pytest.mark.parametrize(("variable", "gpus"), [("-1", []), ("", []), ("2, 5", ["2", "5"]), ("0,-1,1", ["0"])])
def test_the_environment_says_which_gpus_there_are(variable: str, gpus: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert visible(jobs_per_gpu=2, threads=1)[: 2 * len(gpus) or None] == (gpus * 2 or visible(slots=None, gpus=[], threads=1))


def test_without_a_driver_slots_are_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(slots, "NVIDIA_DEVICES", tmp_path / "absent")
    assert visible(slots=3) == [""] * 3


def test_slots_share_the_gpus_and_a_single_one_has_all() -> None:
    assert visible(gpus=[0, 1], jobs_per_gpu=2) == ["0", "1", "0", "1"]
    assert visible(gpus=[0, 1], slots=3) == ["0", "1", "0"]
    assert visible(gpus=[0, 1], slots=1) == ["0,1"]


@pytest.mark.parametrize("trainer", [("trainer=ddp",), ("trainer.devices=1,2",)])
def test_a_job_of_several_devices_needs_them_for_itself(trainer: tuple[str, ...]) -> None:
    devices = command_line(*trainer).values("trainer.devices")
    for fitting in (("executor=inline",), ("executor.slots=1",), ("executor=slurm", "executor.gpus_per_job=2")):
        check_devices(devices, compose(*fitting).executor)
    with pytest.raises(UserError, match=r"executor\.slots=1, so that each has all devices, or trainer\.devices=1"):
        check_devices(devices, compose().executor)
    with pytest.raises(UserError, match=r"set executor\.gpus_per_job=2, or executor\.threads=2"):
        check_devices(devices, compose("executor=slurm").executor)
    check_devices(command_line("seed=0,1").values("trainer.devices"), compose().executor)

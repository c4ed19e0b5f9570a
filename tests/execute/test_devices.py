"""Several processes for one run: they share the work evenly, end together, and a mistake in one of them is one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from conftest import ROOT, SMALL, make_spec
from ockham.errors import UserError
from ockham.execute import RunSpec
from ockham.execute.devices import on_devices
from ockham.lit.module import shares
from ockham.record.folder import RunFolder

DDP = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.max_epochs=2")


@pytest.mark.parametrize("length", [1, 2, 3, 65, 161])
@pytest.mark.parametrize("devices", [1, 2, 3])
def test_devices_share_a_batch_in_equally_many_parts(length: int, devices: int) -> None:
    batch = torch.arange(length)
    parts = [shares(batch, 32, devices=devices, rank=rank) for rank in range(devices)]
    assert len({len(of_rank) for of_rank in parts}) == 1
    assert sorted(torch.cat([part for of_rank in parts for part in of_rank]).tolist()) == batch.tolist()
    assert max(len(part) for of_rank in parts for part in of_rank) <= 32


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "train.py", *SMALL, *DDP, *arguments]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def children_of(pid: int) -> list[int]:
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(line) for line in listing.split()]


def test_a_terminated_run_ends_its_processes_and_continues(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    process = start("trainer.max_epochs=4000", f"hydra.run.dir={folder.path}")
    while not folder.last_checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.05)
    ranks = children_of(process.pid)
    assert len(ranks) >= 2
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert folder.status()["state"] == "failed"
    assert folder.status()["error"]["message"] == "interrupted"
    deadline = time.monotonic() + 30
    while any(os.path.exists(f"/proc/{pid}") for pid in ranks) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in ranks if os.path.exists(f"/proc/{pid}")]


def refuse(spec: RunSpec, pictures: bool, *, rank: int) -> None:
    """What a rank meets that only the built objects can say."""
    if rank == 1:
        raise UserError("batch norm needs two samples in a batch")


def test_a_mistake_in_a_rank_is_the_users(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="batch norm needs two samples"):
        on_devices(refuse, make_spec(tmp_path / "run", *SMALL, *DDP), False, number=2)

"""Sweeps from the command line: all jobs run whatever happens, and a killed sweep ends as an unbroken one."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from scipy import stats

from conftest import ROOT, SMALL, compose, composed
from ockham import schema
from ockham.core.pace import duration
from ockham.core.statistics import t_interval
from ockham.record.folder import RunFolder
from ockham.sweep.dry_run import estimate
from ockham.sweep.folder import SweepFolder
from ockham.sweep.jobs import Job
from sweeps import CONDITIONAL, start, sweep, table

SETTINGS = ("optimizer=glob(adam*,exclude=adamax)", "reg=none,l2", "reg.l2.strength=1e-3", "seeds=2")


def test_a_sweep_leaves_its_tables(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    code, out, errors = sweep(folder, *SETTINGS)
    assert (code, errors) == (0, "")
    results, summary = table(folder, "results.csv"), table(folder, "summary.csv")
    assert [row["state"] for row in results] == ["finished"] * 8
    assert [row["seed"] for row in results] == ["0", "1"] * 4
    assert {row["optimizer"] for row in results} == {"adam", "adamw"}
    assert [row["n"] for row in summary] == ["2"] * 4
    best = summary[0]
    of_best = [float(row["val/acc"]) for row in results if (row["optimizer"], row["reg"]) == (best["optimizer"], best["reg"])]
    assert float(best["objective"]) == pytest.approx(np.mean(of_best))
    assert float(best["objective"]) == max(float(row["objective"]) for row in summary)
    assert (float(best["objective low"]), float(best["objective high"])) == pytest.approx(t_interval(of_best))
    low, high = max(float(best["objective low"]), 0), min(float(best["objective high"]), 1)
    assert f"{low:.4f} - {high:.4f}" in out, "an accuracy is shown up to 1"
    assert len(table(folder, "costs.csv")) == 8
    assert {path.name for path in folder.iterdir()} >= {"sweep.json", "multirun.yaml", "0", "7", "workers"}
    assert "python train.py data.train_samples=200" in out
    assert "slots were busy" in out
    # The same again has nothing to do.
    before = (folder / "results.csv").read_bytes()
    code, out, _ = sweep(folder, *SETTINGS)
    assert code == 0
    assert "8 of 8 jobs are finished already" in out
    assert (folder / "results.csv").read_bytes() == before


@pytest.mark.parametrize("number", [1, 3], ids=["fused", "search=tpe"])
def test_a_sweep_that_is_killed_ends_as_an_unbroken_one(number: int, tmp_path: Path) -> None:
    command = [sys.executable, "scripts/torture.py", "--parts=kill", f"--only={number}", f"--folder={tmp_path}"]
    proof = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert proof.returncode == 0, proof.stdout + proof.stderr
    assert "kill: 1 of 1 survived" in proof.stdout


def test_another_sweep_in_the_folder_is_refused_with_the_difference(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    assert sweep(folder, "seed=0,1", "trainer=smoke")[0] == 0
    before = (folder / "sweep.json").read_bytes()
    code, _, errors = sweep(folder, "seed=0,1,2", "trainer=smoke")
    assert code == 2
    assert "holds another sweep" in errors
    assert "- seed=0,1\n" in errors
    assert "+ seed=0,1,2" in errors
    assert (folder / "sweep.json").read_bytes() == before
    resumed = subprocess.run(
        [sys.executable, "train.py", f"resume={folder}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert resumed.returncode == 0, resumed.stderr
    assert "2 of 2 jobs are finished already" in resumed.stdout


def test_failures_are_told_when_they_happen_and_the_sweep_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    code, out, errors = sweep(folder, "model.batch_norm=true", "data.train_samples=33,200,100", "retries=1")
    assert code == 1
    assert out.count("#0 failed: batch norm needs two samples in a batch") == 2
    assert f"log: {folder}/0/train.log" in out
    assert "1 of 3 jobs failed" in errors
    assert "Traceback" not in errors
    assert [row["state"] for row in table(folder, "results.csv")] == ["failed", "finished", "finished"]


def test_on_failure_stop_leaves_the_rest_waiting(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    settings = ("model.batch_norm=true", "data.train_samples=33,200,100,50", "on_failure=stop", "executor.slots=1")
    assert sweep(folder, *settings)[0] == 1
    assert [row["state"] for row in table(folder, "results.csv")] == ["failed", *["waiting"] * 3]


def test_a_dry_run_prints_the_jobs_and_leaves_nothing(tmp_path: Path) -> None:
    code, out, errors = sweep(tmp_path / "sweep", *CONDITIONAL, "dry_run=true")
    assert (code, errors) == (0, "")
    assert "30 jobs (42 duplicates dropped)" in out or "30 jobs (0 duplicates dropped)" in out
    assert out.count("waiting") == 30
    groups = [int(line.split()[2].rstrip(":")) for line in out.splitlines() if line.startswith("  group of ")]
    assert groups
    assert sum(groups) <= 30
    assert not (tmp_path / "sweep").exists()


def test_a_group_whose_worker_is_killed_goes_on_as_a_group(tmp_path: Path) -> None:
    """The same bytes as without the kill, in one more attempt of the same group."""
    settings = ("optimizer.lr=0.01,0.001", "trainer.max_epochs=150", "executor.slots=1", "executor.threads=1", "fuse=on")
    assert sweep(tmp_path / "whole", *settings)[0] == 0
    process = start(tmp_path / "killed", *settings)
    while len(RunFolder(tmp_path / "killed" / "1").epochs()) < 5:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.kill(json.loads((tmp_path / "killed" / "0" / "status.json").read_text())["pid"], signal.SIGKILL)
    out, errors = process.communicate()
    assert process.returncode == 0, errors + out
    assert "a group of 2 ended: the worker process died (exit code -9); it is tried again, from its checkpoint" in out
    for name in ("results.csv", "summary.csv", "0/metrics.csv", "1/metrics.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    for number in range(2):
        assert "in a group of 2 runs" in (tmp_path / "killed" / str(number) / "train.log").read_text()
        assert json.loads((tmp_path / "killed" / str(number) / "status.json").read_text())["attempt"] == 2
    # A power cut may bring back what the group continued from, which nothing needs any more.
    left = tmp_path / "killed" / "groups" / "0"
    left.mkdir(parents=True)
    code, out, errors = sweep(tmp_path / "killed", *settings)
    assert (code, errors) == (0, "")
    assert "2 of 2 jobs are finished already" in out
    assert not left.exists()


def test_a_sweep_whose_folder_is_removed_is_one_screen(tmp_path: Path) -> None:
    process = start(tmp_path / "sweep", "seed=range(50)", "fuse=off", "executor.slots=1", "executor.threads=1")
    while RunFolder(tmp_path / "sweep" / "0").state != "finished":
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    shutil.rmtree(tmp_path / "sweep", ignore_errors=True)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert "Traceback" not in errors
    assert f"{tmp_path / 'sweep'} was removed or moved while the sweep was at work in it" in errors
    assert not (tmp_path / "sweep" / "49").exists(), "no job begins a folder without a plan"


def test_a_sweep_over_several_devices_side_by_side_is_a_mistake(tmp_path: Path) -> None:
    code, _, errors = sweep(tmp_path / "sweep", "trainer=ddp", "seed=0,1")
    assert code == 2
    assert "set executor.slots=1" in errors
    assert not (tmp_path / "sweep").exists()


def test_two_processes_share_the_work(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    settings = ("seed=range(6)", "executor.slots=1", "executor.threads=1", "trainer.max_epochs=20")
    processes = [start(folder, *settings) for _ in range(2)]
    for process in processes:
        out, errors = process.communicate()
        assert process.returncode == 0, errors + out
    assert [row["state"] for row in table(folder, "results.csv")] == ["finished"] * 6
    attempts = [json.loads((folder / str(number) / "status.json").read_text())["attempt"] for number in range(6)]
    assert attempts == [1] * 6  # no job was run by both


@pytest.mark.parametrize(
    "send",
    [lambda pid: os.killpg(pid, signal.SIGINT), lambda pid: os.kill(pid, signal.SIGTERM)],
    ids=["Ctrl-C", "SIGTERM to the parent alone"],
)
def test_an_interrupted_sweep_lets_jobs_write_their_state(send: Callable[[int], None], tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    process = subprocess.Popen(
        [sys.executable, "train.py", "-m", *SMALL, "seed=0,1,2", "trainer.max_epochs=5000", f"hydra.sweep.dir={folder}"],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    while not list(folder.glob("*/metrics.csv")):  # its jobs train
        assert process.poll() is None
        time.sleep(0.1)
    send(process.pid)
    process.communicate(timeout=60)
    assert process.returncode == 130
    states = [row["state"] for row in table(folder, "results.csv")]
    assert "running" not in states
    assert "failed" in states
    folder_of = SweepFolder(folder)
    assert folder_of.arguments()[-2:] == ["seed=0,1,2", "trainer.max_epochs=5000"]


def test_a_terminal_shows_one_table_that_stays(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (40, 140))
    command = [
        sys.executable,
        "train.py",
        "-m",
        *SMALL,
        "report=false",
        "executor.slots=2",
        "seeds=4",
        "trainer.max_epochs=300",
    ]
    process = subprocess.Popen([*command, f"hydra.sweep.dir={tmp_path}"], cwd=ROOT, stdout=slave, stderr=slave, close_fds=True)
    os.close(slave)
    shown = b""
    with suppress(OSError):  # what reading from a terminal that was closed raises
        while chunk := os.read(master, 65536):
            shown += chunk
    os.close(master)
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "2 of 2 slots busy, 0 waiting, 0 of 4 ended" in text
    assert re.search(r"#0 and 1 more +\d+/300 +0\.\d{4} .*seed=0,1", text), "a group's epoch, best, and what varies in it"
    assert text.rstrip().splitlines()[-1].strip().startswith("2 slots were busy"), "the table is gone at the end"


def test_a_dry_run_knows_what_training_took_in_sweeps_beside_it(tmp_path: Path) -> None:
    """Two seeds of 8e3 operations that took 3 s and 5 s: 5e-4 s for an operation."""
    choices, config = composed(("data=digits", "model.hidden=[4]", "trainer.max_epochs=2"))
    earlier = tmp_path / "earlier"
    (earlier / "0" / ".hydra").mkdir(parents=True)
    (earlier / "0" / ".hydra" / "config.yaml").write_text(OmegaConf.to_yaml(config))
    (earlier / "sweep.json").write_text(json.dumps({"swept": ["seed"]}))
    (earlier / "costs.csv").write_text("job,train_seconds\n0,3\n1,5\n2,\n")
    (earlier / "results.csv").write_text("job,flops\n0,8e3\n1,8e3\n2,\n")
    (tmp_path / "damaged").mkdir()
    for name in ("sweep.json", "costs.csv"):
        (tmp_path / "damaged" / name).write_text("[")
    content = schema.container(config)
    jobs = [Job(number, (), str(number), "", (), content, choices) for number in range(2)]
    shown = estimate(jobs, SweepFolder(tmp_path / "new"), slots=2)
    operations = float(shown.split(" optimizer steps, ")[1].split()[0])
    assert f"; about {duration(operations * 5e-4 / 2)} on 2 slots, at the pace of earlier sweeps in {tmp_path}" in shown
    other = {**content, "model": {**content["model"], "hidden": [5]}}
    assert "about" not in estimate([replace(jobs[0], content=other)], SweepFolder(tmp_path / "new"), slots=2)


def test_a_dry_run_says_how_many_seeds_tell_arms_apart(tmp_path: Path) -> None:
    """Two configurations of three seeds, with variances of 1e-6 and 3e-6: a difference deviates by sqrt(2 * 2e-6) = 0.002."""
    compared = ("compare=optimizer", "optimizer=sgd,adam", "search=random", "search.trials=2", "dry_run=true")
    earlier = tmp_path / "earlier"
    (earlier / "0" / ".hydra").mkdir(parents=True)
    (earlier / "0" / ".hydra" / "config.yaml").write_text(OmegaConf.to_yaml(compose(*SMALL)))
    (earlier / "sweep.json").write_text(json.dumps({"swept": ["reg", "seed"]}))
    (earlier / "costs.csv").write_text("job,train_seconds\n0,1\n")
    spread = 3**0.5 * 1e-3
    rows = [("l1", 0.9), ("l1", 0.901), ("l1", 0.899), ("l2", 0.5), ("l2", 0.5 + spread), ("l2", 0.5 - spread), ("none", 0.1)]
    lines = "".join(f"{n},{reg},{n},{value!r}\n" for n, (reg, value) in enumerate(rows))
    (earlier / "results.csv").write_text("job,reg,seed,test/acc\n" + lines)
    _, out, errors = sweep(tmp_path / "new", *compared, "confirm=8")
    reaches = stats.t.ppf(0.975, 7) * 0.002 / 8**0.5
    assert f"where test/acc deviates by 0.0014 between seeds, 8 seeds know a difference to +-{reaches:.2g} (as in" in out, (
        errors
    )
    _, out, errors = sweep(tmp_path / "new", *compared, "confirm=auto", "resolve=0.0007", "max_seeds=300")
    levels = [0.05 * 6 / (np.pi * look) ** 2 for look in range(1, 31)]
    reached = [10 * k for k, p in enumerate(levels, 1) if stats.t.ppf(1 - p / 2, 10 * k - 1) * 0.002 / (10 * k) ** 0.5 <= 7e-4]
    assert f"about {reached[0]} seeds of each arm know every difference to +-0.0007" in out, errors
    _, out, errors = sweep(tmp_path / "alone" / "new", *compared, "confirm=auto", "resolve=0.0007")
    assert "where test/acc deviates by 0.01 between seeds, 100 seeds do not suffice" in out, errors

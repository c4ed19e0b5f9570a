"""Sweeps: what the jobs are, that all of them run whatever happens, and that a killed sweep ends as an unbroken one."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from hydra.core.utils import JobReturn, JobStatus
from sklearn.model_selection import StratifiedKFold

from conftest import ROOT, SMALL, compose
from ockham import schema
from ockham.core.statistics import t_interval
from ockham.data.splits import folds
from ockham.sweep.composition import compose_all
from ockham.sweep.executors import Processes
from ockham.sweep.folder import SweepFolder
from ockham.sweep.grid import Grid, grid
from ockham.sweep.jobs import replicates
from ockham.sweep.outcome import Done, Failure
from sweeps import command_line, start, sweep, table

CONDITIONAL = (
    "optimizer=sgd,adam",
    "reg=none,l1,l2",
    "reg.l1.strength=1e-5,1e-4",
    "reg.l2.strength=1e-4,1e-3",
    "seed=0,1,2",
)


def plan(*overrides: str, seeds: Any = None, cv: int | None = None) -> Grid:
    return grid([command_line(*overrides)], replicates(seeds, cv))


# -- the jobs ------------------------------------------------------------------------------------------------------------


def test_several_grids_are_one_sweep() -> None:
    lines = [command_line("reg=none,l2", *own) for own in (
        ["optimizer=sgd", "optimizer.lr=0.1,0.2,0.5"], ["optimizer=adam", "optimizer.lr=1e-3,1e-2"], ["optimizer=adam"]
    )]  # fmt: skip
    made = grid(lines, replicates(2, None))
    assert len(made.jobs) == 2 * 2 * (3 + 2)
    assert made.duplicates == 2 * 2, "the default of adam is among its values"
    assert [job.number for job in made.jobs] == list(range(20))
    assert set(made.swept) == {"reg", "optimizer", "optimizer.lr", "seed"}


def test_a_grid_is_conditional_by_itself() -> None:
    planned = plan(*CONDITIONAL)
    assert len(planned.jobs) == 2 * (1 + 2 + 2) * 3
    assert [job.number for job in planned.jobs] == list(range(30))
    assert len({job.key for job in planned.jobs}) == 30
    assert len({job.configuration for job in planned.jobs}) == 10
    for job in planned.jobs:
        names = {override.partition("=")[0] for override in job.overrides}
        chosen = next(override for override in job.overrides if override.startswith("reg="))
        assert {name for name in names if name.startswith("reg.")} == (
            set() if chosen == "reg=none" else {f"{chosen.replace('=', '.')}.strength"}
        )


def test_each_job_composes_to_what_its_key_says() -> None:
    from ockham.identity import run_key

    for job in plan(*CONDITIONAL, "model.hidden=[8],[8,8]").jobs:
        assert run_key(schema.container(compose(*job.overrides))) == job.key


@pytest.mark.parametrize(
    ("options", "apart"),
    [
        ((("optimizer=sgd", "optimizer=adam", "optimizer=muon"), ("reg=none", "reg=[l1,l2]", "reg=dropout")), True),
        # gd and the data sets both set the batch size.
        ((("optimizer=sgd", "optimizer=gd", "optimizer=adam"), ("data=mnist5k", "data=image_folder", "data=cifar10")), False),
        # An experiment chooses in other groups.
        (
            (("experiment=mnist_dropout", "experiment=image_folder_cnn"), ("reg=none", "reg=l1"), ("model=mlp", "model=cnn")),
            False,
        ),
    ],
)
def test_combinations_are_what_hydra_composes(options: Sequence[Sequence[str]], apart: bool) -> None:
    asked: list[Sequence[str]] = []

    def counted(chosen: Sequence[str]) -> Any:
        asked.append(chosen)
        return compose(*chosen)

    found = dict(compose_all(options, counted))
    every = list(product(*options))
    assert list(found) == every
    for chosen in every:
        assert found[chosen] == schema.resolved(compose(*chosen))
    assert (len(asked) < len(every)) == apart


def test_duplicates_are_run_once() -> None:
    planned = plan("reg=[l1,l2],[l2,l1],none", "optimizer.lr=0.001,1e-3")
    assert [job.overrides for job in planned.jobs] == [
        ("reg=[l1,l2]", "optimizer.lr=0.001"),
        ("reg=none", "optimizer.lr=0.001"),
    ]
    assert planned.duplicates == 4


def test_hydras_sweep_syntax_keeps_its_meaning() -> None:
    values = {
        "seed=range(1,4)": ["1", "2", "3"],
        "model.hidden=[8],[8,4]": ["[8]", "[8,4]"],
        "optimizer.lr=choice(0.1,0.2)": ["0.1", "0.2"],
        "optimizer=glob(ada*)": ["adadelta", "adagrad", "adam", "adamw"],
    }
    for override, expected in values.items():
        assert [job.overrides[0].partition("=")[2] for job in plan(override).jobs] == expected


def test_a_setting_of_no_choice_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="reg.l2.strenght is a setting of none .* did you mean reg.l2.strength"):
        plan("reg=l1,l2", "reg.l2.strenght=1,2")
    with pytest.raises(ValueError, match="optimizer.lr=-1 is not possible"):
        plan("optimizer.lr=0.1,-1", "seed=0,1")
    with pytest.raises(ValueError, match="is an interval, which a grid cannot list"):
        plan("optimizer.lr=interval(0.1,1)")


def test_seeds_and_folds_repeat_each_configuration() -> None:
    planned = plan("optimizer=sgd,adam", seeds=[0, 7], cv=3)
    assert len(planned.jobs) == 2 * 2 * 3
    assert planned.jobs[4].overrides == ("optimizer=sgd", "seed=7", "cv=3", "fold=1")
    assert len({job.configuration for job in planned.jobs}) == 2
    assert planned.swept == ("optimizer", "seed", "cv", "fold")


def test_folds_are_those_of_a_stratified_k_fold() -> None:
    labels = torch.tensor([0] * 23 + [1] * 41 + [2] * 9)
    own = folds(labels, 5, seed=0)
    reference = StratifiedKFold(5).split(np.zeros(len(labels)), labels)
    expected = sorted(np.bincount(labels[test], minlength=3).tolist() for _, test in reference)
    found = sorted(torch.bincount(labels[own == fold], minlength=3).tolist() for fold in range(5))
    assert np.abs(np.array(found) - np.array(expected)).max() <= 1
    assert sorted(len(labels[own == fold]) for fold in range(5)) == [14, 14, 15, 15, 15]
    assert not torch.equal(own, folds(labels, 5, seed=1))


# -- executors -----------------------------------------------------------------------------------------------------------


cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers need not import this module, and torch with it


def returned(value: object) -> JobReturn:
    return JobReturn(_return_value=value, status=JobStatus.COMPLETED)


def execute(executor: Processes, jobs: Sequence[Callable[[], JobReturn]]) -> dict[int, Done]:
    waiting, running, ended = list(enumerate(jobs))[::-1], 0, {}
    try:
        while waiting or running:
            while waiting and running < executor.slots:
                number, job = waiting.pop()
                executor.submit([number], cloudpickle.dumps(job))
                running += 1
            for done in executor.wait(1.0):
                running -= 1
                ended[done.number] = done
    finally:
        executor.close()
    return ended


def environment() -> JobReturn:
    time.sleep(0.3)
    return returned((os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"], os.getpid()))


def test_each_slot_has_its_device_and_is_reused(tmp_path: Path) -> None:
    places = [{"CUDA_VISIBLE_DEVICES": str(gpu), "OMP_NUM_THREADS": "3"} for gpu in (5, 7)]
    ended = execute(Processes(places, logs=tmp_path), [environment] * 6)
    seen = [done.outcome.return_value for done in ended.values()]
    assert {(gpu, threads) for gpu, threads, _ in seen} == {("5", "3"), ("7", "3")}
    assert len({pid for *_, pid in seen}) == 2
    assert "5" not in (os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("OMP_NUM_THREADS"))


def fail() -> JobReturn:
    raise RuntimeError("no")


def test_a_worker_that_dies_or_hangs_fails_its_job_only(tmp_path: Path) -> None:
    jobs = [partial(os._exit, 9), partial(returned, 1), partial(time.sleep, 60), fail, partial(returned, 2)]
    ended = execute(Processes([{}], logs=tmp_path, timeout=15.0), jobs)
    died, late, failed = (ended[number].outcome for number in (0, 2, 3))
    assert isinstance(died, Failure)
    assert isinstance(late, Failure)
    assert isinstance(failed, Failure)
    assert (died.kind, died.interrupted) == ("WorkerDiedError", True)
    assert "exit code 9" in died.reason
    assert (late.kind, late.interrupted) == ("TimeoutError", True)
    assert (failed.kind, failed.reason, failed.interrupted) == ("RuntimeError", "no", False)
    assert "raise RuntimeError" in failed.traceback
    assert [ended[number].outcome.return_value for number in (1, 4)] == [1, 2]


# -- from the command line -----------------------------------------------------------------------------------------------


SETTINGS = ("optimizer=glob(ada[dm]*)", "reg=none,l2", "reg.l2.strength=1e-3", "seeds=2")


def test_a_sweep_leaves_its_tables(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    code, out, errors = sweep(folder, "optimizer=sgd,adam", "reg=none,l2", "reg.l2.strength=1e-3", "seeds=2")
    assert (code, errors) == (0, "")
    results, summary = table(folder, "results.csv"), table(folder, "summary.csv")
    assert [row["state"] for row in results] == ["finished"] * 8
    assert [row["seed"] for row in results] == ["0", "1"] * 4
    assert {row["optimizer"] for row in results} == {"sgd", "adam"}
    assert [row["n"] for row in summary] == ["2"] * 4
    best = summary[0]
    own = [float(row["val/acc"]) for row in results if (row["optimizer"], row["reg"]) == (best["optimizer"], best["reg"])]
    assert float(best["objective"]) == pytest.approx(np.mean(own))
    assert float(best["objective"]) == max(float(row["objective"]) for row in summary)
    assert (float(best["objective low"]), float(best["objective high"])) == pytest.approx(t_interval(own))
    assert len(table(folder, "costs.csv")) == 8
    assert {path.name for path in folder.iterdir()} >= {"sweep.json", "multirun.yaml", "0", "7", "workers"}
    assert "python train.py data.train_samples=200" in out
    assert "slots were busy" in out
    # The same again has nothing to do.
    before = (folder / "results.csv").read_bytes()
    code, out, _ = sweep(folder, "optimizer=sgd,adam", "reg=none,l2", "reg.l2.strength=1e-3", "seeds=2")
    assert code == 0
    assert "8 of 8 jobs are finished already" in out
    assert (folder / "results.csv").read_bytes() == before


@pytest.mark.parametrize(
    "more", [(), ("search=qmc", "search.trials=8", "optimizer.lr=interval(0.01,0.1)")], ids=["grid", "qmc"]
)
def test_a_sweep_killed_again_and_again_ends_as_an_unbroken_one(more: Sequence[str], tmp_path: Path) -> None:
    settings = ("optimizer=sgd,adam", "reg=none,dropout", "trainer.max_epochs=60", *(more or ("seed=0,1",)))
    command = [sys.executable, "scripts/prove_resume.py", "--kills=2", "--seconds=5", f"--folder={tmp_path}", *SMALL, *settings]
    proof = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert proof.returncode == 0, proof.stdout + proof.stderr
    assert "18 files compared, 0 differ" in proof.stdout


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
    code, out, errors = sweep(folder, "data.train_samples=99999,200,100", "retries=1")
    assert code == 1
    assert out.count("#0 failed: error: ") + out.count("#0 failed: data.train_samples=99999 is out of range") == 2
    assert f"log: {folder}/0/train.log" in out
    assert "1 of 3 jobs failed" in errors
    assert "Traceback" not in errors
    assert [row["state"] for row in table(folder, "results.csv")][1:] == ["finished", "finished"]


def test_on_failure_stop_leaves_the_rest_waiting(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    settings = ("data.train_samples=99999,200,100,50", "on_failure=stop", "executor.slots=1")
    assert sweep(folder, *settings)[0] == 1
    assert [row["state"] for row in table(folder, "results.csv")][1:] == ["waiting"] * 3


def test_a_dry_run_prints_the_jobs_and_leaves_nothing(tmp_path: Path) -> None:
    code, out, errors = sweep(tmp_path / "sweep", *CONDITIONAL, "dry_run=true")
    assert (code, errors) == (0, "")
    assert "30 jobs (42 duplicates dropped)" in out or "30 jobs (0 duplicates dropped)" in out
    assert out.count("waiting") == 30
    assert not (tmp_path / "sweep").exists()


def test_two_processes_share_the_work(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    settings = ("seed=range(6)", "executor.slots=1", "trainer.max_epochs=20")
    processes = [start(folder, *settings) for _ in range(2)]
    for process in processes:
        out, errors = process.communicate()
        assert process.returncode == 0, errors + out
    assert [row["state"] for row in table(folder, "results.csv")] == ["finished"] * 6
    attempts = [json.loads((folder / str(number) / "status.json").read_text())["attempt"] for number in range(6)]
    assert attempts == [1] * 6  # no job was run by both


def test_ctrl_c_lets_jobs_write_their_state(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    process = subprocess.Popen(
        [sys.executable, "train.py", "-m", *SMALL, "seed=0,1,2", "trainer.max_epochs=5000", f"hydra.sweep.dir={folder}"],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    while not list(folder.glob("*/checkpoints/last.ckpt")):
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
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
    assert re.search(r"#0 and 1 more +\d+/300 +0\.\d{4} to 0\.\d{4}", text), "the spread of a group's members"
    assert text.rstrip().splitlines()[-1].strip().startswith("2 slots were busy"), "the table is gone at the end"

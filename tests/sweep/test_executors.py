"""Worker processes: their devices, and what happens when they die, hang or fail."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from hydra.core.utils import JobReturn, JobStatus

from conftest import ROOT
from ockham.sweep.executors import START_METHOD, Processes
from ockham.sweep.outcome import EndedTask, Failure

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers need not import this module, and torch with it


def returned(value: object) -> JobReturn:
    return JobReturn(_return_value=value, status=JobStatus.COMPLETED)


def execute(executor: Processes, jobs: Sequence[Callable[[], JobReturn]]) -> dict[int, EndedTask]:
    waiting, running, ended = list(enumerate(jobs))[::-1], 0, {}
    try:
        while waiting or running:
            while waiting and running < executor.slots:
                number, job = waiting.pop()
                executor.submit([number], cloudpickle.dumps(job))
                running += 1
            for ended_task in executor.wait(1.0):
                running -= 1
                ended[ended_task.number] = ended_task
    finally:
        executor.close()
    return ended


def environment() -> JobReturn:
    time.sleep(0.3)
    return returned((os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"], os.getpid()))


def test_each_slot_has_its_device_and_is_reused(tmp_path: Path) -> None:
    places = [{"CUDA_VISIBLE_DEVICES": str(gpu), "OMP_NUM_THREADS": "3"} for gpu in (5, 7)]
    ended = execute(Processes(places, logs=tmp_path), [environment] * 6)
    seen = [ended_task.outcome.return_value for ended_task in ended.values()]
    assert {(gpu, threads) for gpu, threads, _ in seen} == {("5", "3"), ("7", "3")}
    assert len({pid for *_, pid in seen}) == 2
    assert "5" not in (os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("OMP_NUM_THREADS"))


def fail() -> JobReturn:
    raise RuntimeError("no")


def hang(ended: Path) -> JobReturn:
    multiprocessing.util.Finalize(None, ended.touch, exitpriority=0)  # not called in a process that is killed
    time.sleep(60)
    raise AssertionError


def test_a_worker_that_runs_out_of_time_ends_by_itself(tmp_path: Path) -> None:
    """Interrupted, its job writes its state; nobody waits until it has to be killed."""
    ended = execute(Processes([{}], logs=tmp_path, timeout=1.0), [partial(hang, tmp_path / "ended")])
    assert ended[0].outcome.kind == "TimeoutError"
    assert (tmp_path / "ended").exists()


def test_a_worker_that_dies_or_hangs_fails_its_job_only(tmp_path: Path) -> None:
    jobs = [partial(os._exit, 9), partial(returned, 1), partial(time.sleep, 60), fail, partial(returned, 2)]
    ended = execute(Processes([{}], logs=tmp_path, timeout=5.0), jobs)
    died, late, failed = (ended[number].outcome for number in (0, 2, 3))
    assert isinstance(died, Failure)
    assert isinstance(late, Failure)
    assert isinstance(failed, Failure)
    assert (died.kind, died.interrupted) == ("WorkerDiedError", True)
    assert "exit code 9" in died.reason
    assert (late.kind, late.interrupted) == ("TimeoutError", True)
    assert (failed.kind, failed.reason, failed.interrupted) == ("RuntimeError", "no", False)
    assert ", in fail\n" in failed.traceback
    assert [ended[number].outcome.return_value for number in (1, 4)] == [1, 2]


PARENT = """
import os, pathlib, sys, time
import cloudpickle
from ockham.sweep.executors import Processes

def work():
    pathlib.Path(sys.argv[1], "pid").write_text(str(os.getpid()))
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        pathlib.Path(sys.argv[1], "interrupted").touch()
        raise

executor = Processes([{}], logs=pathlib.Path(sys.argv[1]))
try:
    executor.submit([0], cloudpickle.dumps(work))
    while not executor.wait(1.0):
        pass
finally:
    executor.interrupt()
    executor.wait(30.0)
    executor.close()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_worker_ends_with_the_process_that_started_it(number: signal.Signals, tmp_path: Path) -> None:
    """Where that is killed, although what forked the worker lives on; after SIGINT to it alone the job is interrupted."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stderr=subprocess.DEVNULL, env=environment)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert process.poll() is None
        time.sleep(0.05)
    worker = int((tmp_path / "pid").read_text())
    process.send_signal(number)
    process.wait()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{worker}/exe").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}/exe").exists()
    assert (tmp_path / "interrupted").exists() == (number == signal.SIGINT)


@pytest.mark.parametrize("has_started", [False, True])
def test_an_executor_that_is_interrupted_while_a_worker_starts_is_closed(
    has_started: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the process exists, or just after: it is not known yet, and ends by itself."""
    context = multiprocessing.get_context(START_METHOD)
    start = context.Process.start  # type: ignore[attr-defined]  # of the context's own class

    def interrupted(process: Any) -> None:
        if has_started:
            start(process)
        raise KeyboardInterrupt

    executor = Processes([{}], logs=tmp_path)
    monkeypatch.setattr(context.Process, "start", interrupted)  # type: ignore[attr-defined]
    before = set(multiprocessing.active_children())
    with pytest.raises(KeyboardInterrupt):
        executor.submit([0], b"")
    executor.interrupt()
    executor.close()
    for process in set(multiprocessing.active_children()) - before:
        process.join(30)
        assert process.exitcode == 0

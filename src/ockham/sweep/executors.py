"""Where jobs run: in this process, or in worker processes that are reused from job to job."""

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from ockham.sweep.outcome import EndedTask, Failure, Outcome, packed, run_payload, unpacked

#: How workers start: a process that forks others has imported for all of them.
START_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"

#: What every worker needs. Lightning is not: groups do without it.
PRELOADED = ["ockham.execute"]

#: What ends a program besides Ctrl-C: whoever manages processes, and a terminal that is closed. Windows has not all of them.
ENDING_SIGNALS = ("SIGTERM", "SIGHUP")


class WorkerDiedError(RuntimeError):
    """A worker process ended without giving back its job."""


class Executor(Protocol):
    """Runs payloads (cloudpickled functions without arguments that return a JobReturn) on a number of slots."""

    slots: int

    @property
    def busy_seconds(self) -> float:
        """Seconds in which slots had a job, summed over slots."""

    def submit(self, numbers: Sequence[int], payload: bytes) -> None:
        """Start a task of jobs with these numbers, and known by the first; there is a free slot."""

    def wait(self, seconds: float) -> list[EndedTask]:
        """The tasks that ended; waits up to so many seconds for the first."""

    def interrupt(self) -> None:
        """After Ctrl-C: running jobs are to write their state and end."""

    def close(self) -> None:
        """End all workers, also those at work."""


class Inline:
    """One job after the other in this process."""

    slots = 1

    def __init__(self) -> None:
        self._ended: list[EndedTask] = []
        self.busy_seconds = 0.0

    def submit(self, numbers: Sequence[int], payload: bytes) -> None:
        started = time.monotonic()
        self._ended.append(EndedTask(numbers[0], run_payload(payload)))
        self.busy_seconds += time.monotonic() - started

    def wait(self, seconds: float) -> list[EndedTask]:
        ended, self._ended = self._ended, []
        return ended

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass
class Slot:
    """A place for one worker process, with the environment it starts in."""

    name: str
    environment: Mapping[str, str]
    process: Any = None
    connection: Connection | None = None
    number: int | None = None
    started: float = 0.0
    busy_seconds: float = 0.0


class Processes:
    """Worker processes, one a slot, each reused for many jobs so that imports are paid once. There is no batch barrier.

    They are forked from a process that has imported what all of them need (see `prepare`) and done nothing else: no thread
    runs in it, and no GPU was looked at. Where there is no such thing (Windows) each is spawned and imports by itself.
    A worker that dies or runs into the timeout fails its task only; another takes its place.
    """

    def __init__(self, environments: Sequence[Mapping[str, str]], *, logs: Path, timeout: float | None = None) -> None:
        self._slots = [Slot(str(index), environment) for index, environment in enumerate(environments)]
        self.slots = len(self._slots)
        self._logs = logs
        self._timeout = timeout
        self._interrupted = False
        self._context: Any = multiprocessing.get_context(START_METHOD)

    def submit(self, numbers: Sequence[int], payload: bytes) -> None:
        slot = next(slot for slot in self._slots if slot.number is None)
        if slot.process is None:
            self._start(slot)
        assert slot.connection is not None
        slot.number, slot.started = numbers[0], time.monotonic()
        slot.connection.send_bytes(payload)

    def _start(self, slot: Slot) -> None:
        prepare(slot.environment)
        slot.connection, other = self._context.Pipe()
        log = self._logs / f"{slot.name}.log"
        with _environment(slot.environment):  # for what is spawned; what is forked sets it by itself
            process = self._context.Process(target=_work, args=(other, str(log), dict(slot.environment)), daemon=False)
            process.start()
        slot.process = process  # only now: one that Ctrl-C met before can be neither joined nor ended
        other.close()

    def wait(self, seconds: float) -> list[EndedTask]:
        busy = {slot.connection: slot for slot in self._slots if slot.number is not None}
        ready = wait([connection for connection in busy if connection is not None], timeout=seconds)
        ended = [self._receive(busy[connection]) for connection in ready]  # type: ignore[index]
        for slot in self._slots:
            if slot.number is not None and self._timeout and time.monotonic() - slot.started > self._timeout:
                ended.append(self._give_up(slot, TimeoutError(f"stopped after executor.timeout={self._timeout:g} s")))
        return ended

    def _receive(self, slot: Slot) -> EndedTask:
        assert slot.connection is not None
        assert slot.number is not None
        try:
            outcome = unpacked(slot.connection.recv_bytes())
        except (EOFError, OSError):
            slot.process.join()
            return self._give_up(slot, WorkerDiedError(f"the worker process died (exit code {slot.process.exitcode})"))
        number, slot.number = slot.number, None
        slot.busy_seconds += time.monotonic() - slot.started
        return EndedTask(number, outcome)

    def _give_up(self, slot: Slot, error: Exception) -> EndedTask:
        assert slot.number is not None
        _end(slot)
        number, slot.number, slot.process = slot.number, None, None
        slot.busy_seconds += time.monotonic() - slot.started
        return EndedTask(number, Failure.of(error, interrupted=True))

    @property
    def busy_seconds(self) -> float:
        return sum(slot.busy_seconds for slot in self._slots)

    def interrupt(self) -> None:
        """Tell the workers that have a job; a terminal has told them already, and they take it once."""
        self._interrupted = True
        for slot in self._slots:
            if slot.number is not None:
                slot.process.terminate()

    def close(self) -> None:
        for slot in self._slots:
            if slot.process is not None and slot.number is not None and self._interrupted:
                slot.process.kill()  # it had its time to write its state
            elif slot.process is not None and slot.number is not None:
                _end(slot)
            if slot.connection is not None:
                slot.connection.close()  # a worker without a job ends when nobody can give it one
        for slot in self._slots:
            if slot.process is not None:
                slot.process.join()


def prepare(environment: Mapping[str, str]) -> None:
    """Begin to import what workers need, in the process that they are forked from, while this one goes on."""
    if START_METHOD == "forkserver":
        multiprocessing.get_context(START_METHOD).set_forkserver_preload(PRELOADED)
        with _environment({**environment, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}):
            forkserver.ensure_running()  # does nothing where it is running


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Inside the block processes start in a changed environment."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _end(slot: Slot) -> None:
    """End its worker: interrupted, it writes the state of its job, and then finds nobody who could give it another one."""
    assert slot.connection is not None
    slot.process.terminate()
    slot.connection.close()
    slot.process.join(5)
    if slot.process.is_alive():
        slot.process.kill()
        slot.process.join()


def end_with_parent() -> None:
    """Nobody may write into a run folder whose parent was killed: the next process continues the run there.

    The parent is the process that asked for this one. It is not getppid: what forks the workers lives as long as they do.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _interrupt_once() -> None:
    """Ctrl-C, SIGTERM and SIGHUP interrupt this process, the first of them alone: a run has its time to write its state."""
    is_interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal is_interrupted
        if not is_interrupted:
            is_interrupted = True
            raise KeyboardInterrupt

    for name in ("SIGINT", *ENDING_SIGNALS):
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN:
            signal.signal(getattr(signal, name), interrupt)


def _work(connection: Connection, log: str, environment: Mapping[str, str]) -> None:
    """The life of a worker: jobs from the connection until it is closed. What they print goes into a file."""
    os.environ.update(environment)  # CUDA reads it when it is first used
    threads = environment.get("OMP_NUM_THREADS")
    if threads is not None and "torch" in sys.modules:  # which had read it before this process was forked
        sys.modules["torch"].set_num_threads(int(threads))
    _interrupt_once()
    threading.Thread(target=end_with_parent, daemon=True).start()
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", buffering=1) as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
        while True:
            try:
                payload = connection.recv_bytes()
            except (EOFError, ConnectionError, KeyboardInterrupt):
                return
            outcome: Outcome
            try:
                outcome = run_payload(payload)
            except BaseException as error:  # also Ctrl-C and sys.exit: the sweep is told and judges
                outcome = Failure.of(error)
            try:
                connection.send_bytes(packed(outcome))
            except ConnectionError:  # given up by now
                return
            del outcome
            gc.collect()

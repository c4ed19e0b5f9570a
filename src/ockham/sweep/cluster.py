"""Jobs on other machines: a Ray cluster, or Slurm through submitit."""

import io
import math
import os
import sys
import tarfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ockham.errors import UserError
from ockham.sweep.outcome import EndedTask, Failure, packed, run_payload, unpacked

#: How often Ray starts a job again whose machine died; a job continues from its last epoch where the folder is shared.
NODE_FAILURES = 5


class Ray:
    """Tasks on a Ray cluster: a running one, or one that is started on this machine.

    Run folders come back through the file system where the nodes see it, otherwise through Ray's object store.
    Raises UserError where Ray is not installed or the cluster cannot be reached.
    """

    def __init__(
        self, *, address: str | None, slots: int | None, threads: int, gpus_per_job: float, timeout: float | None, folder: Path
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise UserError("executor=ray needs the package ray: pip install 'ockham[ray]'") from error
        self._ray = ray
        environment = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        try:
            ray.init(
                address=address,
                runtime_env={"env_vars": environment},
                log_to_driver=False,
                include_dashboard=False,
                logging_level="WARNING",
            )
        except ConnectionError as error:
            raise UserError(f"no Ray cluster answers at executor.address={address}: {error}") from error
        except RuntimeError as error:  # a cluster that runs another version of Ray or Python
            place = "on this machine" if address is None else f"at executor.address={address}"
            raise UserError(f"the Ray cluster {place} cannot be joined: {error}") from error
        self._folder = folder.resolve()
        self._marker = self._folder / f".shared-{uuid.uuid4().hex}"
        self._marker.touch()
        self._timeout = timeout
        self._threads = threads
        self._remote_run = ray.remote(_run_on_node).options(num_cpus=threads, num_gpus=gpus_per_job, max_retries=NODE_FAILURES)
        resources = ray.cluster_resources()
        room = resources.get("GPU", 0) / gpus_per_job if gpus_per_job else resources.get("CPU", 1) / threads
        self.slots = slots or max(int(room), 1)
        self._running: dict[Any, tuple[int, float]] = {}
        self.busy_seconds = 0.0

    def submit(self, numbers: Sequence[int], payload: bytes) -> None:
        files = _packed(self._folder, ["sweep.json", *map(str, numbers)])  # pruning reads sweep.json
        reference = self._remote_run.remote(
            payload, os.getcwd(), self._threads, numbers, str(self._folder), str(self._marker), files
        )
        self._running[reference] = (numbers[0], time.monotonic())

    def wait(self, seconds: float) -> list[EndedTask]:
        ready, others = self._ray.wait(list(self._running), timeout=seconds)
        ended = [self._receive(reference) for reference in ready]
        for reference in others:
            number, started = self._running[reference]
            if self._timeout and time.monotonic() - started > self._timeout:
                self._ray.cancel(reference, force=True)
                self._end(reference)
                error = TimeoutError(f"stopped after executor.timeout={self._timeout:g} s")
                ended.append(EndedTask(number, Failure.of(error, interrupted=True)))
        return ended

    def _receive(self, reference: Any) -> EndedTask:
        number = self._end(reference)
        try:
            outcome, files = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:  # a task that it lost, or that was cancelled
            return EndedTask(number, Failure.of(error, interrupted=True))
        if files is not None:
            _unpack(files, self._folder)
        return EndedTask(number, unpacked(outcome))

    def _end(self, reference: Any) -> int:
        number, started = self._running.pop(reference)
        self.busy_seconds += time.monotonic() - started
        return number

    def interrupt(self) -> None:
        for reference in self._running:
            self._ray.cancel(reference, force=False)

    def close(self) -> None:
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._marker.unlink(missing_ok=True)
        self._ray.shutdown()


def _run_on_node(
    payload: bytes, cwd: str, threads: int, numbers: Sequence[int], folder: str, marker: str, files: bytes
) -> tuple[bytes, bytes | None]:
    """A task on a node of the cluster: the outcome, and the run folders where the sweep does not see this file system."""
    shared = Path(marker).exists()
    if not shared:
        _unpack(files, Path(folder))
    outcome = _run(payload, cwd, threads)
    return outcome, None if shared else _packed(Path(folder), [str(number) for number in numbers])


def _run(payload: bytes, cwd: str, threads: int) -> bytes:
    """The pickled outcome of a job, in the working directory of the sweep; threads are set before torch is imported."""
    os.environ |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    os.makedirs(cwd, exist_ok=True)
    os.chdir(cwd)
    try:
        return packed(run_payload(payload))
    except BaseException as error:  # an interruption: the sweep is told and judges
        return packed(Failure.of(error))


def _packed(folder: Path, names: Sequence[str]) -> bytes:
    """What of these is in the folder, as an archive."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name in names:
            if (folder / name).exists():
                archive.add(folder / name, arcname=name, filter=lambda m: None if m.name.endswith((".claim", ".lock")) else m)
    return content.getvalue()


def _unpack(content: bytes, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(folder, filter="data")


class Slurm:
    """Slurm jobs through submitit; `cluster=local` runs them as processes of this machine.

    Raises UserError where submitit or Slurm is not there.
    """

    def __init__(
        self,
        *,
        cluster: str | None,
        slots: int,
        threads: int,
        gpus_per_job: int,
        partition: str | None,
        account: str | None,
        timeout: float | None,
        folder: Path,
    ) -> None:
        try:
            import submitit
        except ImportError as error:
            raise UserError("executor=slurm needs the package submitit: pip install 'ockham[slurm]'") from error
        self._uncompleted = submitit.core.utils.UncompletedJobError
        paths = [path for path in sys.path if path]
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))  # jobs inherit the environment
        try:
            self._executor = submitit.AutoExecutor(folder=folder / "slurm", cluster=cluster or "slurm")
        except RuntimeError as error:
            raise UserError(f"executor=slurm finds no Slurm here ({error}): executor.cluster=local runs without it") from error
        self._executor.update_parameters(
            name="ockham",
            cpus_per_task=threads,
            gpus_per_node=gpus_per_job,
            timeout_min=math.ceil((timeout or 24 * 3600) / 60),
            slurm_partition=partition,
            slurm_account=account,
        )
        self.slots = slots
        self._threads = threads
        self._running: dict[int, tuple[Any, float]] = {}
        self.busy_seconds = 0.0

    def submit(self, numbers: Sequence[int], payload: bytes) -> None:
        self._running[numbers[0]] = (self._executor.submit(_run, payload, os.getcwd(), self._threads), time.monotonic())

    def wait(self, seconds: float) -> list[EndedTask]:
        deadline = time.monotonic() + seconds
        while True:
            ready = [number for number, (slurm_job, _) in self._running.items() if slurm_job.done()]
            if ready or time.monotonic() > deadline:
                return [self._receive(number) for number in ready]
            time.sleep(0.1)

    def _receive(self, number: int) -> EndedTask:
        slurm_job, started = self._running.pop(number)
        self.busy_seconds += time.monotonic() - started
        try:
            return EndedTask(number, unpacked(slurm_job.result()))
        except self._uncompleted as error:  # a job that Slurm ended
            return EndedTask(number, Failure.of(error, interrupted=True))

    def interrupt(self) -> None:
        for slurm_job, _ in self._running.values():
            slurm_job.cancel()

    def close(self) -> None:
        self.interrupt()

"""The executor that a sweep runs on, and the devices and threads of its slots."""

import os
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ockham.errors import UserError
from ockham.sweep.executors import Executor, Inline, Processes, prepare

NVIDIA_DEVICES = Path("/proc/driver/nvidia/gpus")


def make_executor(settings: DictConfig, folder: Path) -> Executor:
    """The executor that the group `executor` describes. Raises UserError for settings that contradict each other."""
    if settings.name == "inline":
        return Inline()
    if settings.name == "processes":
        return Processes(slot_environments(settings), logs=folder / "workers", timeout=settings.timeout)
    from ockham.sweep.cluster import Ray, Slurm  # late: packages of their own

    options = {str(key): value for key, value in settings.items() if key != "name"}
    return Ray(**options, folder=folder) if settings.name == "ray" else Slurm(**options, folder=folder)


def prepare_workers(settings: DictConfig) -> None:
    """Let worker processes of this machine begin with their imports."""
    if settings.name == "processes":
        prepare(slot_environments(settings)[0])


def num_slots(settings: DictConfig) -> int:
    """How many tasks run at once, as far as the settings say it; of a cluster that has room for as many as it has, one."""
    if settings.name == "processes":
        return len(slot_environments(settings))
    return 1 if settings.name == "inline" else settings.slots or 1


def slot_environments(settings: DictConfig) -> list[dict[str, str]]:
    """The environment of each slot: its share of the threads, and the GPUs that it sees.

    They are `slots`; where that is not set, GPUs times jobs_per_gpu, or without GPUs as many as cores over threads. Each sees
    one GPU, but a single slot sees all.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpus = _gpus(settings.gpus)
    if settings.slots == 1:
        visible = [",".join(gpus)]
    elif gpus:
        visible = [gpus[slot % len(gpus)] for slot in range(settings.slots or len(gpus) * settings.jobs_per_gpu)]
    else:
        visible = [""] * (settings.slots or max(cores // (settings.threads or 1), 1))
    threads = str(settings.threads or max(cores // len(visible), 1))
    return [{"CUDA_VISIBLE_DEVICES": ids, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads} for ids in visible]


def _gpus(setting: Any) -> list[str]:
    """The ids of the GPUs to use; `auto` takes those that the environment or the driver shows."""
    if setting != "auto":
        return [str(gpu) for gpu in setting or []]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        ids = (gpu.strip() for gpu in visible.split(","))
        return list(takewhile(lambda gpu: gpu and not gpu.startswith("-"), ids))  # CUDA sees none from the first -1 on
    return [str(index) for index, _ in enumerate(NVIDIA_DEVICES.iterdir())] if NVIDIA_DEVICES.is_dir() else []


def check_devices(devices: Iterable[int | str], settings: DictConfig) -> None:
    """Whether a job of so many `devices` has them where it runs: alone on this machine, or in its share of a cluster.

    Raises UserError with the setting that gives them.
    """
    parallel = [wanted for wanted in devices if wanted != 1]
    if not parallel or settings.name == "inline":
        return
    first = parallel[0]
    if settings.name == "processes":
        if settings.slots != 1:
            raise UserError(
                f"trainer.devices={first} trains a job on several devices, and jobs side by side would share them: set "
                f"executor.slots=1, so that each has all devices, or trainer.devices=1"
            )
        return
    share = settings.gpus_per_job or settings.threads
    wanted = max(2 if wanted == "auto" else int(wanted) for wanted in parallel)
    if share < wanted:
        raise UserError(
            f"trainer.devices={first} needs {wanted} devices for each job: set executor.gpus_per_job={wanted}, or "
            f"executor.threads={wanted} on CPUs"
        )

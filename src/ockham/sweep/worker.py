"""What a worker runs: one job as Hydra would run it, or a group of jobs that train together."""

import copy
import logging
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from ockham.core.files import write_atomic
from ockham.record.folder import RunFolder
from ockham.sweep.folder import SweepFolder
from ockham.sweep.fusion import Task


def payload(number: int, overrides: Sequence[str], *, context: HydraContext, config: DictConfig, task: TaskFunction) -> bytes:
    """What a worker runs for a job: Hydra's own run_job, with the configuration composed there."""
    return cloudpickle.dumps(partial(_run_in_worker, number, list(overrides), context, config, task, Singleton.get_state()))


def _run_in_worker(
    number: int, overrides: list[str], context: HydraContext, config: DictConfig, task: TaskFunction, singletons: Any
) -> JobReturn:
    setup_globals()
    Singleton.set_state(singletons)
    job_config = context.config_loader.load_sweep_config(config, overrides)
    with open_dict(job_config):
        job_config.hydra.job.id = str(number)
        job_config.hydra.job.num = number
    HydraConfig.instance().set_config(job_config)
    return run_job(
        hydra_context=context,
        task_function=task,
        config=job_config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )


def group_payload(
    jobs: Task, folder: SweepFolder, common: Mapping[str, Any], *, context: HydraContext, config: DictConfig
) -> bytes:
    """What a worker runs for a group; `common` are settings of the sweep that its jobs have too."""
    entries = [(job.number, job.overrides, {**job.content, **common}) for job in jobs]
    checkpoints = folder.group_checkpoints(jobs[0])
    return cloudpickle.dumps(
        partial(_run_group_in_worker, entries, folder.path, checkpoints, context, config, Singleton.get_state())
    )


def _run_group_in_worker(
    entries: Sequence[tuple[int, Sequence[str], Mapping[str, Any]]],
    folder: Path,
    checkpoints: Path,
    context: HydraContext,
    config: DictConfig,
    singletons: Any,
) -> JobReturn:
    """A group in place of Hydra's run_job: the same files, from one composition."""
    setup_globals()
    Singleton.set_state(singletons)
    first = context.config_loader.load_sweep_config(config, list(entries[0][1]))
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    from ockham import execute  # late: the worker imports torch with the first job

    jobs = []
    for number, overrides, content in entries:
        hydra = copy.deepcopy(first.hydra)
        chosen = dict(override.lstrip("+").split("=", 1) for override in overrides if "=" in override)
        with open_dict(hydra):
            hydra.job.id, hydra.job.num = str(number), number
            hydra.overrides.task = list(overrides)
            hydra.runtime.output_dir = str((folder / str(number)).absolute())
            hydra.runtime.choices.update({group: chosen[group] for group in hydra.runtime.choices if group in chosen})
        files = RunFolder(folder / str(number))
        task_config = OmegaConf.create(dict(content))
        written = {"config": task_config, "hydra": OmegaConf.create({"hydra": hydra}), "overrides": list(overrides)}
        for name, node in written.items():
            write_atomic(files.path / ".hydra" / f"{name}.yaml", OmegaConf.to_yaml(node).encode())
        choices = {str(group): str(option) for group, option in hydra.runtime.choices.items()}
        jobs.append(execute.RunSpec(task_config, choices, tuple(overrides), files))
    execute.execute_group(jobs, checkpoints)
    return JobReturn(status=JobStatus.COMPLETED)

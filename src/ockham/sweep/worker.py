"""What a worker runs: one job as Hydra would run it, or a group of jobs that train together."""

import logging
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, env_override, run_job, setup_globals
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from ockham import schema
from ockham.record.folder import RunFolder
from ockham.record.resume import is_readable
from ockham.sweep.folder import SweepFolder
from ockham.sweep.fusion import Task

if TYPE_CHECKING:
    from ockham.execute import RunSpec


@dataclass(frozen=True)
class Application:
    """What every job of a sweep has of Hydra: `config` is the sweep as a whole, `singletons` the state of Hydra's own."""

    context: HydraContext
    config: DictConfig
    task_function: TaskFunction
    singletons: Any

    @classmethod
    def pickled(cls, context: HydraContext, config: DictConfig, task_function: TaskFunction) -> bytes:
        """As payloads carry it: pickled once, since looking up what cannot be pickled by its name takes its time."""
        return cloudpickle.dumps(cls(context, config, task_function, Singleton.get_state()))

    @classmethod
    def restored(cls, pickled: bytes) -> "Application":
        """The same in a worker, whose own state of Hydra is replaced."""
        application: Application = cloudpickle.loads(pickled)
        setup_globals()
        Singleton.set_state(application.singletons)
        return application


def payload(number: int, overrides: Sequence[str], *, application: bytes) -> bytes:
    """What a worker runs for a job: Hydra's own run_job, with the configuration composed there."""
    return cloudpickle.dumps(partial(_run_in_worker, number, list(overrides), application))


def _run_in_worker(number: int, overrides: list[str], pickled: bytes) -> JobReturn:
    application = Application.restored(pickled)
    job_config = application.context.config_loader.load_sweep_config(application.config, overrides)
    with open_dict(job_config):
        job_config.hydra.job.id = str(number)
        job_config.hydra.job.num = number
        if is_readable(RunFolder(Path(job_config.hydra.sweep.dir) / str(job_config.hydra.sweep.subdir))):
            # A run that continues keeps its files: Hydra would write them again, and a kill meanwhile leave them empty.
            job_config.hydra.output_subdir = None
    HydraConfig.instance().set_config(job_config)
    return run_job(
        hydra_context=application.context,
        task_function=application.task_function,
        config=job_config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )


@dataclass(frozen=True)
class GroupJob:
    """A job of a group, as its worker gets it."""

    number: int
    overrides: tuple[str, ...]
    content: Mapping[str, Any]
    choices: Mapping[str, Any]


def group_payload(
    task: Task, folder: SweepFolder, common: Mapping[str, Any], common_overrides: Sequence[str], *, application: bytes
) -> bytes:
    """What a worker runs for a group. `common` are settings of the sweep that its jobs have too, by overrides of the sweep."""
    jobs = [GroupJob(job.number, (*job.overrides, *common_overrides), {**job.content, **common}, job.choices) for job in task]
    checkpoints = folder.group_checkpoints(task[0])
    return cloudpickle.dumps(partial(_run_group_in_worker, jobs, folder.path, checkpoints, application))


def _run_group_in_worker(jobs: Sequence[GroupJob], sweep_folder: Path, checkpoints: Path, pickled: bytes) -> JobReturn:
    """In place of Hydra's run_job for each member: the same files and calls of callbacks. Nothing is composed here."""
    application = Application.restored(pickled)
    hydra = application.config.hydra
    HydraConfig.instance().set_config(application.config)
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    from ockham.execute import execute_group  # late: the worker imports torch with the first job

    stored: Any = OmegaConf.to_container(hydra, resolve=False)
    specs = [_spec(job, sweep_folder, stored) for job in jobs]
    with env_override(hydra.job.env_set):
        full_configs = _announce(specs, application.context)
        execute_group(specs, checkpoints)
        for spec, full_config in zip(specs, full_configs, strict=False):
            application.context.callbacks.on_job_end(config=full_config, job_return=_job_return(spec, full_config))
    return JobReturn(status=JobStatus.COMPLETED)


def _override_dirname(overrides: Sequence[Override], form: Mapping[str, Any]) -> str:
    """The overrides as the name of a folder, as Hydra's documentation has it for hydra.job.override_dirname."""
    lines = sorted(str(override.input_line) for override in overrides if override.key_or_group not in form["exclude_keys"])
    return str(form["item_sep"]).join(lines).replace("=", str(form["kv_sep"]))


def _spec(job: GroupJob, sweep_folder: Path, of_sweep: Mapping[str, Any]) -> "RunSpec":
    """The member as Hydra would have handed it over: `of_sweep` is Hydra's part of the configuration of the whole sweep.

    What members share of it they share in memory too.
    """
    from ockham.execute import RunSpec

    run_folder = RunFolder(sweep_folder / str(job.number))
    parsed = [_parsed(override) for override in job.overrides]
    dirname = of_sweep["job"]["config"]["override_dirname"]
    of_job = {
        "id": str(job.number),
        "num": job.number,
        "override_dirname": _override_dirname(parsed, dirname),
    }
    # Settings of the sweep that its jobs have too are no part of what the job was composed of.
    choices = {**job.choices, **{one.key_or_group: one.value() for one in parsed if one.key_or_group in job.choices}}
    hydra = {
        **of_sweep,
        "job": {**of_sweep["job"], **of_job},
        "overrides": {**of_sweep["overrides"], "task": list(job.overrides)},
        "runtime": {**of_sweep["runtime"], "output_dir": str(run_folder.path.absolute()), "choices": choices},
    }
    chosen_options = {str(group): str(option) for group, option in choices.items()}
    warnings = tuple(schema.check(job.content))
    return RunSpec(OmegaConf.create(dict(job.content)), chosen_options, job.overrides, run_folder, hydra, warnings)


@lru_cache(maxsize=1024)  # members share most of their overrides, and Hydra's parser takes its time
def _parsed(override: str) -> Override:
    return OverridesParser.create().parse_override(override)


def _announce(specs: Sequence["RunSpec"], context: HydraContext) -> list[DictConfig]:
    """Tell Hydra's callbacks of the jobs; returns the configurations that they see, none where no callback listens to jobs."""
    hooks = ("on_job_start", "on_job_end")
    listening = [
        callback
        for callback in context.callbacks.callbacks
        if any(getattr(type(callback), hook, None) is not getattr(Callback, hook) for hook in hooks)
    ]
    if not listening:
        return []
    full_configs = []
    for spec in specs:
        full_config = OmegaConf.merge(spec.config, {"hydra": spec.hydra})
        assert isinstance(full_config, DictConfig)
        context.callbacks.on_job_start(config=full_config, task_function=_objective)
        full_configs.append(full_config)
    return full_configs


def _objective(config: DictConfig) -> float:
    """What a job of a group returns: the objective that stands in its folder, NaN where it has none."""
    return float(RunFolder(config.hydra.runtime.output_dir).metrics().get("objective", math.nan))


def _job_return(spec: "RunSpec", full_config: DictConfig) -> JobReturn:
    status = spec.folder.status()
    failed = status.get("state") == "failed"
    outcome: Any = RuntimeError(status["error"]["message"]) if failed else _objective(full_config)
    return JobReturn(
        overrides=list(spec.overrides),
        cfg=spec.config,
        hydra_cfg=OmegaConf.create({"hydra": spec.hydra}),
        working_dir=str(Path.cwd()),
        task_name=str(full_config.hydra.job.name),
        status=JobStatus.FAILED if failed else JobStatus.COMPLETED,
        _return_value=outcome,
    )

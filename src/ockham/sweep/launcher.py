"""The launcher's part, for any sweeper and any application: run a batch of jobs on Ockham's executors."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from ockham.sweep.outcome import Failure, Outcome
from ockham.sweep.slots import make_executor
from ockham.sweep.worker import Application, payload

#: Of an application that has no group `executor`: the settings of conf/executor/processes.yaml.
DEFAULT_EXECUTOR = {"name": "processes", "slots": None, "threads": None, "gpus": "auto", "jobs_per_gpu": 1, "timeout": None}


def launch(
    batch: Sequence[Sequence[str]], first: int, *, context: HydraContext, config: DictConfig, task_function: TaskFunction
) -> list[JobReturn]:
    """Run jobs of these overrides, numbered from `first`; returns when all have ended, in order.

    What a job raised is raised by the `return_value` of its JobReturn, as with Hydra's own launcher.
    """
    setup_globals()
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    sweep_dir = Path(str(config.hydra.sweep.dir))
    sweep_dir.mkdir(parents=True, exist_ok=True)
    executor = make_executor(config.get("executor") or OmegaConf.create(DEFAULT_EXECUTOR), sweep_dir)
    application = Application.pickled(context, config, task_function)
    waiting = list(range(len(batch)))[::-1]
    running, returned = 0, {}
    try:
        while waiting or running:
            while waiting and running < executor.slots:
                number = first + waiting.pop()
                executor.submit([number], payload(number, batch[number - first], application=application))
                running += 1
            for ended in executor.wait(1.0):
                running -= 1
                returned[ended.number] = _job_return(ended.outcome, batch[ended.number - first])
    finally:
        executor.close()
    return [returned[number] for number in sorted(returned)]


def _job_return(outcome: Outcome, overrides: Sequence[str]) -> JobReturn:
    if isinstance(outcome, Failure):
        return JobReturn(overrides=overrides, status=JobStatus.FAILED, _return_value=outcome.exception())
    return outcome

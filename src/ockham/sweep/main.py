"""A sweep of Ockham from its arguments to its last table: what the sweeper plugin of Hydra calls."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from ockham import schema
from ockham.core.memory import available_bytes
from ockham.errors import UserError
from ockham.sweep import SweepFailedError
from ockham.sweep.batches import LaunchBatch, run_in_batches
from ockham.sweep.comparison import Comparison
from ockham.sweep.conclusion import conclude, prepare
from ockham.sweep.dry_run import dry_run
from ockham.sweep.execution import Execution, Policy, report_failures
from ockham.sweep.folder import SweepFolder
from ockham.sweep.fusion import Fusion, Task
from ockham.sweep.jobs import Plan
from ockham.sweep.planning import Arguments, command_lines, make_plan, without_hydra
from ockham.sweep.slots import make_executor, num_slots, prepare_workers
from ockham.sweep.summary import sweep_result
from ockham.sweep.worker import Application, group_payload, payload

log = logging.getLogger("ockham")


def sweep(
    arguments: Sequence[str],
    *,
    context: HydraContext,
    config: DictConfig,
    task_function: TaskFunction,
    launch_batch: LaunchBatch | None,
) -> list[Sequence[JobReturn]]:
    """Plan, run what is missing, write the tables, tell the result.

    `launch_batch` is the launch() of a launcher that is not Ockham's; with None jobs go to Ockham's executors one by one.
    Raises UserError for a mistake, before any job starts, and SweepFailedError at the end where jobs failed.
    """
    loader = context.config_loader
    parsed = Arguments.parse(arguments, loader)
    settings = without_hydra(loader.load_sweep_config(config, parsed.for_settings))
    schema.check_sweep(schema.container(settings))
    folder = SweepFolder(str(config.hydra.sweep.dir))
    started = time.monotonic()
    lines = command_lines(parsed.of_jobs, settings, config=config, config_loader=loader)
    if launch_batch is None and not settings.dry_run:
        prepare_workers(settings.executor)  # most mistakes would have been seen by now, and the plan takes its time
    plan = make_plan(lines, settings, folder)
    seconds = time.monotonic() - started
    log.info(
        "%d jobs (%d duplicates dropped), planned in %.1f s: %s", plan.total, plan.duplicates, seconds, folder.path
    )  # fmt: skip
    if settings.dry_run:
        log.info("%s", dry_run(plan, folder, _fusion(folder, settings, slots=num_slots(settings.executor))))
        return []
    with _said_where_it_goes_away(folder):
        folder.begin(parsed.stored, plan)
        OmegaConf.save(config, folder.path / "multirun.yaml")
    prune = {"prune": schema.container(settings.prune)}
    application = Application.pickled(context, config, task_function)

    def payload_of(task: Task) -> bytes:
        if len(task) > 1:
            common = parsed.for_job(task[0])
            return group_payload(task, folder, prune if common else {}, common, application=application)
        (job,) = task
        return payload(job.number, [*job.overrides, *parsed.for_job(job)], application=application)

    failed: SweepFailedError | None = None
    returned: list[Sequence[JobReturn]] = []
    with _said_where_it_goes_away(folder):
        try:
            if launch_batch is None:
                returned = _run_on_slots(plan, folder, settings, payload_of)
            else:
                returned = run_in_batches(plan, folder, launch_batch, common=parsed.for_job)
                folder.write_tables(plan, objective=settings.objective)
                if not isinstance(plan, Comparison):
                    log.info("\n%s", sweep_result(folder.path, objective=settings.objective))
        except SweepFailedError as error:  # raised last, after what the other jobs have shown
            failed = error
        conclude(plan, folder, settings)
        if failed is not None:
            raise failed
    return returned


@contextmanager
def _said_where_it_goes_away(folder: SweepFolder) -> Iterator[None]:
    """What fails inside the block because the folder was removed or moved raises a SweepFailedError that says so."""
    try:
        yield
    except (FileNotFoundError, SweepFailedError, UserError) as error:
        is_of_mistake = isinstance(error, UserError) and not isinstance(error.__cause__, FileNotFoundError)
        if is_of_mistake or folder.plan_file.exists():
            raise
        raise SweepFailedError(
            f"{folder.path} was removed or moved while the sweep was at work in it\n"
            "  the same command begins it again, or continues it where it is moved back"
        ) from error


def _run_on_slots(
    plan: Plan, folder: SweepFolder, settings: DictConfig, payload_of: Callable[[Task], bytes]
) -> list[Sequence[JobReturn]]:
    """Run what is missing on the executor that the settings ask for; tells the result. Raises SweepFailedError."""
    executor = make_executor(settings.executor, folder.path)
    policy = Policy(settings.on_failure, settings.max_failures, settings.retries)
    started = time.monotonic()
    fusion = _fusion(folder, settings, slots=executor.slots)
    execution = Execution(plan, folder, executor, fusion, payload_of, policy, settings.objective)
    execution.run(meanwhile=partial(prepare, plan, settings))
    if not isinstance(plan, Comparison):  # which is told by its arms
        log.info("\n%s", sweep_result(folder.path, objective=settings.objective))
    wall = time.monotonic() - started
    if execution.returned:
        share = executor.busy_seconds / (wall * executor.slots)
        log.info("  %d slots were busy %.0f%% of %.1f s", executor.slots, 100 * share, wall)
    if execution.failures:
        raise SweepFailedError(report_failures(execution.failures, plan.jobs))
    return [[execution.returned[number] for number in sorted(execution.returned)]]


def _fusion(folder: SweepFolder, settings: DictConfig, *, slots: int) -> Fusion:
    memory = available_bytes() if settings.executor.name in ("inline", "processes") else None  # of a cluster: not known here
    return Fusion(folder, mode=settings.fuse, slots=slots, memory=memory)

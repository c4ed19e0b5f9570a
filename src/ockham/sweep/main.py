"""A sweep from the command line to its last table: what the sweeper and launcher plugins of Hydra call."""

import logging
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, configure_log, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from ockham import schema
from ockham.errors import UserError
from ockham.identity import digest
from ockham.record.folder import FINAL, RunFolder
from ockham.sweep import SweepFailedError
from ockham.sweep.execute import Policy, Sweep, report_failures
from ockham.sweep.executors import Executor, Inline, Processes
from ockham.sweep.folder import SweepFolder
from ockham.sweep.fusion import Fusion, Task
from ockham.sweep.space import CommandLine, Job, Plan, grid, plain_text, replicates
from ockham.sweep.summary import sweep_result
from ockham.sweep.worker import group_payload, payload

log = logging.getLogger("ockham")

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


def slot_environments(settings: DictConfig) -> list[dict[str, str]]:
    """The environment of each slot: its share of the threads, and the one GPU that it sees.

    Slots are GPUs times jobs_per_gpu where there are GPUs, otherwise as many as cores over threads.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpus = _gpus(settings.gpus)
    places = [{"CUDA_VISIBLE_DEVICES": gpu} for _ in range(settings.jobs_per_gpu) for gpu in gpus]
    if not places:
        threads = settings.threads or 1
        places = [{"CUDA_VISIBLE_DEVICES": ""} for _ in range(settings.slots or max(cores // threads, 1))]
    threads = settings.threads or max(cores // len(places), 1)
    return [{**place, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)} for place in places]


def _gpus(wanted: Any) -> list[str]:
    """The ids of the GPUs to use; `auto` takes those that the environment or the driver shows."""
    if wanted != "auto":
        return [str(gpu) for gpu in wanted or []]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu]
    return [str(index) for index, _ in enumerate(NVIDIA_DEVICES.iterdir())] if NVIDIA_DEVICES.is_dir() else []


def launch(
    overrides: Sequence[Sequence[str]], first: int, *, context: HydraContext, config: DictConfig, task: TaskFunction
) -> list[JobReturn]:
    """The launcher's part for any sweeper: run a batch of jobs, return when all have ended, in order."""
    setup_globals()
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    sweep_dir = Path(str(config.hydra.sweep.dir))
    sweep_dir.mkdir(parents=True, exist_ok=True)
    settings = config.get("executor") or OmegaConf.create(DEFAULT_EXECUTOR)
    executor = make_executor(settings, sweep_dir)
    waiting = [(first + index, own) for index, own in enumerate(overrides)][::-1]
    running, ended = 0, {}
    try:
        while waiting or running:
            while waiting and running < executor.slots:
                number, own = waiting.pop()
                executor.submit([number], payload(number, own, context=context, config=config, task=task))
                running += 1
            for done in executor.wait(1.0):
                running -= 1
                if not isinstance(done.outcome, JobReturn):
                    raise done.outcome
                ended[done.number] = done.outcome
    finally:
        executor.close()
    return [ended[number] for number in sorted(ended)]


DEFAULT_EXECUTOR = {"name": "processes", "slots": None, "threads": None, "gpus": "auto", "jobs_per_gpu": 1, "timeout": None}


def sweep(
    arguments: Sequence[str],
    *,
    context: HydraContext,
    config: DictConfig,
    task: TaskFunction,
    launch_batch: Callable[[list[list[str]], int], Sequence[JobReturn]] | None,
) -> list[Sequence[JobReturn]]:
    """The sweeper's part: plan, run what is missing, write the tables, tell the result.

    `launch_batch` is the launch() of a launcher that is not Ockham's; with None jobs go to Ockham's executors one by one.
    Raises UserError for a mistake, before any job starts, and SweepFailedError at the end where jobs failed.
    """
    parser = OverridesParser.create(config_loader=context.config_loader)
    parsed = parser.parse_overrides(list(arguments))
    of_sweep = [str(o.input_line) for o in parsed if o.key_or_group.partition(".")[0] in schema.SWEEP_SETTINGS]
    parsed_jobs = [o for o in parsed if str(o.input_line) not in of_sweep]
    of_jobs = [plain_text(o) for o in parsed_jobs]
    for_jobs = [override for override in of_sweep if override.partition("=")[0].partition(".")[0] == "prune"]

    def compose(overrides: Sequence[str]) -> DictConfig:
        return task_settings(context.config_loader.load_sweep_config(config, list(overrides)))

    # An experiment may set the sweep too, and the objective is no setting of the sweep alone. Settings of options stay out:
    # the default options may not have them.
    fixed = [text for text, o in zip(of_jobs, parsed_jobs, strict=True) if "." not in o.key_or_group and not _varies(o)]
    is_ockham = "optimizer" in config and "executor" in config
    settings = compose([*of_sweep, *fixed]) if is_ockham else task_settings(config)
    if is_ockham:
        schema.check(schema.container(settings))
    started = time.monotonic()
    lines = [
        CommandLine.parse(
            [*of_jobs, *own],
            is_group=lambda key: bool(context.config_loader.get_group_options(key.partition("@")[0])),
            compose=compose,
            check=schema.check if is_ockham else None,
        )
        for own in _grids(settings, parsed_jobs, parser)
    ]
    folder = SweepFolder(str(config.hydra.sweep.dir))
    planned = make_plan(lines, settings, folder)
    log.info(
        "%d jobs (%d duplicates dropped), planned in %.1f s: %s",
        planned.total, planned.duplicates, time.monotonic() - started, folder.path,
    )  # fmt: skip
    if settings.get("dry_run"):
        log.info("%s", dry_run(planned, folder))
        if is_ockham:
            log.info("%s", estimate(planned))
        return []
    folder.begin([*of_jobs, *of_sweep], planned)
    OmegaConf.save(config, folder.path / "multirun.yaml")
    if launch_batch is None and not is_ockham:
        launch_batch = partial(launch, context=context, config=config, task=task)

    def payload_of(jobs: Task) -> bytes:
        if len(jobs) > 1:
            common = schema.container(settings.prune)
            return group_payload(jobs, folder, {"prune": common}, for_jobs, context=context, config=config)
        (job,) = jobs
        return payload(job.number, [*job.overrides, *for_jobs], context=context, config=config, task=task)

    failed: SweepFailedError | None = None
    returned: list[Sequence[JobReturn]] = []
    try:
        if launch_batch is None:
            returned = _in_executor(planned, folder, settings, payload_of)
        else:
            objective = str(settings.get("objective"))
            returned = _in_batches(planned, folder, launch_batch, for_jobs, tables=is_ockham, objective=objective)
    except SweepFailedError as error:  # told last, after what the other jobs have shown
        failed = error
    if is_ockham:
        conclude(planned, folder, settings)
    if failed is not None:
        raise failed
    return returned


def conclude(planned: Plan, folder: SweepFolder, settings: DictConfig) -> None:
    """What a sweep shows at its end, also where jobs failed: the report, and in TensorBoard what runs have in common."""
    from ockham.report.reading import read  # late, as all that follows: nothing of it is part of planning

    runs = read([folder.path])
    if settings.logger.tensorboard and runs.runs:
        from ockham.execute import draw
        from ockham.record.events import write_experiment
        from ockham.report.analysis import results
        from ockham.report.means import write_means

        write_experiment(folder.path, [job.content for job in planned.jobs])
        found = results(runs.runs)
        write_means(found, folder.path)
        if found.winner is not None:
            best = found.winner.finished[0].path
            content = next(job.content for job in planned.jobs if str(job.number) == best.name)
            draw(OmegaConf.create(dict(content)), RunFolder(best), folder.path / "best")
    if settings.report and runs.runs:
        from ockham.report.page import write_report

        write_report(runs, folder.path.resolve().name, folder.path)
        log.info("  report   %s", folder.path / "report.html")


def task_settings(config: DictConfig) -> DictConfig:
    """The configuration without Hydra's own part."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def _varies(override: Override) -> bool:
    return override.is_sweep_override() and plain_text(override) == str(override.input_line)


def _grids(settings: DictConfig, said: Sequence[Override], parser: OverridesParser) -> list[list[str]]:
    """The overrides of each of the grids, a single empty one where none are set.

    Raises UserError for what the command line says too.
    """
    grids = [parser.parse_overrides(list(own)) for own in settings.get("grids") or [[]]]
    for override in [override for own in grids for override in own]:
        if override.key_or_group in {other.key_or_group for other in said}:
            raise UserError(f"{override.key_or_group} is set by grids already: leave it out, or say grids=null")
    return [[plain_text(override) for override in own] for own in grids]


def make_plan(lines: Sequence[CommandLine], settings: DictConfig, folder: SweepFolder) -> Plan:
    """The grid of all lines, or the search on one, that the settings of the sweep ask for."""
    repeats = replicates(settings.get("seeds"), settings.get("cv"))
    search = settings.get("search")
    if search is None or search.sampler == "grid":
        return grid(lines, repeats)
    if len(lines) > 1:
        raise UserError(f"search={search.sampler} searches one space: leave grids out, or search=grid")
    (line,) = lines
    from ockham.sweep.search import Search  # late: SciPy and Optuna are no part of a grid
    from ockham.sweep.searchspace import SearchSpace

    return Search(
        SearchSpace.of(line, schema.check),
        folder,
        sampler=search.sampler,
        trials=search.trials,
        seed=search.seed,
        replicates=repeats,
        objective=settings.objective,
    )


def _in_batches(
    planned: Plan,
    folder: SweepFolder,
    launch_batch: Callable[[list[list[str]], int], Sequence[JobReturn]],
    for_jobs: Sequence[str],
    *,
    tables: bool,
    objective: str,
) -> list[Sequence[JobReturn]]:
    """With another launcher: whatever is missing, in runs of consecutive numbers, since launch() takes only the first."""
    returned = []
    jobs: Sequence[Job] = planned.jobs or planned.more()
    while jobs:
        missing = [job for job in jobs if folder.run(job).state not in FINAL]
        for _, block in groupby(enumerate(missing), key=lambda pair: pair[1].number - pair[0]):
            batch = [job for _, job in block]
            returned.append(launch_batch([[*job.overrides, *for_jobs] for job in batch], batch[0].number))
            for job_return in returned[-1]:
                _ = job_return.return_value  # raises where the job failed, as Hydra's own sweeper does
        jobs = planned.more()
    if tables:
        folder.write_tables(planned, objective=objective)
        log.info("\n%s", sweep_result(folder.path, objective=objective))
    return returned


def _in_executor(
    planned: Plan, folder: SweepFolder, settings: DictConfig, payload_of: Callable[[Task], bytes]
) -> list[Sequence[JobReturn]]:
    executor = make_executor(settings.executor, folder.path)
    policy = Policy(settings.on_failure, settings.max_failures, settings.retries)
    started = time.monotonic()
    fusion = Fusion(folder, mode=settings.fuse, slots=executor.slots)
    running = Sweep(planned, folder, executor, fusion, payload_of, policy, settings.objective)
    running.run()
    log.info("\n%s", sweep_result(folder.path, objective=settings.objective))
    wall = time.monotonic() - started
    if running.returned:
        share = executor.busy_seconds / (wall * executor.slots)
        log.info("  %d slots were busy %.0f%% of %.1f s", executor.slots, 100 * share, wall)
    if running.failures:
        raise SweepFailedError(report_failures(running.failures, planned.jobs))
    return [[running.returned[number] for number in sorted(running.returned)]]


def estimate(planned: Plan) -> str:
    """Optimizer steps and floating-point operations of all jobs; those of a search cannot be known before it."""
    if not planned.jobs:
        return f"  {planned.total} jobs of a search, which chooses them as results come in; swept: {', '.join(planned.swept)}"
    from ockham import build
    from ockham.record import cost  # late: torch is no part of planning

    by_shape: dict[str, tuple[int, float]] = {}
    steps, flops = 0, 0.0
    for job in planned.jobs:
        shape = digest({key: job.content[key] for key in ("data", "model", "trainer", "cv")})
        if shape not in by_shape:
            made = build.run(OmegaConf.create(dict(job.content)))
            per_sample = cost.flops_per_sample(made.model, made.normalize.shape)
            by_shape[shape] = (made.total_steps, per_sample * made.num_epochs * len(made.splits.train))
        steps, flops = steps + by_shape[shape][0], flops + by_shape[shape][1]
    return f"  {steps:,} optimizer steps, {flops:.3g} floating-point operations in training"


def dry_run(planned: Plan, folder: SweepFolder) -> str:
    """The jobs, their folders and whether they are finished already."""

    def line(job: Job) -> str:
        return f"  #{job.number:<4} {folder.run(job).state or 'waiting':<9} {' '.join(job.overrides)}"

    return "\n".join([*(line(job) for job in planned.jobs), f"  folders: {folder.path}/<number>"])

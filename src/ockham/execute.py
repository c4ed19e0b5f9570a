"""The one callable that every launcher and sweeper calls."""

import logging
import math
import os
import shutil
import socket
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.multiprocessing
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from ockham import build, schema
from ockham.core.metrics import Scores, logits_of
from ockham.core.selection import maximised
from ockham.data import Normalize
from ockham.fused.group import Member, finished_epochs_of, train_group
from ockham.lit import fit
from ockham.record import screen
from ockham.record.checkpoint import Checkpoint
from ockham.record.events import EventWriter, hparam_settings, write_pictures
from ockham.record.final import final_pictures, finish
from ockham.record.folder import FINAL, RunFolder
from ockham.record.resume import check_resumable, stored_choices, stored_config
from ockham.run import Run, memory_format_of
from ockham.sweep.prune import pruner

log = logging.getLogger("ockham")

#: Of train.log, as in conf/hydra/job_logging.
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@dataclass(frozen=True)
class RunSpec:
    """One run: its configuration, the option chosen in each group, the overrides behind both, its folder."""

    config: DictConfig
    choices: Mapping[str, str]
    overrides: tuple[str, ...]
    folder: RunFolder


def run_job(config: DictConfig) -> float:
    """Train the classifier that `config` describes; returns the objective at the selected weights, NaN if it diverged.

    Works in the output folder that Hydra gave this job. A run that was interrupted there continues from its last epoch.
    Raises UserError for a configuration that cannot work, naming the override to change.
    """
    hydra = HydraConfig.get()
    folder = RunFolder(hydra.runtime.output_dir)
    overrides = tuple(hydra.overrides.task)
    choices = {str(group): str(option) for group, option in hydra.runtime.choices.items()}
    if config.resume is not None:
        config, choices = stored_config(folder, overrides, trust=config.trust), stored_choices(folder)
    with folder.locked():
        if hydra.mode == RunMode.MULTIRUN and folder.state == "finished":
            # The worker of a sweep that was killed came to the end after the next one had begun.
            return float(folder.metrics()["objective"])
        check_resumable(folder)
        for warning in schema.check(schema.container(config)):
            log.warning("warning: %s", warning)
        return execute(RunSpec(config, choices, overrides, folder), pictures=hydra.mode == RunMode.RUN)


def execute(job: RunSpec, *, pictures: bool = True) -> float:
    """Run the job to its end, in this process or in one process per device; whatever happens is told in status.json.

    The final `pictures` take a second, which the many runs of a sweep do without.
    """
    with _failure_told([job]):
        devices = build.settings_of(job.config, num_samples=1).devices
        if devices > 1:
            # Spawned, since a process that has used CUDA cannot be forked; told their places as by torchrun.
            arguments = (job, devices, _free_port(), pictures)
            torch.multiprocessing.start_processes(_worker, arguments, nprocs=devices, start_method="spawn")
        else:
            train(job, rank=0, pictures=pictures)
    if job.folder.state == "diverged":
        log.info("diverged: %s", job.folder.status()["error"]["message"])
        log.info("  everything until then is in %s", job.folder.path)
        return math.nan
    if job.folder.state == "pruned":
        epochs = job.folder.epochs()
        log.info("pruned after epoch %d of its sweep: others are ahead", len(epochs))
        best = max if maximised(job.config.objective) else min
        return best(row[job.config.objective] for row in epochs)
    log.info("%s", screen.result(job.folder))
    return float(job.folder.metrics()["objective"])


@contextmanager
def _failure_told(jobs: Sequence[RunSpec]) -> Iterator[None]:
    """Whatever ends the jobs inside the block, their folders say so; the error itself goes on."""
    try:
        yield
    except BaseException as error:
        reason = "interrupted" if isinstance(error, (KeyboardInterrupt, SystemExit)) else str(error)
        for job in jobs:
            if job.folder.state == "running":
                job.folder.end("failed", error=reason or type(error).__name__, overrides=job.overrides)
            with job.folder.log_file.open("a") as file:
                traceback.print_exc(file=file)
        raise


def train(job: RunSpec, *, rank: int, pictures: bool) -> None:
    """What one process does: build, fit from the last checkpoint on, and on rank 0 the final figures."""
    run = build.run(job.config, rank=rank)
    folder = job.folder
    checkpoint = Checkpoint.load(folder.last_checkpoint) if folder.last_checkpoint.exists() else None
    if rank == 0:
        _begin(job, run, checkpoint)
    events = None
    if rank == 0 and job.config.logger.tensorboard:
        events = _events(job, run, past_step=checkpoint.step if checkpoint else 0)
    try:
        prune = pruner(job.config.prune, folder, job.config.objective)
        fit(run, folder, checkpoint, events=events, prune=prune)
        if rank == 0 and folder.state == "running":
            finish(run, folder, events, pictures=pictures)
    finally:
        if events is not None:
            events.close()


def _events(job: RunSpec, run: Run, *, past_step: int) -> EventWriter:
    settings = hparam_settings(schema.container(job.config))
    return EventWriter(job.folder.path, settings, past_step=past_step, num_epochs=run.num_epochs)


def draw(config: DictConfig, folder: RunFolder, events: Path) -> None:
    """The final pictures of a finished run into the folder `events`: runs of a sweep are not drawn, but its best one is."""
    best = Checkpoint.load(folder.best_checkpoint)
    spec, test = best.input, build.splits_of(config).test
    model = build.trained_model(config, spec, best.model)
    normalize = Normalize(spec.mean, spec.std, spec.shape)
    normalize.for_model(next(model.parameters()).dtype, memory_format_of(model), torch.device("cpu"))
    logits = logits_of(model, test.images, normalize)
    write_pictures(events, final_pictures(model, spec, test, logits), int(folder.metrics()["steps"]))


def execute_group(jobs: Sequence[RunSpec], checkpoints: Path) -> None:
    """Train the jobs as one group that continues from the folder `checkpoints`; each leaves its own run folder.

    A job that has ended for good keeps its folder as it is. Folds of unequal size take turns, since batches are shared.
    """
    with ExitStack() as locks:
        for job in jobs:
            locks.enter_context(job.folder.locked())
        checkpoints.mkdir(parents=True, exist_ok=True)  # tells a group that was killed from jobs that began alone
        made = build.runs([job.config for job in jobs])
        sizes = dict.fromkeys(len(run.splits.train) for run in made)
        for size in sizes:
            part = [(job, one) for job, one in zip(jobs, made, strict=True) if len(one.splits.train) == size]
            _execute_members(part, checkpoints / f"{size}.ckpt")
        shutil.rmtree(checkpoints, ignore_errors=True)


def _execute_members(made: Sequence[tuple[RunSpec, Run]], checkpoint: Path) -> None:
    """The members of a group that share their batches; those that have ended for good are computed and leave nothing."""
    waiting = [job for job, _ in made if job.folder.state not in FINAL]
    epochs = finished_epochs_of(checkpoint)
    with ExitStack() as writers, _failure_told(waiting):
        members = []
        for job, run in made:
            events = None
            if job in waiting and job.config.logger.tensorboard:
                events = _events(job, run, past_step=epochs * run.steps_per_epoch)
                writers.callback(events.close)
            if job in waiting:
                _begin_member(job, run, epochs, group_size=len(made))
            prune = pruner(job.config.prune, job.folder, job.config.objective)
            finish_member = partial(_finish_member, job, run, events)
            members.append(Member(run, job.folder if job in waiting else None, events, prune, finish_member))
        train_group(members, checkpoint)


def _begin_member(job: RunSpec, run: Run, finished_epochs: int, *, group_size: int) -> None:
    device = _device_name(run)
    summary = screen.summary(job.config, job.choices, _facts(run, device), job.folder)
    _note(job.folder, "in a group of %d runs\n%s", group_size, summary)
    for warning in schema.check(schema.container(job.config)):
        _note(job.folder, "warning: %s", warning)
    job.folder.keep_epochs(finished_epochs)
    job.folder.begin(device=device)


def _finish_member(job: RunSpec, run: Run, events: EventWriter | None, evaluated: Mapping[str, Scores]) -> None:
    finish(run, job.folder, events, pictures=False, evaluated=evaluated)
    _note(job.folder, "\n%s", screen.result(job.folder))


def _note(folder: RunFolder, message: str, *arguments: object) -> None:
    """A line in the train.log of one run of several in this process."""
    record = logging.LogRecord(log.name, logging.INFO, __file__, 0, message, arguments, None)
    with folder.log_file.open("a") as file:
        file.write(logging.Formatter(LOG_FORMAT).format(record) + "\n")


def _begin(job: RunSpec, run: Run, checkpoint: Checkpoint | None) -> None:
    device = _device_name(run)
    log.info("%s", screen.summary(job.config, job.choices, _facts(run, device), job.folder))
    if checkpoint is None:
        job.folder.keep_epochs(0)
    else:
        log.info("continuing after epoch %d, step %d", checkpoint.epoch, checkpoint.step)
        job.folder.keep_epochs(checkpoint.epoch)
    job.folder.begin(device=device)


def _facts(run: Run, device: str) -> dict[str, str]:
    """What the summary tells that stands in no configuration."""
    splits, settings = run.splits, run.settings
    batch = f"{settings.batch_size} samples" if settings.shuffle else "the whole training split"
    batch += f" x {settings.accumulate} accumulated" if settings.accumulate > 1 else ""
    return {
        "data": f"{len(splits.train):,} train, {len(splits.val):,} val, {len(splits.test):,} test; "
        f"{len(splits.classes)} classes, input {' x '.join(map(str, run.normalize.shape))}",
        "model": f"{run.num_parameters:,} parameters",
        "length": f"{run.num_epochs} epochs of {run.steps_per_epoch} steps, {batch} each",
        "device": f"{device}, {settings.precision}",
    }


def _device_name(run: Run) -> str:
    settings = run.settings
    on_cuda = settings.accelerator == "cuda"
    name = torch.cuda.get_device_name(0) if on_cuda else f"cpu, {torch.get_num_threads()} threads"
    return name if settings.devices == 1 else f"{settings.devices} x {name}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _worker(rank: int, job: RunSpec, devices: int, port: int, pictures: bool) -> None:
    """One process of several, on device `rank`."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": devices, "LOCAL_WORLD_SIZE": devices}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "ockham"}
    os.environ.update({key: str(value) for key, value in {**place, **address}.items()})
    torch.set_num_threads(max(torch.get_num_threads() // devices, 1))
    _log_in_worker(job.folder, rank)
    try:
        train(job, rank=rank, pictures=pictures)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _log_in_worker(folder: RunFolder, rank: int) -> None:
    """Logging as Hydra set it up in the parent, from rank 0 alone."""
    if rank:
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
        return
    file = logging.FileHandler(folder.log_file)
    file.setFormatter(logging.Formatter(LOG_FORMAT))
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[logging.StreamHandler(sys.stdout)])
    logging.getLogger().addHandler(file)

"""What a sweep shows at its end, also where jobs failed: the report, and in TensorBoard what runs have in common."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cloudpickle
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from ockham import schema
from ockham.identity import REPLICATES
from ockham.record.folder import RunFolder
from ockham.record.screen import shown_path
from ockham.sweep.comparison import Comparison
from ockham.sweep.executors import Executor, Inline, Processes
from ockham.sweep.folder import SweepFolder
from ockham.sweep.jobs import Plan
from ockham.sweep.outcome import Failure
from ockham.sweep.slots import slot_environments
from ockham.sweep.summary import sweep_result

if TYPE_CHECKING:
    from ockham.report.means import Mean
    from ockham.report.reading import RecordedRuns

log = logging.getLogger("ockham")

#: In a sweep folder what TensorBoard is to show of it: few enough runs that it shows them all.
TENSORBOARD = "tensorboard"


def prepare(plan: Plan, settings: DictConfig) -> None:
    """Do what the conclusion needs whatever the results are, so that nobody waits for it at the end.

    What fails here fails there again and is told there: training does not depend on it.
    """
    if not settings.report:
        return
    with suppress(Exception):
        from ockham.report.page import library

        library()
        if len(plan.swept) > 1:
            import optuna.importance  # noqa: F401  # the figure of what mattered; it takes scikit-learn


def conclude(plan: Plan, folder: SweepFolder, settings: DictConfig) -> None:
    """Write them into the sweep folder, as far as the settings ask for them: the report, then what takes longer."""
    from ockham.report.reading import evidence, read  # late, as all that follows: nothing of it is part of planning

    recorded = read([folder.path])
    if not recorded.runs:
        return
    if settings.report:
        from ockham.report.page import write_report

        _draw_regularizers(recorded, plan, folder, settings)
        write_report(recorded, folder.path.resolve().name, folder.path)
        log.info("  report   %s", folder.path / "report.html")
    if settings.logger.tensorboard:
        from ockham.report.analysis import analyse
        from ockham.report.means import means

        results = analyse(evidence(recorded))
        best = None if results.winner is None else int(results.winner.finished[0].path.name)
        shown = _Shown({job.number: (job.content, job.choices) for job in plan.jobs}, plan.swept, means(results), best)
        _run(partial(_show_in_tensorboard, folder.path, shown), folder, settings.executor)
        log.info("  look     tensorboard --logdir %s", shown_path(folder.path / TENSORBOARD))


def _draw_regularizers(recorded: "RecordedRuns", plan: Plan, folder: SweepFolder, settings: DictConfig) -> None:
    """The pictures for the page of the best run of each regularizer, where there are several."""
    from ockham.report.analysis import analyse, best_by_regularizer
    from ockham.report.page import PICTURE_FOLDER
    from ockham.report.reading import evidence

    best = best_by_regularizer(analyse(evidence(recorded)))
    folders = [RunFolder(configuration.finished[0].path) for configuration in best.values()]
    numbers = [int(run.path.name) for run in folders if run.best_checkpoint.exists()]
    if len(numbers) > 1:
        contents = {job.number: job.content for job in plan.jobs if job.number in numbers}
        _run(partial(_save_pictures, folder.path, contents, PICTURE_FOLDER), folder, settings.executor)


def _save_pictures(sweep: Path, contents: Mapping[int, schema.Content], pictures: str) -> JobReturn:
    from ockham.execute import save_pictures

    for number, content in contents.items():
        save_pictures(OmegaConf.create(dict(content)), RunFolder(sweep / str(number)), sweep / pictures / str(number))
    return JobReturn(status=JobStatus.COMPLETED)


def result(plan: Plan, folder: SweepFolder, objective: str) -> str:
    """What the screen tells: the best configurations, or of a comparison its arms."""
    if not isinstance(plan, Comparison):
        return sweep_result(folder.path, objective=objective)
    from ockham.report.arms import arms_of  # late, as in `conclude`
    from ockham.report.arms_sections import lines_of
    from ockham.report.reading import read

    recorded = read([folder.path])
    arms = arms_of(recorded)
    notes = dict.fromkeys(run.note for run in recorded.runs if run.note)
    lines = ["nothing is confirmed: no search has come to its end"] if arms is None else lines_of(arms)
    lines += ["", f"tables   {shown_path(folder.path)}/*.csv", *(f"note     {note}" for note in notes)]
    return "\n".join(f"  {line}".rstrip() for line in lines)


def _run(function: Callable[[], JobReturn], folder: SweepFolder, settings: DictConfig) -> None:
    """Run it where torch is imported already: in a worker, or in this process after inline jobs. Raises what it raises."""
    executor: Executor = Inline()
    if settings.name == "processes":
        executor = Processes(slot_environments(settings)[:1], logs=folder.path / "workers")
    try:
        executor.submit([0], cloudpickle.dumps(function))
        while not (ended := executor.wait(1.0)):
            pass
    finally:
        executor.close()
    if isinstance(ended[0].outcome, Failure):
        raise ended[0].outcome.exception()


@dataclass(frozen=True)
class _Shown:
    """What TensorBoard is told of a sweep: configuration and options of each job by number, the means, and the best job."""

    jobs: Mapping[int, tuple[schema.Content, Mapping[str, str]]]
    swept: Sequence[str]
    means: Sequence["Mean"]
    best: int | None


def _show_in_tensorboard(sweep: Path, shown: _Shown) -> JobReturn:
    """Write a folder of its own with the means over seeds and the pictures of the best job.

    Curves of members stay in their run folders, where they are those of the same run alone: who wants all of them opens the
    sweep folder, whose record for the HParams tab has the settings of all jobs.
    """
    from ockham.execute import draw
    from ockham.record.events import hparam_settings, write_experiment
    from ockham.report.means import write_means

    folder = sweep / TENSORBOARD
    hparams = {number: hparam_settings(content, choices) for number, (content, choices) in shown.jobs.items()}
    write_experiment(sweep, list(hparams.values()), swept=shown.swept)
    of_means = {
        mean.label: {key: value for key, value in hparams[int(mean.folder)].items() if key not in REPLICATES}
        for mean in shown.means
    }
    write_experiment(folder, list(of_means.values()), swept=shown.swept)
    write_means(shown.means, folder, of_means)
    if shown.best is not None:
        content, _ = shown.jobs[shown.best]
        draw(OmegaConf.create(dict(content)), RunFolder(sweep / str(shown.best)), folder / "best")
    return JobReturn(status=JobStatus.COMPLETED)

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
from ockham.record.screen import printable, shown_path
from ockham.sweep.comparison import Comparison
from ockham.sweep.executors import Executor, Inline, Processes
from ockham.sweep.folder import SweepFolder
from ockham.sweep.jobs import Plan
from ockham.sweep.outcome import Failure
from ockham.sweep.slots import slot_environments

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
    """Tell the result, and write into the sweep folder what the settings ask for: the page, then what has to be drawn.

    Nobody waits for pictures to see the page: where it has some, it is written once more with them.
    """
    from ockham.report.reading import read  # late, as all that follows: nothing of it is part of planning

    recorded = read([folder.path])
    if isinstance(plan, Comparison):
        log.info("\n%s", _arms(recorded, folder))
    if not recorded.runs:
        return
    drawings: list[Callable[[], object]] = []
    pictured: dict[int, schema.Content] = {}
    if settings.report:
        from ockham.report.page import PICTURE_FOLDER, write_report

        write_report(recorded, folder.path.resolve().name, folder.path)
        log.info("  report   %s", folder.path / "report.html")
        pictured = _best_of_regularizers(recorded, plan)
        drawings += [partial(_save_pictures, folder.path, pictured, PICTURE_FOLDER)] if pictured else []
    if settings.logger.tensorboard:
        drawings.append(partial(_show_in_tensorboard, folder.path, _shown(recorded, plan)))
    if drawings:
        with folder.locked():  # each process that shared the work replaces the files of the one before
            _run(partial(_draw, drawings), folder, settings.executor)
    if settings.logger.tensorboard:
        log.info("  look     tensorboard --logdir %s", shown_path(folder.path / TENSORBOARD))
    if pictured:
        write_report(recorded, folder.path.resolve().name, folder.path)


def _best_of_regularizers(recorded: "RecordedRuns", plan: Plan) -> dict[int, schema.Content]:
    """The configuration of the best run of each regularizer, by its number; none where there are not several."""
    from ockham.report.analysis import analyse, best_by_regularizer
    from ockham.report.reading import evidence

    best = best_by_regularizer(analyse(evidence(recorded)))
    folders = [RunFolder(configuration.finished[0].path) for configuration in best.values()]
    numbers = [int(run.path.name) for run in folders if run.best_checkpoint.exists()]
    return {job.number: job.content for job in plan.jobs if job.number in numbers} if len(numbers) > 1 else {}


def _shown(recorded: "RecordedRuns", plan: Plan) -> "_Shown":
    from ockham.report.analysis import analyse
    from ockham.report.means import means
    from ockham.report.reading import evidence

    results = analyse(evidence(recorded))
    best = None if results.winner is None else int(results.winner.finished[0].path.name)
    return _Shown({job.number: (job.content, job.choices) for job in plan.jobs}, plan.swept, means(results), best)


def _draw(drawings: Sequence[Callable[[], object]]) -> JobReturn:
    for draw in drawings:
        draw()
    return JobReturn(status=JobStatus.COMPLETED)


def _save_pictures(sweep: Path, contents: Mapping[int, schema.Content], pictures: str) -> None:
    from ockham.execute import save_pictures

    for number, content in contents.items():
        save_pictures(OmegaConf.create(dict(content)), RunFolder(sweep / str(number)), sweep / pictures / str(number))


def _arms(recorded: "RecordedRuns", folder: SweepFolder) -> str:
    """What the screen tells of a comparison."""
    from ockham.report.arms import arms_of
    from ockham.report.arms_sections import lines_of

    arms = arms_of(recorded)
    notes = dict.fromkeys(run.note for run in recorded.runs if run.note)
    lines = ["nothing is confirmed: no search has come to its end"] if arms is None else lines_of(arms)
    lines += ["", f"tables   {shown_path(folder.path)}/*.csv", *(f"note     {printable(note)}" for note in notes)]
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


def _show_in_tensorboard(sweep: Path, shown: _Shown) -> None:
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

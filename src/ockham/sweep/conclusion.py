"""What a sweep shows at its end, also where jobs failed: the report, and in TensorBoard what runs have in common."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import cloudpickle
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from ockham import schema
from ockham.record.folder import RunFolder
from ockham.record.screen import shown_path
from ockham.sweep.comparison import Comparison
from ockham.sweep.executors import Executor, Inline, Processes
from ockham.sweep.folder import SweepFolder
from ockham.sweep.jobs import Plan
from ockham.sweep.outcome import Failure
from ockham.sweep.slots import slot_environments
from ockham.sweep.summary import sweep_result

log = logging.getLogger("ockham")


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

        write_report(recorded, folder.path.resolve().name, folder.path)
        log.info("  report   %s", folder.path / "report.html")
    if settings.logger.tensorboard:
        from ockham.report.analysis import analyse
        from ockham.report.means import means

        results = analyse(evidence(recorded))
        best = None if results.winner is None else int(results.winner.finished[0].path.name)
        contents = {job.number: job.content for job in plan.jobs}
        _run(partial(_show_in_tensorboard, folder.path, contents, means(results), best), folder, settings.executor)


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


def _show_in_tensorboard(
    folder: Path, contents: Mapping[int, schema.Content], means: Mapping[str, Sequence[Mapping[str, float]]], best: int | None
) -> JobReturn:
    """The settings of all jobs by number, the means over seeds, and the pictures of the best job."""
    from ockham.execute import draw
    from ockham.record.events import write_experiment
    from ockham.report.means import write_means

    write_experiment(folder, list(contents.values()))
    write_means(means, folder)
    if best is not None:
        draw(OmegaConf.create(dict(contents[best])), RunFolder(folder / str(best)), folder / "best")
    return JobReturn(status=JobStatus.COMPLETED)

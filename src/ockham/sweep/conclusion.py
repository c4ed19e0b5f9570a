"""What a sweep shows at its end, also where jobs failed: the report, and in TensorBoard what runs have in common."""

import logging

from omegaconf import DictConfig, OmegaConf

from ockham.record.folder import RunFolder
from ockham.sweep.folder import SweepFolder
from ockham.sweep.jobs import Plan

log = logging.getLogger("ockham")


def conclude(plan: Plan, folder: SweepFolder, settings: DictConfig) -> None:
    """Write them into the sweep folder, as far as the settings ask for them."""
    from ockham.report.reading import read  # late, as all that follows: nothing of it is part of planning

    recorded = read([folder.path])
    if settings.logger.tensorboard and recorded.runs:
        from ockham.execute import draw
        from ockham.record.events import write_experiment
        from ockham.report.analysis import analyse
        from ockham.report.means import write_means

        write_experiment(folder.path, [job.content for job in plan.jobs])
        results = analyse(recorded.runs)
        write_means(results, folder.path)
        if results.winner is not None:
            best = results.winner.finished[0].path
            content = next(job.content for job in plan.jobs if str(job.number) == best.name)
            draw(OmegaConf.create(dict(content)), RunFolder(best), folder.path / "best")
    if settings.report and recorded.runs:
        from ockham.report.page import write_report

        write_report(recorded, folder.path.resolve().name, folder.path)
        log.info("  report   %s", folder.path / "report.html")

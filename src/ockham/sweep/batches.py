"""A sweep through launchers that are not Ockham's: whole batches, each of which is waited for."""

from collections.abc import Callable, Sequence
from itertools import groupby

from hydra.core.utils import JobReturn

from ockham.sweep.folder import SweepFolder
from ockham.sweep.jobs import Job, Plan

LaunchBatch = Callable[[list[list[str]], int], Sequence[JobReturn]]
"""Run jobs of these overrides, numbered from the first number on."""


def run_in_batches(
    plan: Plan, folder: SweepFolder, launch_batch: LaunchBatch, *, common: Callable[[Job], Sequence[str]] = lambda job: ()
) -> list[Sequence[JobReturn]]:
    """Whatever is missing, in runs of consecutive numbers, since a launcher takes only the first. `common` are the
    settings of the sweep that a job has too.

    Raises what a job raised, as Hydra's own sweeper does.
    """
    returned = []
    jobs: Sequence[Job] = plan.jobs or plan.more(slots=1)
    while jobs:
        missing = [job for job in jobs if not folder.is_final(job)]
        for _, block in groupby(enumerate(missing), key=lambda pair: pair[1].number - pair[0]):
            batch = [job for _, job in block]
            returned.append(launch_batch([[*job.overrides, *common(job)] for job in batch], batch[0].number))
            for job_return in returned[-1]:
                _ = job_return.return_value  # raises where the job failed
        jobs = plan.more(slots=1)
    return returned

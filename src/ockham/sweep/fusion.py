"""What trains together in a sweep: the partition of ockham.fused, kept in sweep.json."""

import logging
from collections import Counter
from collections.abc import Sequence

from ockham.errors import UserError
from ockham.fused.partition import partition_jobs
from ockham.sweep.folder import SweepFolder
from ockham.sweep.jobs import Job

log = logging.getLogger("ockham")

Task = tuple[Job, ...]
"""Jobs that one slot works on at a time: a group, or a single job."""


class Fusion:
    """Makes tasks of jobs; a restart makes the same ones, so that a group repeats the same bits."""

    def __init__(self, folder: SweepFolder, *, mode: str, slots: int, memory: int | None = None) -> None:
        """`mode`: auto fuses what can be, on refuses what cannot (a UserError with the reasons), off fuses nothing.

        `memory` are the bytes that all slots have together, None where they are not known.
        """
        self.folder, self.mode, self.slots, self.memory = folder, mode, slots, memory

    def tasks(self, jobs: Sequence[Job]) -> list[Task]:
        """The groups, the largest part of the work, before the single jobs."""
        if self.mode == "off":
            return [(job,) for job in jobs]
        by_number = {job.number: job for job in jobs}
        with self.folder.locked():
            groups = [group for group in self.folder.stored().get("groups", []) if group[0] in by_number]
            if not groups:
                groups = self.partition(jobs)
                self.folder.add_groups(groups)
        tasks = [tuple(by_number[number] for number in group) for group in groups]
        fused = {number for group in groups for number in group}
        return [*tasks, *((job,) for job in jobs if job.number not in fused)]

    def partition(self, jobs: Sequence[Job]) -> list[list[int]]:
        """The numbers of the jobs of each group; nothing is written. Raises UserError where `on` refuses."""
        if self.mode == "off":
            return []
        partition = partition_jobs([job.content for job in jobs], slots=self.slots, memory=self.memory)
        reasons = Counter(partition.alone.values())
        if self.mode == "on" and reasons:
            listed = "".join(f"\n  {count} jobs: {reason}" for reason, count in reasons.most_common())
            raise UserError(f"fuse=on, but not all jobs can train in groups: set fuse=auto{listed}")
        if partition.groups:
            log.info("%d jobs train in %d groups", sum(map(len, partition.groups)), len(partition.groups))
        for reason, count in reasons.most_common() if partition.groups else []:
            log.info("%d alone: %s", count, reason)
        return [[jobs[position].number for position in group] for group in partition.groups]

"""What a running sweep shows, by a clock that the tests set; the numbers are calculated by hand."""

import logging
import math
from pathlib import Path

import pytest
from rich.console import Console

from ockham.record.folder import EPOCH_SCALARS
from ockham.record.progress import FILE, GroupProgress
from ockham.sweep.folder import SweepFolder
from ockham.sweep.grid import grid
from ockham.sweep.jobs import Plan, make_replicates
from ockham.sweep.progress import MOST_LINES, SECONDS_BETWEEN_LINES, Counts, Progress, Task, varied
from sweeps import command_line


class Clock:
    """Seconds that pass when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Jobs 0 to 9 with sgd, 10 to 19 with adam, each with five learning rates and two seeds."""
    line = command_line("optimizer=sgd,adam", "optimizer.lr=1e-4,1e-3,3e-3,1e-2,3e-2", "trainer.max_epochs=10", "seed=0,1")
    return grid([line], make_replicates(None, None))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(plan: Plan, tmp_path: Path, clock: Clock) -> Progress:
    return Progress(SweepFolder(tmp_path), objective="val/acc", swept=plan.swept, slots=2, clock=clock)


def reach(progress: Progress, task: Task, epoch: int, *, best: float = 0.5, best_run: int | None = None) -> None:
    """Let a task have come to an epoch."""
    if len(task) == 1:
        scalars = {**dict.fromkeys(EPOCH_SCALARS, 0.1), "val/acc": best}
        progress.folder.run_folder(task[0]).path.mkdir(exist_ok=True)
        progress.folder.run_folder(task[0]).write_epochs([(number, number, scalars) for number in range(1, epoch + 1)])
    else:
        run = str(task[0].number if best_run is None else best_run)
        progress.folder.group_checkpoints(task[0]).mkdir(parents=True, exist_ok=True)
        GroupProgress(epoch, 10, len(task), best, run).write(progress.folder.group_checkpoints(task[0]))


def counts(plan: Plan, *running: Task, waiting: list[Task], ended: int = 0, failed: int = 0) -> Counts:
    return Counts(len(plan.jobs), running, ended, failed, waiting_tasks=waiting)


def test_a_group_shows_its_range_its_epochs_its_best_and_its_time(plan: Plan, progress: Progress, clock: Clock) -> None:
    group, alone = plan.jobs[:10], plan.jobs[10:11]
    now = counts(plan, group, alone, waiting=[(job,) for job in plan.jobs[11:]], failed=1)
    progress.begin(group)
    progress.begin(alone)
    progress.update(now)
    assert progress.lines(now).splitlines() == [
        "2 of 2 slots busy, 9 waiting, 0 of 20 ended, 1 failed",
        "  #0 and 9 more: epoch 0/10  optimizer=sgd optimizer.lr=0.0001..0.03 seed=0,1",
        "  #10: epoch 0/10  optimizer=adam optimizer.lr=0.0001 seed=0",
    ]
    for epoch, second in ((1, 40.0), (2, 44.0)):
        clock.now = 1000.0 + second
        reach(progress, group, epoch, best=0.9 + epoch / 100, best_run=4)
        reach(progress, alone, epoch, best=0.8)
        progress.update(now)
    clock.now += 0.5
    # The group took 44.5 s until now, the single job too; both have 8 epochs of 4 s to go, less half a second. Nine further
    # jobs take 44.5 + 31.5 = 76 s each: 2 x 31.5 + 9 x 76 = 747 s on two slots.
    assert progress.seconds_left(now) == pytest.approx((2 * 31.5 + 9 * 76.0) / 2)
    assert progress.lines(now).splitlines() == [
        "2 of 2 slots busy, 9 waiting, 0 of 20 ended, 1 failed, about 6 min left",
        f"best so far val/acc 0.9200  {' '.join(plan.jobs[4].overrides)}",
        "  #0 and 9 more: epoch 2/10, best val/acc 0.9200, about 32 s left  optimizer=sgd optimizer.lr=0.0001..0.03 seed=0,1",
        "  #10: epoch 2/10, best val/acc 0.8000, about 32 s left  optimizer=adam optimizer.lr=0.0001 seed=0",
    ]
    console = Console(width=120)
    with console.capture() as captured:
        console.print(progress.table(now))
    head, best, columns, first, second = (" ".join(line.split()) for line in captured.get().splitlines())
    assert head == progress.lines(now).splitlines()[0]
    assert best.startswith("best so far val/acc 0.9200")
    assert columns == "running epoch best val/acc left settings"
    assert first == "#0 and 9 more 2/10 0.9200 32 s optimizer=sgd optimizer.lr=0.0001..0.03 seed=0,1"
    assert second == "#10 2/10 0.8000 32 s optimizer=adam optimizer.lr=0.0001 seed=0"


def test_groups_say_nothing_about_single_jobs(plan: Plan, progress: Progress, clock: Clock) -> None:
    group, alone = plan.jobs[:10], [(job,) for job in plan.jobs[10:]]
    progress.begin(group)
    clock.now += 20.0
    progress.end(group, completed=True)
    progress.begin(alone[0])
    waiting = alone[1:]
    assert progress.seconds_left(counts(plan, alone[0], waiting=waiting, ended=10)) is None
    assert progress.seconds_left(counts(plan, alone[0], waiting=[plan.jobs[11:]], ended=10)) is None, "of what runs"
    clock.now += 5.0
    progress.end(alone[0], completed=False)
    progress.begin(alone[1])
    assert progress.seconds_left(counts(plan, alone[1], waiting=waiting[1:], ended=11)) is None, "what failed is no measure"
    clock.now += 6.0
    progress.end(alone[1], completed=True)
    progress.begin(alone[2])
    clock.now += 2.0
    assert progress.seconds_left(counts(plan, alone[2], waiting=waiting[2:], ended=12)) == (4.0 + 7 * 6.0) / 2
    assert progress.seconds_left(counts(plan, alone[2], waiting=[], ended=19)) == 4.0, "one slot has nothing to do"


def test_jobs_that_are_not_chosen_yet_count_like_those_that_were(plan: Plan, progress: Progress, clock: Clock) -> None:
    progress.begin(plan.jobs[:1])
    clock.now += 3.0
    progress.end(plan.jobs[:1], completed=True)
    assert progress.seconds_left(counts(plan, waiting=[], ended=1)) == 19 * 3.0 / 2


def test_lines_come_now_and_then(plan: Plan, progress: Progress, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    task = plan.jobs[:1]
    progress.begin(task)
    begun = clock.now
    with caplog.at_level(logging.INFO, "ockham"):
        for second in range(301):
            clock.now = begun + second
            progress.update(counts(plan, task, waiting=[]))
    assert len(caplog.records) == int(300 / SECONDS_BETWEEN_LINES)
    assert all("#0: epoch 0/10" in record.getMessage() for record in caplog.records)


def test_of_many_tasks_the_first_have_a_line(plan: Plan, progress: Progress) -> None:
    tasks = [(job,) for job in plan.jobs]
    for task in tasks:
        progress.begin(task)
    lines = progress.lines(counts(plan, *tasks, waiting=[])).splitlines()
    assert len(lines) == 1 + MOST_LINES + 1
    assert lines[-1] == f"  and {len(tasks) - MOST_LINES} more tasks"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"epoch": 3}'])
def test_a_damaged_file_of_a_group_shows_nothing(plan: Plan, progress: Progress, content: str) -> None:
    group = plan.jobs[:10]
    progress.begin(group)
    checkpoints = progress.folder.group_checkpoints(group[0])
    checkpoints.mkdir(parents=True)
    (checkpoints / FILE).write_text(content)
    progress.update(counts(plan, group, waiting=[]))
    assert progress.standings[0].epoch == 0
    assert math.isnan(progress.standings[0].best)


def test_settings_of_a_task_are_what_varies_in_the_sweep() -> None:
    lines = command_line("optimizer=sgd,momentum,adam,rmsprop,adamw", "reg=none,l1", "reg.l1.strength=1e-5,1e-4", "seed=0,1")
    jobs = grid([lines], make_replicates(None, None)).jobs
    assert varied(jobs, ("optimizer", "reg", "reg.l1.strength")) == (
        "optimizer=<5 values> reg=none,l1 reg.l1.strength=1e-05,0.0001"
    )
    assert varied(jobs[:1], ("optimizer", "seed")) == "optimizer=sgd seed=0"

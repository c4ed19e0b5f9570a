"""What a sweep makes of groups that die, fail or lose a member, and of run folders that cannot be read.

Real workers run jobs in outline: they keep the files of a run, and train nothing.
"""

import errno
import logging
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cloudpickle
import pytest
from filelock import FileLock, Timeout
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf
from rich.console import Console

import recorded
from ockham import schema
from ockham.record.folder import EPOCH_SCALARS, FINAL_METRICS, RunFolder
from ockham.report.reading import RecordedRuns
from ockham.sweep.conclusion import conclude
from ockham.sweep.execution import Execution, Policy
from ockham.sweep.executors import Executor, Inline, Processes
from ockham.sweep.folder import SweepFolder
from ockham.sweep.fusion import Fusion, Task
from ockham.sweep.grid import grid
from ockham.sweep.jobs import Plan, make_replicates
from ockham.sweep.outcome import Failure, packed, unpacked
from ockham.sweep.search import Search
from ockham.sweep.searchspace import SearchSpace
from sweeps import command_line, table

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers need not import this module, and torch with it

EPOCHS = 4


class OddError(Exception):
    """Cannot be made again from its message, as pickle would."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}\n{why}")


def finish(run: RunFolder) -> None:
    run.write_metrics({**dict.fromkeys(FINAL_METRICS, 0.0), "objective": 0.5})
    run.end("finished")


def train(folder: Path, numbers: Sequence[int]) -> JobReturn:
    """The jobs of a task: each writes its epochs, and a group how many it has in its checkpoint."""
    with (folder / "begun").open("a") as begun:
        begun.write(" ".join(map(str, numbers)) + "\n")
    runs = [RunFolder(folder / str(number)) for number in numbers]
    for run in runs:
        run.begin("key")
    checkpoint = folder / "groups" / str(numbers[0]) / "epoch"
    start = 0
    if len(runs) > 1:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        start = int(checkpoint.read_text()) if checkpoint.exists() else 0
        happen(numbers[0], 0)
    for epoch in range(start + 1, EPOCHS + 1):
        for run in runs:
            run.append_epoch(epoch, epoch, dict.fromkeys(EPOCH_SCALARS, 0.5))
        if len(runs) > 1:
            checkpoint.write_text(str(epoch))
            happen(numbers[0], epoch)
    for number, run in zip(numbers, runs, strict=True):
        if number == 5:
            run.end("failed", error="no by itself")
        else:
            finish(run)
    shutil.rmtree(checkpoint.parent, ignore_errors=True)
    if list(numbers) == [5]:
        raise OddError("here", "no by itself")
    return JobReturn(status=JobStatus.COMPLETED)


def happen(first: int, epoch: int) -> None:
    """What comes over the group of this first job before its first epoch in this process, which counts as 0, or after one."""
    if (first, epoch) in ((0, 1), (0, 3)):
        os._exit(9)
    if first == 2:
        os._exit(9)
    if first == 6:
        raise OddError("there", "no together")


def execution_of(
    plan: Plan, folder: SweepFolder, executor: Executor, job: Callable[[Path, Sequence[int]], JobReturn], *, retries: int = 0
) -> Execution:
    def payload_of(task: Task) -> bytes:
        content: bytes = cloudpickle.dumps(partial(job, folder.path, [job.number for job in task]))
        return content

    fusion = Fusion(folder, mode="auto", slots=executor.slots)
    return Execution(plan, folder, executor, fusion, payload_of, Policy("continue", None, retries), "val/acc")


def test_groups_that_die_go_on_and_members_that_fail_leave(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plan = grid([command_line("model.hidden=[8],[16],[24],[32]", "seed=0,1")], make_replicates(None, None))
    folder = SweepFolder(tmp_path)
    folder.begin([], plan)
    executor = Processes([{}], logs=tmp_path / "workers")
    execution = execution_of(plan, folder, executor, train, retries=1)
    called: list[int] = []
    with caplog.at_level(logging.INFO, "ockham"):
        execution.run(meanwhile=lambda: called.append(len(execution.running)))
    assert called == [1], "once, while the first group runs"
    ended = [record.getMessage() for record in caplog.records if " of 8)" in record.getMessage()]
    assert [line.partition("  (")[0] for line in ended if " and " in line] == ["#0 and 1 more val/acc 0.5000"], "a line a group"
    assert ended[0].endswith("(1 of 8)  model.hidden=[24] seed=0")
    assert {line.partition(" val/acc")[0] for line in ended} == {"#0 and 1 more", "#4", "#2", "#3", "#6", "#7"}
    begun = [[int(number) for number in line.split()] for line in (tmp_path / "begun").read_text().splitlines()]
    by_group = {first: [numbers for numbers in begun if numbers[0] // 2 == first // 2] for first in (0, 2, 4, 6)}
    assert by_group[0] == [[0, 1]] * 3, "killed twice, and each time further than before: that takes none of its attempts"
    assert by_group[2] == [[2, 3], [2, 3], [2], [3]], "killed where it stands: tried again once, then taken apart"
    assert by_group[4] == [[4, 5], [5], [5]], "only the member that fails by itself leaves, and has its attempts alone"
    assert by_group[6] == [[6, 7], [6, 7], [6], [7]]
    assert len(folder.epochs(plan.jobs[0])) == EPOCHS, "it went on from its checkpoint"
    assert execution.failures == {5: "no by itself"}
    assert [row["state"] for row in table(tmp_path, "results.csv")] == ["finished"] * 5 + ["failed"] + ["finished"] * 2
    assert not list((tmp_path / "groups").iterdir())


def test_a_group_whose_process_died_is_tried_again_whole_without_retries(tmp_path: Path) -> None:
    """What killed it may have nothing to do with it, and its last bits depend on its size."""
    plan = grid([command_line("model.hidden=[8],[16]", "seed=0,1")], make_replicates(None, None))
    folder = SweepFolder(tmp_path)
    folder.begin([], plan)
    execution_of(plan, folder, Processes([{}], logs=tmp_path / "workers"), train).run()
    begun = [[int(number) for number in line.split()] for line in (tmp_path / "begun").read_text().splitlines()]
    assert [numbers for numbers in begun if numbers[0] >= 2] == [[2, 3], [2, 3], [2], [3]]


def test_damaged_run_folders_are_named_and_count_as_failed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plan = grid([command_line("model.hidden=[8],[16],[24]")], make_replicates(None, None))
    folder = SweepFolder(tmp_path)
    folder.begin([], plan)
    first, second, _ = (folder.run_folder(job) for job in plan.jobs)
    for run in (first, second):
        run.path.mkdir()
    first.begin("key")
    (first.path / "status.json").write_text("[]")
    second.begin("key")
    finish(second)
    (second.path / "metrics.json").write_text('{"objective": 0.')
    with caplog.at_level(logging.INFO, "ockham"):
        execution = execution_of(plan, folder, Inline(), train)
        execution.run()
    assert [row["state"] for row in table(tmp_path, "results.csv")] == ["unreadable", "unreadable", "finished"]
    assert list(execution.failures) == [0]
    assert "status.json is damaged" in execution.failures[0]
    for path in (first.path / "status.json", second.path / "metrics.json"):
        assert sum(str(path) in record.getMessage() for record in caplog.records if "#0" not in record.getMessage()) == 1
    assert (first.path / "status.json").read_text() == "[]", "it is left for a look at it"


def test_jobs_that_a_search_has_not_chosen_wait(tmp_path: Path) -> None:
    space = SearchSpace.of(command_line("optimizer.lr=interval(0.1,1)"), schema.check)
    folder = SweepFolder(tmp_path)
    settings = {"num_trials": 8, "seed": 0, "replicates": make_replicates(None, None), "objective": "val/acc"}
    search = Search(space, folder, sampler="tpe", **settings)
    folder.begin([], search)
    execution = execution_of(search, folder, Inline(), train)
    console = Console(width=100)
    shown = []
    for _ in range(2):
        execution._fill()
        with console.capture() as captured:
            console.print(execution.progress.table(execution._counts()))
        shown.append(captured.get().splitlines()[0])
        execution._collect(0.0)
    assert shown[0] == "1 of 1 slots busy, 7 waiting, 0 of 8 ended"
    assert shown[1].startswith("1 of 1 slots busy, 6 waiting, 1 of 8 ended")


def test_processes_that_share_a_sweep_draw_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each replaces what the one before has drawn, so that none may begin while another one is at it."""
    folder = SweepFolder(tmp_path)
    plan = grid([command_line("model.hidden=[8],[16]")], make_replicates(None, None))
    settings = OmegaConf.create({"report": False, "logger": {"tensorboard": True}, "executor": {"name": "inline"}})
    drawn: list[str] = []

    def draw(drawings: object, of_folder: SweepFolder, executor: object) -> None:
        with pytest.raises(Timeout):
            FileLock(of_folder.path / ".lock").acquire(blocking=False)
        drawn.append(of_folder.path.name)

    monkeypatch.setattr("ockham.sweep.conclusion._run", draw)
    monkeypatch.setattr("ockham.sweep.conclusion._shown", lambda recorded, plan: None)
    monkeypatch.setattr("ockham.report.reading.read", lambda paths: RecordedRuns([recorded.run({}, 0.5)]))
    conclude(plan, folder, settings)
    assert drawn == [tmp_path.name]


def test_an_error_of_the_system_is_one_of_the_system_also_from_a_worker() -> None:
    """So that a full disk is told as one, without a traceback."""
    arrived = unpacked(packed(Failure.of(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))))
    assert isinstance(arrived, Failure)
    error = arrived.exception()
    assert isinstance(error, OSError)
    assert (error.errno, str(error)) == (errno.ENOSPC, "[Errno 28] No space left on device")

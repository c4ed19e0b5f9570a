"""Training a group: many runs in lockstep, each leaving the record that it would leave alone."""

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ockham.core.memory import keep_freed_memory
from ockham.core.metrics import evaluation_batch, scores
from ockham.core.pace import Pace, duration
from ockham.core.parameters import holding, named_parameters
from ockham.data import Split
from ockham.data.batches import steps_per_epoch
from ockham.fused.compiled import Compiled
from ockham.fused.determinism import deterministic
from ockham.fused.native import Native
from ockham.fused.objective import Batch
from ockham.fused.programs import CannotCompileError
from ockham.fused.stack import Stack
from ockham.fused.updates import Updates, order, pays_to_compile, pays_to_shrink
from ockham.record.checkpoint import load_generation, save_generation
from ockham.record.cost import synchronize
from ockham.record.folder import gaps
from ockham.record.ledger import IntervalResult, Ledger, close_interval
from ockham.record.measure import Measurements, weight_scalars
from ockham.record.progress import GroupProgress
from ockham.reg.base import has_hook
from ockham.reg.single import before_step
from ockham.run import Run

log = logging.getLogger("ockham")

#: A group's checkpoint holds all its members and takes its time.
SECONDS_BETWEEN_CHECKPOINTS = 5.0

#: Of progress, on the screen or in the log of a worker.
SECONDS_BETWEEN_LINES = 1.0

#: The logits of the whole training set are in memory for so many members.
ROWS_EVALUATED_AT_ONCE = 16


@dataclass(eq=False)  # a member is itself: runs hold tensors, which do not compare to a truth value
class Member:
    """One run of a group, and its record."""

    run: Run
    ledger: Ledger


class MemberState:
    """What a checkpoint keeps of the member in a row of a group."""

    def __init__(self, group: "Group", row: int) -> None:
        self.group, self.row = group, row

    def weights(self) -> Mapping[str, Tensor]:
        return self.group.members[self.row].run.model.state_dict()

    def averaged_weights(self) -> Mapping[str, Tensor]:
        return self.group.updates.averaged_weights(self.row)

    def averages(self) -> Mapping[str, Tensor]:
        return self.group.updates.averages(self.row)

    def optimizer_state(self) -> dict[str, Any]:
        return self.group.updates.state(self.row)


def train_group(members: Sequence[Member], checkpoint: Path) -> None:
    """Train all members to their ends; a group that was killed continues from `checkpoint`.

    Members agree in the sizes of their data, in model, batch size, copies of a batch, epochs and precision. One that diverges,
    stops or is pruned ends at an evaluation and changes nothing for the others.
    """
    run = members[0].run
    keep_freed_memory()
    double = run.settings.precision == "64-true"
    with _default_dtype(torch.float64 if double else torch.float32) as dtype, deterministic(run.device):
        Group(members, checkpoint, dtype).train()


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[torch.dtype]:
    """torch's optimizers count steps in it, as in a single run of that precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield dtype
    finally:
        torch.set_default_dtype(before)


class Group:
    """The stacked state of the members that still train, and the loop over intervals and steps."""

    def __init__(self, members: Sequence[Member], checkpoint: Path, dtype: torch.dtype) -> None:
        first = members[0].run
        self.settings = first.settings
        self.device = torch.device(self.settings.accelerator)
        self.dtype = dtype
        self.checkpoint = checkpoint
        self.all_members = list(members)
        self.step = 0
        #: How far the noise of each member has come, where the state to continue from lies within an epoch.
        self.positions: list[Mapping[str, Mapping[str, Tensor]]] | None = None
        self.last_written = time.monotonic()
        self.pace, self.last_line = Pace(), -math.inf
        for member in members:
            member.run.model.to(device=self.device, dtype=self.dtype)
        self.measurements = {member: Measurements(member.run) for member in members}
        # Once for all, so that a group that continues takes the same form.
        self.compiles = pays_to_compile([member.run for member in members])
        self._take([members[position] for position in order([member.run for member in members])])
        self._continue()
        for member in members:
            member.ledger.start(member.run)

    def _take(self, members: list[Member]) -> None:
        """Make these the members that train, with all that follows from who they are."""
        self.members = members
        self.is_prepared = False
        runs = [member.run for member in members]
        assert len({run.repeats for run in runs}) == 1, "batches of members are of one size"
        self.stack = Stack([run.model for run in runs], [run.regularizers for run in runs])
        self.updates: Updates = (Compiled if self.compiles else Native)(self.stack, runs)
        self.base_lrs = np.array([run.make_optimizer(run.model).param_groups[0]["lr"] for run in runs])
        #: Those whose models regularizers change between steps.
        self.changed_between_steps = [
            row for row, run in enumerate(runs) if any(has_hook(regularizer, "before_step") for regularizer in run.regularizers)
        ]
        # Members of one cohort see the same batches: of one seed, or all that are there without an order or noise.
        keys = [
            (id(run.splits), run.settings.seed if run.settings.shuffle or run.augment is not None else None) for run in runs
        ]
        self.cohorts = list(dict.fromkeys(keys))
        self.cohort_of = [self.cohorts.index(key) for key in keys]
        self.leaders = [runs[self.cohort_of.index(cohort)] for cohort in range(len(self.cohorts))]
        for leader in self.leaders:
            leader.normalize.for_model(self.dtype, leader.memory_format, self.device)
        self.data = [leader.splits.to(self.device) for leader in self.leaders]
        self.probes = [leader.probe(data) for leader, data in zip(self.leaders, self.data, strict=True)]

    # -- training --------------------------------------------------------------------------------------------------------

    def train(self) -> None:
        run = self.all_members[0].run
        while self.step < run.total_steps and any(not member.ledger.has_ended for member in self.members):
            self._train_interval()
            self._end_interval()

    def _train_interval(self) -> None:
        run, begin = self.all_members[0].run, self.step
        end = run.next_evaluation(begin)
        sums = torch.zeros(len(self.members), dtype=torch.float64, device=self.device)
        self.interval_seconds = 0.0
        for orders in zip(*(leader.stretches(begin, end) for leader in self.leaders), strict=True):
            sums += self._train_stretch([order.to(self.device) for order in orders])
        self.interval_samples = run.samples_after(end) - run.samples_after(begin)
        self.objectives = (sums / self.interval_samples).tolist()

    def _train_stretch(self, orders: Sequence[Tensor]) -> Tensor:
        """Train on the samples of each cohort, those of steps within an epoch; returns their summed objectives (members,)."""
        step_size = self.all_members[0].run.step_size
        self._begin_stretch()
        began = time.monotonic()
        sums = torch.zeros(len(self.members), dtype=torch.float64, device=self.device)
        factors = self._factors(len(orders[0]))
        for index, begin in enumerate(range(0, len(orders[0]), step_size)):
            batches = [order[begin : begin + step_size] for order in orders]
            sums += self._step(batches, factors[index]) * len(batches[0])
        self.lrs = self.base_lrs * factors[-1]
        synchronize(self.device)
        self.interval_seconds += time.monotonic() - began
        return sums

    def _begin_stretch(self) -> None:
        """Prepare steps where that has to be done, and place the noise where an epoch begins, or training continues in one."""
        run = self.all_members[0].run
        epoch, step = divmod(self.step, run.steps_per_epoch)
        if not self.is_prepared:
            samples = torch.arange(min(run.step_size, len(run.splits.train)), device=self.device)
            self._prepare(self._microbatches([samples] * len(self.leaders)))  # which may draw
        if step == 0 or self.positions is not None:
            for row, member in enumerate(self.members):
                member.run.streams.move_to(epoch, {} if self.positions is None else self.positions[row])
        self.positions = None

    def _prepare(self, microbatches: Sequence[Batch]) -> None:
        try:
            self.updates.prepare(microbatches)
        except CannotCompileError as error:
            log.warning("warning: a group could not be compiled and runs slower: %s", error)
            self.compiles = False
            self._keep(list(range(len(self.members))))
        self.is_prepared = True

    def _factors(self, samples: int) -> np.ndarray:
        """What the schedules multiply learning rates with at each step on so many samples, (steps, members)."""
        runs = [member.run for member in self.members]
        steps = steps_per_epoch(samples, runs[0].step_size)
        costs = [member.run.seen_by_schedule(member.ledger.history) for member in self.members]
        lengths = [run.steps_per_training for run in runs]
        return np.array(
            [
                [
                    run.schedule((self.step + step) % length, length, cost)
                    for run, length, cost in zip(runs, lengths, costs, strict=True)
                ]
                for step in range(steps)
            ]
        )

    def _step(self, batches: Sequence[Tensor], factors: np.ndarray) -> Tensor:
        """One step of all members on the indices of each cohort's batch; returns their objectives (members,)."""
        self._begin_step()
        self.step += 1
        return self.updates.step(self._microbatches(batches), factors, self.step)

    def _begin_step(self) -> None:
        """Let regularizers change the models; of a member that begins another training the optimizer is as it was at first."""
        for row in self.changed_between_steps:
            run = self.members[row].run
            training, step = divmod(self.step, run.steps_per_training)
            before_step(run.regularizers, run.model, training=training, step=step)
            if training > 0 and step == 0:
                self.updates.load(row, run.make_optimizer(run.model).state_dict(), self.updates.averages(row))

    def _microbatches(self, batches: Sequence[Tensor]) -> list[Batch]:
        """What is worked on at a time of the batch of each cohort."""
        return [self._batch(parts) for parts in zip(*(b.split(self.settings.batch_size) for b in batches), strict=True)]

    def _batch(self, batches: Sequence[Tensor]) -> Batch:
        xs, ys = [], []
        for leader, data, batch in zip(self.leaders, self.data, batches, strict=True):
            images, y = data.train.batch(batch)
            x, y = leader.training_batch(leader.normalize(images), y)
            xs.append(x.flatten(1))
            ys.append(y)
        return Batch(torch.stack(xs), torch.stack(ys), self.cohort_of)

    # -- after an interval -----------------------------------------------------------------------------------------------

    def _end_interval(self) -> None:
        with self._averages():
            measured = self._measure()
        rows = [row for row, member in enumerate(self.members) if not member.ledger.has_ended]
        run, seconds = self.all_members[0].run, self.interval_seconds / len(self.all_members)
        samples = run.samples_after(self.step) * run.repeats
        worked = [samples * self.members[row].run.passes for row in rows]
        results = [IntervalResult(self.step, of_row, measured[row], seconds) for row, of_row in zip(rows, worked, strict=True)]
        ledgers = [self.members[row].ledger for row in rows]
        verdicts = close_interval(ledgers, results, [MemberState(self, row) for row in rows])
        done = [row for row, verdict in zip(rows, verdicts, strict=True) if verdict == "done"]
        for begin in range(0, len(done), ROWS_EVALUATED_AT_ONCE):
            self._finish(done[begin : begin + ROWS_EVALUATED_AT_ONCE])
        self._log_interval()
        if not self._is_within_epoch:  # there all streams begin anew, whoever draws from them for others of its seed
            self._shrink()
        goes_on = any(not member.ledger.has_ended for member in self.members)
        if goes_on and time.monotonic() - self.last_written > SECONDS_BETWEEN_CHECKPOINTS:
            self._save()

    @contextmanager
    def _averages(self) -> Iterator[None]:
        """Inside the block the models hold the weights that they are judged by."""
        with ExitStack() as averages:
            for row, member in enumerate(self.members):
                averages.enter_context(holding(named_parameters(member.run.model), self.updates.averaged_weights(row)))
            yield

    @property
    def _is_within_epoch(self) -> bool:
        return self.step % self.all_members[0].run.steps_per_epoch != 0

    def _log_interval(self) -> None:
        """Say how far the group is: a line, and a file for the process that sweeps; not more often than somebody looks."""
        now, epoch = time.monotonic(), self.all_members[0].run.epoch_of(self.step)
        self.pace.saw(epoch, now)
        ledgers = [member.ledger for member in self.all_members]
        if now - self.last_line < SECONDS_BETWEEN_LINES and not all(ledger.has_ended for ledger in ledgers):
            return
        self.last_line = now
        progress = GroupProgress.of(ledgers, epoch)
        progress.write(self.checkpoint.parent)
        line = f"epoch {epoch}/{progress.num_epochs}, {progress.training} of {len(ledgers)} runs go on"
        if progress.best is not None:
            line += f", best {self.settings.objective} {progress.best:.4f} (#{progress.best_run})"
        left = self.pace.seconds_left(progress.num_epochs, now)
        log.info("%s", line if left is None or not progress.training else f"{line}, about {duration(left)} left")

    def _measure(self) -> dict[int, dict[str, float]]:
        """The scalars of metrics.csv by row, for every member that has not ended."""
        scalars: dict[int, dict[str, float]] = {}
        for cohort, data in enumerate(self.data):
            rows = [row for row, cohort_of_row in enumerate(self.cohort_of) if cohort_of_row == cohort]
            forward = self.stack.evaluation(rows)
            splits = {"train": self.probes[cohort], "val": data.val}
            logits = {name: self._logits(forward, split, cohort) for name, split in splits.items()}
            for position, row in enumerate(rows):
                if not self.members[row].ledger.has_ended:
                    scalars[row] = self._scalars(row, {name: of_rows[position] for name, of_rows in logits.items()})
        return scalars

    def _logits(self, forward: Callable[[Tensor], Tensor], split: Split, cohort: int) -> Tensor:
        """Logits (rows, N, classes) of members of one cohort in evaluation mode."""
        leader = self.leaders[cohort]
        size = evaluation_batch(leader.model, next(split.split(1)))
        return torch.cat([forward(leader.normalize(part)) for part in split.split(size)], dim=1)

    def _scalars(self, row: int, logits: Mapping[str, Tensor]) -> dict[str, float]:
        """The scalars of the member in a row; `logits` (N, classes) are its of the sample of train, and of val."""
        run, cohort = self.members[row].run, self.cohort_of[row]
        probe, val, prepare = self.probes[cohort], self.data[cohort].val, self.leaders[cohort].normalize
        scalars: dict[str, float] = {}
        for name, labels in (("train", probe.labels), ("val", val.labels)):
            loss, acc = scores(logits[name], labels, loss=self.settings.loss)
            scalars |= {f"{name}/loss": loss, f"{name}/acc": acc}
        measured = self.measurements[self.members[row]].scalars(
            step=self.step,
            images=probe,
            labels=probe.labels,
            prepare=prepare,
            val_logits=logits["val"],
            val_labels=val.labels,
        )
        return {
            **scalars,
            **gaps(scalars),
            "train/objective": self.objectives[row],
            **weight_scalars(run.regularizers, run.model, probe, prepare),
            "lr": float(self.lrs[row]),
            **measured,
        }

    def _finish(self, rows: Sequence[int]) -> None:
        """The end of members that have come to it: their best weights on all splits, of a cohort in one product.

        Also of those that leave nothing: the last bits of a product depend on its size.
        """
        for cohort, data in enumerate(self.data):
            of_cohort = [row for row in rows if self.cohort_of[row] == cohort]
            if not of_cohort:
                continue
            forward = self.stack.evaluation(of_cohort, [self.members[row].ledger.best for row in of_cohort])
            splits = self.leaders[cohort].judged(data)
            logits = {name: self._logits(forward, split, cohort) for name, split in splits.items()}
            for position, row in enumerate(of_cohort):
                of_row = {name: of_rows[position] for name, of_rows in logits.items()}
                self.members[row].ledger.finish(logits_by_split=of_row)

    # -- leaving, and continuing -----------------------------------------------------------------------------------------

    def _shrink(self) -> None:
        """Leave the ended members behind once that pays."""
        rows = [row for row, member in enumerate(self.members) if not member.ledger.has_ended]
        runs = [member.run for member in self.members]
        kept, steps = [runs[row] for row in rows], runs[0].total_steps - self.step
        if kept and pays_to_shrink(runs, kept, steps, compile_again=self.compiles):
            self._keep(rows)

    def _keep(self, rows: list[int]) -> None:
        states = [copy.deepcopy((self.updates.state(row), self.updates.averages(row))) for row in rows]
        self._take([self.members[row] for row in rows])
        for position, (state, averages) in enumerate(states):
            self.updates.load(position, state, averages)

    @property
    def _key(self) -> str:
        """Of the members, in the order of their jobs."""
        return " ".join(member.ledger.key for member in self.all_members)

    def _save(self) -> None:
        content = {
            "step": self.step,
            "streams": [member.run.streams.positions() for member in self.members] if self._is_within_epoch else None,
            "ledgers": [member.ledger.snapshot() for member in self.all_members],
            "members": [self.all_members.index(member) for member in self.members],
            "stack": self.stack.state,
            "optimizers": [self.updates.state(position) for position in range(len(self.members))],
            "averages": [self.updates.averages(position) for position in range(len(self.members))],
        }
        save_generation(self.checkpoint, content, run=self._key)
        self.last_written = time.monotonic()

    def _continue(self) -> None:
        """Take up the state in the checkpoint, where there is one."""
        content = load_generation(self.checkpoint, run=self._key, warn=lambda text: log.warning("warning: %s", text))
        if content is None:
            return
        self.step, self.positions = content["step"], content.get("streams")
        for member, snapshot in zip(self.all_members, content["ledgers"], strict=True):
            member.ledger.restore(snapshot)
        kept = [self.all_members[index] for index in content["members"]]
        if kept != self.members:
            self._keep([self.members.index(member) for member in kept])
        for name, value in self.stack.state.items():
            value.copy_(content["stack"][name])
        for position, (state, averages) in enumerate(zip(content["optimizers"], content["averages"], strict=True)):
            self.updates.load(position, state, averages)
        with self._averages():
            for member in self.members:
                self.measurements[member].begin()

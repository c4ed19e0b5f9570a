"""Training a group: many runs in lockstep, each leaving the record that it would leave alone."""

import copy
import io
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ockham.core.files import write_atomic
from ockham.core.metrics import Scores, evaluation_batch, scores
from ockham.core.selection import Outcome, best_epoch
from ockham.data import Split
from ockham.fused.objective import Batch
from ockham.fused.stack import Stack
from ockham.fused.updates import Compiled, Native, Updates, order, pays_to_compile, pays_to_shrink
from ockham.record.checkpoint import Checkpoint
from ockham.record.cost import peak_memory_bytes
from ockham.record.events import EventWriter
from ockham.record.folder import RunFolder, divergence, gaps
from ockham.record.measure import weight_scalars
from ockham.run import PROBE_SAMPLES, Run

log = logging.getLogger("ockham")

#: A group's checkpoint holds all its members and takes its time.
SECONDS_BETWEEN_CHECKPOINTS = 5.0

#: The logits of the whole training set are in memory for so many members.
ROWS_EVALUATED_AT_ONCE = 16


@dataclass(eq=False)  # a member is itself: runs hold tensors, which do not compare to a truth value
class Member:
    """One run of a group. `finish` is called once when it has come to its end, with its checkpoints written and the scores
    of its selected weights on train, val and test.

    One that ended for good in an earlier attempt has no folder: it is computed again with the others, since the last bits
    of a group may depend on its size, and leaves nothing.
    """

    run: Run
    folder: RunFolder | None
    events: EventWriter | None
    prune: Callable[[Sequence[float]], bool] | None
    finish: Callable[[Mapping[str, Scores]], None]
    history: list[Outcome] = field(default_factory=list)
    ended: bool = False


def finished_epochs_of(checkpoint: Path) -> int:
    """After how many epochs a group continues; 0 where it has no checkpoint."""
    return int(torch.load(checkpoint, weights_only=True)["epoch"]) if checkpoint.exists() else 0


def train_group(members: Sequence[Member], checkpoint: Path) -> None:
    """Train all members to their ends; a group that was killed continues from `checkpoint`.

    Members agree in the sizes of their data, in model, batch size, epochs and precision. One that diverges, stops or is
    pruned ends at its epoch and changes nothing for the others.
    """
    double = members[0].run.settings.precision == "64-true"
    with _default_dtype(torch.float64 if double else torch.float32) as dtype:
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
    """The stacked state of the members that still train, and the loop over epochs and steps."""

    def __init__(self, members: Sequence[Member], checkpoint: Path, dtype: torch.dtype) -> None:
        first = members[0].run
        self.settings = first.settings
        self.device = torch.device(self.settings.accelerator)
        self.dtype = dtype
        self.checkpoint = checkpoint
        self.all = list(members)
        self.epoch, self.step = 0, 0
        self.train_seconds = self.past_seconds = 0.0
        self.started = self.last_written = time.monotonic()
        for member in members:
            member.run.model.to(device=self.device, dtype=self.dtype)
        # Once for all, so that a group that continues takes the same form.
        self.form = Compiled if pays_to_compile([member.run for member in members]) else Native
        self._take([members[position] for position in order([member.run for member in members])])
        self.best = self._copies()
        if checkpoint.exists():
            self._load()

    def _take(self, members: list[Member]) -> None:
        """Make these the members that train, with all that follows from who they are."""
        self.members = members
        runs = [member.run for member in members]
        self.stack = Stack([run.model for run in runs])
        self.updates: Updates = self.form(self.stack, runs)
        self.base_lrs = np.array([run.make_optimizer(run.model).param_groups[0]["lr"] for run in runs])
        # Members of one cohort see the same batches.
        keys = [(id(e.splits), e.settings.seed) for e in runs]
        self.cohorts = list(dict.fromkeys(keys))
        self.cohort_of = [self.cohorts.index(key) for key in keys]
        self.leaders = [runs[self.cohort_of.index(cohort)] for cohort in range(len(self.cohorts))]
        for leader in self.leaders:
            leader.normalize.for_model(self.dtype, leader.memory_format, self.device)
        self.data = [leader.splits.to(self.device) for leader in self.leaders]
        self.probes = [data.train.probe(max(PROBE_SAMPLES, len(data.val))) for data in self.data]

    def _copies(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.stack.state.items()}

    # -- training --------------------------------------------------------------------------------------------------------

    def train(self) -> None:
        run = self.all[0].run
        while self.epoch < run.num_epochs and any(not member.ended for member in self.members):
            self._train_epoch()
            self._end_epoch()

    def _train_epoch(self) -> None:
        orders = [leader.epoch_order(self.epoch).to(self.device) for leader in self.leaders]
        self.updates.prepare(self._batch([order[: self.settings.batch_size] for order in orders]))
        began = time.monotonic()
        for member in self.members:
            member.run.streams.begin(self.epoch)
        sums = torch.zeros(len(self.members), dtype=torch.float64, device=self.device)
        factors = self._factors(len(orders[0]))
        size = self.settings.batch_size
        for index, begin in enumerate(range(0, len(orders[0]), size)):
            batches = [order[begin : begin + size] for order in orders]
            sums += self._step(batches, factors[index]) * len(batches[0])
        self.epoch_samples = len(orders[0])
        self.objectives = (sums / self.epoch_samples).tolist()
        self.lrs = self.base_lrs * factors[-1]
        self.epoch_seconds = time.monotonic() - began

    def _factors(self, samples: int) -> np.ndarray:
        """What the schedules multiply learning rates with at each step of the coming epoch, (steps, members)."""
        steps = -(-samples // self.settings.batch_size)
        total = self.members[0].run.total_steps
        return np.array([[m.run.schedule(self.step + s, total) for m in self.members] for s in range(steps)])

    def _step(self, batches: Sequence[Tensor], factors: np.ndarray) -> Tensor:
        """One step of all members on the indices of each cohort's batch; returns their objectives (members,)."""
        self.step += 1
        return self.updates.step(self._batch(batches), factors)

    def _batch(self, batches: Sequence[Tensor]) -> Batch:
        xs, ys = [], []
        for leader, data, batch in zip(self.leaders, self.data, batches, strict=True):
            y = data.train.labels.index_select(0, batch)
            x = leader.normalize(data.train.images.index_select(0, batch))
            if leader.augment is not None:
                noise = leader.streams.stream("augment").on(x.device)
                classes = len(data.classes)
                x, y = leader.augment(x, y, generator=noise, black=leader.normalize.black(), num_classes=classes)
            xs.append(x.flatten(1))
            ys.append(y)
        return Batch(torch.stack(xs), torch.stack(ys), self.cohort_of)

    # -- after an epoch --------------------------------------------------------------------------------------------------

    def _end_epoch(self) -> None:
        self.train_seconds += self.epoch_seconds
        measured = self._measure()
        self.epoch += 1
        ending: list[int] = []
        for position, member in enumerate(self.members):
            if not member.ended and self._record(position, member, measured[position]):
                ending.append(position)
        for begin in range(0, len(ending), ROWS_EVALUATED_AT_ONCE):
            self._finish(ending[begin : begin + ROWS_EVALUATED_AT_ONCE])
        shown = [m[f"{self.settings.objective}"] for m, member in zip(measured, self.members, strict=True) if not member.ended]
        if shown:
            log.info(
                "epoch %d/%d of %d runs: %s %.4f to %.4f", self.epoch, self.all[0].run.num_epochs, len(shown),
                self.settings.objective, min(shown), max(shown),
            )  # fmt: skip
        self._shrink()
        if time.monotonic() - self.last_written > SECONDS_BETWEEN_CHECKPOINTS:
            self._save()

    def _measure(self) -> list[dict[str, float]]:
        """The scalars of metrics.csv for every member."""
        evaluated: dict[str, list[tuple[float, float]]] = {}
        for name in ("train", "val"):
            evaluated[name] = [(math.nan, math.nan)] * len(self.members)
            for cohort, data in enumerate(self.data):
                rows = [row for row, own in enumerate(self.cohort_of) if own == cohort]
                forward = self.stack.evaluation(self.stack.state, None if len(rows) == len(self.members) else rows)
                split = self.probes[cohort] if name == "train" else data.val
                for row, logits in zip(rows, self._logits(forward, split, cohort), strict=True):
                    evaluated[name][row] = scores(logits, split.labels)
        return [self._scalars(position, evaluated) for position in range(len(self.members))]

    def _logits(self, forward: Callable[[Tensor], Tensor], split: Split, cohort: int) -> Tensor:
        """Logits (rows, N, classes) of members of one cohort in evaluation mode."""
        leader = self.leaders[cohort]
        size = evaluation_batch(leader.model, self.device)
        return torch.cat([forward(leader.normalize(part)) for part in split.images.split(size)], dim=1)

    def _scalars(self, position: int, evaluated: dict[str, list[tuple[float, float]]]) -> dict[str, float]:
        run = self.members[position].run
        leader = self.leaders[self.cohort_of[position]]
        scalars: dict[str, float] = {}
        for name in ("train", "val"):
            scalars |= dict(zip((f"{name}/loss", f"{name}/acc"), evaluated[name][position], strict=True))
        probe = self.probes[self.cohort_of[position]]
        return {
            **scalars,
            **gaps(scalars),
            "train/objective": self.objectives[position],
            **weight_scalars(run.regularizers, run.model, probe.images, leader.normalize),
            "lr": float(self.lrs[position]),
        }

    def _record(self, position: int, member: Member, scalars: dict[str, float]) -> bool:
        """Write the member's epoch; whether it has come to its end."""
        member.history.append(Outcome(scalars[self.settings.objective], scalars["val/loss"]))
        if member.folder is not None:
            member.folder.append_epoch(self.epoch, self.step, scalars)
        if member.events is not None:
            throughput = {"samples_per_second": self.epoch_samples / self.epoch_seconds}
            member.events.epoch(self.epoch, self.step, scalars | throughput)
        member.ended, done = self._judge(position, member, scalars)
        if done and member.folder is not None:
            self._write_checkpoints(position, member, member.folder)
        return done

    def _judge(self, position: int, member: Member, scalars: dict[str, float]) -> tuple[bool, bool]:
        """(whether the member ends without being finished, whether it has come to its end); keeps its best weights."""
        run, folder = member.run, member.folder
        diverged = divergence(scalars)
        if diverged is not None:
            if folder is not None:
                self._write_cost(folder)
                folder.end("diverged", error=f"{diverged} after epoch {self.epoch}")
            return True, False
        if run.is_best(member.history):
            for name, value in self.stack.state.items():
                self.best[name][position].copy_(value[position])
        if self.epoch == run.num_epochs or run.stops(member.history):
            return False, True
        if member.prune is None or not member.prune(run.costs(member.history)):
            return False, False
        if folder is not None:
            self._write_checkpoints(position, member, folder)
            folder.end("pruned")
        return True, False

    def _finish(self, rows: Sequence[int]) -> None:
        """The end of members that have come to it."""
        told = [row for row in rows if self.members[row].folder is not None]
        for cohort, data in enumerate(self.data):
            own = [row for row in told if self.cohort_of[row] == cohort]
            forward = self.stack.evaluation(self.best, own)
            logits = {name: self._logits(forward, split, cohort) for name, split in data.named().items()} if own else {}
            for position, row in enumerate(own):
                evaluated = {name: scores(logits[name][position], split.labels) for name, split in data.named().items()}
                self.members[row].finish(evaluated)
        for row in rows:
            self.members[row].ended = True

    def _write_cost(self, folder: RunFolder) -> None:
        """The member's share of what the group took."""
        share = 1 / len(self.all)
        train_seconds = self.train_seconds * share
        folder.write_cost(
            {
                "samples_per_second": self._samples_until(self.epoch) / max(train_seconds, 1e-9),
                "train_seconds": train_seconds,
                "wall_seconds": (self.past_seconds + time.monotonic() - self.started) * share,
                "peak_memory_bytes": peak_memory_bytes(self.device),
            }
        )

    def _write_checkpoints(self, position: int, member: Member, folder: RunFolder) -> None:
        """The checkpoints of the single run."""
        self._write_cost(folder)
        run, history = member.run, member.history
        best = best_epoch(history, maximise=run.maximise) + 1
        names = list(run.model.state_dict())
        Checkpoint(
            epoch=best,
            step=min(best * run.steps_per_epoch, run.total_steps),
            samples=self._samples_until(best),
            history=history[:best],
            model={name: self.best[name][position].clone() for name in names},
            optimizer=None,
            input=run.input,
        ).save(folder.best_checkpoint)
        Checkpoint(
            epoch=self.epoch,
            step=self.step,
            samples=self._samples_until(self.epoch),
            history=list(history),
            model={name: value.clone() for name, value in run.model.state_dict().items()},
            optimizer=self.updates.state(position),
            input=run.input,
        ).save(folder.last_checkpoint)

    def _samples_until(self, epoch: int) -> int:
        run = self.all[0].run
        return (epoch - 1) * len(run.splits.train) + run.epoch_samples(epoch - 1)

    # -- leaving, and continuing -----------------------------------------------------------------------------------------

    def _shrink(self) -> None:
        """Leave the ended members behind once that pays."""
        rows = [position for position, member in enumerate(self.members) if not member.ended]
        runs = [member.run for member in self.members]
        kept, steps = [runs[row] for row in rows], runs[0].total_steps - self.step
        if kept and pays_to_shrink(runs, kept, steps, compile_again=self.form is Compiled):
            self._keep(rows)

    def _keep(self, rows: list[int]) -> None:
        states = [copy.deepcopy(self.updates.state(row)) for row in rows]
        self.best = {name: value[rows].clone() for name, value in self.best.items()}
        self._take([self.members[row] for row in rows])
        for position, state in enumerate(states):
            self.updates.load(position, state)

    def _save(self) -> None:
        buffer = io.BytesIO()
        content = {
            "epoch": self.epoch,
            "step": self.step,
            "train_seconds": self.train_seconds,
            "wall_seconds": self.past_seconds + time.monotonic() - self.started,
            "members": [self.all.index(member) for member in self.members],
            "ended": [member.ended for member in self.all],
            "histories": [[list(outcome) for outcome in member.history] for member in self.all],
            "stack": self.stack.state,
            "optimizers": [self.updates.state(position) for position in range(len(self.members))],
            "best": self.best,
        }
        for member in self.members:
            if member.events is not None and not member.ended:
                member.events.flush()
        torch.save(content, buffer)
        write_atomic(self.checkpoint, buffer.getvalue())
        self.last_written = time.monotonic()

    def _load(self) -> None:
        content = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.epoch, self.step = content["epoch"], content["step"]
        self.train_seconds, self.past_seconds = content["train_seconds"], content["wall_seconds"]
        for member, ended, history in zip(self.all, content["ended"], content["histories"], strict=True):
            member.ended = ended
            member.history = [Outcome(*pair) for pair in history]
        kept = [self.all[index] for index in content["members"]]
        if kept != self.members:
            self._keep([self.members.index(member) for member in kept])
        for name, value in self.stack.state.items():
            value.copy_(content["stack"][name])
        for position, state in enumerate(content["optimizers"]):
            self.updates.load(position, state)
        self.best = content["best"]
